"""Image folders: layout, order, sizes, and the pixels that come out of every kind of file."""

import gc
import io
import os
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from skgcm.datasets import load_image_folder, load_images

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10  # 4 rows, 6 columns, all values differ
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def save(path, pixels, **options):
    """Write an array, or an image, to ``path``, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


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
    save(tmp_path / "b/1.png", GREY)
    X, y = load_image_folder(convert(tmp_path))
    np.testing.assert_array_equal(X[0, :, :, 0], GREY)
    assert y.tolist() == ["a", "b"]


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "parts/a/1.png", GREY)
    assert load_images("~/parts")[0].shape == (1, 4, 6, 1)


def test_hidden_and_other_files_are_ignored(tmp_path):
    save(tmp_path / "a/1.PNG", GREY, format="PNG")
    save(tmp_path / "b/1.png", GREY)
    save(tmp_path / "a/._1.png", COLOUR)
    save(tmp_path / "a/.thumbnails/1.png", COLOUR)
    save(tmp_path / ".cache/1.png", COLOUR)
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "a/labels.csv").write_text("1,2")
    (tmp_path / "a/report.pdf").write_text("no image")
    (tmp_path / "a/labels").write_text("no image")
    (tmp_path / "a/folder.png").mkdir()
    X, y, paths = load_image_folder(tmp_path, return_paths=True)
    assert X.shape == (2, 4, 6, 1)
    assert y.tolist() == ["a", "b"]
    assert paths.tolist() == [str(tmp_path / "a/1.PNG"), str(tmp_path / "b/1.png")]


def test_postscript_is_never_opened(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    eps = save(tmp_path / "a/2.eps", GREY)
    with pytest.warns(UserWarning, match=r"1 file is left out .* 1 in formats that Pillow does not read, 'a/2\.eps'"):
        assert len(load_images(tmp_path)[0]) == 1
    eps.rename(tmp_path / "a/2.png")  # by its content Pillow would start Ghostscript
    with pytest.raises(ValueError, match=r"2\.png' as an image: its content is in no image format"):
        load_images(tmp_path)


# Which files are images


def leftovers(tmp_path):
    """Two classes of one image each right inside, and one image each of the other places."""
    for name in ("good/0.png", "bad/0.png", "good/monday/1.png", "bad/a/b/2.JPG", "stray.png"):
        save(tmp_path / name, GREY)
    save(tmp_path / "good/IMG3", GREY, format="PNG")
    (tmp_path / "good/4.heic").touch()


def test_images_that_are_left_out_are_counted_and_named_in_one_warning(tmp_path):
    leftovers(tmp_path)
    with pytest.warns(UserWarning, match="left out") as caught:
        _, y = load_image_folder(tmp_path)
    assert y.tolist() == ["bad", "good"]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    for said in (
        "5 files are left out",
        "2 in subfolders of class folders, 'bad/a/b/2.JPG', 'good/monday/1.png'",
        "1 next to the class folders, 'stray.png'",
        "1 without the extension of an image, 'good/IMG3'",
        "1 in formats that Pillow does not read, 'good/4.heic'",
        "pattern='**/*'",
    ):
        assert said in message


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("*.png", ["bad/0.png", "good/0.png"]),
        ("*/*.PNG", ["bad/0.png", "good/0.png"]),
        ("*/*[03]*", ["bad/0.png", "good/0.png", "good/IMG3"]),
        ("*/**/?.[jp]*", ["bad/0.png", "bad/a/b/2.JPG", "good/0.png", "good/monday/1.png"]),
        ("[bg]*/*/**", ["bad/a/b/2.JPG", "good/monday/1.png"]),
    ],
)
def test_pattern_says_which_files_are_images_and_needs_no_warning(tmp_path, pattern, files):
    leftovers(tmp_path)
    (tmp_path / "good/4.heic").unlink()
    for name in ("bad/0.png", "good/0.png", "good/IMG3") if pattern == "[bg]*/*/**" else ():
        (tmp_path / name).unlink()
    _, y, paths = load_image_folder(tmp_path, pattern=pattern, return_paths=True)
    assert paths.tolist() == [str(tmp_path / file) for file in files]
    assert y.tolist() == [file.split("/")[0] for file in files]


def test_pattern_chooses_classes_by_its_first_part_alone(tmp_path):
    for name in ("a/1.png", "b/1.png", "c/1.jpg"):
        save(tmp_path / name, GREY)
    assert load_image_folder(tmp_path, pattern="[ab]/*.png")[1].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"c' holds no images of pattern='\*\*/\*\.png' \(it holds '1\.jpg'\)"):
        load_image_folder(tmp_path, pattern="**/*.png")
    with pytest.raises(ValueError, match=r"with pattern='a/\*' holds one class, 'a'"):
        load_image_folder(tmp_path, pattern="a/*")


def test_images_without_an_extension_alone(tmp_path):
    for name in ("a/1", "b/IMG.0002"):
        save(tmp_path / name, GREY, format="PNG")
    with pytest.raises(ValueError, match=r"a' holds no images .*\(it holds '1'\)\. Pass pattern='\*/\*'"):
        load_image_folder(tmp_path)
    assert load_image_folder(tmp_path, pattern="*/*")[1].tolist() == ["a", "b"]


def test_what_a_pattern_matches_and_is_not_read_is_counted(tmp_path):
    leftovers(tmp_path)
    (tmp_path / "bad/labels.csv").write_text("1,2")
    with pytest.warns(UserWarning, match="3 files are left out") as caught:
        X, _ = load_image_folder(tmp_path, pattern="**/*")
    assert len(X) == 5
    assert "1 next to the class folders, 'stray.png'" in str(caught[0].message)
    assert "2 in formats that Pillow does not read, 'bad/labels.csv', 'good/4.heic'" in str(caught[0].message)


@pytest.mark.parametrize("pattern", ["", "/", "/a/*", "*/", "../*", "a//b", 3, b"*", ["*.png"]], ids=repr)
def test_wrong_pattern(tmp_path, pattern):
    save(tmp_path / "a/1.png", GREY)
    for load in (load_image_folder, load_images):
        with pytest.raises(ValueError, match=r"pattern=.*expected a glob.*'\*\*/\*\.jpg'"):
            load(tmp_path, pattern=pattern)


def test_pattern_that_begins_inside_the_class_folders(tmp_path):
    save(tmp_path / "a/Imgs/1.png", GREY)
    save(tmp_path / "b/Imgs/1.png", GREY)
    with pytest.raises(ValueError, match=r"no class folder matches 'Imgs'.*pattern='\*/Imgs/\*' for.*'a', 'b'"):
        load_image_folder(tmp_path, pattern="Imgs/*")
    assert load_image_folder(tmp_path, pattern="*/Imgs/*")[1].tolist() == ["a", "b"]


def test_files_of_one_name_are_a_warning_with_a_pattern_that_selects_some(tmp_path):
    for name in ("a/1.jpg", "a/1.png", "a/2.jpg", "a/2.png", "b/3.jpg"):
        save(tmp_path / name, GREY)
    save(tmp_path / "b/1.png", GREY)  # the same name in another folder
    with pytest.warns(UserWarning, match=r"4 images have the name of another .*'a/1\.jpg', 'a/1\.png'") as caught:
        X, _ = load_image_folder(tmp_path)
    assert len(X) == 6
    assert "pattern='*/*.jpg'" in str(caught[0].message)
    (tmp_path / "b/1.png").unlink()
    assert len(load_image_folder(tmp_path, pattern="*/*.jpg")[0]) == 3
    with pytest.warns(UserWarning, match=r"4 images have the name .*pattern='\*\*/\*\.jpg'"):
        load_image_folder(tmp_path, pattern="**/*")
    with pytest.warns(UserWarning, match=r"4 images have the name .*pattern='\*\*/\*\.jpg'"):
        load_images(tmp_path)


def test_circular_links_are_not_followed(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "b/1.png", GREY)
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    (tmp_path / "b/all").symlink_to(tmp_path)
    assert len(load_image_folder(tmp_path, pattern="**/*.png")[0]) == 2


# Labels


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_labels_are_in_unicode_form_nfc_on_any_file_system(tmp_path, form):
    for name in ("ガラス", "Übel", "plain"):
        save(tmp_path / unicodedata.normalize(form, name) / "é1.png", GREY)
    names = [unicodedata.normalize("NFC", name) for name in ("plain", "Übel", "ガラス")]
    assert load_image_folder(tmp_path)[1].tolist() == names
    pattern = f"{unicodedata.normalize('NFD', 'Ü')}*/*"
    with pytest.raises(ValueError, match="one class, 'Übel'"):
        load_image_folder(tmp_path, pattern=pattern)


def test_two_folders_of_one_name(tmp_path):
    save(tmp_path / unicodedata.normalize("NFC", "Übel") / "1.png", GREY)
    save(tmp_path / unicodedata.normalize("NFD", "Übel") / "1.png", GREY)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes them for one")
    with pytest.raises(ValueError, match=r"'U\\u0308bel' and '\\xdcbel' .*one name, 'Übel', in two Unicode forms"):
        load_image_folder(tmp_path)


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="names are Unicode there")
def test_class_folder_whose_name_is_not_utf8(tmp_path):
    for name in ("良品", "不良"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name.encode("cp932")))
        save(folder / "1.png", GREY)
    with pytest.raises(ValueError, match=r"class folder b'\\x95s\\x97\\xc7' .*not UTF-8.*Rename"):
        load_image_folder(tmp_path)
    assert len(load_images(tmp_path)[0]) == 2


# Groups


def test_groups_are_found_in_names(tmp_path):
    for name in ("a/p1_x.png", "a/p2_x.png", "b/p1_y.png"):
        save(tmp_path / name, GREY)
    X, y, groups = load_image_folder(tmp_path, groups=r"p\d")
    assert groups.tolist() == ["p1", "p2", "p1"]
    _, _, paths, groups = load_image_folder(tmp_path, groups=re.compile(r"(\w)/p(\d)"), return_paths=True)
    assert groups.tolist() == ["a", "a", "b"]
    assert len(paths) == len(X) == len(y) == 3


@pytest.mark.parametrize("pattern", [r"x(\d)", r"a/p(\d)|b", r"\d*"], ids=repr)
def test_a_file_of_no_group_is_named(tmp_path, pattern):
    save(tmp_path / "a/x1.png", GREY)
    save(tmp_path / "b/p1.png", GREY)
    with pytest.raises(ValueError, match=r"groups='.*' finds nothing in '(a/x1|b/p1)\.png'.*first \(\.\.\.\)"):
        load_image_folder(tmp_path, groups=pattern)


@pytest.mark.parametrize("groups", ["(", 3, ["a"], rb"\d"], ids=repr)
def test_wrong_groups(tmp_path, groups):
    save(tmp_path / "a/1.png", GREY)
    with pytest.raises(ValueError, match=r"groups=.* (is not a regular expression|is of bytes)"):
        load_image_folder(tmp_path, groups=groups)


# Images without classes


def test_images_without_classes_are_read_at_any_depth(tmp_path):
    for name in ("2.png", "10.png", "unknown/1.png", "a/b/3.png"):
        save(tmp_path / name, GREY)
    X, paths = load_images(tmp_path)
    assert X.shape == (4, 4, 6, 1)
    assert paths.tolist() == [str(tmp_path / name) for name in ("10.png", "2.png", "a/b/3.png", "unknown/1.png")]
    assert load_images(tmp_path, pattern="*.png")[1].tolist() == [str(tmp_path / name) for name in ("10.png", "2.png")]


def test_without_classes_images_without_an_extension_are_counted_and_read_by_a_pattern(tmp_path):
    save(tmp_path / "1.png", GREY)
    save(tmp_path / "IMG2", GREY, format="PNG")
    with pytest.warns(UserWarning, match=r"1 file is left out .*1 without the extension of an image, 'IMG2'"):
        assert len(load_images(tmp_path)[0]) == 1
    assert len(load_images(tmp_path, pattern="**/*")[0]) == 2


@pytest.mark.parametrize("pattern", [None, "*.jpg"])
def test_no_images_at_all(tmp_path, pattern):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"holds no images that Pillow reads \(it holds 'notes\.txt'\)"):
        load_images(tmp_path, pattern=pattern)


# Files that cannot be read


@pytest.mark.parametrize("mode", [None, "L"])
def test_unreadable_files_are_left_out_with_one_warning(tmp_path, mode):
    for name, value in [("a/1.png", 1), ("a/3.png", 3), ("b/p4.png", 4)]:
        save(tmp_path / name, np.full((4, 6), value, np.uint8))
    (tmp_path / "a/0.png").write_bytes(b"not a picture")
    cut = save(tmp_path / "a/2.png", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.warns(
        UserWarning, match=r"2 of 5 images cannot be read .*0\.png', '.*2\.png'\. The first: its con"
    ) as caught:
        X, y, paths, groups = load_image_folder(
            tmp_path, mode=mode, on_error="warn", return_paths=True, groups=r"(\d)\.png"
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert X.shape == (3, 4, 6, 1)
    assert X[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert y.tolist() == ["a", "a", "b"]
    assert groups.tolist() == ["1", "3", "4"]
    assert [Path(path).name for path in paths] == ["1.png", "3.png", "p4.png"]


def test_a_class_of_which_no_image_can_be_read(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.png").write_bytes(b"not a picture")
    with (
        pytest.warns(UserWarning, match="1 of 2 images cannot be read"),
        pytest.raises(ValueError, match="No image of class 'b' can be read"),
    ):
        load_image_folder(tmp_path, on_error="warn")


def test_no_image_can_be_read(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"None of 2 images can be read\. The first: .*1\.png' as an image"):
        load_images(tmp_path, on_error="warn")


@pytest.mark.parametrize("on_error", ["ignore", None, True], ids=repr)
def test_wrong_on_error(tmp_path, on_error):
    with pytest.raises(ValueError, match=r"on_error=.*expected 'raise', or 'warn'"):
        load_images(tmp_path, on_error=on_error)


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
    assert load_images(tmp_path)[0].shape == (len(images), 4, 6, channels)


def test_mode_forces_channels(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "a/2.png", COLOUR)
    X, _ = load_images(tmp_path, mode="RGB")
    np.testing.assert_array_equal(X[0], np.repeat(GREY[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(X[1], COLOUR)
    X, _ = load_images(tmp_path, mode="L")
    np.testing.assert_array_equal(X[0, :, :, 0], GREY)
    np.testing.assert_allclose(X[1, :, :, 0], COLOUR @ [0.299, 0.587, 0.114], atol=0.51)


# Size


@pytest.mark.parametrize("size", [(8, 3), [8, 3], np.array([8, 3])], ids=["tuple", "list", "array"])
def test_size_is_rows_columns(tmp_path, size):
    save(tmp_path / "a/1.png", GREY)
    save(tmp_path / "b/1.png", GREY.T)
    assert load_image_folder(tmp_path, size=size)[0].shape == (2, 8, 3, 1)


@pytest.mark.parametrize("size", [5, np.int64(5)], ids=["int", "numpy"])
def test_one_size_is_a_square(tmp_path, size):
    save(tmp_path / "a/1.png", COLOUR)
    assert load_images(tmp_path, size=size)[0].shape == (1, 5, 5, 3)


def test_resizing_happens_after_turning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a/1.png", GREY, exif=exif)
    X, _ = load_images(tmp_path, size=(6, 4))
    np.testing.assert_array_equal(X[0, :, :, 0], np.rot90(GREY, -1))


@pytest.mark.parametrize(
    ("shape", "size", "resize", "expected"),
    [
        ((4, 8), 8, "pad", [0, 0, *[200] * 4, 0, 0]),
        ((4, 8), 8, "crop", [200] * 8),
        ((4, 8), 8, "stretch", [200] * 8),
        ((1, 100), 8, "pad", [0, 0, 0, 200, 0, 0, 0, 0]),
        ((1, 100), 8, "crop", [200] * 8),
        ((4, 8), (2, 4), "pad", [200] * 2),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_proportions(tmp_path, shape, size, resize, expected, mode):
    save(tmp_path / "1.png", np.full(shape, 200, np.uint8))
    save(tmp_path / "2.png", np.full(shape[::-1], 200, np.uint8))
    (wide, high), _ = load_images(tmp_path, size=size, resize=resize, mode=mode)
    for column in (0, -1):
        np.testing.assert_array_equal(wide[:, column], np.array(expected)[:, None].repeat(wide.shape[2], axis=1))
    if isinstance(size, int):
        np.testing.assert_array_equal(high, wide.transpose(1, 0, 2))


def test_crop_shows_the_middle_and_pad_all(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 4:12] = 100
    pixels[:, 0] = pixels[:, -1] = 250
    save(tmp_path / "1.png", pixels)
    np.testing.assert_array_equal(load_images(tmp_path, size=8, resize="crop")[0], 100)
    padded = load_images(tmp_path, size=16, resize="pad")[0][0, :, :, 0]
    np.testing.assert_array_equal(padded[4:12], pixels)
    assert not padded[:4].any()
    assert not padded[12:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "fit", "size": 8}, r"resize='fit': expected 'stretch', 'pad' or 'crop'"),
        ({"resize": None, "size": 8}, "resize=None: expected"),
        ({"resize": "pad"}, r"resize='pad' needs a size"),
    ],
)
def test_wrong_resize(tmp_path, options, message):
    for load in (load_image_folder, load_images):
        with pytest.raises(ValueError, match=message):
            load(tmp_path, **options)


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
    with pytest.raises(ValueError, match=r"images but no class folders.*one folder per class.*load_images"):
        load_image_folder(tmp_path)


def test_photos_that_cannot_be_read_are_missed_with_a_warning(tmp_path, monkeypatch):
    save(tmp_path / "good/1.png", GREY)
    for name in ("2.HEIC", "3.dng", "notes.txt"):
        (tmp_path / "good" / name).touch()
    with pytest.warns(UserWarning, match=r"2 files are left out .*'good/2\.HEIC', 'good/3\.dng'.* convert them to PNG"):
        X, _ = load_images(tmp_path)
    assert len(X) == 1
    for extension in (".heic", ".dng"):  # as a plugin does
        monkeypatch.setitem(Image.registered_extensions(), extension, "PNG")
    for name in ("2.HEIC", "3.dng"):
        save(tmp_path / "good" / name, GREY, format="PNG")
    assert len(load_images(tmp_path)[0]) == 3


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
    for name in ("train/a/1.png", "train/b/1.png"):
        save(tmp_path / name, GREY)
    with pytest.raises(
        ValueError, match=r"train' holds no images .*: pass path='.*train' where the classes are 'a', 'b'\."
    ):
        load_image_folder(tmp_path)
    save(tmp_path / "test/a/1.png", GREY)
    with pytest.raises(ValueError, match=r"pattern='\*\*/\*' where the classes are 'test', 'train'"):
        load_image_folder(tmp_path)


def test_images_in_a_folder_of_one_name_in_each_class(tmp_path):
    for name in ("a/Imgs/1.jpg", "b/Imgs/1.jpg"):
        save(tmp_path / name, GREY)
    with pytest.raises(
        ValueError, match=r"a' holds no images .*deeper, .*: pass pattern='\*/Imgs/\*' where .*'a', 'b'\."
    ):
        load_image_folder(tmp_path)
    with pytest.raises(
        ValueError, match=r"one class, 'Imgs'.*Pass path='.*', pattern='\*/Imgs/\*' where .*'a', 'b'"
    ) as caught:
        load_image_folder(tmp_path / "a")
    assert f"path={str(tmp_path)!r}, " in str(caught.value)
    assert load_image_folder(tmp_path, pattern="*/Imgs/*")[1].tolist() == ["a", "b"]


def test_one_class_is_an_error_that_names_the_way_to_read_new_images(tmp_path):
    save(tmp_path / "new/unknown/1.png", GREY)
    with pytest.raises(ValueError, match=r"new' holds one class, 'unknown', .*at least 2.*load_images"):
        load_image_folder(tmp_path / "new")
    assert len(load_images(tmp_path / "new")[0]) == 1


@pytest.mark.parametrize("mode", [None, "L"])
def test_file_that_is_no_image(tmp_path, mode):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "a/2.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"2\.png' as an image: its content is in no image format.*Repair") as caught:
        load_images(tmp_path, mode=mode)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_link_to_nowhere_is_no_file_to_leave_out(tmp_path):
    save(tmp_path / "a/1.png", GREY)
    (tmp_path / "a/2.png").symlink_to("not-fetched.png")
    with pytest.raises(ValueError, match=r"2\.png' as an image: .*No such file"):
        load_images(tmp_path)


def test_a_huge_picture_needs_no_repair(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"1\.png' .*Make it smaller or.*MAX_IMAGE_PIXELS"):
        load_images(tmp_path)


@pytest.mark.parametrize("name", ["2.png", "2.jpg", "2.tif", "2.bmp", "2.gif", "2.webp"])
def test_truncated_file(tmp_path, name):
    save(tmp_path / "a/1.png", COLOUR)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = save(tmp_path / "a" / name, noise)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"Cannot read .*{name}' as an image"):
        load_images(tmp_path, size=8)


def test_empty_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").touch()
    with pytest.raises(ValueError, match=r"1\.png' as an image"):
        load_images(tmp_path)


# Quiet


def test_large_picture_is_no_warning(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 24 pixels: Pillow warns; more than 40 and it refuses
    assert load_images(tmp_path)[0].shape == (1, 4, 6, 1)


def test_refused_picture_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(ValueError, match=r"1\.png' as an image: .*exceeds limit"):
        load_images(tmp_path)


def test_files_are_closed(tmp_path):
    for i in range(3):
        save(tmp_path / f"a/{i}.gif", GREY)  # an animated format keeps its file until told otherwise
    load_images(tmp_path)
    (tmp_path / "a/3.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"3\.gif"):
        load_images(tmp_path)
    gc.collect()  # a handle left open becomes a ResourceWarning here, which pytest makes an error


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO, False), (Terminal, True)], ids=["file", "terminal"])
def test_progress_only_on_a_terminal(tmp_path, monkeypatch, capsys, stream, shown):
    save(tmp_path / "a/1.png", GREY)
    monkeypatch.setattr(sys, "stderr", stream())
    load_images(tmp_path)
    assert ("Loading images" in sys.stderr.getvalue()) == shown
    assert capsys.readouterr().out == ""


def test_damaged_file_does_not_hide_a_shortage_of_memory(tmp_path, monkeypatch):
    save(tmp_path / "a/1.png", GREY)

    def no_memory(image):
        raise MemoryError

    monkeypatch.setattr(ImageOps, "exif_transpose", no_memory)
    with pytest.raises(MemoryError):
        load_images(tmp_path)


# Masks


def draw_mask(value=255):
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = value
    return mask


def check_masks(found, expected):
    assert found.dtype == object
    assert found.shape == (len(expected),)
    for own, mask in zip(found, expected, strict=True):
        assert (own is None) == (mask is None)
        if mask is not None:
            assert own.dtype == bool
            np.testing.assert_array_equal(own, mask > 0)


@pytest.mark.parametrize(("masks", "name"), [("_mask", "1_mask.png"), ("_mask.png", "1_mask.png"), (".png", "1.png")])
def test_masks_next_to_their_photos(tmp_path, masks, name):
    for photo in ("a/1.bmp", "a/2.bmp", "b/gas_mask.bmp"):
        save(tmp_path / photo, GREY)
    save(tmp_path / "a" / name, draw_mask(1))
    X, y, paths, found, groups = load_image_folder(tmp_path, masks=masks, return_paths=True, groups=r"^\w")
    assert y.tolist() == groups.tolist() == ["a", "a", "b"]
    assert len(X) == len(paths) == 3  # the mask is no photo, and gas_mask is one
    check_masks(found, [draw_mask(), None, None])


@pytest.mark.parametrize("name", ["1_mask.png", "1.tif"])
@pytest.mark.parametrize("convert", [str, Path])
def test_masks_in_a_separate_folder(tmp_path, name, convert):
    for photo in ("test/good/1.png", "test/bad/1.png", "test/bad/2.png"):
        save(tmp_path / photo, GREY)
    save(tmp_path / "ground_truth/bad" / name, draw_mask())
    _, y, found = load_image_folder(tmp_path / "test", masks=convert(tmp_path / "ground_truth"))
    assert y.tolist() == ["bad", "bad", "good"]
    check_masks(found, [draw_mask(), None, None])


def test_masks_outside_of_the_pattern_are_found(tmp_path):
    for photo in ("a/1.bmp", "b/1.bmp"):
        save(tmp_path / photo, GREY)
    save(tmp_path / "a/1_mask.png", draw_mask())
    check_masks(load_image_folder(tmp_path, masks="_mask", pattern="*/*.bmp")[2], [draw_mask(), None])


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_masks_are_resized_with_their_photos_and_keep_thin_lines(tmp_path, resize):
    line = np.zeros((40, 60), np.uint8)
    line[:, 31] = 255
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", line)
    save(tmp_path / "a/1_mask.png", line)
    X, _, masks = load_image_folder(tmp_path, size=(8, 8), resize=resize, masks="_mask")
    assert (masks[0].sum(axis=1) <= 1).all()
    assert masks[0].any()
    shown = X[0, :, :, 0]
    np.testing.assert_array_equal(masks[0], (shown > 0) & (shown == shown.max(axis=1, keepdims=True)))


def test_a_mask_of_another_size_is_resized(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", GREY)
    save(tmp_path / "a/1_mask.png", draw_mask().repeat(3, 0).repeat(2, 1))
    check_masks(load_image_folder(tmp_path, masks="_mask")[2], [draw_mask(), None])


@pytest.mark.parametrize("masks", [3, "", b"_mask"], ids=str)
def test_masks_that_are_neither_suffix_nor_folder(tmp_path, masks):
    with pytest.raises(ValueError, match="expected a suffix, such as '_mask'"):
        load_image_folder(tmp_path, masks=masks)


def test_masks_that_are_not_there_or_not_readable(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", GREY)
    with pytest.raises(ValueError, match=r"masks='_masks': none of 2 images has a mask there.*'_mask'"):
        load_image_folder(tmp_path, masks="_masks")
    with pytest.raises(FileNotFoundError, match=r"masks='.*truth' does not exist"):
        load_image_folder(tmp_path, masks=tmp_path / "truth")
    (tmp_path / "a/1_mask.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1_mask.png.* as an image"):
        load_image_folder(tmp_path, masks="_mask", on_error="warn")
