"""The value range, the numbers that are black and white in images: find it, check it, compare images with it."""

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
    """(low, high) from the user -> two floats."""
    try:
        low, high = (float(bound) for bound in value_range)
    except (OverflowError, TypeError, ValueError):
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"value_range={value_range!r} must be (low, high), two finite numbers with low < high.")
    return low, high


def _some(X_flat):
    """A sample of rows and pixels for the distribution of the values: a few million values."""
    X_flat = X_flat[:: 1 + len(X_flat) // 1024]
    return X_flat[:, :: 1 + 6 * (X_flat.size // 2**25)]  # such a step skips no channel and no column regularly


def warn_if_dark(X_flat, value_range):
    """Warn if nearly all values of training images are near the lower end of the range that was found for them."""
    low, high = value_range
    X_flat = X_flat.some() if isinstance(X_flat, ImageFiles) else X_flat
    bright = float(np.quantile(_some(X_flat), 0.995, method="higher"))
    if low < bright < low + (high - low) / 4:
        warn(
            f"99.5 % of the values in X are {bright:g} or less, but white is {high:g}. The classifier learns such dark "
            f"images badly. If the images are correct, set value_range=({low:g}, {bright:g}), and clip brighter values."
        )


def check_values_in_range(X_flat, value_range):
    """Raise ValueError for values far outside the range; warn if the images seem to have another range.

    Files have values of 8 bits: only some are read, and only if the range is not (0, 255).
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
            f"{first} is the first with such values. Scale X as the training images were scaled, use np.clip if only a "
            "few pixels are outside, or fit with the value_range of X."
        )
    tiny = width > 2 and low <= smallest < largest <= low + min(1, width / 100)
    below, above = low - width / 2, high + width / 2
    outside = 0
    if smallest < below or largest > above:
        some = _some(X_flat)
        with np.errstate(over="ignore"):  # a bound can be infinite in narrow floats
            outside = np.mean((some < below) | (some > above))
    if tiny or outside > OUTSIDE:
        warn(
            f"X has values from {smallest:g} to {largest:g}, and value_range is ({low:g}, {high:g}). Check whether X "
            "has the scale of the training images."
        )
