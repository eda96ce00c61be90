"""Fits of GCM and of the comparison CNN, kept in a folder if one is given."""

from functools import partial
from pathlib import Path

import joblib
import numpy as np
from _cnn import CNNClassifier

from skgcm import GCMClassifier

CLASSIFIERS = {"GCM": GCMClassifier, "CNN": CNNClassifier}


def fit(name, params, X, y, checkpoint=None):
    """The fitted classifier and the seconds that its epochs took."""
    clf = CLASSIFIERS[name](**params, checkpoint=checkpoint).fit(X, y)
    return clf, sum(epoch["dur"] for epoch in clf.history_)


def _fit_in(folder, name, params, X, y):
    if callable(params.get("augment")):  # no checkpoint can restore a callable: keep the whole fit
        X, y = np.asarray(X), np.asarray(y)  # parallel jobs get memory maps, which Memory treats as other data
        return joblib.Memory(folder, verbose=0).cache(fit)(name, params, X, y)
    folder.mkdir(parents=True, exist_ok=True)
    return fit(name, params, X, y, folder / f"{joblib.hash((name, params, X, y), coerce_mmap=True)}.checkpoint")


def keeping(folder):
    """`fit` with checkpoints in the folder: a finished fit is not repeated, and an interrupted one continues.

    If `augment` is a callable, an interrupted fit starts again. Use a folder for one version of the code, on one
    machine, and in one process at a time.
    """
    return fit if folder is None else partial(_fit_in, Path(folder))
