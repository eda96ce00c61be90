"""Class labels <-> positions in `classes_`."""

import re

import numpy as np


def unique(labels, name):
    """The sorted classes (N,) of labels. `name` is used in errors."""
    try:
        found = np.unique(np.asarray(labels))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} has labels that cannot be sorted ({error}). Use only strings or only integers."
        ) from error
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{name} has labels that are not finite, {found.tolist()}. Use only strings or only integers.")
    return found


def find(labels, n_classes=None, name="y"):
    """The sorted classes (N,) of labels, or 0 .. n_classes - 1 if they are some of these. `name` is used in errors."""
    classes = unique(labels, name)
    if n_classes is not None and n_classes != len(classes):
        integers = classes.dtype.kind in "iu" and classes.min() >= 0 and classes.max() < n_classes
        if n_classes < len(classes) or not integers:
            raise ValueError(
                f"n_classes={n_classes}, but {name} has {len(classes)} classes: {_some(classes)}. n_classes can be "
                "larger only if all labels are integers from 0 to n_classes - 1. Otherwise leave it out."
            )
        classes = np.arange(n_classes)
    if len(classes) < 2:
        raise ValueError(f"{name} has one class only, {classes.tolist()}; a classifier needs at least 2 classes.")
    return classes


def indices(labels, classes, name, remedy=""):
    """Positions in `classes` of an array of labels, int64, same shape. `name` and `remedy` are used in errors."""
    position = {label: i for i, label in enumerate(classes.tolist())}
    try:
        found = [position[label] for label in labels.ravel().tolist()]
    except KeyError as error:
        label = error.args[0].item() if isinstance(error.args[0], np.generic) else error.args[0]
        message = f"{name} has the label {label!r}, but the classes are {_some(classes)}."
        raise ValueError(f"{message} {remedy}".rstrip()) from None
    except TypeError as error:
        raise ValueError(f"{name} has an invalid label ({error}); the classes are {_some(classes)}.") from error
    return np.array(found, dtype=np.int64).reshape(labels.shape)


def choose(wanted, classes, n):
    """The choice of `explain(classes=)`: None for all classes, an int k for the k best, or positions (n, k)."""
    if isinstance(wanted, str):
        k = re.fullmatch(r"top-([1-9][0-9]{0,9})", wanted)
        if wanted != "predicted" and wanted != "all" and k is None:
            raise ValueError(
                f"classes={wanted!r} is not 'predicted', 'all' or 'top-K'. Pass labels in a sequence: [{wanted!r}]."
            )
        count = 1 if wanted == "predicted" else int(k[1]) if k else None
        _check_count(count or 1, classes)
        return count
    try:
        labels = np.asarray(wanted)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"classes={wanted!r} must have the same number of classes for each image: {error}") from error
    if labels.dtype.kind == "b" and classes.dtype.kind != "b":
        raise ValueError(f"classes={wanted!r} is not a sequence of labels; the classes are {_some(classes)}.")
    labels = np.atleast_1d(labels)
    if labels.ndim > 2 or labels.size == 0 or (labels.ndim == 2 and len(labels) != n):
        raise ValueError(
            f"classes of shape {np.shape(wanted)} must be labels for every image, (k,), or image by image, ({n}, k)."
        )
    remedy = f" One label for each of {n} images is a column, ({n}, 1): y[:, None]." if np.shape(wanted) == (n,) else ""
    _check_count(labels.shape[-1], classes, remedy)
    positions = indices(labels, classes, "classes")
    if positions.ndim == 1 and len(set(positions.tolist())) < len(positions):
        raise ValueError(f"classes={wanted!r} has a label twice. Name each class once.{remedy}")
    return np.broadcast_to(positions, (n, positions.shape[-1]))


def _check_count(k, classes, remedy=""):
    if k > len(classes):
        raise ValueError(
            f"classes asks for {k} classes an image, but there are {len(classes)}. Ask for fewer, or 'all'.{remedy}"
        )


def _some(classes):
    shown = ", ".join(repr(label) for label in classes[:10].tolist())
    return f"[{shown}]" if len(classes) <= 10 else f"[{shown}, ...] ({len(classes)})"
