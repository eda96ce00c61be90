"""Guidance: where the evidence should lie is trained for."""

import math

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skgcm import GCMClassifier
from skgcm.metrics import additivity_error
from skgcm.training import guidance, net

TINY = {"encoder_width": 4, "decoder_width": 4, "batch_size": 8, "max_epochs": 2, "device": "cpu", "random_state": 0}


def draw_marked(n=48, side=12, seed=0):
    """Two classes that two spots tell apart, in the left half and in the right, and masks of the left one."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(90, 110, (n, side, side), dtype=np.uint8), np.arange(n) % 2
    masks = np.zeros(X.shape, bool)
    for image, mask, label in zip(X, masks, y, strict=True):
        row, column = rng.integers(0, side - 3), rng.integers(0, side // 2 - 3)
        mask[row : row + 3, column : column + 3] = True
        image[mask] = (40, 220)[label]
        image[row : row + 3, side - 3 :] = (220, 40)[label]
    return X, y, masks


@pytest.fixture(scope="module")
def marked():
    return draw_marked()


def share_inside(clf, X, y, masks):
    maps = clf.explain(X, y[:, None]).pixel_contributions[:, 0].clip(0)
    return float((maps * masks).sum() / maps.sum())


def scores(clf, X):
    return clf.decision_function(X)


# ---- the terms -------------------------------------------------------------------------------------------------------


def terms(contributions, inside, labels=None, regions=None):
    inside = torch.as_tensor(inside)
    labels = torch.zeros(len(inside), dtype=torch.long) if labels is None else labels
    return guidance.penalty(contributions, guidance.targets(inside, labels, regions), 1)


def test_even_evidence_costs_the_area_of_the_mask():
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[:, :1] = True
    expected = torch.tensor(math.log(4) + 0.75)
    even = torch.full((1, 1, 4, 4), 0.1)
    torch.testing.assert_close(terms(even, inside), expected)
    assert terms(torch.zeros(1, 1, 4, 4), inside).isfinite()


def test_evidence_inside_costs_nothing_and_its_scale_does_not_matter():
    inside = torch.zeros(1, 4, 4, dtype=torch.bool)
    inside[:, 1, 1] = True
    ccm = torch.where(inside, 5.0, -0.3)[None]
    low = terms(ccm, inside)
    assert 0 <= low < 0.02
    torch.testing.assert_close(terms(1e-6 * ccm, inside), low)
    assert terms(-ccm, inside) > 1


def test_there_is_a_gradient_where_nothing_inside_is_positive():
    inside = torch.zeros(1, 3, 3, dtype=torch.bool)
    inside[:, 0, 0] = True
    ccm = torch.where(inside, -1.0, 1.0)[None].requires_grad_()
    terms(ccm, inside).backward()
    assert ccm.grad[0, 0, 0, 0] < 0 < ccm.grad[0, 0, 2, 2]  # downhill is up inside, and down outside


def test_images_without_masks_have_no_term_and_are_left_out():
    inside = torch.zeros(3, 4, 4, dtype=torch.bool)
    labels = torch.tensor([4, 5, 6])
    assert guidance.targets(inside, labels) is None
    inside[1, 0, 0] = True
    found = guidance.targets(inside, labels)
    assert found.images.tolist() == [1]
    assert found.classes.tolist() == [[5]]
    ccm = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alone = guidance.penalty(ccm[found.images], found, 3)
    every = guidance.penalty(ccm, guidance.targets(inside, labels, all_images=True), 3)  # with CUDA graphs
    torch.testing.assert_close(every, alone)
    every.backward()
    assert not ccm.grad[[0, 2]].any()
    assert ccm.grad[1].any()


def test_each_part_of_a_mosaic_is_guided_separately():
    regions = torch.zeros(1, 2, 4, 6)
    regions[:, 0, :, :2] = regions[:, 1, :, 2:] = 1
    inside = torch.zeros(1, 4, 6, dtype=torch.bool)
    inside[:, :2] = True
    ccm = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    both = terms(ccm, inside, labels, regions)
    left = terms(ccm[:, :1, :, :2], inside[:, :, :2])
    right = terms(ccm[:, 1:, :, 2:], inside[:, :, 2:])
    torch.testing.assert_close(both, left + right)
    inside[:, :, 2:] = False
    torch.testing.assert_close(terms(ccm, inside, labels, regions), left)


# ---- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mosaic": 0.5, "sparsity": 0.01, "erasing": 0.5}], ids=str)
def test_the_evidence_comes_to_lie_in_the_masks(marked, options):
    X, y, masks = marked
    params = {**TINY, "max_epochs": 12, "augment": None, **options}
    without = GCMClassifier(**params).fit(X, y)
    shown = GCMClassifier(**params).fit(X, y, masks)
    some = GCMClassifier(**params).fit(X, y, masks=[mask if i < 16 else None for i, mask in enumerate(masks)])
    before, after, partly = (share_inside(clf, X, y, masks) for clf in (without, shown, some))
    assert before < 0.35
    assert after > before + 0.25
    assert partly > before + 0.1
    evidence = shown.explain(X, classes="all")
    assert additivity_error(evidence.ccm, evidence.scores) <= 1e-6


def test_empty_masks_change_nothing(marked):
    X, y, masks = marked
    expected = scores(GCMClassifier(**TINY, augment="shift+flip", mosaic=0.5).fit(X, y), X)
    for params, given in (({}, [None] * len(X)), ({}, np.zeros_like(masks)), ({"guidance": 0}, masks)):
        clf = GCMClassifier(**TINY, augment="shift+flip", mosaic=0.5, **params).fit(X, y, masks=given)
        np.testing.assert_array_equal(scores(clf, X), expected)
    clf = GCMClassifier(**TINY, augment="shift+flip", mosaic=0.5).fit(X, y, masks=masks)
    assert not np.array_equal(scores(clf, X), expected)


def test_masks_go_with_every_form_of_images(marked):
    X, y, masks = marked
    expected = scores(GCMClassifier(**TINY).fit(X, y, masks=masks), X)
    rows = X.reshape(len(X), -1)
    np.testing.assert_array_equal(scores(GCMClassifier(**TINY).fit(rows, y, masks=masks), X), expected)
    first = GCMClassifier(**TINY, channels_first=True).fit(X[:, None], y, masks=masks)
    np.testing.assert_array_equal(scores(first, X[:, None]), expected)
    large = GCMClassifier(**TINY).fit(X, y, masks=masks.repeat(2, 1).repeat(3, 2))  # of the original photos
    np.testing.assert_array_equal(scores(large, X), expected)


def test_partial_fit_takes_masks(marked):
    X, y, masks = marked
    one, two = (GCMClassifier(**TINY).partial_fit(X, y, classes=[0, 1], masks=given) for given in (None, masks))
    assert not np.array_equal(scores(one, X), scores(two, X))
    two.partial_fit(X, y, masks=list(masks))


def test_images_that_are_held_out_drop_their_masks(marked, monkeypatch):
    X, y, masks = marked
    seen = []
    step = net.GCMNet.train_step

    def spied(self, batch, masks=None, **options):
        rows = batch[0].view(-1, *X.shape[1:])
        seen.extend((rows.numpy(), masks.numpy()))
        return step(self, batch, masks=masks, **options)

    monkeypatch.setattr(net.GCMNet, "train_step", spied)
    params = {**TINY, "max_epochs": 1, "early_stopping": True, "validation_fraction": 0.25}
    clf = GCMClassifier(**params).fit(X, y, masks=masks)
    images, own = np.concatenate(seen[::2]), np.concatenate(seen[1::2])
    assert len(images) == 36
    assert "valid_loss" in clf.history_[0]
    at = [int(np.flatnonzero((image == X).all((1, 2)))[0]) for image in images]
    np.testing.assert_array_equal(own, masks[at])


def test_masks_and_a_callable_augment_are_an_error(marked):
    X, y, masks = marked
    with pytest.raises(ValueError, match="augment is a callable, which would move the images without the masks"):
        GCMClassifier(**TINY, augment=lambda images: images).fit(X, y, masks=masks)
    with pytest.raises(ValueError, match=r"masks\[0\] > 0"):
        GCMClassifier(**TINY).fit(X, y, masks=masks * 1.0)
    with pytest.raises(ValueError, match="'guidance' parameter"):
        GCMClassifier(**TINY, guidance=-1).fit(X, y)


def test_a_checkpoint_detects_other_masks(marked, tmp_path):
    X, y, masks = marked
    path = tmp_path / "fit.ckpt"
    first = GCMClassifier(**TINY, checkpoint=path).fit(X, y, masks=masks)
    again = GCMClassifier(**TINY, checkpoint=path).fit(X, y, masks=list(masks))
    np.testing.assert_array_equal(scores(again, X), scores(first, X))
    for other in (None, masks[::-1], [None, *masks[1:]]):
        with pytest.raises(ValueError, match="masks is not the same"):
            GCMClassifier(**TINY, checkpoint=path).fit(X, y, masks=other)


@pytest.mark.parametrize("form", [np.asarray, list], ids=["array", "list"])
def test_masks_are_routed_as_metadata(marked, form):
    X, y, masks = marked
    with config_context(enable_metadata_routing=True):
        clf = GCMClassifier(**TINY).set_fit_request(masks=True)
        pipeline = make_pipeline(FunctionTransformer(), clf)
        direct = scores(GCMClassifier(**TINY).fit(X, y, masks=masks), X)
        np.testing.assert_array_equal(scores(pipeline.fit(X, y, masks=form(masks)), X), direct)
        folds = KFold(2)
        found = cross_validate(pipeline, X, y, cv=folds, params={"masks": form(masks)}, return_estimator=True)
        for (train, _), fitted in zip(folds.split(X), found["estimator"], strict=True):
            expected = GCMClassifier(**TINY).fit(X[train], y[train], masks=masks[train])
            np.testing.assert_array_equal(scores(fitted, X), scores(expected, X))
        search = GridSearchCV(clone(clf), {"guidance": [0.5, 1]}, cv=folds).fit(X, y, masks=form(masks))
        assert search.best_params_["guidance"] in (0.5, 1)


def test_guidance_is_saved(marked, tmp_path):
    X, y, masks = marked
    clf = GCMClassifier(**TINY, guidance=0.5).fit(X, y, masks=masks)
    clf.save(tmp_path / "model.gcm")
    assert GCMClassifier.load(tmp_path / "model.gcm").guidance == 0.5
