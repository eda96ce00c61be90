import numpy as np
import pytest
import torch

from skgcm import building


def test_seeds():
    assert building.draw_seed(3) == building.draw_seed(3)
    assert building.draw_seed(None) != building.draw_seed(None)
    state = np.random.RandomState(0)
    assert building.draw_seed(state) != building.draw_seed(state)


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match="device='tpu3' is not a device"):
        building.resolve_device("tpu3")


@pytest.mark.parametrize(("n", "size"), [(1, 16), (383, 16), (384, 32), (767, 32), (768, 64), (50_000, 64), (None, 64)])
def test_few_images_come_in_small_batches(n, size):
    assert building.resolve_batch_size("auto", n) == size
    assert building.resolve_batch_size(5, n) == 5


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, "float32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "AMD EPYC"}, "float32"),
        ({}, "float32"),
    ],
    ids=["AMD", "Intel without AMX", "AMX", "no bfloat16", "another architecture"],
)
def test_bfloat16_where_it_is_faster(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert building.resolve_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize("device", ["mps", torch.device("mps"), "mps:0"])
def test_mps_is_a_device_where_pytorch_has_it(device, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device=.*mps.*, but PyTorch has no MPS here\. Use device='auto' or 'cpu'"):
        building.resolve_device(device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert building.resolve_device(device).type == "mps"
    assert building.resolve_precision("auto", torch.device("mps")) == "float32"
    assert building.resolve_device("auto").type != "mps"
