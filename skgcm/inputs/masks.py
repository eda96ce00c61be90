"""Masks and boxes of some or all training images, which say where the evidence should lie, from users' inputs."""

from dataclasses import dataclass

import numpy as np

from skgcm.utils.regions import each_mask


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
    index, packed = np.full(n, -1), []
    for i, mask in enumerate(each_mask(masks, n, shape)):
        if mask is not None and mask.any():  # an empty mask counts as no mask
            index[i] = len(packed)
            packed.append(np.packbits(mask))
    return Masks(index, np.stack(packed), tuple(shape)) if packed else None
