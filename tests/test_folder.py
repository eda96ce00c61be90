"""Image folders: layout, order, sizes, and the pixels that come out of every kind of file."""

import gc
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from skgcm.datasets import load_image_folder

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10  # 4 rows, 6 columns, all values differ
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def save(path, pixels, **options):
    """Write an array, or an image, to ``path``, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def pixels_of(tmp_path, name, pixels, *, mode=None, **options):
    """What one file becomes: (R, C, D)."""
    save(tmp_path / "a" / name, pixels, **options)
    X, _ = load_image_folder(tmp_path, mode=mode)
    return X[0]


# Layout and order


def test_arrays_sorted_by_class_then_file(tmp_path):
    for name, value in [("b/2.png", 4), ("b/10.png", 3), ("a/x.png", 2), ("a/Y.png", 1)]:
        save(tmp_path / name, np.full((4, 6), value, np.uint8))
    X, y, paths = load_image_folder(tmp_path, return_paths=True)
    assert X.shape == (4, 4, 6, 1)
    assert X.dtype == np.uint8
    assert X.flags.c_contiguous
    assert X[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert y.tolist() == ["a", "a", "b", "b"]
    assert y.dtype.kind == "U"
    assert paths.dtype.kind == "U"
    assert paths.tolist() == [str(tmp_path / name) for name in ("a/Y.png", "a/x.png", "b/10.png", "b/2.png")]


def test_paths_select_like_y(tmp_path):
    for i in range(4):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", GREY)
    _, y, paths = load_image_folder(tmp_path, return_paths=True)
    assert [Path(path).name for path in paths[y == "b"]] == ["1.png", "3.png"]


@pytest.mark.parametrize("convert", [str, lambda path: path], ids=["str", "Path"])
def test_path_types(tmp_path, convert):
    save(tmp_path / "a/1.png", GREY)
    X, y = load_image_folder(convert(tmp_path))
    np.testing.assert_array_equal(X[0, :, :, 0], GREY)
    assert y.tolist() == ["a"]


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "parts/a/1.png", GREY)
    assert load_image_folder("~/parts")[0].shape == (1, 4, 6, 1)


def test_leaves_out_hidden_other_and_nested_files(tmp_path):
    save(tmp_path / "a/1.PNG", GREY, format="PNG")
    save(tmp_path / "a/._1.png", COLOUR)
    save(tmp_path / "a/thumbnails/1.png", COLOUR)
    save(tmp_path / ".cache/1.png", COLOUR)
    save(tmp_path / "preview.png", COLOUR)
    (tmp_path / "a/labels.csv").write_text("1,2")
    (tmp_path / "a/report.pdf").write_text("no image")
    (tmp_path / "a/folder.png").mkdir()
    X, y, paths = load_image_folder(tmp_path, return_paths=True)
    assert X.shape == (1, 4, 6, 1)
    assert y.tolist() == ["a"]
    assert paths.tolist() == [str(tmp_path / "a/1.PNG")]


def test_postscript_is_never_opened(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    eps = save(tmp_path / "a/2.eps", GREY)
    assert len(load_image_folder(tmp_path)[0]) == 1
    eps.rename(tmp_path / "a/2.png")  # by its content Pillow would start Ghostscript
    with pytest.raises(ValueError, match=r"2\.png' as an image: its content is in no image format"):
        load_image_folder(tmp_path)


# One or three channels


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        ([GREY], 1),
        ([GREY > 100], 1),
        ([Image.fromarray(GREY).convert("LA")], 1),
        ([GREY.astype(np.uint16), GREY], 1),
        ([COLOUR], 3),
        ([Image.fromarray(GREY).convert("P")], 3),
        ([GREY, COLOUR], 3),
        ([COLOUR, GREY], 3),
    ],
    ids=["8bit", "1bit", "alpha", "16bit", "colour", "palette", "grey+colour", "colour+grey"],
)
def test_channels_follow_the_files(tmp_path, images, channels):
    for i, image in enumerate(images):
        save(tmp_path / f"a/{i}.png", image)
    assert load_image_folder(tmp_path)[0].shape == (len(images), 4, 6, channels)


def test_mode_forces_channels(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "a/2.png", COLOUR)
    X, _ = load_image_folder(tmp_path, mode="RGB")
    np.testing.assert_array_equal(X[0], np.repeat(GREY[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(X[1], COLOUR)
    X, _ = load_image_folder(tmp_path, mode="L")
    np.testing.assert_array_equal(X[0, :, :, 0], GREY)
    np.testing.assert_allclose(X[1, :, :, 0], COLOUR @ [0.299, 0.587, 0.114], atol=0.51)


# Kinds of pixels

SIXTEEN = GREY.astype(np.uint16) * 257 + 100  # nearer to GREY than to GREY + 1
BIG_ENDIAN = Image.frombytes("I;16B", (6, 4), SIXTEEN.astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("1.png", SIXTEEN),
        ("1.tif", SIXTEEN),
        ("1.tif", BIG_ENDIAN),
        ("1.pgm", SIXTEEN.astype(np.int32)),
        ("1.jp2", SIXTEEN),
    ],
    ids=["png", "tiff", "tiff-big-endian", "pgm", "jpeg2000"],
)
def test_16_bits_are_scaled_not_clipped(tmp_path, name, image):
    np.testing.assert_array_equal(pixels_of(tmp_path, name, image)[:, :, 0], GREY)


def test_16_bits_reach_both_ends(tmp_path):
    out = pixels_of(tmp_path, "1.png", np.array([[0, 128, 129, 65535]], np.uint16))
    assert out[0, :, 0].tolist() == [0, 0, 1, 255]


def test_1_bit(tmp_path):
    np.testing.assert_array_equal(pixels_of(tmp_path, "1.png", GREY > 100)[:, :, 0], np.where(GREY > 100, 255, 0))


def test_palette(tmp_path):
    image = Image.fromarray(COLOUR).quantize(256)
    np.testing.assert_array_equal(pixels_of(tmp_path, "1.png", image), np.asarray(image.convert("RGB")))


def test_cmyk(tmp_path):
    image = Image.fromarray(COLOUR).convert("CMYK")
    np.testing.assert_array_equal(pixels_of(tmp_path, "1.tif", image), np.asarray(image.convert("RGB")))


def test_alpha_is_blended_onto_black(tmp_path):
    alpha = np.full((4, 6, 1), 51, np.uint8)  # a fifth
    alpha[0] = 0
    expected = COLOUR * (alpha / 255)
    np.testing.assert_allclose(pixels_of(tmp_path, "1.png", np.dstack([COLOUR, alpha])), expected, atol=1)


def test_opaque_alpha_changes_nothing(tmp_path):
    image = Image.fromarray(GREY).convert("LA")
    np.testing.assert_array_equal(pixels_of(tmp_path, "1.png", image)[:, :, 0], GREY)


@pytest.mark.parametrize("name", ["1.png", "1.gif"])
def test_transparent_palette_entry_is_black(tmp_path, name):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([200, 10, 20, 30, 240, 50])
    assert pixels_of(tmp_path, name, image, transparency=0).tolist() == [[[0, 0, 0], [30, 240, 50]]]


def test_transparent_grey_of_16_bits_is_black(tmp_path):
    image = Image.fromarray(np.array([[40000, 40001]], np.uint16))
    assert pixels_of(tmp_path, "1.png", image, transparency=40000).tolist() == [[[0], [156]]]


def test_first_frame(tmp_path):
    frames = [Image.fromarray(GREY + i) for i in range(3)]
    out = pixels_of(tmp_path, "1.tif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(out[:, :, 0], GREY)


UPRIGHT = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: np.rot90(GREY, -1),
    7: GREY[::-1, ::-1].T,
    8: np.rot90(GREY),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [("1.png", 1, {}), ("2.png", 257, {}), ("1.tif", 1, {}), ("2.tif", 257, {}), ("3.tif", 1, {"compression": "lzma"})],
    ids=["png", "png-16bit", "tiff", "tiff-16bit", "tiff-lzma"],
)
def test_turned_upright(tmp_path, orientation, name, scale, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = GREY.astype(np.uint16) * scale if scale > 1 else GREY
    out = pixels_of(tmp_path, name, stored, exif=exif, **options)
    np.testing.assert_array_equal(out[:, :, 0], UPRIGHT[orientation])


@pytest.mark.parametrize("values", [GREY.astype(np.float32), GREY.astype(np.int32)], ids=["float", "integer"])
def test_32_bit_pixels_are_an_error(tmp_path, values):
    save(tmp_path / "a/1.tif", values)
    with pytest.raises(ValueError, match=r"1\.tif' as an image: its pixels are 32-bit.*8 or 16 bits"):
        load_image_folder(tmp_path)


# Size


@pytest.mark.parametrize("size", [(8, 3), [8, 3], np.array([8, 3])], ids=["tuple", "list", "array"])
def test_size_is_rows_columns(tmp_path, size):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "b/1.png", GREY.T)
    assert load_image_folder(tmp_path, size=size)[0].shape == (2, 8, 3, 1)


@pytest.mark.parametrize("size", [5, np.int64(5)], ids=["int", "numpy"])
def test_one_size_is_a_square(tmp_path, size):
    save(tmp_path / "a/1.png", COLOUR)
    assert load_image_folder(tmp_path, size=size)[0].shape == (1, 5, 5, 3)


def test_resizing_happens_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a/1.png", GREY, exif=exif)
    X, _ = load_image_folder(tmp_path, size=(6, 4))
    np.testing.assert_array_equal(X[0, :, :, 0], UPRIGHT[6])


def test_shrinking_skips_no_pixel_and_does_not_ring(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::4] = 200  # a filter that skips would see all of a stripe or none
    save(tmp_path / "stripes/1.png", stripes)
    step = np.full((64, 64), 50, np.uint8)
    step[:, 32:] = 200
    save(tmp_path / "step/1.png", step)
    (step, stripes), _ = load_image_folder(tmp_path, size=8)
    np.testing.assert_allclose(stripes, 50, atol=7)
    assert step.min() == 50
    assert step.max() == 200


def test_different_sizes_name_the_first_file_that_differs(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "a/2.png", GREY)
    save(tmp_path / "b/3.png", GREY.T)
    save(tmp_path / "b/4.png", GREY[:2])
    with pytest.raises(ValueError, match=r"1\.png' has 4 rows and 6 columns, .*3\.png' has 6 and 4\. Pass size="):
        load_image_folder(tmp_path)


# What a user may get wrong


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "64", (8,), (8, 8, 3), (8, 0), (8, 2.0)], ids=repr)
def test_wrong_size(tmp_path, size):
    with pytest.raises(ValueError, match=r"size=.*expected None, an integer or \(rows, columns\)"):
        load_image_folder(tmp_path, size=size)


def test_wrong_mode(tmp_path):
    with pytest.raises(ValueError, match=r"mode='grey': expected 'L' for grey, 'RGB'"):
        load_image_folder(tmp_path, mode="grey")


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist.*CLASS/FILE"):
        load_image_folder(tmp_path / "nowhere")


def test_file_instead_of_folder(tmp_path):
    (tmp_path / "parts.zip").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"parts\.zip' is a file.*CLASS/FILE.*Unpack"):
        load_image_folder(tmp_path / "parts.zip")


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"holds no class folders.*CLASS/FILE"):
        load_image_folder(tmp_path)


def test_images_without_class_folders(tmp_path):
    save(tmp_path / "1.png", GREY)
    with pytest.raises(ValueError, match=r"images but no class folders.*one folder per class.*unknown/"):
        load_image_folder(tmp_path)


def test_photos_that_cannot_be_read_are_missed_with_a_warning(tmp_path, monkeypatch):
    save(tmp_path / "good/1.png", GREY)
    for name in ("2.HEIC", "3.dng", "notes.txt"):
        (tmp_path / "good" / name).touch()
    with pytest.warns(UserWarning, match=r"2 files .* left out, the first is '.*2\.HEIC'.*Convert them") as caught:
        X, _ = load_image_folder(tmp_path)
    assert len(X) == 1
    assert caught[0].filename == __file__
    for extension in (".heic", ".dng"):  # as a plugin does
        monkeypatch.setitem(Image.registered_extensions(), extension, "PNG")
    for name in ("2.HEIC", "3.dng"):
        save(tmp_path / "good" / name, GREY, format="PNG")
    assert len(load_image_folder(tmp_path)[0]) == 3


@pytest.mark.parametrize("held", [[], ["notes.txt"], ["1.txt", "2.txt", "3.txt", "4.txt"]], ids=len)
def test_class_folder_without_images(tmp_path, held):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "b").mkdir()
    for name in held:
        (tmp_path / "b" / name).write_text("no image")
    said = {0: "nothing", 1: r"'notes\.txt'", 4: r"'1\.txt', '2\.txt', '3\.txt', \.\.\."}[len(held)]
    with pytest.raises(ValueError, match=rf"b' holds no images that Pillow reads \(it holds {said}\)"):
        load_image_folder(tmp_path)


def test_one_level_too_high(tmp_path):
    save(tmp_path / "train/a/1.png", GREY)
    with pytest.raises(ValueError, match=r"train' holds no images.*it holds 'a'.*right above the class folders"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("mode", [None, "L"])
def test_file_that_is_no_image(tmp_path, mode):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "a/2.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"2\.png' as an image: its content is in no image format.*Repair") as caught:
        load_image_folder(tmp_path, mode=mode)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_link_to_nowhere_is_no_file_to_leave_out(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "a/2.png").symlink_to("not-fetched.png")
    with pytest.raises(ValueError, match=r"2\.png' as an image: .*No such file"):
        load_image_folder(tmp_path)


def test_a_huge_picture_needs_no_repair(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"1\.png' .*Make it smaller or.*MAX_IMAGE_PIXELS"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["2.png", "2.jpg", "2.tif", "2.bmp", "2.gif", "2.webp"])
def test_truncated_file(tmp_path, name):
    save(tmp_path / "a/1.png", COLOUR)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = save(tmp_path / "a" / name, noise)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"Cannot read .*{name}' as an image"):
        load_image_folder(tmp_path, size=8)


def test_empty_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").touch()
    with pytest.raises(ValueError, match=r"1\.png' as an image"):
        load_image_folder(tmp_path)


# Quiet


def test_large_picture_is_no_warning(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 24 pixels: Pillow warns; more than 40 and it refuses
    assert load_image_folder(tmp_path)[0].shape == (1, 4, 6, 1)


def test_refused_picture_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(ValueError, match=r"1\.png' as an image: .*exceeds limit"):
        load_image_folder(tmp_path)


def test_damaged_metadata_is_no_warning(tmp_path):
    out = pixels_of(tmp_path, "1.jpg", np.full((8, 8), 90, np.uint8), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    np.testing.assert_array_equal(out, 90)


def test_files_are_closed(tmp_path):
    for i in range(3):
        save(tmp_path / f"a/{i}.gif", GREY)  # an animated format keeps its file until told otherwise
    load_image_folder(tmp_path)
    (tmp_path / "a/3.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"3\.gif"):
        load_image_folder(tmp_path)
    gc.collect()  # a handle left open becomes a ResourceWarning here, which pytest makes an error


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, False), (Terminal, True)], ids=["file", "terminal"])
def test_progress_only_on_a_terminal(tmp_path, monkeypatch, capsys, stream, shown):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(sys, "stderr", stream())
    load_image_folder(tmp_path)
    assert ("Loading images" in sys.stderr.getvalue()) == shown
    assert capsys.readouterr().out == ""


def test_damaged_file_does_not_hide_a_shortage_of_memory(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)

    def no_memory(image):
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", no_memory)
    with pytest.raises(MemoryError):
        load_image_folder(tmp_path)
