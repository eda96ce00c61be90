"""Searches and predictions on a real cluster of two processes."""

import contextlib
import runpy
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV

from skgcm import GCMClassifier

distributed = pytest.importorskip("dask.distributed")
pytest.importorskip("pyarrow")
dataframe = pytest.importorskip("dask.dataframe")
EXAMPLE = Path(__file__).parents[1] / "examples" / "plot_dask.py"

CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(**CLUSTER) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    y = np.arange(24) % 2
    paths = np.array([str(folder / f"{i}.png") for i in range(24)])
    for path, label in zip(paths, y, strict=True):
        Image.fromarray(rng.integers(100 * label, 156 + 100 * label, (8, 8), dtype=np.uint8)).save(path)
    return paths, y


def test_a_search_and_a_table_in_parquet_are_those_of_one_process(client, files, tmp_path):
    paths, y = files
    clf = GCMClassifier(image_shape=(8, 8), encoder_width=4, max_epochs=1, device="cpu", random_state=0)
    search = GridSearchCV(clf, {"decoder_width": [2, 4]}, cv=2)
    with joblib.parallel_config(backend="dask"):
        found = search.fit(paths, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, search.fit(paths, y).cv_results_["mean_test_score"])

    model = client.scatter(search.best_estimator_, broadcast=True)
    assert len(client.who_has(model)[model.key]) == 2
    describe = runpy.run_path(str(EXAMPLE))["describe"]
    expected = describe(paths, search.best_estimator_)
    table = dataframe.from_map(describe, np.array_split(paths, 3), clf=model, meta=expected)
    table.to_parquet(tmp_path, write_index=False)
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    found = pd.read_parquet(tmp_path)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-5)
    assert set(found["label"]) <= {0, 1}
    both_halves = search.best_estimator_.explain(paths, classes="top-2").scores @ [1, -1]
    np.testing.assert_allclose(found["margin"], both_halves, atol=1e-5)


def test_the_example_runs_as_it_stands_but_for_fewer_epochs(client, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    fit = GridSearchCV.fit

    def same_cluster(**options):  # it takes long to start
        assert options == CLUSTER
        return contextlib.nullcontext(client.cluster)

    def same_client(cluster):
        assert cluster is client.cluster
        return contextlib.nullcontext(client)

    monkeypatch.setattr(distributed, "LocalCluster", same_cluster)
    monkeypatch.setattr(distributed, "Client", same_client)
    monkeypatch.setattr(GridSearchCV, "fit", lambda self, X, y: fit(self.set_params(estimator__max_epochs=1), X, y))
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "accuracy on 225 held-out files: 0." in capsys.readouterr().out
    assert plt.get_fignums()
    plt.close("all")
