import numpy as np
import pytest

from skgcm.inputs.value_range import check_value_range, check_values_in_range, find_value_range, warn_if_dark


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
        (np.full((2, 4), -1e300), (-1e300, np.nextafter(-1e300, 0))),
    ],
)
def test_find(rows, expected):
    assert find_value_range(rows) == expected


def test_values_too_far_apart_are_named():
    with pytest.raises(ValueError, match=r"X has values from -1e\+308 to 1e\+308, too far apart"):
        find_value_range(np.array([[-1e308, 1e308]]))


@pytest.mark.parametrize(
    "given", [(1, 0), (0, 0), (0, np.inf), (0,), (0, 1, 2), "ab", (None, 1), (-1e308, 1e308), (0, 10**400), np.array(1)]
)
def test_value_range_is_checked(given):
    with pytest.raises(ValueError, match="value_range="):
        check_value_range(given)


def test_values_far_outside_are_an_error_and_near_ones_are_not():
    check_values_in_range(np.array([[-0.9, 1.9, *[0.5] * 38]]), (0, 1))
    with pytest.raises(ValueError, match=r"from 0 to 255, far outside value_range \(0, 1\), and image 1 is .*np\.clip"):
        check_values_in_range(np.array([[0, 1], [0, 255], [255, 0]], np.uint8), (0.0, 1.0))


@pytest.mark.parametrize(
    ("rows", "value_range"),
    [
        (np.array([[0.0, 1.0]]), (0, 255)),
        (np.array([[0, 1]], np.uint8), (0, 255)),
        (np.array([[False, True]]), (0, 255)),
        (np.array([[-1.0, 0.3, 1.0]]), (0, 1)),
        (np.array([[0.0, 100.0, 255.0]]), (0, 128)),
    ],
)
def test_values_of_another_scale_get_a_warning(rows, value_range):
    with pytest.warns(UserWarning, match="Check whether X has the scale"):
        check_values_in_range(rows, value_range)


@pytest.mark.parametrize(
    ("rows", "value_range"),
    [
        (np.zeros((1, 4), np.uint8), (0, 255)),
        (np.array([[0.0, 0.001]]), (0, 1)),
        (np.array([[0, 255]], np.uint8), (0, 255)),
    ],
)
def test_a_black_image_and_small_values_in_a_small_range_get_none(rows, value_range):
    check_values_in_range(rows, value_range)


@pytest.mark.parametrize(
    "rows",
    [
        np.array([[0, 1, 1, 0]], np.uint8),
        np.arange(17, dtype=np.uint8)[None],
        np.array([[65535, *range(999)]], np.uint16),
    ],
)
def test_training_images_that_are_nearly_all_dark_get_a_warning_with_the_remedy(rows):
    with pytest.warns(UserWarning, match=r"99.5 % of the values in X are .*set value_range=\(0, "):
        warn_if_dark(rows, find_value_range(rows))


def test_of_large_images_all_are_looked_at():
    rows = np.full((2, 2**23), 200, np.uint8)
    rows[0] = 10
    warn_if_dark(rows, find_value_range(rows))
    rows = rows / np.float32(200)
    rows[1] = -1
    with pytest.warns(UserWarning, match="Check whether X has the scale"):
        check_values_in_range(rows, (0, 1))


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 4), np.uint8), np.array([[0, 100]], np.uint8), np.array([[0.0, 0.1, 0.9]]), np.eye(300)],
    ids=str,
)
def test_bright_and_black_training_images_get_none(rows):
    warn_if_dark(rows, find_value_range(rows))
