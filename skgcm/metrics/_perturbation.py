"""Measures of whether the decision depends on the pixels with the most evidence."""

from numbers import Integral

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_array, check_consistent_length

from skgcm.metrics._scores import class_indices
from skgcm.utils.arrays import as_numpy
from skgcm.utils.warnings import images_may_be_strange

ORDERS, FILLS = ("most", "least"), ("mean", "black")


def deletion_curve(predict_proba, X, maps, y, *, classes=None, order="most", fill="mean", n_steps=20):
    """Probability of a class while pixels are replaced in the order of their evidence for it.

    Parameters
    ----------
    predict_proba : callable (X) -> (n, N)
        Probabilities, ``clf.predict_proba`` for instance.
    X : ndarray (n, R, C) or (n, R, C, D)
        Images.
    maps : array-like (n, R, C) or (n, R, C, D), numbers
        One map for each image, of the class in `y`: ``clf.explain(X, labels[:, None]).ccm[:, 0]``. Channels are summed.
    y : array-like (n,) or (n, 1)
        The label of each image.
    classes : array-like (N,), default=None
        The labels in the order of the columns of `predict_proba`, ``clf.classes_``. None: the sorted labels in y.
    order : {"most", "least"}, default="most"
        Which pixels are replaced first: those of most evidence (a steep fall is good), or of least (a level line is
        good).
    fill : {"mean", "black"}, default="mean"
        The new value of the pixels. "mean": the mean colour of X, rounded if X holds integers or bool. "black": 0, with
        any `value_range` of a classifier.
    n_steps : int, default=20
        Points of the curve after the first, at equal shares of pixels.

    Returns
    -------
    sklearn.utils.Bunch
        shares : ndarray (n_steps + 1,), 0 .. 1, share of pixels replaced; probabilities : ndarray (n_steps + 1,), mean
        over the images; area : float, under the curve, by trapezoids.

    Raises
    ------
    ValueError
        If shapes do not agree, `y` has a label that is not in `classes`, or `order`, `fill` or `n_steps` is invalid.

    References
    ----------
    V. Petsiuk, A. Das, K. Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018;
    W. Samek et al.: Evaluating the Visualization of What a Deep Neural Network Has Learned, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.metrics import deletion_curve
    >>> def brightness(X):
    ...     bright = X.mean(axis=(1, 2))
    ...     return np.column_stack([1 - bright, bright])
    >>> X = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> curve = deletion_curve(brightness, X, X, [1], classes=[0, 1], fill="black", n_steps=2)
    >>> curve.probabilities, curve.area
    (array([0.5, 0. , 0. ]), 0.125)
    """
    X, y = np.asarray(as_numpy(X)), np.asarray(as_numpy(y))
    maps = check_array(as_numpy(maps), dtype=np.float64, allow_nd=True, input_name="maps")
    check_consistent_length(X, maps, y)
    maps = maps.sum(axis=3) if maps.ndim == 4 else maps
    if X.ndim not in (3, 4) or maps.shape != X.shape[:3]:
        raise ValueError(f"maps of shape {maps.shape} are not one map (R, C) for each image in X of shape {X.shape}.")
    for name, value, known in (("order", order, ORDERS), ("fill", fill, FILLS)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is not one of {known}.")
    if not isinstance(n_steps, Integral) or n_steps < 1:
        raise ValueError(f"n_steps={n_steps!r} must be an integer, 1 or more.")
    filled = np.zeros(X.shape[3:]) if fill == "black" else X.mean(axis=(0, 1, 2), dtype=np.float64)
    filled = np.round(filled) if X.dtype.kind in "iub" else filled
    ranks = np.argsort(maps.reshape(len(X), -1), axis=1, kind="stable")
    rank = np.empty_like(ranks)
    np.put_along_axis(rank, ranks[:, ::-1] if order == "most" else ranks, np.arange(ranks.shape[1])[None], axis=1)
    rank = rank.reshape(X.shape[:3])
    shares = np.linspace(0, 1, n_steps + 1)
    probabilities = []
    for share in shares:
        changed = X.copy()
        changed[rank < round(share * ranks.shape[1])] = filled
        with images_may_be_strange():
            proba = check_array(as_numpy(predict_proba(changed)), input_name="predict_proba(X)")
        probabilities.append(proba[np.arange(len(X)), class_indices(y, classes, proba.shape[1])].mean())
    probabilities = np.array(probabilities)
    return Bunch(shares=shares, probabilities=probabilities, area=float(np.trapezoid(probabilities, shares)))


def insertion_curve(predict_proba, X, maps, y, *, classes=None, order="most", fill="mean", n_steps=20):
    """Probability of a class while pixels are uncovered in the order of their evidence for it.

    At first all pixels have the value `fill`. Uncovering the most important share of the pixels gives the same images
    as deleting the others, least important first. So this is that deletion curve in reverse order.

    Parameters
    ----------
    predict_proba, X, maps, y, classes, fill, n_steps
        As in :func:`deletion_curve`.
    order : {"most", "least"}, default="most"
        Which pixels come first: those of most evidence (a steep rise is good), or of least.

    Returns
    -------
    sklearn.utils.Bunch
        shares (of pixels uncovered), probabilities and area as in :func:`deletion_curve`.

    Raises
    ------
    ValueError
        As in :func:`deletion_curve`.

    References
    ----------
    V. Petsiuk, A. Das, K. Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.
    """
    last = {"most": "least", "least": "most"}.get(order, order)  # deletion_curve reports an invalid order
    curve = deletion_curve(predict_proba, X, maps, y, classes=classes, order=last, fill=fill, n_steps=n_steps)
    curve.probabilities = curve.probabilities[::-1]
    return curve
