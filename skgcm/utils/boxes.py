"""Boxes (left, top, right, bottom) in pixels, right and bottom just outside, as regions of an image."""

import numpy as np
from scipy.ndimage import find_objects, label

from skgcm.utils.arrays import as_numpy


def _array(regions, name):
    try:
        return np.asarray(as_numpy(regions))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot become one array: {error}") from error


def box_masks(boxes, n_rows, n_columns, name="boxes"):
    """Boxes (m, 4), or one, (4,), rounded half up so that they keep their size -> bool (m, R, C), True inside.

    Raises ValueError.
    """
    boxes = _array(boxes, name)
    boxes = boxes if boxes.size else np.empty((0, 4))
    boxes = boxes[None] if boxes.shape == (4,) else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} of an image have shape {boxes.shape} and dtype {boxes.dtype}. Expected numbers (m, 4): (left, "
            "top, right, bottom) for each box."
        )
    left, top, right, bottom = np.floor(boxes.astype(np.float64) + 0.5).T[..., None]  # (m, 1) each
    valid = (left >= 0) & (left < right) & (right <= n_columns) & (top >= 0) & (top < bottom) & (bottom <= n_rows)
    if not valid.all():  # a NaN is not valid either
        raise ValueError(
            f"{name} has {tuple(boxes[~valid[:, 0]][0].tolist())}, which is empty or leaves an image of {n_rows} rows "
            f"and {n_columns} columns. Expected (left, top, right, bottom) in pixels, right and bottom just outside."
        )
    row, column = np.arange(n_rows), np.arange(n_columns)
    return ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]


def region_masks(regions, shape):
    """Masks or boxes, one for all images or one for each -> bool (n, R, C), which is `shape`. Raises ValueError."""
    n, n_rows, n_columns = shape
    regions = _array(regions, "regions")
    if regions.dtype == bool and regions.shape in (shape, shape[1:]):
        return np.broadcast_to(regions, shape)
    if regions.dtype.kind not in "iuf" or regions.shape not in ((4,), (n, 4)):
        raise ValueError(
            f"regions of shape {regions.shape} and dtype {regions.dtype} are neither masks, bool {shape[1:]} or "
            f"{shape}, nor boxes (left, top, right, bottom), numbers (4,) or {(n, 4)}. A mask of numbers is mask > 0."
        )
    return box_masks(np.broadcast_to(regions, (n, 4)), n_rows, n_columns, "regions")


def evidence_boxes(positive, share):
    """The boxes of :meth:`skgcm.Explanation.boxes` in one map, (R, C), of what is 0 or more: int64 (m, 4)."""
    values, total = np.unique(positive[positive > 0]), positive.sum(dtype=np.float64)

    def boxes(threshold):
        components, _ = label(positive >= threshold, structure=np.ones((3, 3)))
        return find_objects(components)

    def evidence(places):
        inside = np.zeros(positive.shape, bool)
        for place in places:
            inside[place] = True
        return (positive * inside).sum(dtype=np.float64)

    low, high = 0, len(values) - 1  # the boxes at values[low] hold enough: lower thresholds have larger boxes
    while low < high:
        middle = (low + high + 1) // 2
        if evidence(boxes(values[middle])) >= share * total:
            low = middle
        else:
            high = middle - 1
    places = boxes(values[low]) if len(values) else []
    places.sort(key=lambda place: -positive[place].sum(dtype=np.float64))
    found = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in places]
    return np.array(found, dtype=np.int64).reshape(-1, 4)
