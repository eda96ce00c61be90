"""Fits of GCM and of the comparison CNN, kept in a folder where one is given."""

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
    if callable(params.get("augment")):  # which no checkpoint can restore: the whole fit, then
        X, y = np.asarray(X), np.asarray(y)  # side by side they are memory maps, which Memory takes for other data
        return joblib.Memory(folder, verbose=0).cache(fit)(name, params, X, y)
    folder.mkdir(parents=True, exist_ok=True)
    return fit(name, params, X, y, folder / f"{joblib.hash((name, params, X, y), coerce_mmap=True)}.checkpoint")


def keeping(folder):
    """`fit` with checkpoints in the folder: what was fitted is not fitted again, and what was interrupted goes on.

    Where `augment` is a callable, what was interrupted begins anew.
    A folder is for one version of the code on one machine, and for one process that is given it at a time.
    """
    return fit if folder is None else partial(_fit_in, Path(folder))
