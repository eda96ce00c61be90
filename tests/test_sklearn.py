"""scikit-learn's own demands: its estimator checks, and its tools around a GCMClassifier."""

import pickle

import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from skgcm import GCMClassifier
from skgcm.network.blocks import ConvBlock

SMALL = {"encoder_width": 8, "decoder_width": 8, "batch_size": 16, "max_epochs": 20, "device": "cpu"}
VARIANTS = [{}, {"shared_decoder": False}, {"clip_negative": True}, {"architecture": "paper"}]
FEW_STEPS = {"batch_size": 64, "max_epochs": 12}  # they give accuracies of at least 0.87, and the checks need 0.83
LEARNING = {"check_classifiers_train", "check_classifiers_classes", "check_class_weight_classifiers"}


@parametrize_with_checks([GCMClassifier(**{**SMALL, **FEW_STEPS, **variant}) for variant in VARIANTS])
def test_estimator_check(estimator, check):
    if check.func.__name__ not in LEARNING:  # the others need a fit, but no accuracy
        estimator = clone(estimator).set_params(max_epochs=2)  # all checks share the object
    check(estimator)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [2, 4])
def test_narrow_networks_learn_and_nothing_in_them_dies(width, seed):
    X, y = make_blobs(96, random_state=0, cluster_std=0.5)
    params = {**SMALL, "encoder_width": width, "decoder_width": width, "random_state": seed}
    clf = GCMClassifier(**params).fit(X, y)
    assert clf.score(X, y) > 0.83
    deviations = {}
    for name, module in clf.net_.network.named_modules():
        if isinstance(module, ConvBlock):
            module.register_forward_hook(
                lambda module, args, out, name=name: deviations.update({name: out.std((0, 2, 3))})
            )
    with torch.no_grad():
        clf.net_.infer(torch.from_numpy(X))
    assert deviations
    assert [name for name, found in deviations.items() if found.min() == 0] == []


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def small(digits):
    X, y = digits
    return GCMClassifier(**{**SMALL, "max_epochs": 4}, random_state=0).fit(X[:400], y[:400])


def test_default_parameters_read_digits(digits):
    X_train, X_test, y_train, y_test = train_test_split(*digits, test_size=1 / 3, stratify=digits[1], random_state=0)
    assert GCMClassifier(random_state=0, device="cpu").fit(X_train, y_train).score(X_test, y_test) >= 0.98


def test_grid_search_over_entries_of_net_params(digits):
    X, y = (a[:200] for a in digits)
    clf = GCMClassifier(**{**SMALL, "max_epochs": 2}, random_state=0, net_params={"optimizer__momentum": 0.5})
    grid = {"net_params__criterion__label_smoothing": [0.0, 0.5]}
    search = GridSearchCV(clf, grid, cv=2).fit(X, y)
    assert clf.net_params == {"optimizer__momentum": 0.5}
    assert search.best_estimator_.net_params == {
        "optimizer__momentum": 0.5,
        "criterion__label_smoothing": search.best_params_["net_params__criterion__label_smoothing"],
    }
    scores = search.cv_results_["mean_test_score"]
    expected = cross_val_score(clone(clf).set_params(net_params__criterion__label_smoothing=0.5), X, y, cv=2)
    assert expected.mean() == scores[1]
    pipeline = make_pipeline(GCMClassifier()).set_params(gcmclassifier__net_params__compile=False)
    assert pipeline[-1].net_params == {"compile": False}
    with pytest.raises(ValueError, match="Invalid parameter 'net_param'"):
        clf.set_params(net_param__compile=False)


def test_in_a_pipeline_before_and_after_other_steps(digits):
    X, y = digits
    quick = GCMClassifier(**{**SMALL, "max_epochs": 8}, random_state=0)
    last = make_pipeline(FunctionTransformer(lambda X: X / 16), quick)
    assert cross_val_score(last, X[:400], y[:400], cv=2).mean() > 0.5
    first = make_pipeline(quick, LogisticRegression(max_iter=1000))
    assert first.fit(X[:400], y[:400]).score(X[400:800], y[400:800]) > 0.7


def test_copies_predict_the_same(small, digits, tmp_path):
    X = digits[0][400:500]
    expected = small.decision_function(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(small)).decision_function(X), expected)
    joblib.dump(small, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(loaded.decision_function(X), expected)
    np.testing.assert_array_equal(loaded.explain(X, "all").cwm, small.explain(X, "all").cwm)
    refitted = clone(small).fit(*(a[:400] for a in digits))
    np.testing.assert_array_equal(refitted.decision_function(X), expected)


def test_transform_names_its_columns_and_makes_frames(small, digits):
    X = digits[0][400:410]
    maps = small.transform(X)
    assert maps.shape == (10, 640)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.reshape(10, 10, 64).mean(2), small.decision_function(X), atol=1e-5)
    frame = clone(small).set_output(transform="pandas").fit(*(a[:400] for a in digits)).transform(X)
    assert list(frame.columns[[0, 65, 639]]) == ["0_0_0", "1_0_1", "9_7_7"]
    np.testing.assert_array_equal(frame.to_numpy(), maps)
    small_weights = pickle.loads(pickle.dumps(small)).set_params(transform_maps="weights")
    np.testing.assert_array_equal(small_weights.transform(X).reshape(10, 10, 8, 8), small.explain(X, "all").cwm)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"early_stopping": True, "validation_fraction": 0.3, "class_weight": "balanced"},
        {"optimizer": torch.optim.AdamW, "device": torch.device("cpu"), "precision": "bfloat16"},
        {"mosaic": 0.5, "sparsity": 0.1, "erasing": 0.5, "polarity": "bright", "augment": "shift"},
    ],
    ids=["default", "early stopping", "types of torch", "options of the training"],
)
def test_skops_stores_the_estimator(digits, params):
    X, y = (a[:40] for a in digits)
    clf = GCMClassifier(**{**SMALL, "max_epochs": 1, "random_state": 0, **params}).fit(X, y)
    stored = skops.io.dumps(clf)
    loaded = skops.io.loads(stored, trusted=skops.io.get_untrusted_types(data=stored))
    np.testing.assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    np.testing.assert_array_equal(loaded.explain(X).cwm, clf.explain(X).cwm)
    np.testing.assert_array_equal(loaded.fit(X, y).decision_function(X), clf.fit(X, y).decision_function(X))
