"""A folder of images per class, of any format that Pillow reads."""

import warnings
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from skgcm.warning import warn

# Pillow names these formats but leaves their pixels to an outside program or handler. EPS starts Ghostscript, which no
# file in a data folder should be able to do, whatever its extension says.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

# Photos that Pillow reads only with a plugin, if at all: a user who is not told would miss them in no other way
PHOTOS = {".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}

LAYOUT = "Expected one folder per class with its images directly inside: CLASS/FILE, for example good/0001.png."


def _formats():
    """Formats to open, in the order Pillow tries them, those of plugins the user registered included."""
    Image.init()
    return [name for name in Image.ID if name not in NOT_DECODED]


def _is_grey(mode):
    # A palette counts as colour: which colours it holds is not known before the file is decoded.
    return mode in {"1", "L", "LA", "La", "F"} or mode.startswith("I")


def _to_8_bits(image, file_format):
    """Scale 16-bit greys by their full range, 65535 to 255; Pillow's own conversion clips or not by its version."""
    # Pillow before 11 reads a 16-bit PNG as mode I, and every version a 16-bit PGM, both as 0 ... 65535.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in {"PNG", "PPM"}):
        values = np.asarray(image).astype(np.uint32)  # native byte order, and room for + 128
        if "transparency" in image.info:
            values[values == image.info["transparency"]] = 0  # on black, while it is known which are
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode[0] in "IF":
        raise ValueError(
            f"its pixels are 32-bit numbers (Pillow mode {image.mode}), which do not say what white is. "
            "Save it with 8 or 16 bits per channel"
        )
    return image


def _on_black(image):
    background = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(background, image.convert("RGBA"))


def _decode(file, mode, size, formats):
    """One file as an upright image of ``mode``, "L" or "RGB", resized to ``size`` = (rows, columns) unless None."""
    # Opened by Python: given a path, Pillow 13.0 maps an uncompressed TIFF into memory in the size it has once turned
    # upright, and the pixels of orientations 5 to 8 come out scrambled.
    with open(file, "rb") as stream, Image.open(stream, formats=formats) as image:
        file_format = image.format  # lost when the image is turned
        image = _to_8_bits(ImageOps.exif_transpose(image), file_format)
        if image.has_transparency_data:
            image = _on_black(image)
        image = image.convert(mode)
    if size is not None:
        rows, columns = size
        image = image.resize((columns, rows), Image.Resampling.BILINEAR)
    return image


def _header_mode(file, formats):
    with Image.open(file, formats=formats) as image:
        return image.mode


def _naming_the_file(read, file, *args):
    """Call ``read(file, *args)``; whatever goes wrong becomes a ValueError that names the file."""
    try:
        return read(file, *args)
    except MemoryError:
        raise
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, ...: every format has its own
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "its content is in no image format that Pillow reads" if unknown else str(error).rstrip(".")
        remedy = "Repair the file, or move it out of the class folder."
        if isinstance(error, Image.DecompressionBombError):
            remedy = "Make it smaller or, where you know what it is, raise PIL.Image.MAX_IMAGE_PIXELS."
        raise ValueError(f"Cannot read {str(file)!r} as an image: {reason}. {remedy}") from error


def _visible(folder):
    return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _list_files(path, formats):
    """Image files below ``path`` and the class of each, sorted by class name, then by file name."""
    given = f"path={str(path)!r}"
    if not path.exists():
        raise FileNotFoundError(f"{given} does not exist (looked for {str(path.absolute())!r}). {LAYOUT}")
    if not path.is_dir():
        raise NotADirectoryError(f"{given} is a file, not a folder. {LAYOUT} Unpack an archive first.")
    extensions = {extension for extension, name in Image.registered_extensions().items() if name in formats}

    def is_image(entry):  # a link to nowhere is one that cannot be read, and not a file to leave out
        return entry.suffix.lower() in extensions and (entry.is_file() or not entry.exists())

    entries = _visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders and any(map(is_image, entries)):
        raise ValueError(
            f"{given} holds images but no class folders. {LAYOUT} "
            "Move them into one folder per class; images whose class is unknown can share one, for example unknown/."
        )
    if not folders:
        raise ValueError(f"{given} holds no class folders. {LAYOUT} Check that it is the folder you mean.")

    files, classes, missed = [], [], []
    for folder in folders:
        inside = _visible(folder)
        missed += [entry for entry in inside if entry.suffix.lower() in PHOTOS - extensions]
        images = [entry for entry in inside if is_image(entry)]
        if not images:
            held = ", ".join(repr(entry.name) for entry in inside[:3]) or "nothing"
            raise ValueError(
                f"Class folder {str(folder)!r} holds no images that Pillow reads (it holds {held}"
                f"{', ...' if len(inside) > 3 else ''}). {LAYOUT} "
                "Pass the folder right above the class folders as path, or move this one elsewhere."
            )
        files += images
        classes += [folder.name] * len(images)
    if missed:
        warn(
            f"{len(missed)} files in formats that Pillow does not read are left out, the first is {str(missed[0])!r}. "
            "Convert them to PNG or JPEG, or register a plugin of Pillow that reads them."
        )
    return files, classes


def _check_size(size):
    """``size`` as (rows, columns), or None."""
    if size is None:
        return None
    pair = list(size) if isinstance(size, Iterable) else [size, size]
    if len(pair) != 2 or not all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise ValueError(
            f"size={size!r}: expected None, an integer or (rows, columns), each at least 1, "
            "for example size=64 or size=(48, 64)."
        )
    return int(pair[0]), int(pair[1])


def load_image_folder(path, *, size=None, mode=None, return_paths=False):
    """Load a folder with one subfolder of images per class.

    The layout is ``path/CLASS/FILE``, and the name of a class folder is the label of its images. Every file whose
    extension Pillow knows as an image is read: PNG, JPEG, TIFF, BMP, WebP and more. Hidden entries (a leading dot),
    other files, and anything deeper than ``CLASS/FILE`` are left out; where these are photos by their extension (HEIC,
    JPEG XL, camera raw), there is a UserWarning.

    Parameters
    ----------
    path : str or path-like
        The folder that holds the class folders. A leading ``~`` is the home folder.
    size : int or (int, int), default=None
        Rows and columns to resize every image to, one integer for a square. The aspect ratio is not kept. The filter is
        bilinear, widened when shrinking so that no pixel is skipped: it cannot ring, and ringing beside an edge would
        show up as evidence. None keeps the images as they are, and then all must have one size.
    mode : {"L", "RGB"}, default=None
        "L" makes every image grey (ITU-R 601-2 luma), "RGB" gives every image three channels. None is "L" when every
        file is stored in greys, with 1, 8 or 16 bits and with or without transparency, else "RGB". Greys stored as
        three equal channels count as colour: there ``mode="L"`` saves two thirds of the memory. To read new images for
        a fitted classifier, state the mode and the size it was trained with.
    return_paths : bool, default=False
        Whether to return the path of each image too.

    Returns
    -------
    X : ndarray of shape (n, R, C, D), dtype uint8
        Images, values 0 to 255, D = 1 in mode "L" and 3 in mode "RGB". Sorted by class name, then by file name, both
        character by character (``10.png`` comes before ``9.png``), the same on every system.
    y : ndarray of shape (n,), dtype str
        The class of each image.
    paths : ndarray of shape (n,), dtype str
        The file of each image, beginning with `path`. Only with ``return_paths=True``.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    NotADirectoryError
        If `path` is a file.
    ValueError
        If there are no class folders, a class folder holds no images, a file cannot be read (the message names it),
        images differ in size while `size` is None, or `size` or `mode` is none of the values above.

    Notes
    -----
    What happens to one image, in this order:

    1. It is turned upright as its EXIF orientation says. Of an animation or a stack, the first frame is taken.
    2. 16-bit greys are divided by 257, so that 0 ... 65535 becomes 0 ... 255; a 12-bit picture stored in 16 bits comes
       out dark. 32-bit pixels are an error, for nothing says which value is white.
    3. Transparency is blended onto black, the value to which GCM's contribution maps give no weight.
    4. Palettes, CMYK and other colour spaces are converted to `mode`, then the image is resized.

    `X` takes n·R·C·D bytes; besides it, one decoded image at a time is in memory. A progress bar appears on a terminal
    and nowhere else. Formats of Pillow plugins work once the plugin is registered. EPS and WMF, which Pillow hands to
    other programs, are left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skgcm.datasets import load_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name, grey in [("good", 200), ("scratched", 90)]:
    ...         Path(folder, name).mkdir()
    ...         Image.new("L", (48, 32), grey).save(Path(folder, name, "0001.png"))
    ...     X, y = load_image_folder(folder)
    ...     thumbnails, _ = load_image_folder(folder, size=8, mode="RGB")
    >>> X.shape, X.dtype, X.max()
    ((2, 32, 48, 1), dtype('uint8'), np.uint8(200))
    >>> y
    array(['good', 'scratched'], dtype='<U9')
    >>> thumbnails.shape
    (2, 8, 8, 3)
    """
    size = _check_size(size)
    if mode not in (None, "L", "RGB"):
        raise ValueError(f"mode={mode!r}: expected 'L' for grey, 'RGB' for colour, or None to decide by the files.")
    formats = _formats()
    files, classes = _list_files(Path(path).expanduser(), formats)

    X = None
    with warnings.catch_warnings():
        # Large pictures and odd metadata: nothing a user can act on. What cannot be decoded is an error all the same.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if mode is None:
            grey = all(_is_grey(_naming_the_file(_header_mode, file, formats)) for file in files)
            mode = "L" if grey else "RGB"
        for i, file in enumerate(tqdm(files, desc="Loading images", unit="image", disable=None)):
            image = _naming_the_file(_decode, file, mode, size, formats)
            pixels = np.asarray(image).reshape(image.height, image.width, -1)  # (R, C, D)
            if X is None:
                X = np.empty((len(files), *pixels.shape), dtype=np.uint8)
            elif pixels.shape != X.shape[1:]:
                raise ValueError(
                    f"Images differ in size: {str(files[0])!r} has {X.shape[1]} rows and {X.shape[2]} columns, "
                    f"{str(file)!r} has {pixels.shape[0]} and {pixels.shape[1]}. "
                    "Pass size=(rows, columns) to resize every image."
                )
            X[i] = pixels

    y = np.array(classes)
    return (X, y, np.array([str(file) for file in files])) if return_paths else (X, y)
