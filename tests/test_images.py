from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from skgcm.inputs import images
from skgcm.inputs.images import ImageFormat


@pytest.mark.parametrize(
    ("shape", "channels_first", "expected"),
    [
        ((5, 28, 30), False, (28, 30, 1)),
        ((5, 28, 30, 3), False, (28, 30, 3)),
        ((5, 3, 28, 30), True, (28, 30, 3)),
        ((5, 3, 2, 3), False, (3, 2, 3)),
        ((5, 13, 16, 16), True, (16, 16, 13)),
        ((5, 3, 3, 32), True, (3, 32, 3)),
        ((5, 16, 16, 16), False, (16, 16, 16)),
        ((5, 784), False, (28, 28, 1)),
        ((5, 9), False, (3, 3, 1)),
        ((5, 7), False, (1, 7, 1)),
        ((5, 12), False, (1, 12, 1)),
    ],
)
def test_guess_shape(shape, channels_first, expected):
    assert images.guess_shape(shape, channels_first) == expected


@pytest.mark.parametrize(
    ("shape", "channels_first", "message"),
    [
        ((5, 3, 32, 40), False, r"looks like channels first.*channels_first=True.*image_shape=\(3, 32, 40\)"),
        ((5, 1, 28, 28), False, "looks like channels first"),
        ((5, 13, 16, 16), False, "looks like channels first"),
        ((5, 2, 16, 16), False, "looks like channels first"),
        ((5, 16, 18, 3), True, r"looks like channels last.*leave out channels_first.*image_shape=\(18, 3, 16\)"),
        ((5, 16, 16, 13), True, "looks like channels last"),
        ((32, 40, 3), False, r"single colour image.*X\[None\].*image_shape=\(40, 3\)"),
        ((5, 3072), False, r"image_shape=\(32, 32, 3\).*image_shape=\(rows, columns\), or \(1, 3072\)"),
        ((5, 192), False, r"image_shape=\(8, 8, 3\)"),
    ],
)
def test_ambiguous_shapes_are_refused(shape, channels_first, message):
    with pytest.raises(ValueError, match=message):
        images.guess_shape(shape, channels_first)


@pytest.mark.parametrize(
    ("shape", "channels_first"), [((5, 768), False), ((5, 768), True), ((5, 3, 16, 16), True), ((5, 16, 16, 3), True)]
)
def test_an_image_shape_that_says_the_channels_first_is_refused(shape, channels_first):
    with pytest.raises(ValueError, match=r"image_shape=\(3, 16, 16\) looks like.*set image_shape=\(16, 16, 3\)"):
        images.find_shape(shape, (3, 16, 16), channels_first)


def test_images_of_few_rows_and_many_channels_can_be_named():
    assert images.find_shape((5, 1536), (1, 128, 12), channels_first=False) == (1, 128, 12)
    assert images.find_shape((5, 12, 1, 128), (1, 128, 12), channels_first=True) == (1, 128, 12)
    assert images.find_shape((5, 13, 32, 13), (32, 13, 13), channels_first=True) == (32, 13, 13)
    assert images.find_shape((5, 3, 16, 16), (3, 16, 16), channels_first=False) == (3, 16, 16)
    assert images.find_shape((5, 16, 18, 3), (18, 3, 16), channels_first=True) == (18, 3, 16)


@pytest.mark.parametrize(
    ("shape", "channels_first", "message"),
    [
        ((5, 3, 32, 32), False, r"transpose\(0, 2, 3, 1\)"),
        ((5, 32, 32, 3), True, r"transpose\(0, 3, 1, 2\)"),
        ((32, 32, 3), False, r"X\[None\]"),
        ((5, 31, 32, 3), False, "Resize or crop"),
        ((5, 32, 32, 1), False, "number of channels differs.*mode='L' or mode='RGB'"),
        ((5, 4, 32, 32), True, r"number of channels differs: .*alpha, pass X\[:, :3\]\."),
        ((5, 32, 32, 4), False, r"number of channels differs: .*alpha, pass X\[\.\.\., :3\]\."),
        ((5, 2, 32, 32), True, "number of channels differs: convert the images"),
        ((5, 32, 32), False, "which was asked for. Only the number of channels differs"),
        ((5, 100), False, "Rows must have 3072 values"),
    ],
)
def test_check_shape_says_what_to_do(shape, channels_first, message):
    with pytest.raises(ValueError, match=message):
        images.check_shape(shape, (32, 32, 3), channels_first, "was asked for")


@pytest.mark.parametrize("given", [(8,), (8, 8, 3, 1), (0, 8), (8.0, 8), ("8", 8), np.array(8)])
def test_image_shape_is_checked(given):
    with pytest.raises(ValueError, match="image_shape="):
        images.check_image_shape(given)


@pytest.mark.parametrize(
    "dtype", ["B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "g", ">h", ">i", ">I", ">q", ">Q", ">f", ">d"]
)
def test_same_numbers_in_any_dtype_give_the_same_batch(dtype):
    numbers = np.arange(24).reshape(2, 12).astype(dtype)
    batch = ImageFormat((2, 2, 3), False, (0.0, 23.0)).images(torch.from_numpy(images.native(numbers)))
    expected = (np.arange(24) / 23).reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(
    "value_range", [(-3e38, 3e38), (0, 1e-40), (1000.1, 1000.2), (-1e-3, 1e3), (16777216, 16777218)], ids=str
)
def test_float32_loses_no_digits_in_any_range(value_range):
    low, high = value_range
    numbers = np.linspace(low, high, 12, dtype=np.float32)
    batch = ImageFormat((2, 2, 3), False, value_range).images(torch.from_numpy(numbers[None]))
    expected = ((numbers.astype(np.float64) - low) / (high - low)).reshape(1, 2, 2, 3).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 4), "M8[s]"), r"X has dtype datetime64\[s\], which is not numeric"),
        (np.full((2, 4), np.finfo(np.longdouble).max), "X has values too large for float64"),
    ],
)
def test_what_pytorch_cannot_read_is_named(rows, message):
    if rows.dtype == np.float64:
        pytest.skip("needs a system whose long double is longer than float64")
    with pytest.raises(ValueError, match=message):
        images.native(rows)


def test_channels_last_rows_become_batches_without_a_copy():
    rows = torch.arange(24, dtype=torch.uint8).view(2, 12)
    batch = ImageFormat((2, 2, 3), False, (0.0, 255.0)).unflatten(rows)
    assert batch.data_ptr() == rows.data_ptr()
    assert batch.is_contiguous(memory_format=torch.channels_last)
    first = ImageFormat((2, 2, 3), True, (0.0, 255.0)).unflatten(rows)
    np.testing.assert_array_equal(first.numpy(), rows.numpy().reshape(2, 3, 2, 2))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([np.zeros((4, 4)), np.zeros((5, 5))], "All images must have one size"),
        ([torch.zeros(4, 4), torch.zeros(5, 5)], "All images must have one size"),
        (torch.zeros(2, 4, 4).to_sparse(), "X cannot become one array"),
        (scipy.sparse.coo_array(np.zeros((2, 4, 4))), r"X is sparse.*X.toarray\(\)"),
        (np.ma.masked_less(np.arange(16).reshape(1, 4, 4), 3), r"X has masked values.*X.filled"),
        (TensorDataset(torch.zeros(2, 3, 4, 4)), r"X is a TensorDataset.*np\.stack.*as X and the labels as y"),
        (DataLoader(TensorDataset(torch.zeros(2, 3, 4, 4))), "X is a DataLoader"),
        (np.zeros((1, 2, 3, 4, 5)), r"X of shape \(1, 2, 3, 4, 5\) does not hold images"),
        (np.zeros(5), r"X of shape \(5,\) does not hold images.*X\[None\]"),
        (["a.png", "b.png"], r"X has text like 'a\.png'.*names of image files.*image_shape=\(224, 224, 3\)"),
        (np.array(["a.png"]), r"X has text like 'a\.png'"),
        (np.array([["a.png"]], object), r"X has text like 'a\.png'"),
        (pd.DataFrame({"file": ["a.png"]}), r"Column 'file' of X holds text like 'a\.png'.*pass X\['file'\]"),
        ("a.png", r"X='a\.png' is one name.*pass \[X\].*list_image_folder"),
        (Path("a"), r"X='a' is one name"),
        (["a.png", np.zeros((4, 4))], r"file names and other items: X\[1\] is a ndarray"),
        (np.array([Path("a.png"), None]), r"file names and other items: X\[1\] is a NoneType"),
        ([], "X is empty"),
        (np.array([np.ones((3, 3)), None], object)[:1], r"X of shape \(1,\) has arrays.*np\.stack\(X\)"),
        ([Path("a.png")], r"X has text like 'a\.png'"),
        (3.0, r"X of shape \(\) does not hold images"),
        (None, r"X of shape \(\) does not hold images"),
    ],
)
def test_what_cannot_be_images_is_named(X, message):
    with pytest.raises(ValueError, match=message):
        images.as_array(X)


# Pillow images

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def objects(pictures, shape=(-1,)):
    array = np.empty(len(pictures), object)
    array[:] = pictures
    return array.reshape(shape)


@pytest.mark.parametrize(
    "of",
    [
        list,
        tuple,
        objects,
        lambda pictures: objects(pictures, (-1, 1)),
        lambda pictures: pd.Series(pictures, [5, 6, 7]),
    ],
    ids=["list", "tuple", "objects", "column", "series"],
)
def test_pillow_images_mean_what_a_folder_of_their_files_means(of):
    colour = Image.fromarray(COLOUR)
    X = images.as_array(of([colour, colour.quantize(256), Image.fromarray(GREY)]))
    assert X.dtype == np.uint8
    assert X.shape == (3, 4, 6, 3)
    np.testing.assert_array_equal(X[0], COLOUR)
    np.testing.assert_allclose(X[1], COLOUR, atol=20)
    np.testing.assert_array_equal(X[2], np.dstack([GREY] * 3))


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (6, 4), 255)]),
    ],
    ids=lambda picture: picture.mode,
)
def test_a_single_pillow_image_of_greys(picture):
    np.testing.assert_array_equal(images.as_array(picture), GREY[None, :, :, None])
    np.testing.assert_array_equal(images.as_array([picture], channels_first=True), GREY[None, None])


def test_pillow_images_have_the_channels_of_the_classifier():
    colour, grey = Image.fromarray(COLOUR), Image.fromarray(GREY)
    assert images.as_array([grey], image_shape=(4, 6, 3)).shape == (1, 4, 6, 3)
    assert images.as_array(colour, image_shape=(4, 6)).shape == (1, 4, 6, 1)
    first = images.as_array([colour, grey], channels_first=True, image_shape=(4, 6, 3))
    np.testing.assert_array_equal(first[0], COLOUR.transpose(2, 0, 1))
    assert first.flags.c_contiguous


def test_a_file_that_pillow_opened_is_read_as_from_a_folder(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("1.tif", "2.jpg", "3.png"):
        Image.fromarray(np.full((4, 6), 90, np.uint8)).save(tmp_path / name, exif=exif)
    opened = [Image.open(tmp_path / name) for name in ("1.tif", "2.jpg", "3.png")]
    np.testing.assert_array_equal(images.as_array(opened), np.full((3, 6, 4, 1), 90))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            [Image.new("L", (6, 4)), Image.new("L", (6, 5))],
            r"X\[0\] has 4 rows and 6 columns, X\[1\] has 5 and 6\. Resize",
        ),
        ([Image.new("L", (6, 4)), GREY], r"X\[1\] is a ndarray\. Pass one kind"),
        (
            [Image.new("L", (6, 4)), Image.new("F", (6, 4))],
            r"X\[1\], a Pillow image.*32-bit floats.*np\.asarray\(image\)",
        ),
        (
            pd.DataFrame({"image": objects([Image.new("L", (6, 4))])}),
            r"Column 'image' .*Pillow images: pass list\(X\['im",
        ),
        (
            pd.DataFrame({"id": [1], "image": objects([GREY])}),
            r"Column 'image' of X holds arrays.*np\.stack\(X\['image",
        ),
        (pd.DataFrame({"image": [GREY.tolist()]}), r"Column 'image' of X holds arrays"),
    ],
    ids=["sizes", "mixed", "float", "frame", "frame-of-arrays", "frame-of-lists"],
)
def test_pillow_images_and_frames_that_cannot_be_read_are_named(X, message):
    with pytest.raises(ValueError, match=message):
        images.as_array(X)
