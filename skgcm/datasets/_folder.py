"""A folder of images per class, or of images without classes, of any format that Pillow reads."""

import os
import re
import unicodedata
import warnings
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

import numpy as np
from tqdm import tqdm

from skgcm.datasets import _listing
from skgcm.inputs import pillow
from skgcm.utils.regions import resized_masks
from skgcm.utils.warnings import warn

RESIZE = ("stretch", "pad", "crop")
ON_ERROR = ("raise", "warn")
REMEDY = "Repair the file, move it elsewhere, or leave it out by on_error='warn'."


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


def _check_how(size, mode, resize, on_error):
    """Check the options of reading. Returns ``size`` as (rows, columns) or None."""
    size = _check_size(size)
    if mode not in (None, "L", "RGB"):
        raise ValueError(f"mode={mode!r}: expected 'L' for grey, 'RGB' for colour, or None to decide by the files.")
    if resize not in RESIZE:
        raise ValueError(f"resize={resize!r}: expected 'stretch', 'pad' or 'crop'.")
    if size is None and resize != "stretch":
        raise ValueError(f"resize={resize!r} needs a size to resize to: pass size=(rows, columns).")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error={on_error!r}: expected 'raise', or 'warn' to leave out what cannot be read.")
    return size


def _check_groups(groups):
    """The regular expression that `groups` is, or None."""
    try:
        groups = None if groups is None else re.compile(groups)
    except (TypeError, re.error) as error:
        raise ValueError(f"groups={groups!r} is not a regular expression: {error}.") from error
    if groups is not None and isinstance(groups.pattern, bytes):
        raise ValueError(f"groups={groups.pattern!r} is of bytes, but names are text: leave out the b.")
    return groups


def _find_groups(groups, files):
    """The group of each file: the match of the expression in its path below the folder."""
    found = []
    for names in files:
        name = unicodedata.normalize("NFC", "/".join(names))
        match = groups.search(name)
        group = match and match[min(groups.groups, 1)]
        if not group:
            raise ValueError(
                f"groups={groups.pattern!r} finds nothing in {name!r}: expected a regular expression that matches the "
                "group of every file in its path below the folder, as a whole or by its first (...)."
            )
        found.append(group)
    return np.array(found)


def _read(files, size, mode, resize, on_error):
    """Images (n, R, C, D) of the files that can be read, and their positions (n,) in `files`."""
    failed = {}

    def attempt(read, i):
        try:
            return pillow.read_file(files[i], read, REMEDY)
        except ValueError as error:
            if on_error == "raise":
                raise
            failed[i] = error
            return None

    X, kept = None, []
    with warnings.catch_warnings():
        # Warnings about large pictures and unusual metadata do not help a user. Decoding errors are still raised.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if mode is None:
            colour = any(attempt(pillow.is_grey, i) is False for i in range(len(files)))
            mode = "RGB" if colour else "L"
        for i in tqdm(range(len(files)), desc="Loading images", unit="image", disable=None):
            pixels = None if i in failed else attempt(lambda image: pillow.read(image, mode, size, resize), i)
            if pixels is None:
                continue
            if X is None:
                X = np.empty((len(files), *pixels.shape), dtype=np.uint8)
            elif pixels.shape != X.shape[1:]:
                raise ValueError(
                    f"Images differ in size: {str(files[kept[0]])!r} has {X.shape[1]} rows and {X.shape[2]} columns, "
                    f"{str(files[i])!r} has {pixels.shape[0]} and {pixels.shape[1]}. "
                    "Pass size=(rows, columns) to resize every image."
                )
            X[len(kept)] = pixels
            kept.append(i)
    if failed:
        i, error = min(failed.items())
        if not kept:
            raise ValueError(f"None of {len(files)} images can be read. The first: {error}") from error
        names = ", ".join(repr(str(files[i])) for i in sorted(failed)[:3]) + (", ..." if len(failed) > 3 else "")
        reason = pillow.why_not(error.__cause__)
        warn(f"{len(failed)} of {len(files)} images cannot be read and are left out, {names}. The first: {reason}.")
    return X[: len(kept)], kept


def _check_masks(masks):
    """`masks` as a Path if it is a folder, else as a suffix, or None."""
    if masks is None or (isinstance(masks, str) and masks and "/" not in masks and not Path(masks).is_dir()):
        return masks
    if not masks or not isinstance(masks, str | os.PathLike):
        raise ValueError(
            f"masks={masks!r}: expected a suffix, such as '_mask' for part1.jpg and part1_mask.png, or a folder."
        )
    return Path(masks).expanduser()


def _read_masks(files, size, resize, shape):
    """The masks of n images (R, C) from files, None for an image without one: objects (n,)."""
    masks = np.empty(len(files), object)
    for i, file in enumerate(files):
        if file is not None:
            mask = pillow.read_file(file, lambda image: pillow.read_mask(image, size, resize), REMEDY)
            masks[i] = resized_masks(mask, shape)
    return masks


def load_image_folder(
    path,
    *,
    size=None,
    mode=None,
    resize="stretch",
    pattern=None,
    groups=None,
    masks=None,
    on_error="raise",
    return_paths=False,
):
    r"""Load a folder with one subfolder of images per class.

    The layout is ``path/CLASS/FILE``. The name of a class folder is the label of its images. Every file whose extension
    Pillow knows as an image is read: PNG, JPEG, TIFF, BMP, WebP and more. Hidden entries (a leading dot) are ignored.
    Other images are left out with a UserWarning that counts and names them: those in subfolders of class folders,
    next to the class folders, without the extension of an image, or in a format that Pillow does not read (HEIC, JPEG
    XL, camera raw). `pattern` selects other files to read. Files of one name and several extensions in a folder
    (``1.jpg``, ``1.png``) are read with a UserWarning, since one may be the mask of the other.

    Parameters
    ----------
    path : str or path-like
        The folder that holds the class folders. A leading ``~`` is the home folder.
    size : int or (int, int), default=None
        Rows and columns to resize every image to, one integer for a square. The filter is bilinear, widened when
        shrinking so that no pixel is skipped. It does not ring: ringing at an edge could become evidence. None keeps
        the size of the images, which must all have the same.
    mode : {"L", "RGB"}, default=None
        "L" makes every image grey (ITU-R 601-2 luma), "RGB" gives every image three channels. None is "L" if every
        file is stored in grey, with 1, 8 or 16 bits and with or without transparency, else "RGB". Grey stored as three
        equal channels counts as colour: for such files ``mode="L"`` saves two thirds of the memory.
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How an image with other proportions than `size` is resized. "stretch" changes its proportions. "pad" and "crop"
        keep them: "pad" shows the whole image between two black margins of equal width, "crop" fills `size` with the
        middle of the image.
    pattern : str, default=None
        A glob that selects image files: relative to `path`, with ``/`` between folders and ``**`` for any number of
        folders. ``"**/*.jpg"`` reads files at any depth, ``"*/photos/*"`` those in the folder ``photos`` of
        each class. The class is always the first folder. A pattern without ``/``, such as ``"*.jpg"``, is for files
        right inside the class folders. Upper and lower case are the same. Images may have any extension, or none.
        Matching files that are not images are left out with the warning above, files that do not match without one.
        None reads files right inside the class folders that have the extension of an image.
    groups : str or re.Pattern, default=None
        A regular expression that finds the group of an image in its path relative to `path`, with ``/`` between folders
        and in Unicode form NFC. The group is what the first parentheses match, or else the whole match:
        ``groups=r"part(\d+)"`` is "17" for ``good/part17_left.png``. Pass the groups to ``GroupKFold`` and the like,
        which keep the images of one group on one side of a split.
    masks : str or path-like, default=None
        Where to find masks: images that are black where the evidence should not lie. Either a suffix, which follows the
        name of the photo without its extension: ``"_mask"`` for ``part1.jpg`` and ``part1_mask.png`` in the same
        folder, ``".png"`` for ``part1.jpg`` and ``part1.png``. Masks are not read as photos. Or a folder that exists,
        with the same class folders. In it, masks have the names of their photos, or these and ``_mask``, with any
        extension: ``ground_truth`` of MVTec AD. Photos may have no mask. Store masks in a lossless format, such as PNG.
    on_error : {"raise", "warn"}, default="raise"
        If a file cannot be read: raise an error, or leave such files out with one UserWarning. A mask that cannot be
        read is an error.
    return_paths : bool, default=False
        Whether to return the path of each image too.

    Returns
    -------
    X : ndarray of shape (n, R, C, D), dtype uint8
        Images, values 0 to 255, D = 1 in mode "L" and 3 in mode "RGB". Sorted by class name, then by file name, both
        character by character (``10.png`` comes before ``9.png``), the same on every system.
    y : ndarray of shape (n,), dtype str
        The class of each image: the name of its folder, in Unicode form NFC, so that it is the same string on every
        system.
    paths : ndarray of shape (n,), dtype str
        The file of each image, beginning with `path`. Only with ``return_paths=True``.
    masks : ndarray of shape (n,), dtype object
        The mask of each image, bool (R, C), True inside, or None, as for ``GCMClassifier.fit``. They are resized with
        their images; a pixel is inside if any part of it is. Only with `masks`.
    groups : ndarray of shape (n,), dtype str
        The group of each image. The last value, only with `groups`.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    NotADirectoryError
        If `path` is a file.
    ValueError
        If there are less than two class folders, a class folder holds no images, the name of one is not UTF-8, two
        have the same name in two Unicode forms, a file cannot be read (the message names it), `groups` finds nothing in
        a file's path, no image has a mask, images differ in size and `size` is None, or the value of a parameter is
        invalid.

    See Also
    --------
    load_images : Images that have no classes, such as new ones to predict.
    list_image_folder : The file names alone, for more images than memory holds.

    Notes
    -----
    An image is read in these steps:

    1. It is turned upright by its EXIF orientation. Of an animation or a stack, the first frame is read.
    2. 16-bit grey values are divided by 257, so that 0 ... 65535 becomes 0 ... 255. A TIFF of 12 bits is scaled from
       0 ... 4095; a 12-bit picture stored in 16 bits becomes dark. If a TIFF defines 0 as white, 0 is white. Numbers
       without a defined white are an error: 32 bits, floats, signed integers, and the 16 bits of FITS.
    3. Transparent pixels are blended onto black, the value to which GCM's contribution maps give no weight.
    4. Palettes, CMYK, LAB and other colour spaces are converted to `mode`, then the image is resized. Embedded colour
       profiles are not applied.

    Files that Pillow is known to misread raise an error with the reason, for example 16-bit TIFFs that store channel
    after channel without compression.

    `X` takes n·R·C·D bytes; in addition, one decoded image at a time is in memory. A progress bar appears only on a
    terminal. Formats of Pillow plugins work after the plugin is registered. EPS and WMF, which need other programs, are
    left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skgcm.datasets import load_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name, grey in [("good", 200), ("scratched", 90)]:
    ...         Path(folder, name).mkdir()
    ...         Image.new("L", (48, 32), grey).save(Path(folder, name, "part1.png"))
    ...     X, y = load_image_folder(folder)
    ...     thumbnails, _, groups = load_image_folder(folder, size=8, mode="RGB", groups=r"part(\d+)")
    >>> X.shape, X.dtype, X.max()
    ((2, 32, 48, 1), dtype('uint8'), np.uint8(200))
    >>> y
    array(['good', 'scratched'], dtype='<U9')
    >>> thumbnails.shape
    (2, 8, 8, 3)
    >>> groups
    array(['1', '1'], dtype='<U1')
    """
    size, groups, masks = _check_how(size, mode, resize, on_error), _check_groups(groups), _check_masks(masks)
    path = Path(path).expanduser()
    images, labels, mask_files = _listing.find_classes(path, pattern, masks)
    found = None if groups is None else _find_groups(groups, images)
    files = [path.joinpath(*names) for names in images]
    X, kept = _read(files, size, mode, resize, on_error)
    y = np.array(labels)
    lost = set(labels) - set(y[kept].tolist())
    if lost:
        raise ValueError(
            f"No image of class {min(lost)!r} can be read. Repair its files, or move the folder elsewhere."
        )
    result = [X, y[kept]]
    if return_paths:
        result.append(np.array([str(files[i]) for i in kept]))
    if masks is not None:
        result.append(_read_masks([mask_files.get(images[i]) for i in kept], size, resize, X.shape[1:3]))
    if found is not None:
        result.append(found[kept])
    return tuple(result)


def list_image_folder(path, *, pattern=None):
    """List a folder with one subfolder of images per class, without reading the images.

    Use it for more images than memory holds: ``GCMClassifier(image_shape=(224, 224, 3)).fit(paths, y)`` reads each
    batch when it is needed.

    Parameters
    ----------
    path, pattern
        As in :func:`load_image_folder`. The listed files, their order and the warnings are the same too.

    Returns
    -------
    paths : ndarray of shape (n,), dtype str
        The file of each image, beginning with `path`.
    y : ndarray of shape (n,), dtype str
        The class of each image: the name of its folder, in Unicode form NFC.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As :func:`load_image_folder` does for `path`, `pattern` and the class folders. Files are not checked: errors of
        reading come later.

    See Also
    --------
    load_image_folder : The same images as one array.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skgcm.datasets import list_image_folder
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("good", "scratched"):
    ...         Path(folder, name).mkdir()
    ...         Image.new("L", (48, 32)).save(Path(folder, name, "part1.png"))
    ...     paths, y = list_image_folder(folder)
    >>> [Path(path).name for path in paths], y.tolist()
    (['part1.png', 'part1.png'], ['good', 'scratched'])
    """
    path = Path(path).expanduser()
    files, labels, _ = _listing.find_classes(path, pattern)
    return np.array([str(path.joinpath(*names)) for names in files]), np.array(labels)


def load_images(path, *, size=None, mode=None, resize="stretch", pattern=None, on_error="raise"):
    """Load images that have no classes, such as new ones to predict.

    All images of a folder and its subfolders are read as :func:`load_image_folder` reads them. To read new images for a
    fitted classifier, pass the mode, the size and `resize` that it was trained with.

    Parameters
    ----------
    path : str or path-like
        The folder. A leading ``~`` is the home folder.
    size, mode, resize, on_error
        As in :func:`load_image_folder`.
    pattern : str, default=None
        A glob that selects image files, relative to `path`: ``"*.jpg"`` for those right inside, ``"**/*.jpg"`` for
        those at any depth. Otherwise as in :func:`load_image_folder`. None reads files with the extension of an image
        at any depth.

    Returns
    -------
    X : ndarray of shape (n, R, C, D), dtype uint8
        Images, values 0 to 255, D = 1 in mode "L" and 3 in mode "RGB".
    paths : ndarray of shape (n,), dtype str
        The file of each image, beginning with `path`, sorted.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    NotADirectoryError
        If `path` is a file.
    ValueError
        If there are no images, a file cannot be read, images differ in size and `size` is None, or the value of a
        parameter is invalid.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skgcm.datasets import load_images
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("1.png", "2.png"):
    ...         Image.new("L", (48, 32)).save(Path(folder, name))
    ...     X, paths = load_images(folder, size=(8, 12))
    >>> X.shape, [Path(path).name for path in paths]
    ((2, 8, 12, 1), ['1.png', '2.png'])
    """
    size = _check_how(size, mode, resize, on_error)
    path = Path(path).expanduser()
    files = [path.joinpath(*names) for names in _listing.find_images(path, pattern)]
    X, kept = _read(files, size, mode, resize, on_error)
    return X, np.array([str(files[i]) for i in kept])
