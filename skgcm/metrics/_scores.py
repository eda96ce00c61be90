"""Measures of whether maps agree with the scores."""

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from skgcm.utils.arrays import as_numpy


def _maps_and_scores(maps, scores):
    scores = check_array(as_numpy(scores), input_name="scores")
    maps = check_array(as_numpy(maps), allow_nd=True, dtype=None, input_name="maps")
    check_consistent_length(maps, scores)
    if maps.shape[:2] != scores.shape:
        raise ValueError(
            f"maps of shape {maps.shape} do not go with scores of shape {scores.shape}. Expected maps of shape "
            f"({scores.shape[0]}, {scores.shape[1]}, ...), one for each score."
        )
    return maps, scores


def class_indices(y, classes, n_classes):
    """Positions of the labels `y`, (n,) or (n, 1), among `classes`; None: among the sorted labels in y. ValueError."""
    y = column_or_1d(as_numpy(y))
    classes = np.unique(y) if classes is None else column_or_1d(as_numpy(classes))
    if len(classes) != n_classes:
        raise ValueError(
            f"{len(classes)} classes {classes.tolist()} do not go with {n_classes} columns. Pass classes=clf.classes_, "
            "the labels in the order of the columns."
        )
    order = np.argsort(classes)
    found = order[np.searchsorted(classes, y, sorter=order).clip(max=n_classes - 1)]
    unknown = classes[found] != y
    if unknown.any():
        raise ValueError(f"y has the label {y[unknown][0]!r}, which is not in classes {classes.tolist()}.")
    return found


def additivity_error(maps, scores):
    """Largest difference between the mean of a map and the score it should explain, in parts of the largest score.

    Parameters
    ----------
    maps : array-like (n, k, ...), numbers
        Maps whose plain average should be the score: ``Explanation.ccm`` or ``pixel_contributions``.
    scores : array-like (n, k), numbers
        Their scores.

    Returns
    -------
    float
        0 or more; for GCM about 1e-7, the rounding of float32. NaN if all scores are 0.

    Raises
    ------
    ValueError
        If shapes do not agree.

    Examples
    --------
    >>> from skgcm.metrics import additivity_error
    >>> additivity_error([[[1.0, 3.0]]], [[2.0]]), additivity_error([[[1.0, 3.0]]], [[4.0]])
    (0.0, 0.5)
    """
    maps, scores = _maps_and_scores(maps, scores)
    means = maps.reshape(*scores.shape, -1).mean(axis=2, dtype=np.float64)
    largest = np.abs(scores).max()
    return float(np.abs(means - scores).max() / largest) if largest else float("nan")


def decline_ratio(maps, scores, y, *, classes=None):
    """Share of a classifier's accuracy that is lost when the sums of its maps decide instead of its scores.

    With A the accuracy of the scores and B the accuracy of the classes whose maps have the largest sum, the decline
    ratio is (A - B) / A. It is 0 if the maps are as accurate as the scores, and negative if they are more accurate.

    Parameters
    ----------
    maps : array-like (n, N, ...), numbers
        The maps of all N classes, of any number of axes; (n, N) are their sums.
    scores : array-like (n, N), numbers
        The classifier's scores.
    y : array-like (n,) or (n, 1)
        The true label of each image.
    classes : array-like (N,), default=None
        The labels in the order of the columns of `scores`, ``clf.classes_``. None: the sorted labels in y.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    ValueError
        If shapes do not agree, `y` has a label that is not in `classes`, or no image is classified correctly, so that
        the ratio is undefined.

    References
    ----------
    Generative Contribution Mappings, section 4.6 and Table 8: IPSJ Transactions on Mathematical Modeling and its
    Applications 10(2), 1-13, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.metrics import decline_ratio
    >>> scores, y = np.array([[2, 1], [2, 1], [1, 2], [1, 2]]), [0, 0, 1, 0]  # three of four are right
    >>> sums = np.array([[2, 1], [1, 2], [1, 2], [1, 2]])  # two are
    >>> round(decline_ratio(sums, scores, y), 2)
    0.33
    """
    maps, scores = _maps_and_scores(maps, scores)
    y = class_indices(y, classes, scores.shape[1])
    check_consistent_length(scores, y)
    sums = maps.reshape(*scores.shape, -1).sum(axis=2, dtype=np.float64)
    before, after = (np.count_nonzero(values.argmax(axis=1) == y) for values in (scores, sums))
    if not before:
        raise ValueError("By the scores no image is classified correctly, so the decline of the accuracy is undefined.")
    return float((before - after) / before)
