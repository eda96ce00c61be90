"""The pixels that come out of every kind of file and of Pillow's images: what a viewer shows, or an error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skgcm.datasets import load_images
from skgcm.inputs import images, pillow

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10  # 4 rows, 6 columns, all values differ
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


def pixels_of(tmp_path, name, pixels, *, mode=None, **options):
    """What one file becomes: (R, C, D)."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(tmp_path / name, **options)
    X, _ = load_images(tmp_path, mode=mode)
    return X[0]


def tiff(*strips, bits, photometric, order="<", **more):
    """A TIFF of 6 x 4 pixels as bytes, with the tags that Pillow does not write; `more` are tags like t277=(3,)."""
    tags = {256: (6,), 257: (4,), 258: bits, 259: (1,), 273: (0,) * len(strips), 277: (len(bits),), 278: (4,)}
    tags |= {279: tuple(map(len, strips))} | {int(tag[1:]): values for tag, values in more.items()}
    if photometric is not None:
        tags[262] = (photometric,)
    entries, long_ones = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    sizes = sum(2 * len(values) for tag, values in tags.items() if tag not in (273, 279) and len(values) > 2)
    sizes += sum(4 * len(values) for tag, values in tags.items() if tag in (273, 279) and len(values) > 1)
    offsets = np.cumsum([start + sizes, *map(len, strips)])[:-1]
    tags[273] = tuple(offsets.tolist())
    for tag, values in sorted(tags.items()):
        kind, code = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > 4:
            packed, long_ones = struct.pack(f"{order}I", start + len(long_ones)), long_ones + packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + bytes(4) + long_ones + b"".join(strips)


def png(depth, colour, rows, width, transparent):
    """A PNG as bytes: `depth` bits, type of `colour`, packed rows and the tRNS chunk."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", transparent)] if transparent else [])]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def shown(content, mode="RGB"):
    """The pixels of a file's bytes."""
    with Image.open(io.BytesIO(content)) as image:
        return pillow.read(image, mode)


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


@pytest.mark.parametrize("name", ["1.tif", "1.jpg"])
def test_cmyk(tmp_path, name):
    image = Image.new("CMYK", (16, 16), (255, 0, 51, 0))  # of JPEG inverted, as Adobe does
    np.testing.assert_allclose(pixels_of(tmp_path, name, image), np.full((16, 16, 3), [0, 255, 204]), atol=2)


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


def test_damaged_metadata_is_no_warning(tmp_path):
    out = pixels_of(tmp_path, "1.jpg", np.full((8, 8), 90, np.uint8), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    np.testing.assert_array_equal(out, 90)


# TIFF

PLANES = [COLOUR[:, :, i].tobytes() for i in range(3)]
IN_12_BITS = bytes.fromhex("".join(f"{value * 16:03x}" for value in GREY.ravel().tolist()))


@pytest.mark.parametrize("compression", [1, 8], ids=["raw", "deflate"])
@pytest.mark.parametrize(
    ("content", "tags", "expected"),
    [
        (GREY, {"bits": (8,), "photometric": 0}, 255 - GREY),
        (SIXTEEN.astype("<u2"), {"bits": (16,), "photometric": 0}, 255 - GREY),
        (SIXTEEN.astype("<u2"), {"bits": (16,), "photometric": 1}, GREY),
        (SIXTEEN.astype(">u2"), {"bits": (16,), "photometric": 1, "order": ">"}, GREY),
        (IN_12_BITS, {"bits": (12,), "photometric": 1}, np.round(GREY * 16.0 * 255 / 4095)),
        (b"\x48" * 12, {"bits": (4,), "photometric": 0}, 255 - np.tile([68, 136], (4, 3))),
        (b"\xa8" * 4, {"bits": (1,), "photometric": 0}, np.tile([0, 255], (4, 3))),
        (COLOUR.astype("<u2") * 257, {"bits": (16,) * 3, "photometric": 2}, COLOUR),
        (COLOUR.astype(">u2") * 257, {"bits": (16,) * 3, "photometric": 2, "order": ">"}, COLOUR),
        (GREY, {"bits": (8,), "photometric": 3, "t320": tuple(range(256)) * 3}, GREY),
        (GREY, {"bits": (8,), "photometric": 3, "t320": tuple(range(0, 65536, 257)) * 3}, GREY),
        (np.stack([GREY, GREY + 10], 2), {"bits": (8, 8), "photometric": 1, "t338": (1,)}, GREY),
        (np.dstack([GREY, GREY, GREY, GREY * 0]), {"bits": (8,) * 4, "photometric": 5}, 255 - GREY),
        (np.tile(np.uint8([128, 0, 0]), (4, 6, 1)), {"bits": (8,) * 3, "photometric": 8}, np.full((4, 6), 119)),
    ],
    ids=[
        "8bit-0-white", "16bit-0-white", "16bit", "16bit-big-endian", "12bit", "4bit-0-white", "1bit-0-white", "rgb16",
        "rgb16-big-endian", "palette-of-8-bits", "palette", "premultiplied", "cmyk", "lab",
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tiff_as_a_viewer_shows_it(content, tags, expected, compression, mode):
    content = content if isinstance(content, bytes) else content.tobytes()
    content = tiff(content if compression == 1 else zlib.compress(content), **tags, t259=(compression,))
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
    if mode == "L":
        expected = np.round(expected @ [[0.299], [0.587], [0.114]])
    np.testing.assert_allclose(shown(content, mode), expected, atol=1 if mode == "L" else 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(bytes(48), bits=(16,), photometric=1, t339=(2,)), "pixels are 16-bit signed integers"),
        (tiff(bytes(48), bits=(16,), photometric=1, t339=(2,), order=">"), "pixels are 16-bit signed integers"),
        (tiff(bytes(24), bits=(8,), photometric=1, t339=(2,)), "pixels are 8-bit signed integers"),
        (tiff(bytes(96), bits=(32,), photometric=1), "pixels are 32-bit unsigned integers"),
        (tiff(bytes(96), bits=(32,), photometric=1, t339=(2,)), "pixels are 32-bit signed integers"),
        (tiff(bytes(96), bits=(32,), photometric=0, t339=(3,)), "pixels are 32-bit floats"),
        (tiff(bytes(24), bits=(8,), photometric=None), "tag PhotometricInterpretation is missing"),
        (tiff(*[bytes(48)] * 3, bits=(16,) * 3, photometric=2, t284=(2,)), r"one after the other \(16 bits, mode RGB"),
        (tiff(*PLANES, bits=(8,) * 3, photometric=8, t284=(2,)), r"one after the other \(8 bits, mode LAB"),
        (tiff(bytes(72), bits=(8,) * 3, photometric=6), "YCbCr colours are subsampled"),
        (png(16, 2, [bytes(12)], 2, b"\0\0\0\0\x12\x34"), "transparent colour has 16 bits"),
        (
            b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x01};\n",
            "in the format XBM as negatives",
        ),
    ],
)
def test_what_does_not_say_what_white_is_or_pillow_misreads_is_named(content, message):
    with pytest.raises(ValueError, match=rf"{message}.*Save it with 8 or 16 bits per channel"):
        shown(content)


def test_tiff_of_planes():
    content = tiff(*PLANES, bits=(8,) * 3, photometric=2, t284=(2,))
    np.testing.assert_array_equal(shown(content), COLOUR)
    packed = [zlib.compress((COLOUR[:, :, i].astype("<u2") * 257).tobytes()) for i in range(3)]
    content = tiff(*packed, bits=(16,) * 3, photometric=2, t284=(2,), t259=(8,))
    np.testing.assert_array_equal(shown(content), COLOUR)


def test_a_tiff_that_pillow_does_not_open_is_named(tmp_path):
    (tmp_path / "1.tif").write_bytes(tiff(bytes(48), bits=(16,), photometric=0, order=">"))
    with pytest.raises(ValueError, match=r"1\.tif' as an image: .*of TIFF it reads 8 bits and most kinds of 16"):
        load_images(tmp_path)


# Other formats


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (1, b"\x50", 1, [0, 0, 0, 0]),
        (2, b"\x1b", 1, [0, 0, 170, 255]),
        (2, b"\x1b", 3, [0, 85, 170, 0]),
        (4, b"\x12\x34", 3, [17, 34, 0, 68]),
        (8, b"\x01\x02\x03\x04", 3, [1, 2, 0, 4]),
        (16, struct.pack(">4H", 257, 514, 771, 772), 771, [1, 2, 0, 3]),
    ],
)
def test_transparent_grey_of_a_png(depth, row, transparent, expected):
    assert shown(png(depth, 0, [row], 4, struct.pack(">H", transparent)), "L").ravel().tolist() == expected


def test_grey_with_alpha_of_16_bits_is_grey():
    content = png(16, 4, [struct.pack(">4H", 51400, 65535, 51400, 13107)], 2, None)
    with Image.open(io.BytesIO(content)) as image:
        assert pillow.is_grey(image)
        assert pillow.read(image, "L").ravel().tolist() == [200, 40]


def test_measured_numbers_of_16_bits_are_an_error():
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2"]
    cards += ["NAXIS1  =                    2", "NAXIS2  =                    2", "END"]
    with pytest.raises(ValueError, match="measured numbers of 16 bits"):
        shown("".join(f"{card:80}" for card in cards).encode().ljust(2880) + bytes(2880))


MODES = ["1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
MODES += ["I;16", "I;16B", "I;16L"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("given", MODES)
def test_every_mode_of_pillow(given, mode):
    colours = {"PA": (0, 255), "LA": (200, 255), "La": (200, 255), "CMYK": (0, 0, 0, 55), "YCbCr": (200, 128, 128)}
    colours |= {"RGB": (200,) * 3, "RGBA": (200, 200, 200, 255), "RGBa": (200, 200, 200, 255), "RGBX": (200,) * 4}
    colours |= {"LAB": (206, 128, 128), "HSV": (0, 0, 200), "1": 1, "L": 200, "P": 0}
    image = Image.new(given, (2, 3), colours.get(given, 51400))
    if given in {"P", "PA"}:
        image.putpalette([200, 200, 200] * 256)
    pixels = pillow.read(image, mode)
    assert pixels.shape == (3, 2, 1 if mode == "L" else 3)
    np.testing.assert_allclose(pixels, 255 if given == "1" else 200, atol=2)


@pytest.mark.parametrize(("mode", "numbers"), [("I", "integers"), ("F", "floats")])
def test_numbers_that_do_not_say_what_white_is(mode, numbers):
    with pytest.raises(ValueError, match=rf"32-bit {numbers} \(Pillow mode {mode}\)"):
        pillow.read(Image.new(mode, (2, 2)), "L")


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_that_pillow_opened_by_its_path_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SIXTEEN).save(tmp_path / "1.tif", exif=exif)
    with Image.open(tmp_path / "1.tif") as image:
        np.testing.assert_array_equal(pillow.read(image, "L")[:, :, 0], UPRIGHT[orientation])
        assert image.filename == str(tmp_path / "1.tif")


def test_a_second_reading_of_the_same_pillow_images_gives_the_same_pixels(tmp_path):
    Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8) * 85).save(tmp_path / "grey.png", bits=2, transparency=2)
    with Image.open(tmp_path / "grey.png") as picture:
        first, second = (images.as_array([picture]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
