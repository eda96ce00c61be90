import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import Subset

from skgcm.training import batches
from skgcm.training.batches import Batches


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


def test_each_epoch_is_shuffled_again():
    batches = Batches(_dataset(50), 50, _generator())
    one, two = (next(iter(batches))[1].tolist() for _ in range(2))
    assert one != two


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_that_lie_on_the_device_come_in_the_same_batches(monkeypatch, labelled):
    data = _dataset(10) if labelled else Dataset(_dataset(10).X)
    part = Subset(data, [7, 3, 9, 1, 2])
    sliced = list(Batches(part, 2, _generator()))
    monkeypatch.setattr(batches, "fits", lambda n_bytes, device: n_bytes == 5)
    monkeypatch.setattr(batches, "UPLOAD", 2)
    for (X, y), (X_sliced, y_sliced) in zip(Batches(part, 2, _generator()), sliced, strict=True):
        assert X.dtype == torch.uint8
        assert torch.equal(X, X_sliced)
        assert torch.equal(y, y_sliced)


def test_a_read_only_array_is_uploaded_without_a_warning(monkeypatch):
    data = _dataset(10)
    data.X.flags.writeable = False
    monkeypatch.setattr(batches, "fits", lambda n_bytes, device: True)
    assert [len(X) for X, _ in Batches(data, 5)] == [5, 5]


def test_the_processor_keeps_no_copy():
    assert Batches(_dataset(10), 5).resident is None


def test_memory_that_pytorch_has_kept_on_a_gpu_is_free(monkeypatch):
    for name, n_bytes in {"memory_reserved": 70, "memory_allocated": 30}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, n_bytes=n_bytes: n_bytes)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 1000))
    assert batches.fits(25, torch.device("cuda"))
    assert not batches.fits(26, torch.device("cuda"))
    assert not batches.fits(1, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.float32])
def test_mps_gets_float32_because_it_has_no_float64(dtype):
    data = Dataset(np.arange(4, dtype=dtype)[:, None], np.arange(4))
    assert {X.dtype for X, _ in Batches(data, 2, device="mps")} == {torch.float32}
    assert next(iter(Batches(_dataset(2), 2, device="mps")))[0].dtype == torch.uint8
