"""Fits of GCM and of the comparison CNN, kept in a folder where one is given."""

import time

import joblib
from _cnn import CNNClassifier

from skgcm import GCMClassifier

CLASSIFIERS = {"GCM": GCMClassifier, "CNN": CNNClassifier}


def fit(name, params, X, y):
    """The fitted classifier and the seconds that took."""
    start = time.perf_counter()
    clf = CLASSIFIERS[name](**params).fit(X, y)
    return clf, time.perf_counter() - start


def keeping(folder):
    """`fit`, which does not repeat what it kept in the folder for the same data and parameters; None: keeps nothing."""
    return fit if folder is None else joblib.Memory(folder, verbose=0).cache(fit)
