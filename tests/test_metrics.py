import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from skgcm import GCMClassifier
from skgcm.metrics import (
    additivity_error,
    decline_ratio,
    deletion_curve,
    energy_in_boxes,
    grid_pointing_game,
    insertion_curve,
    pointing_game,
)

SCORES = np.eye(4)[[0, 1, 2, 3, 0]]  # the last is wrong
Y = np.array([0, 1, 2, 3, 1])


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 3)])
def test_maps_that_agree_with_the_scores_have_no_decline(shape):
    maps = np.broadcast_to(SCORES.reshape(5, 4, *[1] * len(shape)), (5, 4, *shape))
    assert decline_ratio(maps, SCORES, Y) == 0


def test_by_hand():
    maps = np.zeros((5, 4, 2, 2))
    maps[[0, 1], [0, 1], 1, 1] = 1  # two of the four that were right
    maps[[2, 3], [0, 0], 0, 0] = 1
    maps[4, 2] = -1
    assert decline_ratio(maps, SCORES, Y) == 0.5
    maps[4, 1] = 1  # the one that was wrong
    assert decline_ratio(maps, SCORES, Y) == 0.25


def test_float16_sums_do_not_overflow():
    maps = np.full((5, 4, 100, 100), 10, np.float16) * SCORES[:, :, None, None].astype(np.float16)
    assert decline_ratio(maps, SCORES, Y) == 0


@pytest.mark.parametrize(
    ("maps", "scores", "y", "message"),
    [
        (np.zeros((5, 1, 2, 2)), SCORES, Y, r"maps of shape \(5, 1, 2, 2\) do not go with scores"),
        (SCORES, SCORES, Y[:4], "inconsistent numbers of samples"),
        (SCORES, SCORES, Y % 2, r"2 classes \[0, 1\] do not go with 4 columns\. Pass classes=clf\.classes_"),
        (SCORES, SCORES, SCORES, "y should be a 1d array"),
        (SCORES, SCORES, np.array([1, 2, 3, 0, 2]), "no image is classified correctly"),
        (SCORES * np.nan, SCORES, Y, "NaN"),
    ],
)
def test_errors(maps, scores, y, message):
    with pytest.raises(ValueError, match=message):
        decline_ratio(maps, scores, y)


def test_labels_are_found_among_the_classes_in_the_order_of_the_columns():
    names = np.array(["d", "b", "a", "c"])
    assert decline_ratio(SCORES, SCORES, names[Y], classes=names) == 0
    X = np.array([[[40.0, 30.0], [20.0, 10.0]]])
    curve = deletion_curve(brightness, X, X, ["b"], classes=["b", "a"], fill="black", n_steps=4)
    np.testing.assert_allclose(curve.probabilities, [0.75, 0.85, 0.925, 0.975, 1])
    with pytest.raises(ValueError, match=r"y has the label np\.str_\('e'\), which is not in classes"):
        decline_ratio(SCORES, SCORES, ["e", "b", "a", "c", "d"], classes=names)


def test_additivity_error_is_a_part_of_the_largest_score():
    maps = np.array([[[[1.0, 3.0]], [[0.0, -8.0]]]])
    assert additivity_error(maps, [[2.0, -4.0]]) == 0
    assert additivity_error(maps, [[2.0, -5.0]]) == 0.2
    assert np.isnan(additivity_error(maps * 0, [[0.0, 0.0]]))


# ---- grid pointing game ----


def images_of(classes, shape=(2, 3)):
    """Images in which each pixel holds the position of the class, and probabilities that name it."""
    X = np.broadcast_to(np.asarray(classes)[:, None, None], (len(classes), *shape)).astype(np.uint8)
    return X, np.eye(max(classes) + 1)[classes]


def knows(grids, labels):
    return (grids[:, None] == labels[:, :, None, None]).astype(float)


def everywhere(grids, labels):
    return np.ones((*labels.shape, *grids.shape[1:]))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_evidence_on_the_own_cell_only(side):
    X, proba = images_of(list(range(9)) * 4)
    y = np.arange(36) % 9
    game = grid_pointing_game(knows, X, y, proba, side=side, n_grids=4, batch_size=3, random_state=0)
    assert game.shares.shape == (4, side * side)
    assert (game.shares == 1).all()
    assert all(len(set(y[grid])) == side * side for grid in game.indices)
    assert len(np.unique(game.indices)) == game.indices.size
    assert game.percentiles[5] == game.mean == 1


def test_evidence_everywhere_and_nowhere():
    X, proba = images_of(range(4))
    assert (grid_pointing_game(everywhere, X, np.arange(4), proba, side=2, random_state=0).shares == 0.25).all()
    game = grid_pointing_game(
        lambda *args: -everywhere(*args)[..., None], X, np.arange(4), proba, side=2, random_state=0
    )
    assert (game.shares == 0).all()


def test_shares_by_hand():
    X, proba = images_of(range(4))

    def explain(grids, labels):  # 3 on the first pixel of the own cell, 1 on the last pixel of the grid, else -5
        maps = np.full((*labels.shape, 4, 6), -5.0)
        first = knows(grids, labels)[:, :, ::2, ::3] > 0
        maps[:, :, ::2, ::3][first] = 3
        maps[:, :, -1, -1] = 1
        return maps

    game = grid_pointing_game(explain, X, np.arange(4), proba, side=2, random_state=0)
    assert game.shares.tolist() == [[0.75, 0.75, 0.75, 1.0]]
    assert game.mean == 0.8125


def test_a_mean_filter_spreads_evidence():
    X, proba = images_of(range(4), (3, 3))

    def explain(grids, labels):
        maps = np.zeros((*labels.shape, 6, 6))
        maps[:, :, 2, 2] = 9
        return maps

    game = grid_pointing_game(explain, X, np.arange(4), proba, side=2, smoothing=3, random_state=0)
    np.testing.assert_allclose(game.shares, [[4 / 9, 2 / 9, 2 / 9, 1 / 9]])


def test_a_mean_filter_leaves_no_residues_of_evidence():
    X, proba = images_of(range(4), (3, 3))

    def explain(grids, labels):
        maps = np.zeros((*labels.shape, 6, 6))
        maps[:, :, 1:4, 1:4] = np.random.default_rng(0).random((3, 3)) - 1  # never positive
        return maps

    assert (grid_pointing_game(explain, X, np.arange(4), proba, side=2, smoothing=3, random_state=0).shares == 0).all()


def test_the_most_confident_correct_images_come_first_and_uncertain_ones_never():
    X, proba = images_of([0, 0, 0, 0, 1, 1, 1, 1])
    y = np.array([0, 0, 0, 1, 1, 1, 1, 1])  # the fourth is wrong
    proba = 0.5 + (proba - 0.5) * np.array([0.2, 0.8, 0.5, 1, 0.3, 0.9, 0, 0.6])[:, None]  # the seventh is in doubt
    game = grid_pointing_game(everywhere, X, y, proba, side=1, n_grids=99, random_state=0)
    assert game.indices[y[game.indices] == 0].tolist() == [1, 2, 0]
    assert game.indices[y[game.indices] == 1].tolist() == [5, 7, 4]


def test_labels_may_be_words_and_classes_may_be_missing():
    X, proba = images_of(range(4))
    y, seen = np.array([*"abcd"]), []

    def explain(grids, labels):
        seen.extend(labels[0])
        return everywhere(grids, labels)

    proba = np.hstack([proba, np.zeros((4, 1))])
    grid_pointing_game(explain, X, y, proba, classes=[*"abcde"], side=2, random_state=0)
    assert sorted(seen) == [*"abcd"]
    with pytest.raises(ValueError, match="5 columns for 4 classes"):
        grid_pointing_game(explain, X, y, proba, side=2, random_state=0)


def test_grids_that_cannot_be_made_and_maps_of_another_size():
    X, proba = images_of(range(4))
    with pytest.raises(ValueError, match="too few for a grid of 9 distinct classes"):
        grid_pointing_game(knows, X, np.arange(4), proba)
    with pytest.raises(ValueError, match=r"returned maps of shape \(1, 4, 2, 3\); expected \(1, 4, 4, 6\)"):
        grid_pointing_game(lambda *args: np.ones((1, 4, 2, 3)), X, np.arange(4), proba, side=2, random_state=0)
    with pytest.raises(ValueError, match="not finite"):
        grid_pointing_game(lambda *args: everywhere(*args) * np.nan, X, np.arange(4), proba, side=2, random_state=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 0}, "side=0, n_grids=500 and smoothing=1 must be integers, 1 or more"),
        ({"n_grids": 0}, "n_grids=0 and smoothing=1 must be integers"),
        ({"smoothing": 2}, "smoothing=2 must be integers, 1 or more, and the last one odd"),
        ({"smoothing": 3.0}, r"smoothing=3\.0 must be integers"),
        ({"X": np.zeros((4, 6))}, r"X has shape \(4, 6\). Expected images"),
        ({"y": np.zeros((4, 2))}, "should be a 1d array"),
    ],
)
def test_errors_of_the_grid_game(changes, message):
    X, proba = images_of(range(4))
    params = {"X": X, "y": np.arange(4), "proba": proba, "side": 2, **changes}
    with pytest.raises(ValueError, match=message):
        grid_pointing_game(everywhere, **params)


def test_the_game_on_a_fitted_classifier():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 60, (80, 8, 8, 3), dtype=np.uint8), np.arange(80) % 4
    X[y == 3, 2:6, 2:6] += 150
    for channel in range(3):
        X[y == channel, 2:6, 2:6, channel] += 150
    clf = GCMClassifier(max_epochs=30, batch_size=16, device="cpu", random_state=0).fit(X, y)

    def explain(grids, labels):
        return clf.explain(grids, labels, any_size=True).ccm

    game = grid_pointing_game(explain, X, y, clf.predict_proba(X), classes=clf.classes_, side=2, random_state=0)
    assert 0.25 < game.mean <= 1


# ---- boxes ----

MAP = np.array([[[4.0, -9.0, 0.0], [1.0, 2.0, 1.0]]])


@pytest.mark.parametrize(
    ("boxes", "energy", "hit"),
    [
        ([(0, 0, 1, 1)], 0.5, True),
        ([(0, 0, 2, 1)], 0.5, True),
        ([(1, 1, 3, 2)], 0.375, False),
        ([(0, 0, 1, 2), (0, 1, 3, 2)], 1, True),
        ([(2, 0, 3, 1)], 0, False),
        ([], 0, False),
    ],
    ids=str,
)
def test_boxes_by_hand(boxes, energy, hit):
    assert energy_in_boxes(MAP, [boxes]).tolist() == [energy]
    assert pointing_game(MAP, [boxes]).tolist() == [hit]


def test_one_box_for_each_image_needs_no_list():
    maps, boxes = np.concatenate([MAP, MAP]), np.array([(0, 0, 1, 1), (1, 1, 3, 2)])
    assert energy_in_boxes(maps, boxes).tolist() == [0.5, 0.375]
    frame = pd.DataFrame(boxes, columns=["left", "top", "right", "bottom"])
    assert energy_in_boxes(maps, frame).tolist() == [0.5, 0.375]


@pytest.mark.parametrize("maps", [np.zeros((1, 2, 3)), -np.ones((1, 2, 3))], ids=["nothing", "against"])
def test_no_evidence_hits_nothing(maps):
    assert pointing_game(maps, [[(0, 0, 3, 2)]]).tolist() == [False]


@pytest.mark.parametrize("metric", [energy_in_boxes, pointing_game])
def test_maps_of_several_classes_are_not_taken_for_channels(metric):
    with pytest.raises(ValueError, match=r"maps of shape \(1, 1, 2, 3\) must be \(n, R, C\).*pixel_contributions"):
        metric(MAP[None], [[(0, 0, 1, 1)]])


@pytest.mark.parametrize("n_steps", [0, -1, 2.5, "3"])
@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
def test_a_curve_has_steps(curve, n_steps):
    with pytest.raises(ValueError, match=f"n_steps={n_steps!r} must be an integer, 1 or more"):
        curve(lambda X: np.ones((1, 2)), MAP, MAP, [0], n_steps=n_steps)


@pytest.mark.parametrize("box", [(0, 0, 4, 1), (-1, 0, 1, 1), (1, 0, 1, 1), (0, 2, 1, 1)], ids=str)
def test_boxes_that_leave_the_image(box):
    with pytest.raises(ValueError, match="is empty or leaves an image of 2 rows and 3 columns"):
        energy_in_boxes(MAP, [[box]])


@pytest.mark.parametrize(("left", "column"), [(0.4, 0), (0.5, 1), (1.5, 2), (-0.4, 0)])
def test_fractions_are_rounded_and_boxes_keep_their_size(left, column):
    maps = np.eye(3)[:, None]  # image i has its evidence in column i
    energy = energy_in_boxes(maps, [[(left, 0, left + 1, 1)]] * 3)
    assert energy.tolist() == np.eye(3)[column].tolist()


@pytest.mark.parametrize("boxes", [(0, 0, 1), [(0, 0, 1)], [(0, 0, 1, 1, 9)], [("a", "b", "c", "d")], 5], ids=str)
def test_invalid_boxes_are_an_error(boxes):
    with pytest.raises(ValueError, match=r"Expected numbers \(m, 4\)"):
        energy_in_boxes(MAP, [boxes])


def test_boxes_of_unlike_lengths_and_narrow_floats():
    with pytest.raises(ValueError, match="boxes cannot become one array"):
        energy_in_boxes(MAP, [[(0, 0, 1, 1), (0, 0, 1)]])
    maps = np.eye(2000)[1025:1027, None]
    box = np.array([[1025, 0, 1026, 1]], np.float16)
    assert energy_in_boxes(maps, [box, box]).tolist() == [1, 0]


@pytest.mark.parametrize("form", [np.asarray, list, torch.tensor])
def test_masks_are_taken_where_boxes_are(form):
    maps = np.arange(24.0).reshape(2, 3, 4) - 2
    masks = np.zeros((2, 3, 4), bool)
    masks[:, 1:, 2:] = True
    boxes = [[(2, 1, 4, 3)]] * 2
    assert energy_in_boxes(maps, form(masks)).tolist() == energy_in_boxes(maps, boxes).tolist()
    assert pointing_game(maps, form(masks)).tolist() == pointing_game(maps, boxes).tolist()
    large = masks.repeat(2, 1).repeat(3, 2)  # of the original images
    assert energy_in_boxes(maps, form(large)).tolist() == energy_in_boxes(maps, boxes).tolist()
    with pytest.raises(ValueError, match="looks transposed: the image has 3 rows and 4 columns"):
        energy_in_boxes(maps, masks.swapaxes(1, 2))
    with pytest.raises(ValueError, match="pass boxes > 0"):
        energy_in_boxes(np.ones((1, 3, 3)), np.ones((1, 3, 3)))


def test_float16_evidence_does_not_overflow():
    maps = np.full((1, 2, 2), 4e4, np.float16)
    assert energy_in_boxes(maps, [[(0, 0, 1, 2)]]).tolist() == [0.5]


def test_boxes_of_other_images():
    with pytest.raises(ValueError, match="boxes are for 2 images, maps for 1"):
        pointing_game(MAP, [[], []])
    with pytest.raises(ValueError, match=r"must be \(n, R, C\), one"):
        energy_in_boxes(MAP[0], [[], []])


# ---- deletion and insertion ----


def brightness(X):
    bright = X.reshape(len(X), -1).mean(axis=1) / 100
    return np.column_stack([1 - bright, bright])


def test_the_mean_colour_is_the_mean_of_float32_too():
    X = np.ones((5, 64, 64, 1), np.float32)
    X[0, 0, 0] = 1e8  # float32 sums end here
    filled = []
    deletion_curve(
        lambda X: filled.append(X[1, 0, 0]) or np.full((5, 2), 0.5), X, X, np.zeros(5, int), classes=[0, 1], n_steps=1
    )
    assert filled[1] == pytest.approx((1e8 + X.size - 1) / X.size, rel=1e-6)


def test_curves_by_hand():
    X = np.array([[[40.0, 30.0], [20.0, 10.0]]])
    most = deletion_curve(brightness, X, X, [1], classes=[0, 1], fill="black", n_steps=4)
    np.testing.assert_allclose(most.probabilities, [0.25, 0.15, 0.075, 0.025, 0])
    np.testing.assert_allclose(most.shares, [0, 0.25, 0.5, 0.75, 1])
    assert most.area == pytest.approx(0.375 / 4)
    least = deletion_curve(brightness, X, X, [1], classes=[0, 1], order="least", fill="black", n_steps=4)
    np.testing.assert_allclose(least.probabilities, [0.25, 0.225, 0.175, 0.1, 0])
    inserted = insertion_curve(brightness, X, X, [1], classes=[0, 1], fill="black", n_steps=4)
    np.testing.assert_allclose(inserted.probabilities, [0, 0.1, 0.175, 0.225, 0.25])
    assert inserted.area == pytest.approx(least.area)
    other = insertion_curve(brightness, X, X, [0], classes=[0, 1], order="least", fill="black", n_steps=4)
    np.testing.assert_allclose(other.probabilities, [1, 0.975, 0.925, 0.85, 0.75])


def test_the_mean_colour_of_all_images_takes_the_place():
    X, seen = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), []

    def predict_proba(X):
        seen.append(X)
        return np.zeros((len(X), 2))

    before = X.copy()
    deletion_curve(predict_proba, X, np.ones(X.shape), [0, 1], n_steps=1)
    assert seen[1].dtype == np.uint8
    assert (seen[1] == np.round(X.mean(axis=(0, 1, 2)))).all()
    np.testing.assert_array_equal(X, before)


def test_the_mean_of_booleans_is_what_most_are():
    X, seen = np.zeros((2, 4, 4), bool), []
    X[0, 0, 0] = True
    deletion_curve(lambda X: seen.append(X) or np.zeros((2, 2)), X, np.ones(X.shape), [0, 1], n_steps=1)
    assert not seen[1].any()


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "worst"}, "order='worst' is not one of"),
        ({"fill": "white"}, "fill='white' is not one of"),
        ({"maps": np.ones((1, 3, 2))}, r"maps of shape \(1, 3, 2\) are not one map"),
        ({"y": [0, 1]}, "inconsistent numbers of samples"),
        ({"y": [[0, 1]]}, "y should be a 1d array"),
        ({"y": [2]}, "y has the label"),
        ({"y": ["cat"]}, "y has the label"),
        ({"classes": None}, "1 classes .* do not go with 2 columns"),
    ],
)
def test_errors_of_the_curves(curve, changes, message):
    params = {"maps": np.ones((1, 2, 2)), "y": [0], "classes": [0, 1], **changes}
    with pytest.raises(ValueError, match=message):
        curve(brightness, np.ones((1, 2, 2)), **params)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_with_a_gradient_are_measured(dtype):
    maps, scores = np.array([[[[1.0, 3.0]], [[0.0, 1.0]]]] * 2), np.array([[2.0, 0.5]] * 2)
    tensors = [torch.tensor(array, dtype=dtype, requires_grad=True) for array in (maps, scores)]
    y, boxes = torch.tensor([[0], [0]]), torch.tensor([[0.0, 0, 1, 1]] * 2, requires_grad=True)
    assert additivity_error(*tensors) == 0
    assert decline_ratio(*tensors, y, classes=torch.tensor([0, 1])) == 0
    for given in (boxes, list(boxes), [boxes[:1], boxes[:1]]):
        np.testing.assert_array_equal(energy_in_boxes(tensors[0][:, 0], given), [0.25, 0.25])
        np.testing.assert_array_equal(pointing_game(tensors[0][:, 0], given), [False, False])

    def proba(X):
        return torch.stack([torch.as_tensor(X).mean((1, 2)), torch.zeros(len(X))], 1).requires_grad_()

    for curve in (deletion_curve, insertion_curve):
        found = curve(
            proba, tensors[0][:, 0], tensors[0][:, 0], y, classes=[0, 1], fill="black", n_steps=1
        ).probabilities
        np.testing.assert_array_equal(sorted(found), [0, 2])


def test_the_grid_game_takes_tensors_with_a_gradient():
    X, y = np.full((4, 2, 2), [[[1]], [[2]], [[3]], [[4]]]), np.array([1, 2, 3, 4])

    def explain(grids, labels):
        maps = np.asarray(grids)[:, None] == np.asarray(labels)[:, :, None, None]
        return torch.tensor(maps, dtype=torch.float32, requires_grad=True)

    X, proba = torch.tensor(X, dtype=torch.float32).requires_grad_(), torch.eye(4, requires_grad=True)
    for labels in (torch.tensor(y), torch.tensor(y)[:, None]):
        assert grid_pointing_game(explain, X, labels, proba, side=2, random_state=0).mean == 1


def test_images_that_lose_pixels_are_no_warning_that_they_are_unlike_the_training_images():
    def predict_proba(X):
        warnings.warn("2 of 2 images are unlike the training images: ...", UserWarning, stacklevel=1)
        return np.full((len(X), 2), 0.5)

    X = np.ones((2, 3, 3))
    deletion_curve(predict_proba, X, X, [0, 1], n_steps=2)
