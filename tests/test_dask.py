"""Searches and predictions on a real cluster of two processes."""

import contextlib
import runpy
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV

from skgcm import GCMClassifier

distributed = pytest.importorskip("dask.distributed")

CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}


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


def test_a_search_and_predictions_are_those_of_one_process(client, files):
    paths, y = files
    clf = GCMClassifier(image_shape=(8, 8), encoder_width=4, max_epochs=1, device="cpu", random_state=0)
    search = GridSearchCV(clf, {"decoder_width": [2, 4]}, cv=2)
    with joblib.parallel_config(backend="dask"):
        found = search.fit(paths, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, search.fit(paths, y).cv_results_["mean_test_score"])

    model = client.scatter(search.best_estimator_, broadcast=True)
    tasks = [client.submit(GCMClassifier.predict_proba, model, part) for part in np.array_split(paths, 3)]
    np.testing.assert_allclose(
        np.concatenate(client.gather(tasks)), search.best_estimator_.predict_proba(paths), atol=1e-6
    )


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
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "plot_dask.py"), run_name="__main__")
    assert "accuracy on 225 held-out files: 0." in capsys.readouterr().out
    assert plt.get_fignums()
    plt.close("all")
