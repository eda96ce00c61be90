"""Mosaics: four images around a random crossing point; each part is classified separately.

Unlike RICAP (Takahashi et al., ACML 2018), where small crops fill one image and share its label, a mosaic has twice the
rows and columns of an image. So the parts have about an image's size, and a mosaic takes the time of its four images.
"""

from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

from skgcm.training.augmentation import reflect

JITTER = 0.25  # of a side: how far from the middle the crossing point may lie


def _cut(size, generator):
    """The bounds of the two parts of a side of 2 * size pixels."""
    reach = int(JITTER * size)
    return [0, size + int(torch.randint(-reach, reach + 1, (), generator=generator)), 2 * size]


def _part(size, wanted, generator):
    """Indices of the `wanted` rows or columns that a part shows: a crop if fewer than `size`, else with reflection."""
    spare = size - wanted
    start = int(torch.randint(min(spare, 0), max(spare, 0) + 1, (), generator=generator))
    return reflect(torch.arange(start, start + wanted), size)


def make_mosaics(images, labels, generator):
    """Mosaics of four images each; if the number of images is no multiple of four, the first images are used again.

    The parts are at the same places in all mosaics of a batch.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
    labels : Tensor (B,)
    generator : torch.Generator, on the CPU

    Returns
    -------
    mosaics : Tensor (M, C, 2 H, 2 W)
    regions : Tensor (M, 4, 2 H, 2 W) float32
        Masks of the parts: 1 inside a part and 0 outside.
    labels : Tensor (M * 4,)
        Of the parts, mosaic by mosaic.
    """
    n_rows, n_columns = images.shape[2:]
    n_mosaics = -(-len(images) // 4)
    chosen = (torch.arange(4 * n_mosaics, device=images.device) % len(images)).view(n_mosaics, 4)
    rows, columns = _cut(n_rows, generator), _cut(n_columns, generator)
    boxes = [(*y, *x) for y in pairwise(rows) for x in pairwise(columns)]
    mosaics = images.new_empty(n_mosaics, images.shape[1], 2 * n_rows, 2 * n_columns)
    regions = torch.zeros(4, 2 * n_rows, 2 * n_columns, dtype=torch.float32, device=images.device)
    for part, (top, bottom, left, right) in enumerate(boxes):
        y, x = (
            _part(size, wanted, generator).to(images.device)
            for size, wanted in ((n_rows, bottom - top), (n_columns, right - left))
        )
        mosaics[:, :, top:bottom, left:right] = images[chosen[:, part]][:, :, y[:, None], x]
        regions[part, top:bottom, left:right] = 1
    return mosaics, regions.expand(n_mosaics, -1, -1, -1), labels[chosen].flatten()


@contextmanager
def frozen_running_stats(network):
    """Context in which the running statistics of batch norm do not change: they are for plain images, not mosaics."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
