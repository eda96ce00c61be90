"""calibrate: one temperature for scores and maps, wherever they are used."""

import json
import pickle
from copy import deepcopy

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.exceptions import NotFittedError

from skgcm import GCMClassifier
from skgcm.calibration import BOUNDS, fit_temperature
from skgcm.files import safetensors_file

SMALL = {"encoder_width": 4, "decoder_width": 4, "batch_size": 16, "max_epochs": 3, "device": "cpu", "random_state": 0}
VARIANTS = {
    "default": {},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "bright": {"polarity": "bright"},
    "paper": {"architecture": "paper", "clip_negative": True},
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 200, (90, 9, 8, 3), dtype=np.uint8), np.arange(90) % 3
    X[np.arange(90), ..., y] //= 2
    y[::7] = rng.integers(0, 3, 13)  # some labels are wrong, so that nobody can be certain
    return X, np.array(["ant", "bee", "cicada"])[y]


@pytest.fixture(scope="module")
def fitted(data):
    return GCMClassifier(**SMALL).fit(*data)


@pytest.fixture
def clf(fitted):
    return deepcopy(fitted)


def nll(clf, X, y):
    return -np.mean(clf.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(clf.classes_, y)])


# ---- the temperature ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [0.2, 1.0, 7.0])
def test_the_temperature_is_found_that_labels_were_drawn_with(wanted):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, (5000, 4))
    labels = (softmax(scores / wanted, axis=1).cumsum(axis=1) > rng.random((5000, 1))).argmax(axis=1)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(wanted, rel=0.05)
    near = found, found * 1.1, found / 1.1
    losses = [-log_softmax(scores / t, axis=1)[np.arange(5000), labels].mean() for t in near]
    assert np.argmin(losses) == 0


def test_images_that_are_all_correct_do_not_make_probabilities_one():
    scores = np.array([[4.0, 0.0], [0.0, 4.0]] * 25)
    temperature = fit_temperature(scores, np.array([0, 1] * 25))
    assert softmax(scores[0] / temperature)[0] == pytest.approx(51 / 52, abs=1e-4)


def test_labels_that_scores_do_not_know_give_the_largest_temperature():
    rng = np.random.default_rng(0)
    assert fit_temperature(rng.normal(size=(500, 3)), rng.integers(0, 3, 500)) > 5
    assert fit_temperature(np.array([[9.0, 0], [0, 9]]), np.array([1, 0])) == pytest.approx(BOUNDS[1], rel=1e-3)


# ---- where it acts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_and_maps_are_divided_alike_and_add_up(data, variant):
    X, y = data
    clf = GCMClassifier(**SMALL, **VARIANTS[variant]).fit(X, y)
    assert clf.temperature_ == 1
    before = clf.explain(X, "all")
    features, scores, predicted = clf.transform(X), clf.decision_function(X), clf.predict(X)
    assert clf.calibrate(X, y) is clf
    t = clf.temperature_
    assert isinstance(t, float)
    assert t != 1
    after = clf.explain(X, "all")
    np.testing.assert_allclose(after.ccm.mean(axis=(2, 3, 4), dtype=np.float64), after.scores, atol=1e-6)
    for name in ("cwm", "cwm_mean", "scores", "ccm") + ("cwm_dark",) * (before.cwm_dark is not None):
        one, other = getattr(after, name) * t, getattr(before, name)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(other).max()), err_msg=name)
    np.testing.assert_allclose(after.scores, clf.decision_function(X), atol=1e-6)
    np.testing.assert_allclose(clf.decision_function(X) * t, scores, atol=1e-5)
    np.testing.assert_allclose(clf.transform(X) * t, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X), softmax(after.scores, axis=1), atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), predicted)
    one, other = clf.explain(X[:20], "top-2"), next(clf.explain_batches(X, "top-2", batch_size=20))
    np.testing.assert_array_equal(one.cwm, other.cwm)
    box = 1, 2, 6, 7
    np.testing.assert_allclose(after.region_scores(box) * t, before.region_scores(box), atol=1e-5)
    rather = after.versus("bee")
    np.testing.assert_allclose(rather.ccm.mean(axis=(2, 3, 4)), rather.scores, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X, any_size=True), clf.predict_proba(X), atol=1e-6)


def test_two_classes_have_one_column_that_is_divided(data):
    X, y = (a[data[1] != "bee"] for a in data)
    clf = GCMClassifier(**SMALL).fit(X, y)
    before = clf.decision_function(X)
    np.testing.assert_allclose(clf.calibrate(X, y).decision_function(X) * clf.temperature_, before, atol=1e-5)


def test_probabilities_are_the_likeliest_of_all_temperatures(clf, data):
    X, y = data
    before = nll(clf, X, y)
    best = nll(clf.calibrate(X, y), X, y)
    assert best < before
    t = clf.temperature_
    for other in (2 * t, t / 2):
        clf.net_.network.head.temperature = other
        assert nll(clf, X, y) > best


def test_a_second_calibration_starts_from_the_scores_of_the_fit(clf, data):
    X, y = data
    first = clf.calibrate(X, y).temperature_
    assert clf.calibrate(X, y).temperature_ == pytest.approx(first, rel=1e-4)


# ---- where it is kept --------------------------------------------------------------------------------------------


def test_files_pickles_and_copies_keep_it(clf, data, tmp_path):
    X, y = data
    clf.calibrate(X, y).save(tmp_path / "model.gcm")
    for other in (GCMClassifier.load(tmp_path / "model.gcm"), pickle.loads(pickle.dumps(clf)), deepcopy(clf)):
        assert other.temperature_ == clf.temperature_
        np.testing.assert_array_equal(other.decision_function(X), clf.decision_function(X))
        np.testing.assert_array_equal(other.explain(X).cwm, clf.explain(X).cwm)


def test_files_from_before_there_was_a_temperature_have_one_of_one(clf, data, tmp_path, monkeypatch):
    X, _ = data
    write = safetensors_file.write

    def as_then(path, tensors, metadata, kind):
        del metadata["temperature"]
        write(path, tensors, metadata, kind)

    monkeypatch.setattr(safetensors_file, "write", as_then)
    clf.save(tmp_path / "old.gcm")
    loaded = GCMClassifier.load(tmp_path / "old.gcm")
    assert loaded.temperature_ == 1
    np.testing.assert_array_equal(loaded.decision_function(X), clf.decision_function(X))


def test_a_network_that_was_pickled_before_there_was_a_temperature_works(clf, data):
    assert "temperature" not in vars(clf.net_.network.head)
    assert clf.temperature_ == 1
    assert clf.calibrate(*data).temperature_ != 1


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e9, 2, "1.0", None, True, [1.0]])
def test_a_file_with_another_temperature_is_refused(clf, tmp_path, monkeypatch, temperature):
    write = safetensors_file.write

    def wrongly(path, tensors, metadata, kind):
        write(path, tensors, json.loads(json.dumps({**metadata, "temperature": temperature})), kind)

    monkeypatch.setattr(safetensors_file, "write", wrongly)
    clf.save(tmp_path / "model.gcm")
    with pytest.raises(ValueError, match=r"its temperature is no number from 0\.01 to 100"):
        GCMClassifier.load(tmp_path / "model.gcm")


def test_onnx_has_it(data):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from io import BytesIO

    X, y = data
    clf = GCMClassifier(**SMALL, architecture="paper", n_stages=1).fit(X, y)  # quick to export
    plain, file = clf.decision_function(X), BytesIO()
    clf.calibrate(X, y).to_onnx(file)
    assert np.abs(clf.decision_function(X) - plain).max() > 1e-2
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = ["scores", "probabilities", "contributions"]
    scores, probabilities, contributions = session.run(names, {"images": X})
    np.testing.assert_allclose(scores, clf.decision_function(X), atol=1e-5)
    np.testing.assert_allclose(probabilities, clf.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(contributions.mean(axis=(2, 3, 4)), scores, atol=1e-5)


# ---- training --------------------------------------------------------------------------------------------------------


def test_training_continues_from_the_weights_without_it(clf, data):
    X, y = data
    plain, calibrated = deepcopy(clf), clf.calibrate(X, y)
    for train in ("partial_fit", "fit"):
        one, other = deepcopy(plain), deepcopy(calibrated)
        for which in (one, other):
            getattr(which.set_params(warm_start=True), train)(X, y)
        assert other.temperature_ == 1
        np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    assert calibrated.set_params(warm_start=False).fit(X, y).temperature_ == 1


def test_a_fit_that_fails_leaves_it(clf, data):
    X, y = data
    t = clf.calibrate(X, y).temperature_
    with pytest.raises(ValueError, match="inconsistent numbers"):
        clf.fit(X, y[:-1])
    assert clf.temperature_ == t


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_calibrated_with_is_refused_and_changes_nothing(clf, data):
    X, y = data
    for X_wrong, y_wrong, message in [
        (X, np.where(y == "ant", "wasp", y), "y has the label 'wasp', but the classes are"),
        (X[y == "ant"], y[y == "ant"], r"y has one class only, \['ant'\]\. Calibrate on images of at least 2 classes"),
        (X, y[:-1], "X has 90 images and y has 89 labels"),
        (X, None, "requires y to be passed"),
        (X[:, :5], y, "images of"),
        (X[:0], y[:0], "0 sample"),
    ]:
        with pytest.raises(ValueError, match=message):
            clf.calibrate(X_wrong, y_wrong)
    assert clf.temperature_ == 1


def test_nothing_fitted_has_no_temperature(data):
    clf = GCMClassifier()
    assert not hasattr(clf, "temperature_")
    with pytest.raises(NotFittedError):
        clf.calibrate(*data)
