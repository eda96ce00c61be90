import copy
import inspect
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from skorch.callbacks import ProgressBar

from skgcm import ContributionDisplay, GCMClassifier
from skgcm.training.net import GCMNet

SMALL = {"encoder_width": 8, "decoder_width": 4, "batch_size": 32, "max_epochs": 2, "device": "cpu", "random_state": 0}
VARIANTS = {
    "default": {},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "bright": {"polarity": "bright"},
    "five-stages": {"n_stages": 5},
    "paper": {"architecture": "paper"},
    "paper-both": {"architecture": "paper", "polarity": "both"},
    "deconvolution": {"architecture": "paper", "upsampling": "deconvolution"},
}


def draw(n, *shape, seed=0):
    """Colour images of three kinds, told apart by their brightest channel: uint8 (n, ...), labels (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 120, (n, *shape), dtype=np.uint8)
    y = np.arange(n) % 3
    X[np.arange(n), ..., y % shape[-1]] += 100
    return X, y


@pytest.fixture(scope="module")
def colour():
    return draw(96, 10, 12, 3)


@pytest.fixture(scope="module")
def clf(colour):
    return GCMClassifier(**{**SMALL, "max_epochs": 8}).fit(*colour)


def same(one, other):
    """Scores equal within 1e-5 of the largest."""
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


# ---- evidence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_evidence_adds_up_to_the_decision(colour, variant):
    X, y = colour
    clf = GCMClassifier(**SMALL, **VARIANTS[variant]).fit(X, y)
    evidence = clf.explain(X, classes="all")
    assert evidence.images.shape == (96, 10, 12, 3)
    assert evidence.cwm.shape == (96, 3, 10, 12)
    assert evidence.ccm.shape == (96, 3, 10, 12, 3)
    assert {a.dtype for a in (evidence.images, evidence.cwm, evidence.ccm, evidence.scores)} == {np.dtype(np.float32)}
    same(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores)
    same(evidence.scores, clf.decision_function(X))
    np.testing.assert_array_equal(evidence.images, X.astype(np.float32) / 255)
    np.testing.assert_array_equal(evidence.classes, np.tile([0, 1, 2], (96, 1)))
    assert (evidence.cwm.min() >= 0) == clf.clip_negative
    same(clf.explain(X).cwm_mean, evidence.cwm.mean(axis=1))
    same(
        clf.explain(X).versus("mean").ccm.mean(axis=(2, 3, 4))[:, 0],
        (evidence.scores - evidence.scores.mean(axis=1)[:, None]).max(axis=1),
    )


def test_an_explanation_has_the_probabilities_of_predict_proba(clf, colour):
    X, y = colour
    clf = copy.deepcopy(clf)
    frame = np.tile(X[:2], (1, 2, 1, 1))
    for _ in range(2):
        proba = clf.predict_proba(X)
        for classes in ("all", "predicted", "top-2", [2, 0], y[:, None]):
            evidence = clf.explain(X, classes)
            same(evidence.probabilities, np.take_along_axis(proba, evidence.classes, axis=1))  # labels are positions
            assert evidence.probabilities.dtype == np.float32
        same(clf.explain(frame, "all", any_size=True).probabilities, clf.predict_proba(frame, any_size=True))
        clf.calibrate(X, y)  # and then the same again


def test_explain_shows_the_classes_asked_for(clf, colour):
    X, y = colour
    every = clf.explain(X, "all")
    n = np.arange(len(X))[:, None]
    order = np.argsort(-every.scores, axis=1, kind="stable")
    for classes, positions in [
        ("predicted", order[:, :1]),
        ("top-2", order[:, :2]),
        (2, np.full((96, 1), 2)),
        ([2, 0], np.tile([2, 0], (96, 1))),
        (y[:, None], y[:, None]),
    ]:
        evidence = clf.explain(X, classes)
        np.testing.assert_array_equal(evidence.classes, positions)
        np.testing.assert_allclose(evidence.cwm, every.cwm[n, positions], atol=1e-4)
        same(evidence.scores, every.scores[n, positions])
    np.testing.assert_array_equal(clf.explain(X).classes[:, 0], clf.predict(X))


@pytest.mark.filterwarnings("ignore:1 of 1 image is unlike the training images")  # grey, and those had colours
def test_pillow_images_one_or_many_are_images(colour):
    X, y = colour
    pictures = [Image.fromarray(pixels) for pixels in X]
    clf = GCMClassifier(**SMALL).fit(pictures, y)
    same(clf.decision_function(X), GCMClassifier(**SMALL).fit(X, y).decision_function(pictures))
    grey = pictures[0].convert("L")  # which a classifier of colour reads as colour
    same(clf.predict_proba(grey), clf.predict_proba(np.dstack([grey] * 3)[None]))
    evidence = clf.explain(grey)
    assert evidence.images.shape == (1, *X.shape[1:])
    assert len(list(clf.explain_batches(pictures[:3], batch_size=2))) == 2
    wide = grey.resize((20, 18))
    assert clf.explain(wide, any_size=True).images.shape == (1, 18, 20, 3)


def test_explain_batches_is_explain_in_parts(clf, colour):
    X, y = colour
    parts = list(clf.explain_batches(X, y[:, None], batch_size=40))
    assert [len(part) for part in parts] == [40, 40, 16]
    whole = clf.explain(X, y[:, None])
    np.testing.assert_array_equal(np.concatenate([part.cwm for part in parts]), whole.cwm)
    np.testing.assert_array_equal(np.concatenate([part.classes for part in parts]), whole.classes)
    with pytest.raises(ValueError, match="batch_size=0"):
        clf.explain_batches(X, batch_size=0)


def test_any_size_shows_a_whole_frame(clf, colour):
    frame = np.tile(colour[0][:6].reshape(2, 30, 12, 3), (1, 1, 2, 1))
    evidence = clf.explain(frame, "all", any_size=True)
    assert evidence.cwm.shape == (2, 3, 30, 24)
    same(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores)
    same(clf.decision_function(frame, any_size=True), evidence.scores)
    np.testing.assert_array_equal(clf.predict(frame, any_size=True), evidence.scores.argmax(1))
    proba = clf.predict_proba(frame, any_size=True)
    np.testing.assert_allclose(proba, torch.tensor(evidence.scores).softmax(1), atol=1e-6)
    np.testing.assert_allclose(clf.predict_log_proba(frame, any_size=True), np.log(proba), atol=1e-5)
    np.testing.assert_array_equal(make_pipeline(clf).predict(frame, any_size=True), clf.predict(frame, any_size=True))
    for ask in (clf.explain, clf.predict, clf.predict_proba, clf.predict_log_proba, clf.decision_function):
        with pytest.raises(ValueError, match="this classifier was fitted on"):
            ask(frame)
    with pytest.raises(ValueError, match=r"must have shape \(n, rows, columns, 3\)"):
        clf.explain(frame[..., 0], any_size=True)


def test_binary_decision_is_the_difference_of_the_scores(colour):
    X, y = colour
    clf = GCMClassifier(**SMALL).fit(X, np.where(y > 0, "bad", "good"))
    scores = clf.explain(X, "all").scores
    same(clf.decision_function(X), scores[:, 1] - scores[:, 0])
    assert clf.predict_proba(X).shape == (96, 2)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[(clf.decision_function(X) > 0).astype(int)])


def test_probabilities_are_the_softmax_of_the_scores(clf, colour):
    scores = clf.decision_function(colour[0]).astype(float)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(colour[0]), expected, atol=1e-6)
    np.testing.assert_allclose(clf.predict_log_proba(colour[0]), np.log(expected), atol=1e-5)


# ---- same answer for the same image ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 9, 1), (8, 8, 1), (10, 12, 3)], ids=str)
def test_an_image_has_the_same_scores_alone_and_in_any_batch(shape):
    X, y = draw(200, *shape)
    clf = GCMClassifier(**SMALL).fit(X[:60], y[:60])
    scores = clf.decision_function(X)
    order = np.random.default_rng(0).permutation(200)
    same(clf.decision_function(X[order]), scores[order])
    alone = np.concatenate([clf.decision_function(X[i : i + 1]) for i in range(200)])
    same(alone, scores)
    np.testing.assert_array_equal(alone.argmax(1), scores.argmax(1))


def _memmap(X, tmp_path):
    X.tofile(tmp_path / "X")
    return np.memmap(tmp_path / "X", dtype=X.dtype, mode="r", shape=X.shape)


class _Table:
    """What data frames that are not pandas' have in common: no number of axes, for instance."""

    def __init__(self, rows):
        self.rows, self.shape = rows, rows.shape
        self.columns = [f"pixel{i}" for i in range(rows.shape[1])]

    def __array__(self, dtype=None, copy=None):
        return self.rows.astype(dtype or self.rows.dtype)


LAYOUTS = {
    "float32": ({}, lambda X, _: X.astype(np.float32) / 255),
    "float64": ({}, lambda X, _: X / 255),
    "int64": ({"value_range": (0, 255)}, lambda X, _: X.astype(np.int64)),
    "channels-first": ({"channels_first": True}, lambda X, _: np.ascontiguousarray(X.transpose(0, 3, 1, 2))),
    "rows": ({"image_shape": (10, 12, 3)}, lambda X, _: X.reshape(len(X), -1)),
    "F-order": ({}, lambda X, _: np.asfortranarray(X)),
    "read-only-memmap": ({}, _memmap),
    "strided": ({}, lambda X, _: np.repeat(X, 2, axis=0)[::2]),
    "list": ({"value_range": (0, 255)}, lambda X, _: X.tolist()),
    "tensor": ({}, lambda X, _: torch.from_numpy(X)),
    "frame": ({"image_shape": (10, 12, 3)}, lambda X, _: pd.DataFrame(X.reshape(len(X), -1)).add_prefix("pixel")),
    "other-frame": ({"image_shape": (10, 12, 3)}, lambda X, _: _Table(X.reshape(len(X), -1))),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_images_in_another_layout_give_the_same_model(colour, layout, tmp_path):
    X, y = colour
    expected = GCMClassifier(**SMALL).fit(X, y).decision_function(X)
    params, change = LAYOUTS[layout]
    changed = change(X, tmp_path)
    clf = GCMClassifier(**SMALL, **params).fit(changed, y)
    assert clf.image_shape_ == (10, 12, 3)
    same(clf.decision_function(changed), expected)


@pytest.mark.parametrize("names", [["ant", "bee", "cow"], [-5, 7, 1000], [0.5, 1.0, 2.0]], ids=str)
def test_labels_can_be_anything(colour, names):
    X, y = colour
    expected = GCMClassifier(**SMALL).fit(X, y)
    names = np.array(names)
    if names.dtype.kind == "f":
        names = names.astype(object).astype(str)  # scikit-learn takes fractions for a regression
    clf = GCMClassifier(**SMALL).fit(X, names[y])
    np.testing.assert_array_equal(clf.classes_, names)
    np.testing.assert_array_equal(clf.predict(X), names[expected.predict(X)])
    np.testing.assert_array_equal(clf.explain(X[:2], names[[1]]).classes, [[names[1]]] * 2)


# ---- training ----------------------------------------------------------------------------------------------------


def test_same_seed_same_model_and_no_global_state(colour):
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    flags = torch.backends.mkldnn.conv.fp32_precision, torch.get_num_threads(), torch.is_grad_enabled()
    one, two, other = (
        GCMClassifier(**{**SMALL, "random_state": seed, "augment": "shift+flip"}).fit(*colour) for seed in (0, 0, 1)
    )
    GCMClassifier(**{**SMALL, "random_state": None}).fit(*colour).explain(colour[0])
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    assert flags == (torch.backends.mkldnn.conv.fp32_precision, torch.get_num_threads(), torch.is_grad_enabled())
    scores = [clf.decision_function(colour[0]) for clf in (one, two, other)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


@pytest.mark.parametrize(("n", "batch_size", "side"), [(33, 32, 2), (3, 1, 5), (2, 32, 2), (65, 8, 2)])
def test_any_number_of_images(n, batch_size, side):
    X, y = draw(n, side, side, 1)
    clf = GCMClassifier(**{**SMALL, "batch_size": batch_size}).fit(X, y)
    assert np.isfinite(clf.decision_function(X)).all()


def test_few_images_are_trained_on_in_small_batches_but_not_as_a_stream(colour):
    clf = GCMClassifier(**{**SMALL, "batch_size": "auto"}, callbacks=[ProgressBar()])  # which computes with the size
    assert clf.fit(*colour).net_.batch_size == 16
    assert clf.partial_fit(*colour).net_.batch_size == 64


def test_early_stopping_restores_the_best_weights(colour):
    X, y = colour
    clf = GCMClassifier(**{**SMALL, "max_epochs": 60, "lr": 0.5}, early_stopping=True, n_iter_no_change=3).fit(X, y)
    losses = [epoch["valid_loss"] for epoch in clf.history_]
    assert len(losses) < 60
    assert np.argmin(losses) == len(losses) - 4
    held_out = list(clf.net_.get_iterator(clf.net_.get_split_datasets(X.reshape(96, -1), y)[1]))
    found = np.mean([float(clf.net_.validation_step(batch)["loss"]) for batch in held_out])
    np.testing.assert_allclose(found, min(losses), rtol=1e-3)


def test_early_stopping_keeps_an_epoch_that_is_hardly_better(colour, monkeypatch):
    losses = iter([0.7, 0.69999, 0.8, 0.8])
    monkeypatch.setattr(GCMNet, "_validate", lambda self, batches: next(losses))
    X, y = colour
    early = {"early_stopping": True, "n_iter_no_change": 2}
    clf = GCMClassifier(**{**SMALL, "max_epochs": 9, "lr_schedule": "constant"}, **early).fit(X, y)
    assert len(clf.history_) == 4
    losses = iter([0.7, 0.6])
    same_weights = GCMClassifier(**{**SMALL, "max_epochs": 2, "lr_schedule": "constant"}, **early).fit(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), same_weights.decision_function(X))


def test_partial_fit_learns_epoch_by_epoch(colour):
    X, y = colour
    clf = GCMClassifier(**{**SMALL, "decoder_width": 16})
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        clf.partial_fit(X, y)
    clf.partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    for _ in range(30):
        clf.partial_fit(X, y)
    assert len(clf.history_) == 31
    assert clf.score(X, y) > 0.8
    with pytest.raises(ValueError, match=r"y has the label 9.*Name all labels, as n_classes"):
        clf.partial_fit(X, y + 9)
    np.testing.assert_array_equal(GCMClassifier(3, **SMALL).partial_fit(X[:1], y[:1]).classes_, [0, 1, 2])


def test_a_lone_image_that_becomes_one_pixel_is_named():
    X, y = np.random.default_rng(0).random((5, 4, 4)), [0, 1, 0, 1, 0]
    with pytest.raises(
        ValueError, match="one image of 4 x 4 pixels, which the encoder, of stride 4, reduces to a single one"
    ):
        GCMClassifier(**SMALL).partial_fit(X[:1], y[:1], classes=[0, 1])
    GCMClassifier(**{**SMALL, "n_stages": 2}).partial_fit(X[:1], y[:1], classes=[0, 1])
    GCMClassifier(**{**SMALL, "batch_size": 4}).fit(X, y)


def test_an_optimizer_that_hands_its_parameters_on_gets_weight_decay(colour):
    class Handing(torch.optim.SGD):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    clf = GCMClassifier(**SMALL, optimizer=Handing).fit(*colour)
    assert clf.net_.optimizer_.param_groups[0]["weight_decay"] == clf.weight_decay > 0


def test_dark_images_get_a_warning_unless_the_user_says_their_range(colour):
    X, y = colour
    with pytest.warns(UserWarning, match=r"99.5 % of the values in X are \d+ or less") as caught:
        GCMClassifier(**SMALL).fit(X // 17, y)
    assert caught[0].filename == __file__
    GCMClassifier(**SMALL, value_range=(0, 15)).fit(X // 17, y)


@pytest.mark.filterwarnings("ignore:2 of 2 images are unlike the training images")
def test_a_warning_points_to_the_line_that_called(clf, colour):
    X, y = colour
    wrong = X[:2] * 1.5 - 200
    for call in (
        lambda: clf.predict(wrong),
        lambda: clf.score(wrong, y[:2]),
        lambda: clf.transform(wrong),
        lambda: clf.explain(wrong, any_size=True),
        lambda: ContributionDisplay.from_estimator(clf, wrong),
    ):
        with pytest.warns(UserWarning, match="Check whether X has the scale") as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}


def test_warm_start_continues_from_the_last_weights(colour):
    X, y = colour
    clf = GCMClassifier(**SMALL, warm_start=True).fit(X, y)
    before = clf.net_.network.head.kernels[0].detach().clone()
    clf.set_params(lr=1e-8, weight_decay=0).fit(X, y)
    assert len(clf.history_) == 4
    torch.testing.assert_close(clf.net_.network.head.kernels[0].detach(), before, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="The network's parameters are not those"):
        clf.set_params(decoder_width=8).fit(X, y)


def test_n_classes_makes_room_for_labels_to_come(colour):
    X, y = colour
    clf = GCMClassifier(5, **SMALL, class_weight="balanced").fit(X, y)
    np.testing.assert_array_equal(clf.classes_, np.arange(5))
    assert clf.predict_proba(X).shape == (96, 5)


def test_class_weight_moves_the_decision():
    X, y = draw(120, 6, 6, 3)
    X[:] = np.random.default_rng(1).integers(0, 255, X.shape)  # nothing to learn but how often classes occur
    shares = []
    for weight in ({0: 20, 1: 1, 2: 1}, None):
        clf = GCMClassifier(**{**SMALL, "max_epochs": 5}, class_weight=weight).fit(X, y)
        shares.append(clf.predict_proba(X)[:, 0].mean())
    assert shares[0] > shares[1] + 0.1
    with pytest.raises(ValueError, match=r"class_weight has the label 7, .*Name labels as y has them"):
        GCMClassifier(**SMALL, class_weight={7: 1}).fit(X, y)


def test_class_weight_may_name_classes_that_a_fold_lacks(colour):
    X, y = colour
    weights = {0: 2, 1: 1, 2: 1}
    one, other = (GCMClassifier(**SMALL, class_weight=w).fit(X, y) for w in (weights, {**weights, 7: 9}))
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))


def test_balanced_is_inverse_to_the_frequency(colour):
    X, y = colour[0], np.repeat([0, 1, 2], [60, 24, 12])
    one, two, plain = (
        GCMClassifier(**SMALL, class_weight=weight).fit(X, y).decision_function(X)
        for weight in ("balanced", {0: 96 / 180, 1: 96 / 72, 2: 96 / 36}, None)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, plain)


def test_narrow_integers_are_integers(colour):
    X, y = np.concatenate([colour[0]] * 3), np.tile(colour[1], 3)
    wide = {"encoder_width": 64, "batch_size": 64, "max_epochs": 1, "n_stages": 2}
    narrow = {name: np.uint8(value) for name, value in wide.items()}
    one, other = (GCMClassifier(**{**SMALL, **params}).fit(X, y).decision_function(X) for params in (wide, narrow))
    np.testing.assert_array_equal(one, other)


def test_scores_weigh_images_and_name_what_is_wrong(clf, colour):
    X, y = colour
    found, weight = clf.predict(X), np.arange(len(X))
    y = np.where(weight % 5, found, (found + 1) % 3)
    assert clf.score(X, y, sample_weight=weight) == pytest.approx(1 - weight[::5].sum() / weight.sum())
    with pytest.raises(ValueError, match=r"^Input sample_weight contains NaN"):
        clf.score(X, y, sample_weight=np.where(weight, weight, np.nan))
    with pytest.raises(ValueError, match=r"^y: "):
        clf.score(X, y[:-1])


def test_probabilities_too_small_for_float32_have_logarithms(colour):
    X, y = colour
    clf = GCMClassifier(**SMALL).fit(X, y)
    with torch.no_grad():
        for kernels in clf.net_.network.head.kernels:
            kernels *= 1e4
    assert (clf.predict_proba(X) == 0).any()
    assert np.isfinite(clf.predict_log_proba(X)).all()


def test_the_network_of_a_fitted_classifier_is_in_evaluation(colour):
    X, y = colour
    for clf in (GCMClassifier(**SMALL).fit(X, y), GCMClassifier(**SMALL, early_stopping=True).fit(X, y)):
        expected = clf.decision_function(X)
        with torch.no_grad():
            images = torch.from_numpy(X / np.float32(255)).permute(0, 3, 1, 2)
            same(clf.net_.network(images).numpy(), expected)
        np.testing.assert_array_equal(clf.decision_function(X), expected)


def test_augment_changes_training_only(colour):
    X, y = colour
    seen = []

    def darken(images):
        seen.append((tuple(images.shape), images.dtype))
        return images // 2

    clf = GCMClassifier(**SMALL, augment=darken).fit(X, y)
    assert set(seen) == {((32, 3, 10, 12), torch.uint8)}
    clf.predict(X)
    assert len(seen) == 6


def test_callbacks_and_net_params_reach_the_net(colour):
    from skorch.callbacks import EpochScoring

    scoring = EpochScoring("accuracy", lower_is_better=False, on_train=False)
    clf = GCMClassifier(
        **SMALL,
        callbacks=[("acc", scoring)],
        net_params={"criterion__label_smoothing": 0.1, "optimizer__momentum": 0.5},
        early_stopping=True,
    ).fit(*colour)
    assert "accuracy" in clf.history_[-1]
    assert clf.net_.criterion_.label_smoothing == 0.1
    assert clf.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    with pytest.raises(ValueError, match=r"net_params has \['lr'\]"):
        GCMClassifier(**SMALL, net_params={"lr": 1}).fit(*colour)
    with pytest.raises(ValueError, match=r"unexpected argument.* criterium"):
        GCMClassifier(**SMALL, net_params={"criterium": 1}).fit(*colour)
    for name in ("optimizer__lr", "warm_start"):
        with pytest.raises(ValueError, match=rf"net_params has \['{name}'\]"):
            GCMClassifier(**SMALL, net_params={name: 1}).fit(*colour)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("Checkpoint", {"load_best": True}),
        ("Checkpoint", {"monitor": "train_loss_best"}),
        ("Checkpoint", {"monitor": None, "f_params": "{last_epoch[epoch]}.pt"}),
        ("TrainEndCheckpoint", {}),
        ("BatchScoring", {"scoring": "accuracy", "lower_is_better": False, "name": "accuracy"}),
    ],
)
def test_callbacks_of_skorch_find_what_they_want(name, params, colour, tmp_path):
    from skorch import callbacks

    where = {} if name == "BatchScoring" else {"dirname": tmp_path / "kept"}
    callback = getattr(callbacks, name)(**params, **where)
    clf = GCMClassifier(**SMALL, callbacks=[callback], early_stopping=True).fit(*colour)
    assert clf.predict(colour[0]).shape == (96,)
    assert all(type(epoch[f"{which}_loss_best"]) is bool for epoch in clf.history_ for which in ("train", "valid"))
    if where:
        assert any(where["dirname"].glob("*.pt"))
    else:
        assert 0 <= clf.history_[-1]["accuracy"] <= 1


def test_a_subclass_may_take_fewer_parameters(colour):
    class Quick(GCMClassifier):
        def __init__(self, max_epochs=1, hint=None):
            super().__init__(max_epochs=max_epochs, device="cpu", random_state=0)
            self.hint = hint

    clf = clone(Quick(hint=3)).fit(*colour)
    assert clf.hint == 3
    assert len(clf.history_) == 1


def test_transform_maps_is_checked_where_it_acts(colour):
    clf = GCMClassifier(**SMALL).fit(*colour).set_params(transform_maps="weight")
    with pytest.raises(ValueError, match="'transform_maps' parameter"):
        clf.transform(colour[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", torch.optim.RMSprop], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_optimizers_and_precisions_learn(colour, optimizer, precision):
    params = {**SMALL, "decoder_width": 16, "max_epochs": 20, "lr": 0.05 if optimizer == "sgd" else 0.003}
    clf = GCMClassifier(**params, optimizer=optimizer, precision=precision).fit(*colour)
    assert clf.score(*colour) > 0.9
    assert {p.dtype for p in clf.net_.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("verbose", "out", "err"), [(0, "", ""), (1, "", "train_loss="), (2, "train_loss", "")])
def test_verbose(colour, capfd, verbose, out, err):
    GCMClassifier(**SMALL, verbose=verbose).fit(*colour)
    printed = capfd.readouterr()
    assert (out in printed.out) if out else not printed.out
    assert (err in printed.err) if err else not printed.err


def test_divergence_is_an_error_that_names_the_learning_rate(colour):
    with pytest.raises(FloatingPointError, match=r"train_loss is .* at lr=1e\+20"):
        GCMClassifier(**{**SMALL, "lr": 1e20, "max_epochs": 10}).fit(*colour)


def test_weights_that_are_finite_and_yet_too_large_are_an_error_too(colour):
    from skorch.callbacks import Callback

    class Blow(Callback):  # as batch norm does where one image has several labels, layer by layer
        def on_train_end(self, net, **kwargs):
            with torch.no_grad():
                for parameter in net.network.parameters():
                    parameter *= 1e30

    with pytest.raises(FloatingPointError, match="scores of training images are not finite"):
        GCMClassifier(**SMALL, callbacks=[Blow()]).fit(*colour)


def test_interrupted_fit_leaves_the_estimator_as_it_was(clf, colour):
    from skorch.callbacks import Callback

    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    before = vars(clf).copy()
    clf.set_params(callbacks=[Interrupt()])
    for fit in (clf.fit, clf.partial_fit):
        with pytest.raises(KeyboardInterrupt):
            fit(*colour)
    clf.set_params(callbacks=None)
    assert vars(clf) == before


def test_a_learning_rate_that_is_constant_is_a_callback_s_to_change(colour):
    from skorch.callbacks import LRScheduler

    scheduler = LRScheduler("StepLR", step_size=1, gamma=0.1)
    params = {**SMALL, "max_epochs": 3, "lr": 0.05, "lr_schedule": "constant", "weight_decay": 0}
    clf = GCMClassifier(**params, callbacks=[scheduler]).fit(*colour)
    assert clf.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(0.05 * 0.1**3)


def test_class_weight_means_the_same_in_a_batch_of_one():
    X, y = draw(40, 8, 8, 1)
    y, shares = (y > 0).astype(int), []
    X[:] = 128
    for weight in ({0: 1, 1: 50}, {0: 50, 1: 1}):
        clf = GCMClassifier(**{**SMALL, "batch_size": 1, "lr": 1e-4}, class_weight=weight).fit(X, y)
        shares.append(clf.predict_proba(X)[:, 1].mean())
    assert shares[0] > shares[1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"value_range": (0, 300)}, r"value_range=\(0.0, 300.0\), but training continues a fit with \(0.0, 255.0\)"),
        ({"n_classes": 5}, "n_classes=5, but training continues a fit with 3"),
        ({"image_shape": (12, 10, 3)}, "image_shape="),
        ({"channels_first": True}, "channels_first=True"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_does_not_continue_with_another_config(colour, params, message, method):
    clf = GCMClassifier(**SMALL, warm_start=True).fit(*colour)
    with pytest.raises(ValueError, match=message):
        getattr(clf.set_params(**params), method)(*colour)


# ---- bad input ---------------------------------------------------------------------------------------------------

BAD_PARAMS = {
    "batch_size": 0,
    "encoder_width": -1,
    "decoder_width": 0,
    "n_stages": 0,
    "n_classes": 1,
    "lr": -0.1,
    "max_epochs": 0,
    "upsampling": "cubic",
    "augment": "spin",
    "architecture": "resnet",
    "polarity": "dark",
    "mosaic": 1.5,
    "erasing": -0.1,
    "sparsity": -1,
    "optimizer": "lion",
    "lr_schedule": "cosine",
    "weight_decay": -1,
    "validation_fraction": 1.0,
    "n_iter_no_change": 0,
    "class_weight": "uniform",
    "precision": "float16",
    "callbacks": "print",
    "checkpoint": 3,
    "net_params": ["lr"],
    "transform_maps": "both",
    "clip_negative": "yes",
    "shared_decoder": None,
    "image_shape": (10,),
    "value_range": (1, 0),
    "device": "tpu3",
}


@pytest.mark.parametrize("name", BAD_PARAMS)
def test_bad_parameter_is_named_and_the_fitted_estimator_survives(clf, colour, name):
    good = clf.get_params()[name]
    before = vars(clf).copy()
    try:
        with pytest.raises(ValueError, match=name):
            clf.set_params(**{name: BAD_PARAMS[name]}).fit(*colour)
    finally:
        clf.set_params(**{name: good})
    assert vars(clf) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the message where there is no CUDA")
def test_absent_cuda_is_named(colour):
    with pytest.raises(ValueError, match=r"device='cuda', but PyTorch sees 0 CUDA devices\. Use device='auto'"):
        GCMClassifier(**{**SMALL, "device": "cuda"}).fit(*colour)


def _with(X, value):
    X = X.astype(float)
    X[3, 2, 1, 0] = value
    return X


BAD_X = {
    "nan": (lambda X: _with(X, np.nan), "NaN"),
    "inf": (lambda X: _with(X, np.inf), "infinity"),
    "minus-inf": (lambda X: _with(X, -np.inf), "infinity"),
    "empty": (lambda X: X[:0], "0 sample"),
    "wrong-rank": (lambda X: X[..., None], "does not hold images"),
    "one-axis": (lambda X: X[:, 0, 0, 0], r"Reshape .* X\[None\]"),
    "single-image": (lambda X: X[0], r"X\[None\]"),
    "strings": (lambda X: X.astype(str), "numeric"),
    "complex": (lambda X: X * 1j, "X: Complex data"),
    "dates": (lambda X: X.astype("M8[s]"), "X has dtype datetime64"),
    "dictionaries": (lambda X: np.full(X.shape, {}), "X: float.. argument must be"),
    "enormous": (lambda X: np.full(X.shape, 10**400), "X: int too large"),
    "no pixels": (lambda X: X[:, :0], "X.*(0 feature|does not hold images)"),
    "sparse": (lambda X: csr_array(X.reshape(96, -1)), "X is sparse"),
    "ragged": (lambda X: [X[0], X[1, :5]], "All images must have one size"),
}


@pytest.mark.parametrize("case", BAD_X)
def test_bad_images_are_described_and_the_fitted_estimator_survives(clf, colour, case):
    X, y = colour
    change, message = BAD_X[case]
    bad = change(X)
    before = vars(clf).copy()
    for call in (
        lambda: clf.fit(bad, y[: bad.shape[0] if hasattr(bad, "shape") else len(bad)]),
        lambda: clf.predict(bad),
        lambda: clf.explain(bad),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert vars(clf) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda X: X[:, :9],
            r"\(96, 9, 12, 3\) does not hold images of shape \(10, 12, 3\), which this classifier was",
        ),
        (lambda X: X[..., :2], "does not hold images"),
        (lambda X: X[..., 0], "does not hold images"),
        (lambda X: X.transpose(0, 3, 1, 2), r"transpose\(0, 2, 3, 1\)"),
        (lambda X: X.reshape(96, -1)[:, :100], "X has 100 features, but GCMClassifier is expecting 360"),
        (lambda X: X.astype(int) * 3, r"far outside value_range \(0, 255\)"),
    ],
)
def test_images_unlike_those_of_the_fit_are_described(clf, colour, change, message):
    with pytest.raises(ValueError, match=message):
        clf.predict(change(colour[0]))


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({}, np.zeros(96, int), "one class"),
        ({"n_classes": 2}, np.arange(96) % 3, "n_classes=2, but y has 3 classes"),
        ({}, np.arange(95) % 3, "X has 96 images and y has 95 labels: inconsistent numbers of samples"),
        ({}, np.linspace(0, 1, 96), "y: .*continuous"),
        ({}, np.full(96, 1e300), "y: .*continuous"),
        ({}, np.arange(96).astype("m8[s]"), "y has dtype timedelta"),
        ({}, [(), (1,), (2,)] * 32, "y: "),
        ({}, ["a", None, "b"] * 32, "y has labels that cannot be sorted"),
        ({"image_shape": (12, 10, 3)}, np.arange(96) % 3, r"image_shape says"),
        ({"value_range": (0, 1)}, np.arange(96) % 3, r"far outside value_range \(0, 1\)"),
        ({"early_stopping": True}, np.arange(96) // 95, "early_stopping=True holds out validation_fraction=0.1"),
        ({"class_weight": {0: "much"}}, np.arange(96) % 3, "class_weight=.*numbers"),
        ({"class_weight": {0: -1}}, np.arange(96) % 3, "class_weight=.*0 or more"),
        ({"class_weight": {0: 1e300}}, np.arange(96) % 3, "class_weight=.*finite"),
        ({"class_weight": {0: 10**400}}, np.arange(96) % 3, "class_weight=.*numbers"),
        ({"value_range": (0, 10**400)}, np.arange(96) % 3, "value_range="),
        ({"image_shape": np.array(3)}, np.arange(96) % 3, "image_shape="),
        ({"augment": lambda images: images[1:]}, np.arange(96) % 3, "augment returned"),
        ({"augment": lambda images: images / 255}, np.arange(96) % 3, r"augment returned .* torch.float32; expected"),
        ({"optimizer": int}, np.arange(96) % 3, "optimizer="),
        (
            {"optimizer": torch.optim.Rprop},
            np.arange(96) % 3,
            "optimizer=Rprop has no weight_decay.*Set weight_decay=0",
        ),
        ({"device": "meta"}, np.arange(96) % 3, "device='meta' is not supported"),
        ({"net_params": {"iterator_train__shuffle": False}}, np.arange(96) % 3, "net_params has"),
    ],
)
def test_data_and_parameters_that_do_not_fit_together(clf, colour, params, y, message):
    before = vars(clf).copy()
    good = {name: clf.get_params()[name] for name in params}
    try:
        with pytest.raises(ValueError, match=message):
            clf.set_params(**params).fit(colour[0], y)
    finally:
        clf.set_params(**good)
    assert vars(clf) == before


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(5, int), r"y: .*inconsistent numbers of samples: \[5, 96\]"),
        (np.full(96, "a"), "y: .*label"),
        (np.full(96, np.nan), "y: .*NaN"),
        (None, "y: "),
    ],
)
def test_score_names_labels_that_it_cannot_compare(clf, colour, y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        clf.score(colour[0], y)


def test_classes_of_partial_fit_are_named(colour):
    clf = GCMClassifier(**SMALL)
    for classes, message in (([[0, 1], [2]], "classes has labels that cannot"), ([0, 1], "y has the label 2")):
        with pytest.raises(ValueError, match=message):
            clf.partial_fit(*colour, classes=classes)
    with pytest.raises(ValueError, match="classes has labels that are not finite"):
        clf.partial_fit(*colour, classes=[0, 1, 2, np.nan])
    X, y = colour
    with pytest.raises(ValueError, match=r"y has the label 4, but the classes are \[0, 1, 2\]"):
        GCMClassifier(3, **SMALL).partial_fit(X, 2 * y)
    clf.partial_fit(*colour, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes has labels that cannot"):
        clf.partial_fit(*colour, classes=[0, None, 2])


def test_a_single_grey_image_is_told_from_rows():
    X, y = draw(30, 8, 8, 1)
    clf = GCMClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"X\[None\]"):
        clf.predict(X[0, ..., 0])
    with pytest.raises(ValueError, match=r"X\[None\], and grey ones of 3 columns are X\[..., None\]"):
        clf.explain(np.zeros((40, 50, 3), np.uint8), any_size=True)
    assert clf.explain(np.zeros((40, 50, 3, 1), np.uint8), any_size=True).cwm.shape == (40, 1, 50, 3)
    clf = GCMClassifier(**SMALL, channels_first=True).fit(X.transpose(0, 3, 1, 2), y)
    with pytest.raises(ValueError, match=r"grey ones of 3 columns are X\[:, None\]"):
        clf.explain(np.zeros((40, 50, 3), np.uint8), any_size=True)
    assert clf.explain(np.zeros((40, 1, 50, 3), np.uint8), any_size=True).cwm.shape == (40, 1, 50, 3)
    with pytest.raises(ValueError, match=r"A single image is X\[None\]\.$"):
        clf.explain(np.zeros((4, 50, 60, 3), np.uint8), any_size=True)


def test_unknown_label_to_explain_is_named(clf, colour):
    with pytest.raises(ValueError, match=r"classes has the label 9, but the classes are \[0, 1, 2\]"):
        clf.explain(colour[0], [9])
    with pytest.raises(ValueError, match="4 classes an image, but there are 3"):
        clf.explain(colour[0], "top-4")


# ---- documentation -----------------------------------------------------------------------------------------------


def test_documented_defaults_are_those_of_the_signature():
    docstring = inspect.cleandoc(GCMClassifier.__doc__)  # from Python 3.13 on it comes without its indentation
    documented = dict(re.findall(r"^(\w+) : .*default=(.+)$", docstring, re.MULTILINE))
    params = GCMClassifier().get_params()
    assert documented.keys() == params.keys()
    for name, text in documented.items():
        value = params[name]
        assert text == (f'"{value}"' if isinstance(value, str) else str(value)) or float(text) == value, name


def test_digits_as_rows_need_no_image_shape():
    X, y = load_digits(return_X_y=True)
    clf = GCMClassifier(**SMALL).fit(X[:100], y[:100])
    assert clf.image_shape_ == (8, 8, 1)
    assert clf.value_range_ == (0, 16)
    assert clf.explain(X[:2]).images.max() <= 1


def test_real_colour_images_are_recognised(cifar10):
    X, y, X_test, y_test = cifar10
    clf = GCMClassifier(max_epochs=3, random_state=0, device="cpu").fit(X[:5000], y[:5000])
    assert clf.score(X_test[:1000], y_test[:1000]) > 0.3


def test_labels_come_as_tensors_and_columns(colour):
    X, y = (a[:30] for a in colour)
    clf = GCMClassifier(**SMALL).fit(X, torch.tensor(y))
    for labels in (torch.tensor(y), y[:, None], [[label] for label in y.tolist()], [torch.tensor(i) for i in y]):
        np.testing.assert_array_equal(clf.score(X, labels), clf.score(X, y))
    weights = torch.ones(30, requires_grad=True)
    assert clf.score(X, torch.tensor(y), sample_weight=weights) == clf.score(X, y)
    same(clf.explain(X, torch.tensor(y)[:, None]).scores, clf.explain(X, y[:, None]).scores)
    with pytest.warns(match="column-vector"):
        clf.partial_fit(X, torch.tensor(y)[:, None])


ARRAY_API = """
import sklearn, torch
from skgcm import GCMClassifier
X, y = torch.rand(20, 8, 8), torch.arange(20) % 2
with sklearn.config_context(array_api_dispatch=True):
    clf = GCMClassifier(max_epochs=1, device="cpu", early_stopping=True, class_weight="balanced").fit(X, y)
    clf.score(X, y), clf.predict_proba(X), clf.explain(X, y[:, None])
    clf.set_params(class_weight=None).partial_fit(X, y)
    clf.transform(X)
"""


def test_tensors_under_array_api_dispatch():
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:After 1 epoch", "-c", ARRAY_API], env=environment, check=True
    )
