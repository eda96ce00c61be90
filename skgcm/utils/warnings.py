"""Warnings that point to the line that called this library."""

import sys
import warnings
from contextlib import contextmanager

BETWEEN = {"skgcm", "sklearn", "skorch", "joblib"}  # packages whose lines do not help a user


def warn(message, category=UserWarning):
    """A warning at the innermost line outside of these packages."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def images_may_be_strange():
    """Context for images that are changed on purpose: that they are unlike the training images is no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* unlike the training images")
        yield
