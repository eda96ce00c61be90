"""Which numbers in the users' images are black and white: found, checked, and compared with the images."""

import math

import numpy as np

from skgcm.inputs.files import ImageFiles
from skgcm.utils.warnings import warn

OUTSIDE = 1 / 20  # share of values that may lie outside the range by more than half of its width


def find_value_range(X_flat):
    """(low, high), the numbers that become 0 and 1, from the dtype and the training rows."""
    if X_flat.dtype == np.uint8:
        return 0.0, 255.0
    if X_flat.dtype == bool:
        return 0.0, 1.0
    low, high = float(X_flat.min()), float(X_flat.max())
    if X_flat.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    low = min(low, 0.0)
    high = high if high > low else max(low + 1.0, math.nextafter(low, math.inf))
    if math.isinf(high - low):
        raise ValueError(f"X has values from {low:g} to {high:g}, too far apart for float64: scale X down.")
    return low, high


def check_value_range(value_range):
    """(low, high) as the user gave it -> two floats."""
    try:
        low, high = (float(bound) for bound in value_range)
    except (OverflowError, TypeError, ValueError):
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"value_range={value_range!r} must be (low, high), two finite numbers with low < high.")
    return low, high


def _some(X_flat):
    """Enough of the rows, and of each enough pixels, to say how values are distributed: some million values."""
    X_flat = X_flat[:: 1 + len(X_flat) // 1024]
    return X_flat[:, :: 1 + 6 * (X_flat.size // 2**25)]  # such a step leaves out no channel and no every other column


def warn_if_dark(X_flat, value_range):
    """Warn where nearly all values of training images lie near the lower end of the range that was found for them."""
    low, high = value_range
    X_flat = X_flat.some() if isinstance(X_flat, ImageFiles) else X_flat
    bright = float(np.quantile(_some(X_flat), 0.995, method="higher"))
    if low < bright < low + (high - low) / 4:
        warn(
            f"99.5 % of the values in X are {bright:g} or less, and white would be {high:g}: images this dark are "
            f"learnt badly. If they are as they should be, say value_range=({low:g}, {bright:g}), and clip what is "
            "brighter."
        )


def check_values_in_range(X_flat, value_range):
    """Raise ValueError for values far outside the range; warn where the range looks like another's.

    Of files, which have all values of 8 bits, only some are read, and only where the range is not these values.
    """
    low, high = value_range
    if isinstance(X_flat, ImageFiles):
        if (low, high) == (0, 255):
            return
        X_flat = X_flat.some()
    width = high - low
    smallest, largest = float(X_flat.min()), float(X_flat.max())
    if smallest < low - width or largest > high + width:
        least, most = (bound(X_flat, axis=1).astype(np.float64) for bound in (np.min, np.max))
        first = np.flatnonzero((least < low - width) | (most > high + width))[0]
        raise ValueError(
            f"X has values from {smallest:g} to {largest:g}, far outside value_range ({low:g}, {high:g}), and image "
            f"{first} is the first that has. Scale X as the training images were scaled, np.clip it where a few pixels "
            "are to blame, or fit with the value_range that X has."
        )
    tiny = width > 2 and low <= smallest < largest <= low + min(1, width / 100)
    below, above = low - width / 2, high + width / 2
    outside = 0
    if smallest < below or largest > above:
        some = _some(X_flat)
        with np.errstate(over="ignore"):  # of narrow floats, in which a bound is infinite
            outside = np.mean((some < below) | (some > above))
    if tiny or outside > OUTSIDE:
        warn(
            f"X has values from {smallest:g} to {largest:g}, and value_range is ({low:g}, {high:g}): was X scaled "
            "otherwise than it says?"
        )
