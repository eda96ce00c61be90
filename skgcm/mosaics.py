"""Mosaics: images of a batch laid out as n x n grids, and grids cut into their cells."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

EVERY = 3  # of so many batches the last is laid out: mosaics cost accuracy on plain images


def filled(n_images, n, device=None):
    """Which image goes into each cell, so that n x n grids are full: each image once, then from the first again.

    At least two grids, since a lone one may have no batch statistics; images that stay as they are (n = 1) once each.
    """
    n_grids = n_images if n == 1 else max(2, -(-n_images // n**2))
    return torch.arange(n_grids * n**2, device=device) % n_images


def lay_out(images, n):
    """(M n^2, D, R, C) -> (M, D, n R, n C), row by row."""
    rows, columns = images.shape[2:]
    grids = images.unflatten(0, (-1, n, n)).permute(0, 3, 1, 4, 2, 5)  # (M, D, n, R, n, C)
    return grids.reshape(len(grids), -1, n * rows, n * columns)


def cut(x, n, border):
    """(M, K, n R, n C) -> (M n^2, K, R + 2 border, C + 2 border): each cell and what lies around it, 0 outside."""
    rows, columns = x.shape[2] // n, x.shape[3] // n
    padded = F.pad(x, (border,) * 4)
    cells = padded.unfold(2, rows + 2 * border, rows).unfold(3, columns + 2 * border, columns)  # (M, K, n, n, ., .)
    return cells.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).permute(0, 3, 1, 2)  # channels last in memory


@contextmanager
def statistics_kept(network):
    """Batch norm's running statistics stay as they are: they shall be those of plain images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
