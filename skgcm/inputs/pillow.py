"""One image, from a file or from Pillow, as 8-bit grey or colour, as an image viewer shows it."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow recognises these formats but needs another program or handler to decode them. EPS starts Ghostscript, which no
# file in a data folder, with any extension, should be able to do.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

PHOTOMETRIC = 262  # TIFF tag: 0 where 0 is white, 1 where 0 is black, 3 palette, 6 YCbCr, 8 LAB
CCITT = {"tiff_ccitt", "group3", "group4"}  # fax, where 0 is white unless the file says otherwise
KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}  # TIFF tag 339, SampleFormat


def formats():
    """Formats to open, in the order in which Pillow tries them, including those of registered plugins."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_DECODED]


def is_image(file):
    """Whether Pillow finds an image in a file, by its content."""
    try:
        with Image.open(file, formats=formats()):
            return True
    except (Image.DecompressionBombError, MemoryError):
        return True
    except Exception:  # OSError, SyntaxError, struct.error, ...: every format has its own errors
        return False


def read_file(file, read, remedy):
    """The result of ``read`` for an opened file; any error becomes a ValueError that names the file."""
    try:
        # Opened by Python: given a path, Pillow maps some files into memory, see _turned
        with open(file, "rb") as stream, Image.open(stream, formats=formats()) as image:
            return read(image)
    except MemoryError:
        raise
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...: every format has its own errors
        if isinstance(error, Image.DecompressionBombError):
            remedy = "Make it smaller or, if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS."
        raise ValueError(f"Cannot read {str(file)!r} as an image: {why_not(error)}. {remedy}") from error


def is_grey(image):
    """Whether an image is stored in grey, from its header only."""
    # A palette counts as colour: its colours are not known before the file is decoded.
    grey = image.mode in {"1", "L", "LA", "La", "F"} or image.mode.startswith("I")
    return grey or _stored(image) == "LA;16B"  # PNG, which Pillow opens as RGBA


def why_not(error):
    """An error of Pillow as part of a sentence."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is in no image format that Pillow reads (of TIFF it reads 8 bits and most kinds of 16)"
    return str(error).rstrip(".") or type(error).__name__


def check(image):
    """Raise ValueError if :func:`read` would, as far as the header of an opened image shows it."""
    _refuse(image, getattr(image, "tag_v2", {}), _stored(image))


def read(image, mode, size=None, resize="stretch"):
    """The pixels of a Pillow image, opened or in memory: uint8 (R, C, D), D = 1 in mode "L" and 3 in mode "RGB".

    It is turned upright, white is 255, and transparent pixels are blended onto black. `size` is (rows, columns), or
    None. Raises ValueError for numbers without a defined white, and for files that Pillow misreads.
    """
    image = _eight_bits(image).convert(mode)
    if size is not None:
        image = _resized(image, size, resize)
    return np.asarray(image).reshape(image.height, image.width, -1)


def read_mask(image, size=None, resize="stretch"):
    """Where a Pillow image is not black, bool (R, C). Resized like :func:`read`; partly covered pixels count."""
    inside = np.asarray(_eight_bits(image).convert("L")) > 0
    image = Image.fromarray(inside.astype(np.uint8) * 255)
    if size is not None:
        image = _resized(image, size, resize, Image.Resampling.BOX)
    return np.asarray(image) > 0


def _eight_bits(image):
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    stored = _stored(image)
    _refuse(image, tags, stored)
    # Pillow before 11 reads a 16-bit PNG as mode I, and every version a 16-bit PGM, both as 0 ... 65535.
    sixteen = image.mode.startswith("I")
    image = _turned(image)
    if sixteen:
        values = np.asarray(image).astype(np.uint32)  # native byte order, and room for * 255
        if "transparency" in image.info:
            values[values == image.info["transparency"]] = 0  # transparent pixels become black
        white = 4095 if tags.get(258) == (12,) else 65535
        if tags.get(PHOTOMETRIC) == 0:  # Pillow handles it only up to 8 bits
            values = white - values
        return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    if image.mode in {"P", "PA"} and max(tags.get(320, [256])) < 256:  # a palette of 8 bits instead of 16
        image.putpalette(bytes(tags[320]), "RGB;L")
    if image.mode == "La":
        image = image.getchannel(0)  # multiplied by its alpha already, which is blending onto black
    elif image.has_transparency_data:
        most = {"1": 1, "L;2": 3, "L;4": 15}.get(stored)
        if most and image.info["transparency"] <= most:  # in as few bits, which Pillow does not convert
            image.info["transparency"] *= 255 // most
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    elif image.mode == "LAB":
        image = image.convert("RGB")  # the only mode that Pillow converts it to
    return image


def _resized(image, size, how, method=Image.Resampling.BILINEAR):
    """An image of `size` = (rows, columns)."""
    rows, columns = size
    if how == "crop":
        return ImageOps.fit(image, (columns, rows), method)
    if how == "stretch":
        return image.resize((columns, rows), method)
    scale = min(columns / image.width, rows / image.height)
    width, height = (max(1, round(side * scale)) for side in image.size)
    padded = Image.new(image.mode, (columns, rows))
    padded.paste(image.resize((width, height), method), ((columns - width) // 2, (rows - height) // 2))
    return padded


def _stored(image):
    """How a file stores its pixels, in Pillow's terms, "L;2" for example; None if they are decoded already."""
    tile = getattr(image, "tile", None)
    if tile:  # decoding empties it: store it in the image, so that a second reading gives the same
        stored = tile[0][3]
        image.skgcm_stored = stored[0] if isinstance(stored, tuple) and stored else stored
    return getattr(image, "skgcm_stored", None)


def _turned(image):
    """A copy, turned upright as EXIF says."""
    name = getattr(image, "filename", None)
    if not name or not getattr(image, "tile", None):
        return ImageOps.exif_transpose(image)
    # Given a path, Pillow 13.0 maps an uncompressed TIFF into memory in its upright size, and the pixels of
    # orientations 5 to 8 are scrambled. Without a path it reads the open file.
    try:
        image.filename = ""
        return ImageOps.exif_transpose(image)
    finally:
        image.filename = name


def _refuse(image, tags, stored):
    """Raise ValueError if the pixels from Pillow differ from the picture in the file."""
    mode, file_format, bits = image.mode, image.format, tags.get(258, (1,))
    colour = image.info.get("transparency")
    reason = None
    sixteen = mode.startswith("I;16") or (mode == "I" and file_format in {"PNG", "PPM"})
    kind = max(tags.get(339, [1]))
    if kind == 2 or (mode[0] in "IF" and not sixteen):
        numbers = f"{bits[0]}-bit {KINDS[kind]}" if tags else f"32-bit {KINDS[3] if mode == 'F' else 'integers'}"
        reason = f"its pixels are {numbers} (Pillow mode {mode}), which do not say what white is"
    elif sixteen and file_format in {"FITS", "MCIDAS"}:
        reason = f"its pixels are measured numbers of 16 bits ({file_format}), which do not say what white is"
    elif mode == "1" and file_format in {"PSD", "XBM"}:
        reason = f"Pillow reads 1-bit images in the format {file_format} as negatives"
    elif tags and PHOTOMETRIC not in tags and tags.get(259, 1) != 6 and image.info.get("compression") not in CCITT:
        reason = "its TIFF tag PhotometricInterpretation is missing, which says whether 0 is black or white"
    elif tags.get(284) == 2 and (mode == "LAB" or (16 in bits and image.info["compression"] == "raw")):
        reason = f"its channels are stored one after the other ({bits[0]} bits, mode {mode}), which Pillow misreads"
    elif mode == "YCbCr" and tags and tuple(tags.get(530, (2, 2))) != (1, 1):
        reason = "its YCbCr colours are subsampled and not compressed, which Pillow misreads"
    elif mode == "RGB" and colour and (stored == "RGB;16B" or max(colour) > 255):
        reason = "its transparent colour has 16 bits, of which Pillow reads 8"
    if reason:
        raise ValueError(f"{reason}. Save it with 8 or 16 bits per channel, as PNG for example")
