import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import find_objects, label

from skgcm.explanation import Explanation


def make(n=5, k=3, shape=(4, 6, 3), labels=("cat", "dog", "emu"), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.random((n, *shape), dtype=np.float32)
    cwm = rng.normal(size=(n, k, *shape[:2])).astype(np.float32)
    scores = (cwm[..., None] * images[:, None]).mean(axis=(2, 3, 4))
    return Explanation(images, cwm, scores, np.tile(np.array(labels)[:k], (n, 1)))


@pytest.mark.parametrize("shape", [(4, 6, 3), (8, 8, 1), (1, 9, 1), (5, 2, 7)], ids=str)
def test_contributions_average_to_the_scores(shape):
    evidence = make(shape=shape)
    assert evidence.ccm.shape == (5, 3, *shape)
    assert evidence.pixel_contributions.shape == (5, 3, *shape[:2])
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evidence.pixel_contributions, evidence.ccm.mean(axis=-1), rtol=1e-5, atol=1e-6)


def test_a_black_pixel_contributes_exactly_nothing():
    evidence = make()
    images = evidence.images.copy()
    images[:, 2, 3] = 0
    evidence = Explanation(images, evidence.cwm, evidence.scores, evidence.classes)
    assert not evidence.ccm[:, :, 2, 3].any()


def test_arrays_become_float32_and_are_not_copied_when_they_are():
    evidence = make()
    again = Explanation(evidence.images, evidence.cwm.astype(float), evidence.scores.tolist(), evidence.classes)
    assert again.images is evidence.images
    assert again.cwm.dtype == again.scores.dtype == again.ccm.dtype == again.pixel_contributions.dtype == np.float32


@pytest.mark.parametrize("labels", [("a", "b", "c"), (3, 5, 7), (0.5, 1.5, 2.5), (True, False, True)], ids=str)
def test_labels_keep_their_dtype(labels):
    assert make(labels=labels).classes.dtype == np.array(labels).dtype


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(3, 5), [3, 4]),
        (slice(None, None, -2), [4, 2, 0]),
        (np.array([True, False, False, True, False]), [0, 3]),
        (np.array([4, 0, 0]), [4, 0, 0]),
        ([2, 1], [2, 1]),
        (2, [2]),
        (-1, [4]),
        (np.int64(3), [3]),
        ([], []),
        (slice(9, 9), []),
    ],
    ids=str,
)
def test_an_index_selects_images(index, rows):
    evidence = make()
    part = evidence[index]
    assert isinstance(part, Explanation)
    assert len(part) == len(rows)
    for name in ("images", "cwm", "scores", "classes", "cwm_mean"):
        np.testing.assert_array_equal(getattr(part, name), getattr(evidence, name)[rows])


def test_probabilities_go_with_their_images():
    parts = vars(make())
    arrays = {name: parts[name] for name in ("images", "cwm", "scores", "classes")}
    proba = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    evidence = Explanation(**arrays, probabilities=proba)
    assert make().probabilities is None
    assert evidence.probabilities.dtype == np.float32
    np.testing.assert_array_equal(evidence[[3, 1]].probabilities, proba[[3, 1]].astype(np.float32))
    assert evidence.versus("cat").probabilities is evidence.versus().probabilities is None
    with pytest.raises(ValueError, match=r"probabilities has shape \(5, 2\); expected \(5, 3\)"):
        Explanation(**arrays, probabilities=proba[:, :2])


def test_a_slice_is_a_view():
    evidence = make()
    assert np.shares_memory(evidence[1:3].cwm, evidence.cwm)


def test_iterating_gives_one_image_at_a_time():
    assert [one.scores.tolist() for one in make()] == [[row] for row in make().scores.tolist()]


@pytest.mark.parametrize("index", [5, -6, [7], np.zeros(3, bool), None, np.zeros((2, 2), int)], ids=str)
def test_an_index_out_of_place_is_an_index_error(index):
    with pytest.raises(IndexError):
        make()[index]


def test_two_indices_are_refused_with_a_remedy():
    with pytest.raises(TypeError, match=r"evidence\[i\]\.cwm"):
        make()[1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 6, 3))}, r"images has shape \(4, 6, 3\); expected \(n, R, C, D\)"),
        ({"images": np.zeros((5, 6, 4, 3))}, r"cwm has shape \(5, 3, 4, 6\); expected \(5, 3, 6, 4\)"),
        ({"classes": np.zeros((5, 2))}, r"scores has shape \(5, 3\); expected \(5, 2\)"),
        ({"classes": np.zeros(5)}, r"classes has shape \(5,\); expected \(5, k\)"),
        ({"scores": np.zeros((4, 3))}, r"scores has shape \(4, 3\)"),
        ({"cwm": np.zeros((3, 4, 6))}, r"cwm has shape \(3, 4, 6\)"),
        ({"cwm_mean": np.zeros((5, 6, 4))}, r"cwm_mean has shape \(5, 6, 4\); expected \(5, 4, 6\)"),
        ({"cwm_dark_mean": np.zeros((5, 4, 6))}, "cwm_dark_mean is given without cwm_dark"),
    ],
    ids=["one image", "size", "classes", "flat classes", "scores", "maps", "mean map", "dark mean map"],
)
def test_shapes_that_do_not_belong_together(change, message):
    evidence = make()
    arrays = {name: getattr(evidence, name) for name in ("images", "cwm", "scores", "classes")}
    with pytest.raises(ValueError, match=message):
        Explanation(**{**arrays, **change})


def test_repr_is_one_line_and_says_what_is_in_it():
    assert repr(make()) == "<Explanation of 5 images, 4x6x3 (rows x columns x channels), 3 classes each>"
    assert repr(make(n=1, k=1)).startswith("<Explanation of 1 image, ")
    assert repr(make(n=1, k=1)).endswith(", 1 class each>")


def test_without_matplotlib_plot_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        make().plot()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert make().to_images().shape == (5, 3, 4, 6, 4)


# ---- arithmetic ----


def test_positive_and_negative_parts_add_up():
    evidence = make()
    assert (evidence.positive >= 0).all()
    assert (evidence.negative <= 0).all()
    np.testing.assert_array_equal(evidence.positive + evidence.negative, evidence.ccm)
    assert evidence.positive.dtype == np.float32


def difference(evidence, against):
    """CCM_j - CCM_i of each class j and the class i, or the mean of all that are explained."""
    if against == "mean":
        return evidence.ccm - evidence.ccm.mean(axis=1, keepdims=True)
    return evidence.ccm - evidence.ccm[evidence.classes == against][:, None]


@pytest.mark.parametrize("against", ["mean", "cat"])
@pytest.mark.parametrize("dark", [False, True])
def test_evidence_versus_a_class_is_evidence(against, dark):
    evidence = make()
    if dark:
        arrays = {name: getattr(evidence, name) for name in ("images", "cwm", "classes")}
        evidence = Explanation(**arrays, scores=np.zeros((5, 3)), cwm_dark=evidence.cwm[::-1])
        evidence.scores = evidence.ccm.mean(axis=(2, 3, 4))
    versus, rest = evidence.versus(against), slice(None) if against == "mean" else slice(1, None)
    np.testing.assert_array_equal(versus.classes, evidence.classes[:, rest])
    np.testing.assert_allclose(versus.ccm, difference(evidence, against)[:, rest], atol=1e-5)
    np.testing.assert_allclose(versus.ccm.mean(axis=(2, 3, 4)), versus.scores, rtol=1e-5, atol=1e-6)
    less = evidence.scores.mean(axis=1) if against == "mean" else evidence.scores[:, 0]
    np.testing.assert_allclose(versus.scores, (evidence.scores - less[:, None])[:, rest], rtol=1e-5, atol=1e-6)
    mean = np.zeros_like(evidence.cwm_mean) if against == "mean" else evidence.cwm_mean - evidence.cwm[:, 0]
    np.testing.assert_allclose(versus.cwm_mean, mean, atol=1e-6)
    again = versus.versus("emu")  # is as if at once
    np.testing.assert_array_equal(again.classes, evidence.classes[:, rest][:, :-1])
    np.testing.assert_allclose(again.ccm, difference(evidence, "emu")[:, rest][:, :-1], atol=1e-5)
    left, right = versus.region_scores((0, 0, 2, 4)), versus.region_scores((2, 0, 6, 4))
    np.testing.assert_allclose(left + right, versus.scores, rtol=1e-5, atol=1e-6)
    assert (evidence.against, versus.against, versus[1:3].against) == (None, against, against)
    assert repr(versus).endswith(f" classes each versus {against!r}>")


def test_a_single_class_versus_itself_is_an_error():
    with pytest.raises(ValueError, match=r"against='cat' is the only explained class\. Call explain with more"):
        make(k=1).versus("cat")


def test_a_difference_of_classes_does_not_see_what_all_share():
    evidence = make()
    shared = np.random.default_rng(1).normal(size=(5, 1, 4, 6)).astype(np.float32)
    shifted = Explanation(evidence.images, evidence.cwm + shared, evidence.scores, evidence.classes)
    for against in ("mean", "cat"):
        np.testing.assert_allclose(shifted.versus(against).ccm, evidence.versus(against).ccm, atol=1e-5)


def test_a_difference_finds_its_label_image_by_image():
    evidence = make(labels=(3, 5, 7))
    classes = evidence.classes.copy()
    classes[0] = [7, 3, 5]
    mixed = Explanation(evidence.images, evidence.cwm, evidence.scores, classes)
    versus = mixed.versus(classes[0, 0])
    np.testing.assert_array_equal(versus.classes, [[3, 5]] * 5)
    np.testing.assert_allclose(versus.ccm.mean(axis=(2, 3, 4)), versus.scores, rtol=1e-5, atol=1e-6)
    assert repr(versus).endswith("versus 7>")
    np.testing.assert_allclose(versus.ccm[0], mixed.ccm[0, 1:] - mixed.ccm[0, :1], atol=1e-5)
    np.testing.assert_allclose(versus.ccm[1:], mixed.ccm[1:, :2] - mixed.ccm[1:, 2:], atol=1e-5)


@pytest.mark.parametrize(
    "against", ["cow", 3, None, ["cat"], ["cat", "dog", "emu"], [1, [2]], {}, np.zeros((), "i4,f4")], ids=str
)
def test_versus_a_class_that_was_not_asked_for(against):
    with pytest.raises(ValueError, match="is not among the explained classes of every image"):
        make().versus(against)
    with pytest.raises(ValueError, match="is not among"):
        Explanation(
            *(getattr(make(), name) for name in ("images", "cwm", "scores")), classes=[[1, 2, 3]] * 4 + [[1, 2, 4]]
        ).versus(3)


def test_a_bool_is_not_a_label():
    with pytest.raises(ValueError, match="against=True is not among"):
        make(labels=(0, 1, 2)).versus(True)


def test_parts_of_a_partition_add_up_to_the_score():
    evidence, rng = make(), np.random.default_rng(0)
    part = rng.integers(0, 3, (5, 4, 6))
    parts = [evidence.region_scores(part == i) for i in range(3)]
    np.testing.assert_allclose(sum(parts), evidence.scores, rtol=1e-5, atol=1e-6)
    boxes = [(0, 0, 2, 4), (2, 0, 6, 1), (2, 1, 6, 4)]
    np.testing.assert_allclose(sum(map(evidence.region_scores, boxes)), evidence.scores, rtol=1e-5, atol=1e-6)


def test_regions_image_by_image_or_one_for_all():
    evidence = make()
    boxes = np.array([(i, 1, i + 2, 3) for i in range(5)])
    masks = np.zeros((5, 4, 6), bool)
    for i in range(5):
        masks[i, 1:3, i : i + 2] = True
    np.testing.assert_array_equal(evidence.region_scores(boxes), evidence.region_scores(masks))
    np.testing.assert_array_equal(evidence.region_scores(masks[2]), evidence.region_scores(boxes[2].tolist()))
    expected = evidence.ccm[:, :, 1:3, 2:4].mean(axis=4).sum(axis=(2, 3)) / 24
    np.testing.assert_allclose(evidence.region_scores(boxes[2]), expected, rtol=1e-5, atol=1e-6)
    assert evidence[:0].region_scores(masks[2]).shape == (0, 3)
    large = masks.repeat(3, 1).repeat(2, 2)  # of the original images
    np.testing.assert_array_equal(evidence.region_scores(large), evidence.region_scores(masks))
    np.testing.assert_array_equal(evidence.region_scores(large[2]), evidence.region_scores(masks[2]))


@pytest.mark.parametrize(
    "regions", [np.ones((4, 6)), np.ones((6, 4), bool), np.ones((3, 4), int), "all", np.ones(3, bool)], ids=str
)
def test_invalid_regions_are_an_error(regions):
    with pytest.raises(ValueError, match="are neither masks"):
        make().region_scores(regions)
    with pytest.raises(ValueError, match="regions cannot become one array"):
        make().region_scores([[1, 2, 3, 4], [5]])


@pytest.mark.parametrize("box", [(0, 0, 7, 1), (-1, 0, 1, 1), (1, 0, 1, 1), (0, 2, 1, 1), (0, 0, 1, np.nan)], ids=str)
def test_boxes_that_leave_the_image(box):
    with pytest.raises(ValueError, match="is empty or leaves an image of 4 rows and 6 columns"):
        make().region_scores(box)


def test_dark_maps_contribute_where_the_image_is_dark():
    images, cwm, dark = (
        np.array([[[[0.0], [1.0]]]]),
        np.full((1, 2, 1, 2), 2.0),
        np.array([[[[3.0, 9.0]], [[1.0, 9.0]]]]),
    )
    evidence = Explanation(images, cwm, [[2.5, 1.5]], [["cat", "dog"]], cwm_dark=dark)
    np.testing.assert_array_equal(evidence.ccm[0, :, 0, :, 0], [[3, 2], [1, 2]])
    np.testing.assert_array_equal(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores)
    np.testing.assert_array_equal(evidence.pixel_contributions, evidence.ccm.mean(axis=4))
    np.testing.assert_array_equal(evidence.versus("dog").scores, [[1]])
    np.testing.assert_array_equal(evidence.versus("mean").ccm.mean(axis=(2, 3, 4)), [[0.5, -0.5]])
    assert evidence[0].cwm_dark_mean.shape == (1, 1, 2)


def test_tensors_with_a_gradient_are_taken():
    images, cwm = torch.rand(2, 4, 5, 3, requires_grad=True), torch.rand(2, 2, 4, 5, requires_grad=True)
    evidence = Explanation(images, cwm, torch.rand(2, 2, requires_grad=True), torch.tensor([[0, 1], [1, 0]]))
    np.testing.assert_array_equal(evidence.images, images.detach().numpy())
    box = torch.tensor([0.0, 0, 2, 2], requires_grad=True)
    np.testing.assert_array_equal(evidence.region_scores(box), evidence.region_scores((0, 0, 2, 2)))


# ---- boxes and pictures ----------------------------------------------------------------------------------------------


def of_map(*maps):
    """An explanation of one white image whose contributions are these maps, one a class."""
    maps = np.array(maps, dtype=np.float32)
    return Explanation(np.ones((1, *maps.shape[1:], 1)), maps[None], maps.mean((1, 2))[None], [np.arange(len(maps))])


def inside(boxes, shape):
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_boxes_are_those_of_blobs_the_strongest_first():
    one = np.full((9, 12), -1.0)
    one[1:3, 2:5] = 1
    one[5:8, 7:9] = 2
    one[3, 5] = 1  # touches the first at a corner
    none, whole = np.full((9, 12), -3.0), np.full((9, 12), 0.1)
    first, second, third = of_map(one, none, whole).boxes(1)[0]
    assert first.tolist() == [[7, 5, 9, 8], [2, 1, 6, 4]]
    assert first.dtype == np.int64
    assert second.shape == (0, 4)
    assert third.tolist() == [[0, 0, 12, 9]]
    assert of_map(one).boxes(0.5)[0][0].tolist() == [[7, 5, 9, 8]]  # 12 of 19


@pytest.mark.parametrize("share", [1e-9, 0.3, 0.9, 0.99, 1])
def test_boxes_hold_the_share_and_higher_thresholds_do_not(share):
    evidence = make(n=3, k=2, shape=(7, 9, 3))
    for i, j in np.ndindex(3, 2):
        positive = np.maximum(evidence.pixel_contributions[i, j], 0).astype(np.float64)
        boxes = evidence.boxes(share)[i][j]
        assert (positive * inside(boxes, (7, 9))).sum() >= share * positive.sum() * (1 - 1e-12)
        for value in np.unique(positive[positive > 0])[::-1]:  # from the highest threshold down, the first that holds
            labels, count = label(positive >= value, structure=np.ones((3, 3)))
            expected = inside([(c.start, r.start, c.stop, r.stop) for r, c in find_objects(labels)], (7, 9))
            if (positive * expected).sum() >= share * positive.sum():
                break
        assert len(boxes) == count
        np.testing.assert_array_equal(inside(boxes, (7, 9)), expected)
        sums = [(positive * inside([box], (7, 9))).sum() for box in boxes]
        assert sums == sorted(sums, reverse=True)
    parts = evidence.region_scores(np.array([one[0][0] for one in evidence.boxes(share)]))
    assert parts.shape == (3, 2)


@pytest.mark.parametrize("share", [0, -1, 1.1, np.nan, "0.9", True, None])
def test_an_invalid_share_is_named(share):
    with pytest.raises(ValueError, match=r"share=.* must be a number above 0 and at most 1"):
        make().boxes(share)


def test_boxes_of_what_is_not_finite_are_an_error():
    with pytest.raises(ValueError, match="not finite"):
        of_map([[np.nan, 1.0]]).boxes()


def test_pictures_have_the_colours_of_their_signs():
    evidence = of_map([[2.0, 1.0, 0.0, -1.0, -2.0, np.nan]])
    maps, layers, overlays = (evidence.to_images(kind, scale=2)[0, 0, 0] for kind in ("map", "layer", "overlay"))
    assert maps.dtype == layers.dtype == overlays.dtype == np.uint8
    assert maps[[0, 2, 4]].tolist() == [[0x67, 0, 0x1F, 255], [255, 255, 255, 255], [5, 0x30, 0x61, 255]]
    assert layers[:, 3].tolist() == [255, 128, 0, 128, 255, 0]
    assert layers[0, 0] > layers[0, 2]  # red
    assert layers[4, 2] > layers[4, 0]  # blue
    np.testing.assert_array_equal(overlays[[0, 4]], layers[[0, 4]])
    assert overlays[2].tolist() == [255, 255, 255, 255]  # the image, which is white
    np.testing.assert_allclose(overlays[1, :3], (255 + layers[1, :3].astype(float)) / 2, atol=1)
    assert maps[5].tolist() == layers[5].tolist() == overlays[5].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["map", "layer", "overlay"])
def test_pictures_have_one_scale_or_the_one_given(kind):
    evidence = make(n=3, k=2)
    pictures = evidence.to_images(kind)
    assert pictures.shape == (3, 2, 4, 6, 4)
    magnitudes = np.abs(evidence.pixel_contributions)
    np.testing.assert_array_equal(pictures, evidence.to_images(kind, scale=np.percentile(magnitudes, 99.5)))
    np.testing.assert_array_equal(pictures[1:], evidence[1:].to_images(kind, scale=np.percentile(magnitudes, 99.5)))
    assert evidence[:0].to_images(kind).shape == (0, 2, 4, 6, 4)
    black = of_map(np.zeros((4, 6))).to_images(kind)
    assert len(np.unique(black.reshape(-1, 4), axis=0)) == 1


@pytest.mark.parametrize("shape", [(4, 6, 1), (4, 6, 3), (4, 6, 5)])
def test_an_overlay_without_evidence_is_the_image_in_grey(shape):
    evidence = make(n=2, k=1, shape=shape, labels=("cat",))
    evidence = Explanation(evidence.images, 0 * evidence.cwm, evidence.scores, evidence.classes)
    expected = np.rint(255 * evidence.images.mean(axis=-1))
    np.testing.assert_array_equal(evidence.to_images()[:, 0, ..., :3], np.repeat(expected[..., None], 3, axis=-1))


def test_invalid_arguments_of_pictures_are_named():
    with pytest.raises(ValueError, match=r"kind='heat' is not one of \('map', 'layer', 'overlay'\)"):
        make().to_images("heat")
    for scale in (0, -1, np.inf, np.nan, "1", True):
        with pytest.raises(ValueError, match=r"scale=.* must be a positive finite number"):
            make().to_images(scale=scale)
