"""Maps and images as text in a page: small, with exact sums over boxes."""

import base64
import io
import math
import zlib

import numpy as np
from PIL import Image

EXACT_PICTURES = 8_000_000  # characters that images may take as PNG
LEVELS = 511  # of one sign: a map is stored in steps of its largest magnitude / LEVELS


def quantise(contributions):
    """Contributions as integers times a step, whose sums over boxes are nearly exact.

    What is rounded is not the pixel but the sum over all pixels above and to the left of it. The sum over a box is
    made of four of these, so that its error is at most two steps, however large the box is. That of a pixel, a box
    too, is at most two steps as well.

    Parameters
    ----------
    contributions : ndarray (..., R, C)

    Returns
    -------
    integers : int16 ndarray (..., R, C)
    steps : float64 ndarray (...)

    Raises
    ------
    ValueError
        For contributions that are not finite.
    """
    if not np.isfinite(contributions).all():
        raise ValueError("The contributions have values that are not finite. A report needs finite numbers.")
    steps = np.abs(contributions).max(axis=(-2, -1), initial=0).astype(np.float64) / LEVELS
    steps[steps == 0] = 1.0
    sums = np.cumsum(np.cumsum(contributions, axis=-1, dtype=np.float64), axis=-2)
    sums = np.rint(sums / steps[..., None, None])
    rows = np.diff(sums, axis=-2, prepend=0)
    return np.diff(rows, axis=-1, prepend=0).astype(np.int16), steps


def pack(integers):
    """int16 ndarray -> base64 text of the deflated low bytes, then high bytes, of 2 * |x| - (x < 0).

    Both signs have small numbers in this way, and the high bytes are nearly all 0.
    """
    codes = np.where(integers < 0, -2 * integers.astype(np.int32) - 1, 2 * integers.astype(np.int32)).astype("<u2")
    planes = codes.ravel().view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def unpack(text, shape):
    """Inverse of :func:`pack`. The script in the page does the same."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1).astype(np.int32)
    codes = planes[0] + 256 * planes[1]
    return np.where(codes % 2, -(codes + 1) // 2, codes // 2).reshape(shape)


def visible(images):
    """Images (n, R, C, D) in [0, 1] -> pictures, uint8 (n, R, C, 3) or, grey, (n, R, C)."""
    array = images[..., :3] if images.shape[-1] in (3, 4) else images.mean(axis=-1)
    return np.rint(255 * np.clip(np.nan_to_num(array), 0, 1)).astype(np.uint8)


def _data_uri(image, kind, **options):
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def png(array, longest=None):
    """A uint8 picture (R, C) or (R, C, 3 or 4) as a data URI, made smaller where a side is longer than `longest`."""
    image = Image.fromarray(array)
    if longest is not None and max(image.size) > longest:
        share = longest / max(image.size)
        image = image.resize([max(1, math.floor(side * share)) for side in image.size], Image.Resampling.BOX)
    return _data_uri(image, "PNG")


def pictures(images):
    """Data URIs of images (n, R, C, D) in [0, 1], and whether they are exact: PNG, or JPEG if PNG is too large."""
    array = visible(images)
    exact = [png(one) for one in array]
    if sum(map(len, exact)) <= EXACT_PICTURES:
        return exact, True
    return [_data_uri(Image.fromarray(one), "JPEG", quality=92) for one in array], False
