"""Facts of a report about a model and all images: mean maps, fingerprints, parameters, versions."""

import hashlib
import platform
import re
from importlib.metadata import version

import numpy as np

from skgcm.report.text import plain

VERSIONS = ("numpy", "scikit-learn", "torch")
PRIVATE = {"checkpoint", "encoder_weights", "verbose"}  # not written: paths of the user, and no part of a model


def survey(estimator, X, own, n_means):
    """Facts about a fitted classifier and n images, in a dict.

    Parameters
    ----------
    estimator : GCMClassifier
    X : array-like
        Images.
    own : int64 ndarray (n,)
        Position of each image's class, to whose mean map it counts.
    n_means : int
        Mean maps are made for so many classes, those with the most images.

    Returns
    -------
    dict
        counts (N,), the images of each class; mean_maps, {position: (R, C)}, the mean over a class's images of their
        contributions for it, minus those for the mean of all classes; and facts as text.
    """
    classes = estimator.classes_
    counts = np.bincount(own, minlength=len(classes))
    most = np.argsort(-counts, kind="stable")[:n_means]
    totals = {j: np.zeros(estimator.image_shape_[:2]) for j in sorted(most.tolist()) if counts[j]}
    images, start = hashlib.sha256(), 0
    for batch in estimator.explain_batches(X, classes[own][:, None]):
        part = own[start : start + len(batch)]
        found = batch.versus("mean").pixel_contributions[:, 0]
        for j in set(part.tolist()) & totals.keys():
            totals[j] += found[part == j].sum(axis=0)
        images.update(np.ascontiguousarray(batch.images, dtype="<f4"))
        start += len(batch)
    return {
        "n": len(own),
        "counts": counts,
        "mean_maps": {j: total / counts[j] for j, total in totals.items()},
        "image_shape": estimator.image_shape_,
        "value_range": estimator.value_range_,
        "temperature": float(estimator.temperature_),
        "fingerprints": {
            "Model (weights, classes and temperature)": _model_fingerprint(estimator),
            "Images": images.hexdigest(),
        },
        "estimator": plain(type(estimator).__name__),
        "parameters": _parameters(estimator),
        "versions": {"Python": platform.python_version()} | {name: version(name) for name in VERSIONS},
    }


def label_fingerprint(positions):
    """SHA-256 of labels, as positions of classes."""
    return hashlib.sha256(np.ascontiguousarray(positions, dtype="<i8")).hexdigest()


def _model_fingerprint(estimator):
    digest = hashlib.sha256(repr(estimator.classes_.tolist()).encode("utf-8", "backslashreplace"))
    for name, tensor in sorted(estimator.net_.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()))
    digest.update(repr(float(estimator.temperature_)).encode())
    return digest.hexdigest()


def _parameters(estimator):
    """Parameters as text, without the addresses of objects in memory."""
    return {
        plain(name): plain(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)))
        for name, value in sorted(estimator.get_params(deep=False).items())
        if name not in PRIVATE
    }
