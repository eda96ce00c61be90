import pytest
import torch

from skgcm.augmentation import augmented, shift
from skgcm.images import ImageFormat


def _generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("flip", [False, True])
def test_shift_moves_images_whole_and_leaves_zeros(flip):
    images = torch.arange(1, 1 + 64 * 3 * 16 * 8).view(64, 3, 16, 8)
    moved = shift(images, _generator(), flip=flip)
    assert moved.shape == images.shape
    assert moved.dtype == images.dtype
    seen = set()
    for before, after in zip(images, moved, strict=True):
        fits = []
        for mirror in (False, True):
            for dy in range(-2, 3):
                for dx in range(-1, 2):
                    padded = torch.nn.functional.pad(before.flip(2) if mirror else before, (1, 1, 2, 2))
                    if torch.equal(after, padded[:, 2 + dy : 18 + dy, 1 + dx : 9 + dx]):
                        fits.append((mirror, dy, dx))
        assert len(fits) == 1
        seen.update(fits)
    assert {mirror for mirror, _, _ in seen} == ({False, True} if flip else {False})
    assert len({dy for _, dy, _ in seen}) == 5
    assert len({dx for _, _, dx in seen}) == 3


@pytest.mark.parametrize("low", [0.0, -50.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32, torch.bool])
def test_vacated_pixels_are_0_also_where_the_dtype_has_no_such_number(dtype, low):
    scale = ImageFormat((8, 8, 1), False, (low, 1.0)).scale
    moved = augmented(torch.ones(200, 1, 8, 8).to(dtype), "shift", _generator(), scale)
    assert moved.dtype == torch.float32
    assert set(moved.unique().tolist()) == {0.0, 1.0}


def test_a_lone_row_of_pixels_cannot_move_up():
    images = torch.arange(1, 10).view(1, 1, 1, 9).repeat(50, 1, 1, 1)
    assert shift(images, _generator()).shape == images.shape
    assert shift(images, _generator()).any(3).all()
