"""Boxes (left, top, right, bottom) in pixels, right and bottom just outside, as regions of an image."""

import numpy as np


def box_masks(boxes, n_rows, n_columns):
    """Boxes (m, 4), rounded -> bool (m, R, C), True inside; and bool (m,), which are not empty and within the image."""
    left, top, right, bottom = np.round(boxes).T[..., None]  # (m, 1) each
    valid = (left >= 0) & (left < right) & (right <= n_columns) & (top >= 0) & (top < bottom) & (bottom <= n_rows)
    row, column = np.arange(n_rows), np.arange(n_columns)
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return inside, valid[:, 0]  # a NaN is not valid either
