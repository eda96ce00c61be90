"""Measures of where the evidence lies."""

from numbers import Integral

import numpy as np
from scipy.ndimage import correlate1d
from sklearn.utils import Bunch, check_random_state, gen_batches
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from skgcm.utils.arrays import as_numpy
from skgcm.utils.regions import image_mask

PERCENTILES = (5, 25, 50, 75, 95)


def _share(inside, overall):
    """Inside / overall, 0 where `overall` is 0."""
    return np.divide(inside, overall, out=np.zeros_like(overall), where=overall > 0)


def _draw_grids(y, confidence, classes, n_cells, n_grids, rng):
    """Indices (n_grids, n_cells) of images: random distinct classes, of each the most confident image not yet used."""
    ranked = {label: np.flatnonzero(y == label) for label in classes}
    ranked = {label: list(index[np.argsort(-confidence[index], kind="stable")]) for label, index in ranked.items()}
    grids = []
    while len(grids) < n_grids:
        left = [label for label in classes if ranked[label]]
        if len(left) < n_cells:
            break
        chosen = rng.choice(len(left), n_cells, replace=False)
        grids.append([ranked[left[i]].pop(0) for i in chosen])
    return np.array(grids, dtype=np.int64).reshape(-1, n_cells)


def _smoothed(maps, size):
    """Means over size x size pixels of maps (..., R, C), 0 outside. Windows without positive values give no residue."""
    weights = np.full(size, 1 / size)  # uniform_filter's running sums would leave rounding residues
    for axis in (-2, -1):
        maps = correlate1d(maps, weights, axis=axis, mode="constant")
    return maps


def _assemble(cells, side):
    """Images (m, side * side, R, C, ...) -> grids (m, side * R, side * C, ...), row by row."""
    m, _, n_rows, n_columns = cells.shape[:4]
    grid = cells.reshape(m, side, side, n_rows, n_columns, *cells.shape[4:]).swapaxes(2, 3)
    return grid.reshape(m, side * n_rows, side * n_columns, *cells.shape[4:])


def grid_pointing_game(
    explain, X, y, proba, *, classes=None, side=3, n_grids=500, smoothing=1, batch_size=20, random_state=None
):
    """Share of the positive evidence for a class that lies on its own image, in a grid of images of other classes.

    Images that are classified correctly with a probability above 0.5 are sorted by it within their class. Each grid has
    side * side random distinct classes, and of each class the most confident image that no grid has used. The map of
    each cell's class is computed for the whole grid. The share is the sum of its positive values inside the cell
    divided by that over the grid, 0 if nothing is positive.

    Parameters
    ----------
    explain : callable (grids, labels) -> maps
        Gets grids (m, side * R, side * C) or (m, side * R, side * C, D) in the dtype of X, and labels (m, side * side),
        the class of each cell, row by row; returns maps (m, side * side, side * R, side * C) or with channels (..., D),
        which are summed. Of a GCMClassifier: ``lambda grids, labels: clf.explain(grids, labels, any_size=True).ccm``.
    X : ndarray (n, R, C) or (n, R, C, D)
        Test images.
    y : array-like (n,) or (n, 1)
        Their true labels.
    proba : array-like (n, N)
        Their predicted probabilities.
    classes : array-like (N,), default=None
        The labels in the order of the columns of `proba`. None: the sorted labels in y.
    side : int, default=3
        Cells in a row and in a column of a grid.
    n_grids : int, default=500
        Number of grids; fewer if there are not enough images.
    smoothing : int, default=1
        Side of the mean filter over maps before their positive part is taken, odd; 1: no filter.
    batch_size : int, default=20
        Grids in a call of `explain`.
    random_state : int, RandomState instance or None, default=None
        For the random classes of the grids.

    Returns
    -------
    sklearn.utils.Bunch
        shares : ndarray (grids, side * side), 0 .. 1; mean : float; percentiles : dict of the 5th, 25th, 50th, 75th and
        95th percentile; indices : ndarray (grids, side * side), the images of the cells.

    Raises
    ------
    ValueError
        If shapes do not agree, a number is out of its range, no grid can be made, or `explain` returns maps of another
        shape or with values that are not finite.

    References
    ----------
    M. Böhle, M. Fritz, B. Schiele: Convolutional Dynamic Alignment Networks for Interpretable Classifications, CVPR
    2021, section 4; B-cos Networks: Alignment is All We Need for Interpretability, CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.metrics import grid_pointing_game
    >>> X, y = np.full((4, 2, 2), [[[1]], [[2]], [[3]], [[4]]]), np.array([1, 2, 3, 4])
    >>> def explain(grids, labels):  # a perfect explanation: each class has its own grey
    ...     return (grids[:, None] == labels[:, :, None, None]).astype(float)
    >>> grid_pointing_game(explain, X, y, np.eye(4), side=2).mean
    1.0
    """
    X, y = np.asarray(as_numpy(X)), column_or_1d(as_numpy(y))
    proba = check_array(as_numpy(proba), input_name="proba")
    check_consistent_length(X, y, proba)
    if X.ndim not in (3, 4):
        raise ValueError(f"X has shape {X.shape}. Expected images (n, R, C) or (n, R, C, D).")
    numbers = side, n_grids, smoothing
    if not all(isinstance(number, Integral) and number >= 1 for number in numbers) or smoothing % 2 == 0:
        raise ValueError(
            f"side={side!r}, n_grids={n_grids!r} and smoothing={smoothing!r} must be integers, 1 or more, and the last "
            "one odd."
        )
    classes = np.unique(y) if classes is None else np.asarray(as_numpy(classes))
    if len(classes) != proba.shape[1]:
        raise ValueError(
            f"proba has {proba.shape[1]} columns for {len(classes)} classes. Pass classes, the labels of the columns."
        )
    confidence = proba.max(axis=1)
    usable = np.flatnonzero((classes[proba.argmax(axis=1)] == y) & (confidence > 0.5))
    rng = check_random_state(random_state)
    grids = usable[_draw_grids(y[usable], confidence[usable], classes, side * side, n_grids, rng)]
    if not len(grids):
        raise ValueError(
            f"Of {len(X)} images {len(usable)} are classified correctly with a probability above 0.5. They are of "
            f"{len(np.unique(y[usable]))} classes, too few for a grid of {side * side} distinct classes. Pass images "
            f"of more classes, or a smaller side than {side}."
        )
    shares = []
    for part in gen_batches(len(grids), batch_size):
        batch = grids[part]
        images, labels = _assemble(X[batch], side), y[batch]
        maps = np.asarray(as_numpy(explain(images, labels)), dtype=np.float64)
        expected = (*labels.shape, *images.shape[1:3])
        if maps.shape[:4] != expected or maps.ndim > 5:
            raise ValueError(f"explain returned maps of shape {maps.shape}; expected {expected}, or with channels.")
        maps = maps.sum(axis=4) if maps.ndim == 5 else maps
        if not np.isfinite(maps).all():
            raise ValueError("explain returned maps with values that are not finite.")
        maps = np.maximum(_smoothed(maps, smoothing) if smoothing > 1 else maps, 0)
        n_rows, n_columns = X.shape[1:3]
        cells = maps.reshape(len(batch), side * side, side, n_rows, side, n_columns).sum(axis=(3, 5))
        cells = cells.reshape(len(batch), side * side, side * side)
        shares.append(_share(np.diagonal(cells, axis1=1, axis2=2), cells.sum(axis=2)))
    shares = np.concatenate(shares)
    percentiles = {p: float(np.percentile(shares, p)) for p in PERCENTILES}
    return Bunch(shares=shares, mean=float(shares.mean()), percentiles=percentiles, indices=grids)


def _box_masks(boxes, shape):
    """Boolean (n, R, C) from boxes or masks, image by image: True inside any of an image's boxes."""
    n, n_rows, n_columns = shape
    boxes = as_numpy(boxes)
    boxes = boxes.to_numpy() if hasattr(boxes, "to_numpy") else boxes  # iterating over a data frame gives column names
    if len(boxes) != n:
        raise ValueError(f"boxes are for {len(boxes)} images, maps for {n}. Pass boxes or a mask for each image.")
    masks = np.empty(shape, dtype=bool)
    for mask, own in zip(masks, boxes, strict=True):
        mask[:] = image_mask(own, (n_rows, n_columns), "boxes")
    return masks


def _maps_and_boxes(maps, boxes):
    maps = check_array(as_numpy(maps), dtype=np.float64, allow_nd=True, input_name="maps")
    if maps.ndim != 3:
        raise ValueError(
            f"maps of shape {maps.shape} must be (n, R, C), one map for each image: pixel_contributions[:, 0] of an "
            "explanation of one class, or the sum over channels."
        )
    return maps, _box_masks(boxes, maps.shape)


def energy_in_boxes(maps, boxes):
    """Share of an image's positive evidence that lies inside its boxes or its mask.

    Parameters
    ----------
    maps : array-like (n, R, C), numbers
        One map for each image, of its true class for instance:
        ``clf.explain(X, y[:, None]).pixel_contributions[:, 0]``.
    boxes : sequence of n sequences of (left, top, right, bottom), array-like (n, 4), or masks, bool (n, R', C')
        The boxes of each image in pixels, or one box for each; right and bottom are the first column and row outside.
        Fractions are rounded. Boxes may overlap. Or for each image a mask, True inside; one of another size than the
        map is resized as in ``GCMClassifier.fit``.

    Returns
    -------
    ndarray (n,)
        0 .. 1: the sum of positive values inside any box over that of all; 0 where nothing is positive.

    Raises
    ------
    ValueError
        If shapes do not agree, or a box is empty or leaves its image.

    References
    ----------
    H. Wang et al.: Score-CAM, CVPR Workshops 2020, "energy-based pointing game".

    Examples
    --------
    >>> from skgcm.metrics import energy_in_boxes
    >>> energy_in_boxes([[[3.0, 1.0], [-9.0, 0.0]]], [[(0, 0, 1, 1)]])
    array([0.75])
    """
    maps, inside = _maps_and_boxes(maps, boxes)
    maps = np.maximum(maps, 0)
    return _share((maps * inside).sum(axis=(1, 2)), maps.sum(axis=(1, 2)))


def pointing_game(maps, boxes):
    """Whether an image's largest evidence lies inside its boxes or its mask.

    Parameters
    ----------
    maps, boxes
        As in :func:`energy_in_boxes`.

    Returns
    -------
    ndarray (n,) bool
        Its mean is the share of hits. If several pixels are the largest, the first counts, row by row. If none is
        positive, there is no hit.

    Raises
    ------
    ValueError
        If shapes do not agree, or a box is empty or leaves its image.

    References
    ----------
    J. Zhang et al.: Top-down Neural Attention by Excitation Backprop, ECCV 2016. Without that paper's tolerance of 15
    pixels around a box.

    Examples
    --------
    >>> from skgcm.metrics import pointing_game
    >>> pointing_game([[[3.0, 1.0], [-9.0, 0.0]]], [[(0, 0, 1, 1)]])
    array([ True])
    """
    maps, inside = _maps_and_boxes(maps, boxes)
    maps, inside = maps.reshape(len(maps), -1), inside.reshape(len(maps), -1)
    at = np.arange(len(maps)), maps.argmax(axis=1)
    return inside[at] & (maps[at] > 0)
