"""typicality: images that the classifier was not made for, and a warning about them."""

import json
import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from skgcm import GCMClassifier, ModelFileError, typicality
from skgcm.files import safetensors_file

SMALL = {"encoder_width": 4, "decoder_width": 4, "batch_size": 32, "max_epochs": 2, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 8, 8), y


@pytest.fixture(scope="module")
def fitted(digits):
    X, y = digits
    return GCMClassifier(**SMALL).fit(X[:600], y[:600])


@pytest.fixture
def clf(fitted):
    return deepcopy(fitted)


def other_kinds(X):
    rng = np.random.default_rng(0)
    return {
        "noise": rng.uniform(0, 16, X.shape),
        "grey": np.full(X.shape, rng.uniform(0, 16, (len(X), 1, 1))),
        "a quarter of the exposure": X / 4,
        "inverted": 16 - X,
    }


# ---- the measure -------------------------------------------------------------------------------------------------


def test_held_out_images_of_the_same_kind_are_as_usual_as_training_images(fitted, digits):
    usual = fitted.typicality(digits[0][600:])
    assert usual.shape == (1197,)
    assert usual.dtype == np.float64
    assert usual.min() >= 0
    assert usual.max() <= 1
    assert 0.3 < np.median(usual) < 0.7
    assert (usual < typicality.STRANGE).mean() <= 0.02


@pytest.mark.parametrize("kind", ["noise", "grey", "a quarter of the exposure", "inverted"])
def test_images_of_another_kind_are_strange(fitted, digits, kind):
    X = other_kinds(digits[0][600:700])[kind]
    assert (fitted.typicality(X) < 0.01).mean() > 0.95


def test_distances_are_those_of_gaussians_with_a_common_covariance():
    rng = np.random.default_rng(0)
    y = np.arange(4000) % 2
    x = rng.multivariate_normal([0, 0], [[4, 1], [1, 1]], 4000) + 20 * y[:, None]
    known = typicality.fit(x, y)
    points = np.array([[2.0, 0.0], [20.0, 22.0], [0.0, 0.0]])
    inverse = np.linalg.inv([[4, 1], [1, 1]])
    expected = [np.sqrt(p @ inverse @ p) for p in ([2, 0], [0, 2], [0, 0])]
    np.testing.assert_allclose(known.distance(points), expected, rtol=0.06, atol=0.1)
    new = rng.multivariate_normal([0, 0], [[4, 1], [1, 1]], 20_000)
    usual = known(new)
    for share in (0.5, 0.1, 0.01, 0.001):  # the last ones beyond what so few training images show
        assert (usual < share).mean() == pytest.approx(share, rel=0.5)


def test_training_images_of_the_same_distance_count_as_at_least_as_far():
    distances = np.repeat(np.arange(1, 51, dtype=np.float32), 4)
    one = np.ones(1, np.float32)
    known = typicality.Typicality(0 * one, one, np.zeros((1, 1), np.float32), one[:, None], distances)
    np.testing.assert_allclose(known(np.array([[0.5], [1.0], [1.5], [26.0]])), [1, 1, 0.98, 0.5])


def test_a_larger_distance_is_never_more_usual():
    rng = np.random.default_rng(0)
    known = typicality.fit(rng.normal(size=(60, 3)), np.arange(60) % 3)
    usual = known(np.linspace(0, 50, 500)[:, None] * [1.0, 0.5, 0])
    assert (np.diff(usual[5:]) <= 0).all()
    assert usual[-1] < 1e-6


def test_what_never_changes_in_training_is_no_reason_for_infinite_distances():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=200), np.full(200, 0.1), np.zeros(200)])
    known = typicality.fit(x, np.arange(200) % 2)
    assert np.isfinite(known.distance(x)).all()
    np.testing.assert_allclose(known(x + np.array([0, 1e-7, 0])), known(x), atol=0.02)
    same = typicality.fit(np.ones((60, 2)), np.arange(60) % 2)(np.array([[1.0, 1.0], [9.0, 9.0]]))
    assert same[0] > same[1]


@pytest.mark.parametrize(
    "params",
    [{"architecture": "paper", "shared_decoder": False}, {"n_stages": 1}, {"n_stages": 5, "shared_decoder": False}],
    ids=str,
)
def test_all_architectures_have_it(digits, params):
    X, y = digits
    X = np.repeat(X[:100, :, :, None], 3, axis=3)
    clf = GCMClassifier(**{**SMALL, **params, "max_epochs": 1}).fit(X, y[:100])
    usual = clf.typicality(X)
    assert usual.mean() > 0.3
    np.testing.assert_allclose(clf.typicality(X[:1]), usual[:1], atol=0.05)


# ---- the warning -----------------------------------------------------------------------------------------------------


def test_predictions_warn_once_with_the_number_of_strange_images(clf, digits):
    X, y = (a[600:640] for a in digits)
    mixed = np.concatenate([X, other_kinds(X[:5])["grey"]])
    labels = np.concatenate([y, y[:5]])
    for ask in (clf.predict, clf.predict_proba, clf.predict_log_proba, lambda X: clf.score(X, labels)):
        with pytest.warns(UserWarning, match="5 of 45 images are unlike the training images") as caught:
            ask(mixed)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    clf.decision_function(mixed)  # no warning, and neither is there one from evidence
    clf.explain(mixed)


def test_a_lone_strange_image_is_warned_about(clf):
    with pytest.warns(UserWarning, match="1 of 1 image is unlike .* Do not trust the answer for it"):
        clf.predict(np.full((1, 8, 8), 7.0))


def test_many_images_that_are_a_little_unusual_are_warned_about():
    usual = np.full(100, 0.5)
    usual[:10] = 0.0005
    usual[:40] = np.minimum(usual[:40], 0.05)
    typicality.warn_if_strange(usual)  # as may be by chance
    usual[40] = 0.05
    with pytest.warns(UserWarning, match=r"41 of 100 images are unlike the training images: .* below 0\.1"):
        typicality.warn_if_strange(usual)
    typicality.warn_if_strange(usual[10:29])
    usual[10] = 0.0005
    with pytest.warns(UserWarning, match=r"11 of 100 images .* below 0\.001"):
        typicality.warn_if_strange(usual)


def test_images_like_those_of_the_fit_cause_no_warning(clf, digits):
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X[600:])
        clf.score(X[:600], y[:600])
        clf.predict(np.full((1, 30, 30), 7.0), any_size=True)  # a frame is not looked at


# ---- where nothing is known -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("few", [True, False], ids=["49 images", "7 columns"])
def test_too_little_to_judge_by_is_nan_and_never_a_warning(digits, few):
    X, y = digits
    X, y = (X[:49], y[:49]) if few else (X[:100, :, :7], y[:100])
    clf = GCMClassifier(**{**SMALL, "max_epochs": 1}).fit(X, y)
    assert np.isnan(clf.typicality(X)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(np.zeros_like(X))


def test_partial_fit_forgets_it_and_fit_finds_it_again(clf, digits):
    X, y = (a[:100] for a in digits)
    assert np.isnan(clf.partial_fit(X, y).typicality(X)).all()
    assert np.isfinite(clf.set_params(warm_start=True, max_epochs=1).fit(X, y).typicality(X)).all()


def test_it_needs_a_fit(digits):
    with pytest.raises(NotFittedError):
        GCMClassifier().typicality(digits[0])


# ---- keeping ---------------------------------------------------------------------------------------------------------


def test_files_and_pickles_keep_it(clf, digits, tmp_path):
    X = np.concatenate([digits[0][600:], other_kinds(digits[0][:50])["noise"]])
    clf.save(tmp_path / "model.gcm")
    for other in (GCMClassifier.load(tmp_path / "model.gcm"), pickle.loads(pickle.dumps(clf)), deepcopy(clf)):
        np.testing.assert_array_equal(other.typicality(X), clf.typicality(X))


def test_files_without_it_load(clf, digits, tmp_path):
    clf.partial_fit(*(a[:100] for a in digits)).save(tmp_path / "model.gcm")
    assert np.isnan(GCMClassifier.load(tmp_path / "model.gcm").typicality(digits[0])).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("typicality/means"),
        lambda t: t.update({"typicality/more": t["typicality/means"].clone()}),
        lambda t: t.update({"typicality/means": t["typicality/means"][:, 1:]}),
        lambda t: t.update({"typicality/means": t["typicality/means"][:0]}),
        lambda t: t.update({"typicality/scale": t["typicality/scale"] * 0}),
        lambda t: t.update({"typicality/distances": t["typicality/distances"].flip(0)}),
        lambda t: t.update({"typicality/whitening": t["typicality/whitening"].double()}),
    ],
    ids=["missing", "unknown", "shape", "empty", "scale", "order", "dtype"],
)
def test_a_file_with_a_damaged_one_is_refused(clf, tmp_path, monkeypatch, change):
    write = safetensors_file.write

    def wrongly(path, tensors, metadata, kind):
        tensors = dict(tensors)
        change(tensors)
        write(path, {k: t.contiguous() for k, t in tensors.items()}, json.loads(json.dumps(metadata)), kind)

    monkeypatch.setattr(safetensors_file, "write", wrongly)
    clf.save(tmp_path / "model.gcm")
    with pytest.raises(ModelFileError, match="typicality"):
        GCMClassifier.load(tmp_path / "model.gcm")


# ---- ONNX ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", ["contributions", None])
def test_onnx_has_the_typicality_of_usual_strange_and_refused_images(fitted, digits, maps):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from io import BytesIO

    file = BytesIO()
    fitted.to_onnx(file, maps)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for X in (digits[0][600:], *other_kinds(digits[0][600:700]).values()):
        (found,) = session.run(["typicality"], {"images": X[..., None].astype(np.float32)})
        np.testing.assert_allclose(found, fitted.typicality(X), rtol=2e-3, atol=2e-3)  # one distance of 600 may move
        np.testing.assert_array_equal(found < typicality.STRANGE, fitted.typicality(X) < typicality.STRANGE)
    (found,) = session.run(["typicality"], {"images": np.full((2, 8, 8, 1), np.nan, np.float32)})
    assert np.isnan(found).all()


def test_onnx_of_a_classifier_without_it_has_none(clf, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    clf._typicality = None
    clf.to_onnx(tmp_path / "model.onnx", maps=None)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["scores", "probabilities"]
