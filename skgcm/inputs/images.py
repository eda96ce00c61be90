"""From images of users to batches for the network: shape, channel order, dtype.

Scikit-learn gets images as rows, a 2-D array (n, R * C * D) in their own dtype. A batch becomes (B, D, R, C) float32 in
[0, 1] only when the network needs it.
"""

import math
import os
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from skgcm.inputs import files, pillow

CHANNELS = (1, 3, 4)  # an axis of such a length is guessed to be the channels


@dataclass(frozen=True)
class ImageFormat:
    """The format of rows of pixels: (R, C, D), the position of the channels, and the values that become 0 and 1."""

    shape: tuple
    channels_first: bool
    value_range: tuple

    def unflatten(self, X_flat):
        """Tensor (B, R * C * D) -> (B, D, R, C), same dtype; a view."""
        n_rows, n_columns, n_channels = self.shape
        if self.channels_first:
            return X_flat.view(-1, n_channels, n_rows, n_columns)
        return X_flat.view(-1, n_rows, n_columns, n_channels).permute(0, 3, 1, 2)  # channels last in memory

    def scale(self, images):
        """Any numbers in the value range -> float32 in [0, 1]. Nothing is clipped."""
        low, high = self.value_range
        # float32 must not lose digits: it is exact for numbers of 16 bits, but not for larger integers or ranges like
        # (0, 1e-50) and (1000.1, 1000.2)
        size = max(abs(low), abs(high))
        narrow = images.dtype == torch.float32 or images.dtype.itemsize <= 2
        narrow = narrow and high - low > 2**-64 and size < min(2**64, 16 * (high - low))
        images = images.to(torch.float32 if narrow else torch.float64)
        if (low, high) != (0, 1):
            images = (images - low) / (high - low) if low else images / high
        return images.float()

    def images(self, X_flat):
        """Tensor (B, R * C * D) -> float32 (B, D, R, C) in [0, 1]."""
        return self.scale(self.unflatten(X_flat))


def in_order(shape, channels_first):
    """An image shape (R, C, D) in the order the user's arrays have."""
    rows, columns, channels = shape
    return (channels, rows, columns) if channels_first else (rows, columns, channels)


def as_array(X, channels_first=False, image_shape=None):
    """A NumPy array from any input for images. Data frames are returned unchanged, file names become ImageFiles.

    Pillow images are converted as :func:`skgcm.datasets.load_image_folder` converts their files. `channels_first` sets
    the order of the axes, and `image_shape`, if it is known, the number of channels.
    """
    if hasattr(X, "tocsr"):
        raise ValueError("X is sparse, but images are dense: pass X.toarray().")
    if hasattr(X, "shape") and hasattr(X, "columns"):
        _check_frame(X)
        return X
    if np.ma.is_masked(X):
        raise ValueError("X has masked values, but every pixel needs a value: pass X.filled(value).")
    if isinstance(X, Dataset | DataLoader):
        raise ValueError(
            f"X is a {type(X).__name__}. Expected one array: pass np.stack([image for image, label in dataset]) "
            "as X and the labels as y, with channels_first=True where images are tensors."
        )
    pictures = _pillow_images(X)
    if pictures:
        return _from_pillow(pictures, channels_first, image_shape)
    if isinstance(X, str | os.PathLike):
        raise ValueError(
            f"X={str(X)!r} is one name. Expected a sequence of images or of their file names. For one file pass [X]; "
            "skgcm.datasets.list_image_folder lists the images of a folder."
        )
    paths = files.find_paths(X) if isinstance(X, list | tuple) else None
    if paths:
        return _from_paths(paths, channels_first, image_shape)
    try:
        if isinstance(X, list | tuple) and X and all(isinstance(image, torch.Tensor) for image in X):
            X = torch.stack(tuple(X))
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu()
            X = X.float() if X.dtype == torch.bfloat16 else X  # NumPy has no bfloat16
        X = np.asarray(X)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"X cannot become one array ({error}). Images are numbers. All images must have one size: resize or crop "
            "them first."
        ) from error
    if X.ndim and X.dtype.kind in "OTU" and X.shape[1:] in ((), (1,)):
        paths = files.find_paths(X.ravel().tolist())
        if paths:
            return _from_paths(paths, channels_first, image_shape)
    first = X[0] if X.ndim == 1 and len(X) else None
    if isinstance(first, np.ndarray):
        raise ValueError(f"X of shape {X.shape} has arrays as items. If they have one size, pass np.stack(X).")
    if X.shape == (0,):
        raise ValueError("X is empty. Expected at least one image, or the name of one file.")
    if not 2 <= X.ndim <= 4:
        raise ValueError(
            f"X of shape {X.shape} does not hold images. Reshape your data to (n, R, C), (n, R, C, D) or rows of "
            "pixels (n, R * C * D); a single one of these is X[None]."
        )
    return X


def _check_frame(X):
    """Raise ValueError if a cell of a data frame is an image and not a pixel."""
    row = np.asarray(X.head(1)).ravel() if hasattr(X, "head") else ()
    for name, value in zip(X.columns, row, strict=False):
        if isinstance(value, Image.Image):
            raise ValueError(f"Column {name!r} of X holds Pillow images: pass list(X[{name!r}]).")
        if isinstance(value, str | os.PathLike):
            raise ValueError(f"Column {name!r} of X holds text like {str(value)!r}. For file names pass X[{name!r}].")
        if isinstance(value, np.ndarray | list | tuple | torch.Tensor):
            raise ValueError(
                f"Column {name!r} of X holds arrays, but a column of a data frame is one pixel of every image: pass "
                f"np.stack(X[{name!r}])."
            )


def _pillow_images(X):
    """The Pillow images in X, one or many, or [] if there are none."""
    if isinstance(X, Image.Image):
        return [X]
    if getattr(getattr(X, "dtype", None), "kind", "") == "O":  # of an array or a Series
        X = np.asarray(X)
        X = list(X.ravel()) if X.ndim and X.shape[1:] in ((), (1,)) else []  # or a column of objects
    found = [isinstance(image, Image.Image) for image in X] if isinstance(X, list | tuple) else []
    if any(found) and not all(found):
        i = found.index(False)
        raise ValueError(
            f"X has Pillow images and other items: X[{i}] is a {type(X[i]).__name__}. Pass one kind, arrays as they "
            "are or as Image.fromarray(array)."
        )
    return X if any(found) else []


def _from_pillow(pictures, channels_first, image_shape):
    """Pillow images -> uint8 (n, R, C, D), or (n, D, R, C) with `channels_first`."""
    mode = None if image_shape is None else {1: "L", 3: "RGB"}.get(check_image_shape(image_shape)[2])
    if mode is None:
        mode = "L" if all(map(pillow.is_grey, pictures)) else "RGB"
    X = None
    for i, picture in enumerate(pictures):
        try:
            pixels = pillow.read(picture, mode)
        except MemoryError:
            raise
        except Exception as error:  # what Pillow raises depends on the format of the file behind the image
            raise ValueError(
                f"X[{i}], a Pillow image, cannot be read: {pillow.why_not(error)}. Or pass arrays of its numbers, "
                "np.stack([np.asarray(image) for image in X])."
            ) from error
        if X is None:
            X = np.empty((len(pictures), *pixels.shape), np.uint8)
        elif pixels.shape != X.shape[1:]:
            raise ValueError(
                f"X holds images of different sizes: X[0] has {X.shape[1]} rows and {X.shape[2]} columns, X[{i}] has "
                f"{pixels.shape[0]} and {pixels.shape[1]}. Resize them first: image.resize((columns, rows))."
            )
        X[i] = pixels
    return np.ascontiguousarray(X.transpose(0, 3, 1, 2)) if channels_first else X


def _from_paths(paths, channels_first, image_shape):
    if image_shape is None:
        raise ValueError(
            f"X has text like {paths[0]!r}, which is read as names of image files. With image_shape=None their size is "
            "unknown. Set the size to read them in: image_shape=(224, 224, 3), rows, columns and channels."
        )
    return files.ImageFiles(paths, check_image_shape(image_shape), channels_first)


def native(X_flat):
    """Rows in a dtype that PyTorch reads: real numbers of at most 64 bits, in the byte order of this machine.

    Raises ValueError if X is not numeric, or has numbers that do not fit.
    """
    kind = X_flat.dtype.kind
    if kind not in "biuf":
        raise ValueError(f"X has dtype {X_flat.dtype}, which is not numeric. Images are real numbers.")
    size = min(X_flat.dtype.itemsize, 8)
    if kind == "f" and size < X_flat.dtype.itemsize:
        with np.errstate(over="ignore"):
            X_flat = X_flat.astype(np.float64)
        if not np.isfinite(X_flat).all():
            raise ValueError("X has values too large for float64.")
    # NumPy has a type for each integer type of C. Two of them can have the same size, and PyTorch accepts only one of
    # the two ("L" but not "Q", for example). By kind and size, "u8", NumPy gives the accepted one.
    return X_flat.astype(X_flat.dtype.newbyteorder("="), copy=False).view(f"{kind}{size}")


def check_image_shape(image_shape):
    """(R, C) or (R, C, D) from the user -> (R, C, D)."""
    try:
        sizes = tuple(image_shape)
    except TypeError:  # of an array without axes
        sizes = ()
    if len(sizes) not in (2, 3) or not all(
        isinstance(size, Integral) and not isinstance(size, bool) and size > 0 for size in sizes
    ):
        raise ValueError(
            f"image_shape={image_shape!r} must be (rows, columns) or (rows, columns, channels), positive integers."
        )
    rows, columns, channels = (*sizes, 1)[:3]
    return int(rows), int(columns), int(channels)


def _looks_like_one_image(shape):
    return shape[-1] in CHANNELS[1:] and min(shape[:-1]) > max(CHANNELS)


def _looks_channels_first(shape):
    """Whether the shape of one image looks so: a usual number of channels first, or another number before a square."""
    return min(shape[1:]) > max(CHANNELS) and (shape[0] in CHANNELS or shape[0] != shape[1] == shape[2])


def guess_shape(shape, channels_first=False):
    """The (R, C, D) of images in an array of this shape, if the user gave no image_shape.

    Raises ValueError if the guess would likely be wrong: for a single colour image, channels first instead of last (or
    the reverse), and rows that look like a square colour image.
    """
    if len(shape) == 4:
        rows, columns, channels = (*shape[2:], shape[1]) if channels_first else shape[1:]
        if not channels_first and _looks_channels_first(shape[1:]):
            raise ValueError(
                f"X of shape {shape} looks like channels first, (n, channels, rows, columns). If so, pass "
                f"channels_first=True; if not, set image_shape={shape[1:]}."
            )
        if channels_first and _looks_channels_first(shape[:0:-1]):
            raise ValueError(
                f"X of shape {shape} looks like channels last, (n, rows, columns, channels). If so, leave out "
                f"channels_first=True; if not, set image_shape={(rows, columns, channels)}."
            )
        return rows, columns, channels
    if len(shape) == 3:
        rows, columns = shape[1:]
        if not channels_first and _looks_like_one_image(shape):
            raise ValueError(
                f"X of shape {shape} looks like a single colour image. If so, pass X[None]; if it holds grey images of "
                f"{rows} rows and {columns} columns, set image_shape=({rows}, {columns})."
            )
        return rows, columns, 1
    length = shape[1]
    side = math.isqrt(length)
    if side * side == length:
        return side, side, 1
    side = math.isqrt(length // 3)
    if side >= 8 and 3 * side * side == length:
        raise ValueError(
            f"X has rows of {length} = 3 * {side} * {side} values. If these are colour images, set "
            f"image_shape=({side}, {side}, 3); if not, set image_shape=(rows, columns), or (1, {length}) for signals."
        )
    return 1, length, 1


def check_shape(shape, expected, channels_first, source):
    """Raise ValueError unless an array of this shape holds images of `expected` (R, C, D), which `source`."""
    order, other = (in_order(expected, first) for first in (channels_first, not channels_first))
    length = math.prod(expected)
    if shape[1:] in ((length,), order) or (expected[2] == 1 and shape[1:] == expected[:2]):
        return
    message = f"X of shape {tuple(shape)} does not hold images of shape {order}, which {source}."
    if shape[1:] == other:
        axes = "(0, 3, 1, 2)" if channels_first else "(0, 2, 3, 1)"
        message += f" The channels are {'last' if channels_first else 'first'}: pass X.transpose{axes}."
    elif shape in (expected, expected[:2], other):
        message += " For a single image pass X[None]."
    elif len(shape) > 2 and expected[:2] == (shape[2:] if channels_first and len(shape) == 4 else shape[1:3]):
        channels = shape[1 if channels_first else -1] if len(shape) == 4 else 1
        remedy = "convert the images to grey or to colour. load_image_folder does so with mode='L' or mode='RGB'."
        if (channels, expected[2]) == (4, 3):
            remedy = f"if they are red, green, blue and alpha, pass {'X[:, :3]' if channels_first else 'X[..., :3]'}."
        message += f" Only the number of channels differs: {remedy}"
    elif len(shape) == 2:
        message += f" Rows must have {length} values."
    else:
        message += " Resize or crop the images."
    raise ValueError(message)


def frame_shape(shape, n_channels, channels_first):
    """The (R, C, D) of images of any size in an array of this shape, for a model of `n_channels`."""
    if len(shape) == 3 and n_channels == 1 and not _looks_like_one_image(shape):
        return (*shape[1:], 1)
    if len(shape) == 4:
        found = (*shape[2:], shape[1]) if channels_first else shape[1:]
        if found[2] == n_channels:
            return found
    order = f"(n, {n_channels}, rows, columns)" if channels_first else f"(n, rows, columns, {n_channels})"
    narrow = f", and grey ones of {shape[-1]} columns are {'X[:, None]' if channels_first else 'X[..., None]'}"
    grey = narrow if len(shape) == 3 and n_channels == 1 else ""
    raise ValueError(
        f"X of shape {tuple(shape)} must have shape {order} with any_size=True. A single image is X[None]{grey}."
    )


def find_shape(shape, image_shape, channels_first):
    """The (R, C, D) of training images: `image_shape`, checked against the array, or a guess if it is None."""
    if image_shape is None:
        return guess_shape(shape, channels_first)
    expected = check_image_shape(image_shape)
    rows, columns, channels = expected
    settled = shape[1:] == in_order(expected, channels_first)
    signal = rows == 1 and columns != channels
    if _looks_channels_first(expected) and not settled and not signal and (channels_first or len(shape) == 2):
        remedy = f"image_shape={(columns, channels, rows)} and channels_first=True"
        raise ValueError(
            f"image_shape={image_shape!r} looks like channels first. It is always (rows, columns, channels), for any "
            f"order in X. If X has {rows} channels first, set {remedy}; if it has images of {rows} rows, pass it as "
            f"(n, {rows}, {columns}, {channels}), without channels_first."
        )
    check_shape(shape, expected, channels_first, "image_shape says")
    return expected


def flatten(X):
    """Images (n, ...) -> rows (n, number of values); other arrays are returned as they are."""
    return X.reshape(len(X), math.prod(X.shape[1:])) if len(X.shape) > 2 else X
