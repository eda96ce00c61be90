"""Checks of X and y by scikit-learn. Errors name the one that is wrong."""

import re
from contextlib import contextmanager

import numpy as np
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from skgcm.inputs import images, labels
from skgcm.inputs.files import ImageFiles
from skgcm.utils.arrays import as_numpy


@contextmanager
def naming(name):
    """Context in which errors about the argument `name` have that name, and are ValueError or TypeError."""
    try:
        yield
    except (OverflowError, TypeError, ValueError) as error:
        if isinstance(error, TypeError | ValueError) and re.search(rf"\b{name}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def check_images(estimator, X, *, reset=False, any_size=False):
    """Images, from :func:`skgcm.inputs.images.as_array`, as rows (n, R * C * D) of finite numbers that PyTorch reads.

    With `reset`, the attributes that scikit-learn derives from X are set; with `any_size`, they are not checked. For
    files, only the headers are checked.
    """
    if isinstance(X, ImageFiles):
        X.check()
        return X if any_size else validate_data(estimator, X, reset=reset, skip_check_array=True)
    params = {"order": "C", "dtype": "numeric"}
    with naming("X"), np.errstate(invalid="ignore"):  # scikit-learn adds up all values, and they may be huge
        if any_size:
            X_flat = check_array(images.flatten(X), input_name="X", estimator=estimator, **params)
        else:
            X_flat = validate_data(estimator, images.flatten(X), reset=reset, **params)
        return images.native(X_flat)


def check_labels(estimator, y, n):
    """Class labels of n images, (n,), as scikit-learn's classifiers take them."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    with naming("y"), np.errstate(invalid="ignore"):  # numbers too large for an integer are no labels, and no warning
        y = column_or_1d(as_numpy(y), warn=True)
        assert_all_finite(y, input_name="y")
        if y.dtype.kind not in "biufUTSO":
            raise ValueError(f"y has dtype {y.dtype}. Class labels are integers, strings or booleans.")
        if y.dtype.kind == "O":
            labels.unique(y, "y")  # for labels without an order, its error is clearer than scikit-learn's
        check_classification_targets(y)
    if len(y) != n:
        raise ValueError(f"X has {n} images and y has {len(y)} labels: inconsistent numbers of samples.")
    return y
