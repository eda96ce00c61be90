import numpy as np
import pytest
import torch

from skgcm import images
from skgcm.images import ImageFormat


@pytest.mark.parametrize(
    ("shape", "channels_first", "expected"),
    [
        ((5, 28, 30), False, (28, 30, 1)),
        ((5, 28, 30, 3), False, (28, 30, 3)),
        ((5, 3, 28, 30), True, (28, 30, 3)),
        ((5, 3, 2, 3), False, (3, 2, 3)),
        ((5, 784), False, (28, 28, 1)),
        ((5, 9), False, (3, 3, 1)),
        ((5, 7), False, (1, 7, 1)),
        ((5, 12), False, (1, 12, 1)),
    ],
)
def test_guess_shape(shape, channels_first, expected):
    assert images.guess_shape(shape, channels_first) == expected


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 32, 32), r"looks like channels first.*channels_first=True.*image_shape=\(3, 32, 32\)"),
        ((5, 1, 28, 28), "looks like channels first"),
        ((32, 40, 3), r"single colour image.*X\[None\].*image_shape=\(40, 3\)"),
        ((5, 3072), r"image_shape=\(32, 32, 3\).*image_shape=\(1, 3072\)"),
        ((5, 192), r"image_shape=\(8, 8, 3\)"),
    ],
)
def test_guess_that_would_be_wrong_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        images.guess_shape(shape)


@pytest.mark.parametrize(
    ("shape", "channels_first", "message"),
    [
        ((5, 3, 32, 32), False, r"transpose\(0, 2, 3, 1\)"),
        ((5, 32, 32, 3), True, r"transpose\(0, 3, 1, 2\)"),
        ((32, 32, 3), False, r"X\[None\]"),
        ((5, 31, 32, 3), False, "Resize or crop"),
        ((5, 32, 32), False, r"which was asked for"),
        ((5, 100), False, "Rows must have 3072 values"),
    ],
)
def test_check_shape_says_what_to_do(shape, channels_first, message):
    with pytest.raises(ValueError, match=message):
        images.check_shape(shape, (32, 32, 3), channels_first, "was asked for")


@pytest.mark.parametrize("given", [(8,), (8, 8, 3, 1), (0, 8), (8.0, 8), ("8", 8)])
def test_image_shape_is_checked(given):
    with pytest.raises(ValueError, match="image_shape="):
        images.check_image_shape(given)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.zeros((2, 4), np.uint8), (0, 255)),
        (np.zeros((2, 4), bool), (0, 1)),
        (np.array([[0.2, 0.7]]), (0, 1)),
        (np.array([[0.0, 16.0]]), (0, 16)),
        (np.array([[3, 16]]), (0, 16)),
        (np.array([[0, 1]]), (0, 1)),
        (np.array([[-2.0, 5.0]]), (-2, 5)),
        (np.array([[-3.0, -3.0]]), (-3, -2)),
        (np.zeros((2, 4), int), (0, 1)),
    ],
)
def test_find_value_range(rows, expected):
    assert images.find_value_range(rows) == expected


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0, np.inf), (0,), (0, 1, 2), "ab", (None, 1)])
def test_value_range_is_checked(given):
    with pytest.raises(ValueError, match="value_range="):
        images.check_value_range(given)


def test_values_far_outside_are_an_error_and_near_ones_are_not():
    images.check_values(np.array([[-0.9, 1.9]]), (0, 1))
    with pytest.raises(ValueError, match=r"values from 0 to 255, far outside value_range \(0, 1\)"):
        images.check_values(np.array([[0, 255]], np.uint8), (0.0, 1.0))


def test_small_values_for_a_large_range_get_a_warning_unless_they_are_bytes():
    with pytest.warns(UserWarning, match="0..1"):
        images.check_values(np.array([[0.0, 1.0]]), (0.0, 255.0))
    images.check_values(np.zeros((1, 4), np.uint8), (0.0, 255.0))
    images.check_values(np.array([[0.0, 0.001]]), (0.0, 1.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float32, np.float64, ">f4"])
def test_same_numbers_in_any_dtype_give_the_same_batch(dtype):
    numbers = np.arange(24).reshape(2, 12).astype(dtype)
    batch = ImageFormat((2, 2, 3), False, (0.0, 23.0)).images(torch.from_numpy(images.native(numbers)))
    expected = (np.arange(24) / 23).reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-7)


def test_channels_last_rows_become_batches_without_a_copy():
    rows = torch.arange(24, dtype=torch.uint8).view(2, 12)
    batch = ImageFormat((2, 2, 3), False, (0.0, 255.0)).unflatten(rows)
    assert batch.data_ptr() == rows.data_ptr()
    assert batch.is_contiguous(memory_format=torch.channels_last)
    first = ImageFormat((2, 2, 3), True, (0.0, 255.0)).unflatten(rows)
    np.testing.assert_array_equal(first.numpy(), rows.numpy().reshape(2, 3, 2, 2))


def test_images_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match="All images must have one size"):
        images.as_array([np.zeros((4, 4)), np.zeros((5, 5))])
