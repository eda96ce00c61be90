"""Masks and boxes of some or all training images, which say where the evidence should lie, from users' inputs."""

from dataclasses import dataclass

import numpy as np

from skgcm.utils.arrays import as_numpy
from skgcm.utils.regions import image_mask

EXPECTED = (
    "Expected bool (n, rows, columns), or a list with one item for each image: None, a bool mask (rows, columns), or "
    "boxes (m, 4), (left, top, right, bottom) in pixels of the images in X."
)


@dataclass(frozen=True)
class Masks:
    """Masks of some of n images, a bit for each pixel.

    index : int64 ndarray (n,), the position of each image's mask in `packed`, or -1 for an image without one
    packed : uint8 ndarray (m, ceil(R * C / 8)), as numpy.packbits makes it
    shape : tuple (R, C)
    """

    index: np.ndarray
    packed: np.ndarray
    shape: tuple


def find(masks, n, shape):
    """Masks of n images (R, C), or None if no image has one. Raises ValueError."""
    if masks is None:
        return None
    masks = as_numpy(masks)
    masks = masks.to_numpy() if hasattr(masks, "to_numpy") else masks  # a Series of objects
    if isinstance(masks, str) or not hasattr(masks, "__len__"):
        raise ValueError(f"masks is a {type(masks).__name__}. {EXPECTED}")
    if len(masks) != n:
        raise ValueError(f"masks has {len(masks)} items for {n} images. {EXPECTED}")
    index, packed = np.full(n, -1), []
    for i, own in enumerate(masks):
        mask = None if own is None else image_mask(own, shape, f"masks[{i}]", outwards=True)
        if mask is not None and mask.any():  # an empty mask counts as no mask
            index[i] = len(packed)
            packed.append(np.packbits(mask))
    return Masks(index, np.stack(packed), tuple(shape)) if packed else None
