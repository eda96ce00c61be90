"""Regions of an image: masks, and boxes (left, top, right, bottom) in pixels, right and bottom just outside."""

import numpy as np
from scipy.ndimage import find_objects, label

from skgcm.utils.arrays import as_numpy

EXPECTED = (
    "Expected bool (n, rows, columns), or a list with one item for each image: None, a bool mask (rows, columns), or "
    "boxes (m, 4), (left, top, right, bottom) in pixels of the images in X."
)
ROUNDING = 1e-6  # pixels: a box that crosses a border by less does not include the next pixel


def _array(regions, name):
    try:
        return np.asarray(as_numpy(regions))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot become one array: {error}") from error


def box_masks(boxes, n_rows, n_columns, name="boxes", outwards=False):
    """Boxes (m, 4), or one, (4,), as bool (m, R, C), True inside. Raises ValueError.

    Fractions are rounded half up, so that boxes keep their size, or outwards.
    """
    boxes = _array(boxes, name)
    boxes = boxes if boxes.size else np.empty((0, 4))
    boxes = boxes[None] if boxes.shape == (4,) else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} of an image have shape {boxes.shape} and dtype {boxes.dtype}. Expected numbers (m, 4): (left, "
            "top, right, bottom) for each box."
        )
    boxes = boxes.astype(np.float64)
    if outwards:
        first, last = np.floor(boxes[:, :2] + ROUNDING), np.ceil(boxes[:, 2:] - ROUNDING)
        left, top, right, bottom = np.concatenate([first, last], axis=1).T[..., None]
    else:
        left, top, right, bottom = np.floor(boxes + 0.5).T[..., None]  # (m, 1) each
    valid = (left >= 0) & (left < right) & (right <= n_columns) & (top >= 0) & (top < bottom) & (bottom <= n_rows)
    if not valid.all():  # a NaN is not valid either
        raise ValueError(
            f"{name} has {tuple(boxes[~valid[:, 0]][0].tolist())}, which is empty or leaves an image of {n_rows} rows "
            f"and {n_columns} columns. Expected (left, top, right, bottom) in pixels of this image, right and bottom "
            "just outside. Resize boxes of the original image like the image: box * 64 / 200 from 200 to 64 pixels."
        )
    row, column = np.arange(n_rows), np.arange(n_columns)
    return ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]


def resized_masks(masks, shape):
    """Masks (..., R, C), bool, at another size: a pixel is inside if any part of it is.

    Enlarging is nearest-neighbour interpolation. Reducing keeps thin lines.
    """
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        n = masks.shape[axis]
        if n != size:
            start, stop = np.arange(size) * n // size, -(-(np.arange(size) + 1) * n // size)
            masks = np.moveaxis(masks, axis, 0)
            counts = np.concatenate([np.zeros_like(masks[:1], np.int32), masks.cumsum(axis=0, dtype=np.int32)])
            masks = np.moveaxis(counts[stop] > counts[start], 0, axis)
    return masks


def image_mask(region, shape, name, outwards=False):
    """The mask (R, C) of one image from a mask, bool of any size, or from boxes, numbers (m, 4). Raises ValueError."""
    region = _array(region, name)
    if _are_masks(region, shape) and region.ndim == 2:
        return resized_masks(region, shape)
    if region.dtype.kind in "iuf" and ((region.ndim == 2 and region.shape[1] == 4) or region.shape == (4,)):
        return box_masks(region, *shape, name, outwards).any(axis=0)
    if not region.size and region.dtype != bool:
        return np.zeros(shape, bool)
    remedy = ""
    if region.ndim == 2 and region.dtype.kind in "iuf":
        remedy = f" Where numbers above 0 are inside, pass {name} > 0."
    elif region.ndim == 2 and region.dtype == bool:
        remedy = f" This mask looks transposed: the image has {shape[0]} rows and {shape[1]} columns."
    raise ValueError(
        f"{name} has shape {region.shape} and dtype {region.dtype}. Expected numbers (m, 4): (left, top, right, "
        f"bottom) for each box; or a mask, bool (rows, columns).{remedy}"
    )


def each_mask(masks, n, shape):
    """The mask, bool (R, C), of each of n images, or None: from all forms that ``fit(masks=)`` takes. An iterator.

    Raises ValueError.
    """
    masks = as_numpy(masks)
    masks = masks.to_numpy() if hasattr(masks, "to_numpy") else masks  # a Series of objects
    if isinstance(masks, str) or not hasattr(masks, "__len__"):
        raise ValueError(f"masks is a {type(masks).__name__}. {EXPECTED}")
    if len(masks) != n:
        raise ValueError(f"masks has {len(masks)} items for {n} images. {EXPECTED}")
    for i, own in enumerate(masks):
        yield None if own is None else image_mask(own, shape, f"masks[{i}]", outwards=True)


def _are_masks(regions, shape):
    """Whether these are masks (..., R, C) of any size, except the image's size with rows and columns exchanged."""
    return regions.dtype == bool and regions.size > 0 and not shape != regions.shape[-2:] == shape[::-1]


def region_masks(regions, shape):
    """Masks or boxes, one for all images or one for each -> bool (n, R, C), which is `shape`. Raises ValueError."""
    n, n_rows, n_columns = shape
    regions = _array(regions, "regions")
    if regions.dtype == bool and regions.shape == shape:
        return regions
    if _are_masks(regions, shape[1:]) and (regions.ndim == 2 or (regions.ndim == 3 and len(regions) == n)):
        return np.broadcast_to(resized_masks(regions, shape[1:]), shape)
    if regions.dtype.kind not in "iuf" or regions.shape not in ((4,), (n, 4)):
        raise ValueError(
            f"regions of shape {regions.shape} and dtype {regions.dtype} are neither masks, bool {shape[1:]} or "
            f"{shape}, nor boxes (left, top, right, bottom), numbers (4,) or {(n, 4)}. A mask of numbers is mask > 0."
        )
    return box_masks(np.broadcast_to(regions, (n, 4)), n_rows, n_columns, "regions")


def evidence_boxes(positive, share):
    """The boxes of :meth:`skgcm.Explanation.boxes` in one map (R, C) of values of at least 0: int64 (m, 4)."""
    values, total = np.unique(positive[positive > 0]), positive.sum(dtype=np.float64)

    def boxes(threshold):
        components, _ = label(positive >= threshold, structure=np.ones((3, 3)))
        return find_objects(components)

    def evidence(places):
        inside = np.zeros(positive.shape, bool)
        for place in places:
            inside[place] = True
        return (positive * inside).sum(dtype=np.float64)

    low, high = 0, len(values) - 1  # the boxes at values[low] hold enough; a lower threshold gives larger boxes
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
