"""What the encoder reads."""

import numpy as np
import pytest
import torch

from skgcm.network import GCM
from skgcm.network.normalisation import EPSILON, standardise


def draw(shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def alone(image):
    """The standardised image (C, H, W), as NumPy has it."""
    image = image.double().numpy()
    grey = image.mean(0)
    return torch.from_numpy((image - grey.mean()) / np.sqrt(((image - grey.mean()) ** 2).mean() + EPSILON**2))


def test_images_have_mean_0_and_deviation_1_over_all_channels():
    images = 0.3 + 0.05 * draw((4, 3, 9, 7)) * torch.arange(1, 5)[:, None, None, None]
    found = standardise(images)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.square().mean((1, 2, 3)), torch.ones(4, dtype=torch.float64), atol=1e-3, rtol=0)
    for image, expected in zip(found, images, strict=True):
        torch.testing.assert_close(image, alone(expected), atol=1e-10, rtol=0)


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
    found, expected = standardise(frame, window), torch.empty(2, 3, *size, dtype=torch.float64)
    height, width = (min(pair) for pair in zip(window, size, strict=True))
    for row in range(size[0]):
        for column in range(size[1]):
            top = min(max(row - (height - 1) // 2, 0), size[0] - height)
            left = min(max(column - (width - 1) // 2, 0), size[1] - width)
            around = frame[:, :, top : top + height, left : left + width].double()
            mean = around.mean((1, 2, 3))
            deviation = ((around - mean[:, None, None, None]).square().mean((1, 2, 3)) + EPSILON**2).sqrt()
            expected[:, :, row, column] = (frame[:, :, row, column].double() - mean[:, None]) / deviation[:, None]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-5)


def test_an_image_of_the_window_s_size_looks_the_same_alone_and_in_a_frame():
    image = draw((1, 3, 7, 5))
    frame = torch.ones(1, 3, 30, 40, dtype=torch.float64)
    frame[:, :, 10:17, 20:25] = image
    torch.testing.assert_close(standardise(image, (7, 5)), standardise(image), atol=0, rtol=0)
    middle = standardise(frame, (7, 5))[:, :, 13, 22]
    torch.testing.assert_close(middle, standardise(image)[:, :, 3, 2], atol=1e-10, rtol=0)


def test_a_faint_texture_keeps_its_digits_beside_bright_parts_of_a_frame():
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
