import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset

from skgcm.batches import Batches


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
