import numpy as np
import pytest
import torch

from skgcm import inference
from skgcm.inputs.images import ImageFormat
from skgcm.network import GCM


@pytest.fixture(scope="module")
def network():
    network = GCM(3, 1, encoder_width=4, decoder_width=4, generator=torch.Generator().manual_seed(0))
    network(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    return network.eval()


FORMAT = ImageFormat((8, 8, 1), False, (0.0, 255.0))


def _rows(n):
    return np.random.default_rng(0).integers(0, 256, (n, 64), dtype=np.uint8)


def test_batches_cover_all_rows_within_the_memory(network):
    large = ImageFormat((256, 256, 1), False, (0.0, 255.0))
    parts = list(inference.batches(network, large, np.empty((50, 0))))
    assert np.concatenate([np.arange(50)[part] for part, _, _ in parts]).tolist() == list(range(50))
    assert len(parts) > 1
    assert max(len(index) for _, index, _ in parts) * 256 * 256 * network.floats_per_pixel <= inference.FLOATS_PER_BATCH


@pytest.mark.parametrize("image", [(8, 8, 1), (1, 9, 1), (64, 64, 1)], ids=str)
def test_no_batch_has_a_single_image(network, image):
    parts = list(inference.batches(network, ImageFormat(image, False, (0, 1)), np.empty((1, 0))))
    assert [part for part, _, _ in parts] == [slice(0, 1)]
    assert len(parts[0][1]) >= 2


def test_scores_do_not_depend_on_where_batches_end(network, monkeypatch):
    rows = _rows(70)
    whole = inference.scores(network, FORMAT, rows)
    monkeypatch.setattr(inference, "FLOATS_PER_BATCH", 7 * 64 * network.floats_per_pixel)
    np.testing.assert_allclose(inference.scores(network, FORMAT, rows), whole, atol=1e-6)
    assert inference.scores(network, FORMAT, rows[:0]).shape == (0, 3)


def test_inference_is_float32_with_any_user_setting(network):
    rows = _rows(20)
    expected = inference.scores(network, FORMAT, rows)
    backend = torch.backends.mkldnn.matmul
    found = backend.fp32_precision
    try:
        backend.fp32_precision = "bf16"
        with torch.autocast("cpu", torch.bfloat16):
            scores = inference.scores(network, FORMAT, rows)
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = found
    np.testing.assert_array_equal(scores, expected)
