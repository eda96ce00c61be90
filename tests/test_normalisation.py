"""What the encoder reads."""

import numpy as np
import pytest
import torch

from skgcm.network import GCM
from skgcm.network.normalisation import EPSILON, ITERATIONS, standardise


def draw(shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def statistics(around, iterations=ITERATIONS):
    """Robust mean and variance of (C, h, w), and the weights of its pixels, as NumPy has them."""
    around = around.double().numpy()
    mean, variance = around.mean(), around.var()
    total, weights = variance, np.ones(around.shape[1:])
    for _ in range(iterations):
        distance = ((around - mean) ** 2).mean(0) / max(variance, EPSILON**2)
        weights = np.exp(-distance / 8)
        mean = (weights * around.mean(0)).sum() / weights.sum()
        variance = max((weights * ((around - mean) ** 2).mean(0)).sum() / weights.sum(), 0.1 * total)
    return mean, variance, weights


def alone(image):
    """The standardised image (C, H, W), as NumPy has it."""
    mean, variance, _ = statistics(image)
    return (image.double() - mean) / max(variance, EPSILON**2) ** 0.5


def test_images_are_standardised_by_their_robust_mean_and_deviation():
    images = 0.3 + 0.05 * draw((4, 3, 9, 7)) * torch.arange(1, 5)[:, None, None, None]
    found = standardise(images)
    assert found.mean((1, 2, 3)).abs().max() < 0.2
    assert (found.square().mean((1, 2, 3)).sqrt() - 1.1).abs().max() < 0.2
    for image, expected in zip(found, images, strict=True):
        torch.testing.assert_close(image, alone(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_a_small_defect_does_not_change_the_rest_of_the_image(regions):
    clean = 0.5 + 0.02 * torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    defect = clean.clone()
    defect[:, :, 10:14, 5:30] = 0.3  # 4 % of the pixels, ten deviations away: the plain deviation is twice as large
    options = {"regions": torch.ones(1, 1, 48, 48, dtype=torch.float64)} if regions else {}
    before, after = standardise(clean, **options), standardise(defect, **options)
    elsewhere = torch.ones(48, 48, dtype=bool)
    elsewhere[10:14, 5:30] = False
    assert (after - before)[0, 0][elsewhere].abs().max() < 0.05
    assert after[0, 0, 12, 12] < -8


def test_few_pixels_on_a_constant_ground_are_not_blown_up():
    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[:, :, 5, 5:8] = 1
    found = standardise(image)
    plain = (image - image.mean()) / image.std(correction=0)
    assert found.max() < 4 * plain.max()
    assert found[0, 0, 20, 20].abs() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("options", [{}, {"window": (8, 8)}, {"regions": True}], ids=str)
def test_constant_images_are_zero(dtype, value, options):
    images = torch.full((2, 3, 32, 20), value, dtype=dtype)
    if "regions" in options:
        options = {"regions": torch.zeros(2, 2, 32, 20, dtype=dtype)}
        options["regions"][:, 0, :7], options["regions"][:, 1, 7:] = 1, 1
    found = standardise(images, **options)
    assert found.dtype == dtype
    assert found.abs().max() <= (1e-10 if dtype == torch.float64 else 0.01)  # of a rounded mean


def test_what_is_almost_constant_is_not_blown_up():
    images = 0.5 + 1e-7 * draw((1, 1, 16, 16))
    assert standardise(images).abs().max() < 1e-2
    assert standardise(images, window=(4, 4)).abs().max() < 1e-2


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1)])
@pytest.mark.parametrize("window", [None, (1, 1), (2, 2), (28, 28)])
def test_tiny_images_are_finite(size, window):
    found = standardise(draw((2, 3, *size)), window)
    assert found.shape == (2, 3, *size)
    assert found.isfinite().all()


def test_each_part_of_a_mosaic_is_as_it_would_be_alone():
    images = draw((2, 3, 12, 10))
    images[:, :, :5] *= 0.1
    regions = torch.zeros(2, 3, 12, 10, dtype=torch.float64)
    boxes = [(slice(0, 5), slice(0, 10)), (slice(5, 12), slice(0, 4)), (slice(5, 12), slice(4, 10))]
    for i, box in enumerate(boxes):
        regions[(slice(None), i, *box)] = 1
    found = standardise(images, (6, 5), regions)  # no window where there are parts
    for rows, columns in boxes:
        part = standardise(images[:, :, rows, columns].contiguous())
        torch.testing.assert_close(found[:, :, rows, columns], part, atol=1e-12, rtol=0)


def test_one_part_is_the_whole_image():
    images = draw((2, 3, 12, 10))
    ones = torch.ones(2, 1, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(standardise(images, regions=ones), standardise(images), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("window", "size"), [((5, 4), (11, 9)), ((4, 20), (9, 6)), ((1, 3), (6, 7)), ((6, 1), (9, 2))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_larger_frame_has_the_statistics_of_a_window_around_each_pixel(window, size, dtype):
    frame = 0.2 + 0.5 * draw((2, 3, *size), dtype)
    found, height, width = standardise(frame, window), *(min(pair) for pair in zip(window, size, strict=True))
    values = frame.double().numpy()
    grey, square = values.mean(1), (values**2).mean(1)

    def local_mean(x):
        out = np.empty_like(x)
        for row in range(size[0]):
            for column in range(size[1]):
                top = min(max(row - (height - 1) // 2, 0), size[0] - height)
                left = min(max(column - (width - 1) // 2, 0), size[1] - width)
                out[:, row, column] = x[:, top : top + height, left : left + width].mean((1, 2))
        return out

    mean = local_mean(grey)
    total = variance = local_mean(square) - mean**2
    for _ in range(ITERATIONS):  # a pixel's weight is by the window around it
        weights = np.exp(-((values - mean[:, None]) ** 2).mean(1) / np.maximum(variance, EPSILON**2) / 8)
        norm = local_mean(weights)
        mean = local_mean(weights * grey) / norm
        variance = np.maximum(local_mean(weights * square) / norm - mean**2, 0.1 * total)
    expected = (values - mean[:, None]) / np.sqrt(np.maximum(variance, EPSILON**2))[:, None]
    assert found.dtype == dtype
    atol = 1e-8 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=0, atol=atol)


def test_an_image_of_the_window_s_size_looks_nearly_the_same_alone_and_in_a_frame():
    frame = 0.5 + 0.05 * torch.randn(1, 3, 60, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frame[:, :, 30:32, 40:50] = 0.1  # a defect
    image = frame[:, :, 20:44, 28:60].contiguous()
    torch.testing.assert_close(standardise(image, (24, 32)), standardise(image), atol=0, rtol=0)
    middle = standardise(frame, (24, 32))[:, :, 30:33, 43:45]  # whose window is the image, or nearly
    torch.testing.assert_close(middle, standardise(image)[:, :, 10:13, 15:17], atol=0.15, rtol=0.05)


def test_a_faint_texture_keeps_its_digits_next_to_bright_parts_of_a_frame():
    frame = torch.zeros(1, 1, 64, 64)
    frame[..., 32:] = 1
    frame[..., :32] = 0.01 + 0.001 * draw((1, 1, 64, 32), torch.float32)
    exact = standardise(frame.double(), (8, 8))
    torch.testing.assert_close(standardise(frame, (8, 8)).double(), exact, atol=1e-5, rtol=1e-5)


def test_brightness_and_contrast_do_not_change_it_and_the_paper_s_network_reads_the_plain_image():
    images = 0.2 + 0.5 * draw((2, 3, 9, 9))
    torch.testing.assert_close(standardise(0.4 * images + 0.1), standardise(images), atol=1e-5, rtol=0)
    assert not GCM(2, architecture="paper").standardises
    assert GCM(2).standardises


def test_gradients_pass_and_are_finite():
    for value in (0.5, draw((1, 1, 6, 6))):
        images = (torch.zeros(1, 1, 6, 6, dtype=torch.float64) + value).requires_grad_()
        standardise(images).square().sum().backward()
        assert images.grad.isfinite().all()


def test_half_precision_keeps_flat_images_finite():
    assert (standardise(torch.full((2, 1, 8, 8), 0.5, dtype=torch.float16)) == 0).all()
