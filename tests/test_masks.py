"""Masks and boxes as users pass them: forms, sizes, errors; and how batches and augmentation carry them."""

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset

from skgcm.inputs import masks
from skgcm.training.augmentation import apart, augment_batch, augmented, together
from skgcm.training.batches import Batches
from skgcm.training.mosaic import make_mosaics
from skgcm.utils.regions import image_mask, resized_masks

SHAPE = (5, 7)


def draw_masks(n=4, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).random((n, *shape)) < 0.3


def unpacked(found, n=4):
    """The masks of n images, None where there is none."""
    bits = np.unpackbits(found.packed, axis=1, count=SHAPE[0] * SHAPE[1]).astype(bool).reshape(-1, *SHAPE)
    return [None if i < 0 else bits[i] for i in found.index]


@pytest.mark.parametrize("form", [np.asarray, list, np.ndarray.tolist, torch.tensor, lambda a: [*map(torch.tensor, a)]])
def test_masks_come_in_all_forms(form):
    given = draw_masks()
    np.testing.assert_array_equal(unpacked(masks.find(form(given), 4, SHAPE)), given)


def test_boxes_become_masks_that_are_rounded_outwards():
    expected = np.zeros((3, *SHAPE), bool)
    expected[0, 1:4, 2:6] = expected[1, 0, 0] = expected[1, 4, 6] = expected[2] = True
    boxes = [[(2.3, 1.9, 5.1, 4)], np.array([(0, 0, 1, 1), (6, 4, 7, 5)]), (0, -1e-9, 7 + 1e-9, 5)]
    found = masks.find(boxes, 3, SHAPE)
    np.testing.assert_array_equal(unpacked(found), expected)
    np.testing.assert_array_equal(unpacked(masks.find(np.array([[2, 1, 6, 4]] * 2), 2, SHAPE)), expected[[0, 0]])


def test_images_without_masks_take_no_memory():
    given = draw_masks()
    empty = np.zeros(SHAPE, bool)
    found = masks.find([None, given[0], empty, [], np.empty((0, 4)), given[1]], 6, SHAPE)
    assert found.index.tolist() == [-1, 0, -1, -1, -1, 1]
    assert found.packed.shape == (2, 5)  # 35 bits
    assert masks.find([None, empty], 2, SHAPE) is None
    assert masks.find(None, 2, SHAPE) is None


def test_masks_of_another_size_are_resized_and_no_thin_line_is_lost():
    mask = draw_masks(1)[0]
    np.testing.assert_array_equal(resized_masks(mask, (10, 21)), mask.repeat(2, 0).repeat(3, 1))
    line = np.zeros((50, 90), bool)
    line[:, 33] = True
    small = resized_masks(line, SHAPE)
    assert small.any(axis=1).all()
    assert small.sum(axis=1).max() == 1
    assert small[:, 33 * 7 // 90].all()
    np.testing.assert_array_equal(unpacked(masks.find([line], 1, SHAPE))[0], small)
    assert resized_masks(np.ones((4, 3), bool), SHAPE).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (draw_masks(3), "masks has 3 items for 4 images. Expected bool"),
        (draw_masks().astype(np.uint8) * 255, r"masks\[0\] has shape .* uint8.* pass masks\[0\] > 0"),
        ([None, draw_masks()[0].astype(float), None, None], r"masks\[1\] has shape .* float64.* pass masks\[1\] > 0"),
        (draw_masks()[..., None], r"masks\[0\] has shape \(5, 7, 1\) and dtype bool. Expected numbers"),
        ([[(0, 0, 8, 3)], None, None, None], r"masks\[0\] has \(0.0, 0.0, 8.0, 3.0\), which .* leaves an image"),
        ([[(3, 0, 3, 3)], None, None, None], "which is empty"),
        ([[(0, 0, np.nan, 3)], None, None, None], "which is empty or leaves"),
        (draw_masks(shape=SHAPE[::-1]), r"masks\[0\] has shape .* looks transposed: the image has 5 rows and 7"),
        (["box.png", None, None, None], r"masks\[0\] has shape \(\) and dtype <U7"),
        ("mask", "masks is a str. Expected bool"),
        (1.0, "masks is a float. Expected bool"),
    ],
)
def test_an_invalid_mask_is_an_error(given, message):
    with pytest.raises(ValueError, match=message):
        masks.find(given, 4, SHAPE)


def test_a_series_of_masks_is_read():
    pandas = pytest.importorskip("pandas")
    given = draw_masks(2)
    series = pandas.Series([given[0], None], index=[7, 3])
    assert unpacked(masks.find(series, 2, SHAPE))[1] is None


def test_one_mask_takes_a_name_in_errors():
    with pytest.raises(ValueError, match=r"regions has shape \(3, 3\)"):
        image_mask(np.ones((3, 3)), SHAPE, "regions")


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [None, [5, 0, 3]], ids=["all", "some"])
def test_batches_bring_each_image_its_mask(part):
    given = draw_masks(6)
    found = masks.find([None if i == 3 else mask for i, mask in enumerate(given)], 6, SHAPE)
    given[3] = False
    data = Dataset(np.arange(6.0)[:, None], np.arange(6))
    data = data if part is None else Subset(data, part)
    batches = Batches(data, 2, torch.Generator().manual_seed(0), masks=found)
    seen = []
    for rows, labels, own in batches:
        np.testing.assert_array_equal(own, given[labels])
        np.testing.assert_array_equal(rows[:, 0], labels)
        seen += labels.tolist()
    assert sorted(seen) == sorted(part or range(6))


# ---- augmentation and mosaics ----------------------------------------------------------------------------------------


def drawn_on(given, channels=2):
    """Images that are 1 inside their masks and 0 outside."""
    return torch.from_numpy(given)[:, None].expand(-1, channels, -1, -1).float()


@pytest.mark.parametrize("names", [{"shift"}, {"flip"}, {"rotate"}, {"shift", "flip", "rotate"}], ids="+".join)
@pytest.mark.parametrize("shape", [(16, 16), (9, 17)], ids=str)
def test_masks_move_with_their_images(names, shape):
    given = draw_masks(20, shape)
    images, own = drawn_on(given), torch.from_numpy(given)
    alone = augment_batch(images, names, torch.Generator().manual_seed(1))
    moved, masks_moved = augment_batch(images, names, torch.Generator().manual_seed(1), own)
    assert torch.equal(moved, alone)  # by the same random numbers
    assert torch.equal(masks_moved, moved[:, 0] > 0)
    assert torch.equal(masks_moved, moved[:, 1] > 0)
    assert not torch.equal(masks_moved, own)


def test_brightness_and_contrast_leave_masks_alone():
    given = torch.from_numpy(draw_masks(6))
    changed, own = augment_batch(torch.rand(6, 1, *SHAPE), {"brightness", "contrast"}, torch.Generator(), given)
    assert torch.equal(own, given)
    images, own = augmented(changed, None, None, lambda x: x, given)
    assert images is changed
    assert own is given


def test_masks_lose_what_is_cut_out():
    images = torch.rand(30, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    own = torch.ones(30, 16, 16, dtype=torch.bool)
    changed, left = augment_batch(images, {"cutout"}, torch.Generator().manual_seed(1), own)
    assert torch.equal(left, (changed == images)[:, 0])
    assert 0 < (~left).float().mean() < 0.2


def test_the_parts_of_a_mosaic_have_their_masks():
    given = draw_masks(8, (12, 10))
    pieces = together(drawn_on(given), torch.from_numpy(given))
    made, _, _ = make_mosaics(pieces, torch.arange(8), torch.Generator().manual_seed(2))
    images, own = apart(made, torch.from_numpy(given))
    assert own.shape == (2, 24, 20)
    assert torch.equal(own, images[:, 0] > 0)
    assert own.any()
    assert apart(drawn_on(given), None)[1] is None
