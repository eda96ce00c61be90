import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset

from skgcm import training
from skgcm.augmentation import shift
from skgcm.training import Batches


def _dataset(n):
    return Dataset(np.arange(n, dtype=np.uint8)[:, None], np.arange(n))


def _generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("n", "size", "lengths"), [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_tail_of_one_joins_the_batch_before_it(n, size, lengths):
    batches = Batches(_dataset(n), size, _generator())
    parts = list(batches)
    assert [len(X) for X, _ in parts] == lengths
    assert len(batches) == len(lengths)
    assert sorted(torch.cat([y for _, y in parts]).tolist()) == list(range(n))


def test_batches_of_part_of_a_data_set_come_in_order_without_a_generator():
    batches = Batches(Subset(_dataset(10), [7, 3, 9]), 2)
    assert [y.tolist() for _, y in batches] == [[7, 3], [9]]
    assert [X.dtype for X, _ in batches] == [torch.uint8] * 2


def test_each_epoch_is_shuffled_anew():
    batches = Batches(_dataset(50), 50, _generator())
    one, two = (next(iter(batches))[1].tolist() for _ in range(2))
    assert one != two


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    factors = [training.learning_rate_factor(i / 1000) for i in range(1001)]
    assert factors[250] == 1
    assert (np.diff(factors[:251]) > 0).all()
    assert (np.diff(factors[250:]) < 0).all()
    assert factors[0] == 0
    assert factors[-1] == pytest.approx(0, abs=1e-12)


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32, torch.bool])
def test_vacated_pixels_get_what_means_black(dtype):
    images = torch.ones(200, 1, 8, 8).to(dtype)
    low = 0 if dtype in (torch.bool, torch.uint16) else 7
    moved = shift(images, _generator(), fill=low)
    assert moved.dtype == dtype
    assert set(moved.float().unique().tolist()) == {1.0, float(low)}


def test_a_lone_row_of_pixels_cannot_move_up():
    images = torch.arange(1, 10).view(1, 1, 1, 9)
    assert shift(images, _generator()).shape == (1, 1, 1, 9)


def test_seeds():
    assert training.draw_seed(3) == training.draw_seed(3)
    assert training.draw_seed(None) != training.draw_seed(None)
    state = np.random.RandomState(0)
    assert training.draw_seed(state) != training.draw_seed(state)


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match="device='tpu3' is not a device"):
        training.resolve_device("tpu3")
