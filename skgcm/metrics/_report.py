"""Reports on a fitted classifier: whether the evidence lies where it should, and what the decision depends on."""

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skgcm.metrics._location import energy_in_boxes, pointing_game
from skgcm.utils.arrays import as_numpy
from skgcm.utils.regions import image_mask
from skgcm.utils.warnings import images_may_be_strange

TENTH = 0.1  # share of the pixels that are checked, or removed
N_SPLITS = 3
MUCH = 0.5  # of the evidence in one tenth of the pixels of all images, beyond chance
FEW = 20  # images of a class: with fewer, a change of its accuracy is uncertain
SEED = 0


class _Printable(Bunch):
    """A Bunch that is shown as its text."""

    def __repr__(self):
        return self.text

    __str__ = __repr__


def _explained(clf, X, y):
    """Contributions (n, R, C) to the true classes, the labels, and the predicted labels."""
    y = column_or_1d(as_numpy(y))
    predicted = clf.predict(X)
    check_consistent_length(predicted, y)
    maps = [part.pixel_contributions[:, 0] for part in clf.explain_batches(X, y[:, None])]
    return np.concatenate(maps), y, predicted


def _mean(values):
    return float(np.mean(values)) if len(values) else float("nan")


def _number(value):
    return "-" if np.isnan(value) else f"{value:.2f}"


def _table(heads, lines):
    """Lines of text in aligned columns, the first to the left, the others to the right."""
    cells = [heads, *lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    padded = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells)
    return "\n".join(map("  ".join, padded))


def evidence_report(clf, X, y, masks):
    """Whether the evidence lies in masks, and the accuracy if it does and if it does not, class by class.

    Parameters
    ----------
    clf : GCMClassifier
        A fitted classifier.
    X : array-like
        Images as at fit, best such that were not trained on.
    y : array-like (n,)
        Their true labels.
    masks : array-like of bool (n, R', C'), or sequence of n items
        Where the evidence for the true class should lie, as in ``GCMClassifier.fit``: None, a mask, or boxes. Images
        with None, an empty mask or no boxes are left out.

    Returns
    -------
    sklearn.utils.Bunch
        Its text is a table. Arrays (N,), one number for each class, NaN where there is no image for it:

        - classes : the labels.
        - n : number of images with a mask.
        - share : mean share of the positive evidence that lies in the mask, 0 .. 1.
        - chance : mean share of the area that the mask covers, which is the share of uniform evidence.
        - pointing : share of images whose largest evidence lies in the mask.
        - accuracy : share of images that are classified correctly.
        - inside : share of images whose evidence is inside: its share in the mask is above that mask's share of the
          area.
        - accuracy_inside, accuracy_outside : accuracy of those images, and of the others.

        And `overall`, a dict of the same numbers over all images, and `text`.

    Raises
    ------
    ValueError
        If shapes do not agree, a mask is invalid, or no image has one.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm import GCMClassifier
    >>> from skgcm.metrics import evidence_report
    >>> X, y = np.random.default_rng(0).random((40, 8, 8)), np.arange(40) % 2
    >>> X[y == 1, 2:4, 2:4] += 1
    >>> clf = GCMClassifier(max_epochs=5, augment=None, device="cpu", random_state=0).fit(X, y)
    >>> report = evidence_report(clf, X, y, [[(2, 2, 4, 4)] if label else None for label in y])
    >>> report.n, report.chance
    (array([ 0, 20]), array([   nan, 0.0625]))
    """
    maps, y, predicted = _explained(clf, X, y)
    masks = as_numpy(masks)
    check_consistent_length(maps, masks)
    shape = maps.shape[1:]
    found = [
        np.zeros(shape, bool) if own is None else image_mask(own, shape, f"masks[{i}]", outwards=True)
        for i, own in enumerate(masks)
    ]
    found = np.array(found)
    kept = found.any(axis=(1, 2))
    if not kept.any():
        raise ValueError("masks has no mask with a pixel inside, so there is nothing to report.")
    maps, found, y, right = maps[kept], found[kept], y[kept], (y == predicted)[kept]
    share, chance, hit = energy_in_boxes(maps, found), found.mean(axis=(1, 2)), pointing_game(maps, found)

    def numbers(chosen):
        inside = chosen & (share > chance)
        outside = chosen & ~inside
        return {
            "n": int(chosen.sum()),
            "share": _mean(share[chosen]),
            "chance": _mean(chance[chosen]),
            "pointing": _mean(hit[chosen]),
            "accuracy": _mean(right[chosen]),
            "inside": _mean(inside[chosen]),
            "accuracy_inside": _mean(right[inside]),
            "accuracy_outside": _mean(right[outside]),
        }

    rows = [numbers(y == label) for label in clf.classes_]
    overall = numbers(np.ones(len(y), bool))
    heads = ["class", "images", "share", "chance", "pointing", "accuracy", "inside", "right if inside", "right if not"]
    lines = [
        [name, str(row["n"]), *(_number(value) for key, value in row.items() if key != "n")]
        for name, row in zip([*map(str, clf.classes_), "all"], [*rows, overall], strict=True)
    ]
    arrays = {key: np.array([row[key] for row in rows]) for key in overall}
    return _Printable(classes=clf.classes_, **arrays, overall=overall, text=_table(heads, lines))


def check_evidence(clf, X, y, groups=None):
    """What a decision depends on, found without masks: groups of images, fixed places, a few pixels.

    Parameters
    ----------
    clf : GCMClassifier
        A fitted classifier.
    X : array-like
        Images as at fit, best such that were not trained on; at least two of a class.
    y : array-like (n,)
        Their true labels.
    groups : array-like (n,), default=None
        What each image shows: the part, the patient, the session. With groups, six clones of `clf` are fitted on parts
        of X, without masks and checkpoint: pass enough images to learn from. None: this is not checked.

    Returns
    -------
    sklearn.utils.Bunch
        Its text has the findings, as sentences, and a table. The numbers are:

        - classes : ndarray (N,), the labels.
        - n : ndarray of int (N,), number of images of each class.
        - accuracy_random, accuracy_groups : float, mean accuracy of 3-fold cross-validation where images are split at
          random (``StratifiedKFold``) and by groups (``StratifiedGroupKFold``), NaN without groups. If the first is
          higher, the classifier recognises the groups. If both are near the share of the most frequent class, images or
          epochs are too few to tell.
        - fixed : ndarray (N,), how much of the positive evidence for a class lies in the same places of all its images:
          1 if all of it lies in the same tenth of the pixels, about 0 if its place varies freely. See the notes.
        - fixed_map : ndarray (N, R, C), mean of the class's maps of positive evidence, each with the sum 1: draw it to
          see where the places are.
        - accuracy, accuracy_without : ndarray (N,), share of the class's images that are classified correctly, before
          and after removing the tenth of the pixels that contribute most to their class.
        - findings : list of str, the sentences; text : str.

        The numbers are NaN for a class with fewer than two images.

    Raises
    ------
    ValueError
        If shapes do not agree, or a class has too few images or groups to be split.

    Notes
    -----
    For `fixed`, the images of a class are halved. In one half, the tenth of the pixels with the most evidence on
    average is found; s is the share of the evidence of the other half that lies there, and ``fixed = (s - 0.1) / 0.9``,
    averaged over both orders of the halves. It is high for a watermark or a border, but also for objects that are
    always at the same place, so look at `fixed_map`.

    Removed pixels get the image's mean colour. If the accuracy stays, the decision does not need the pixels that
    contribute most. If it falls, the decision depends on a tenth of the pixels, which the maps show.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm import GCMClassifier
    >>> from skgcm.metrics import check_evidence
    >>> X, y = np.random.default_rng(0).random((60, 10, 10)), np.arange(60) % 2
    >>> X[y == 1, :3, :3] += 1  # a watermark gives the class away
    >>> clf = GCMClassifier(max_epochs=20, augment=None, device="cpu", random_state=0).fit(X, y)
    >>> check = check_evidence(clf, X, y)
    >>> bool(check.fixed[1] > check.fixed[0])
    True
    """
    maps, y, predicted = _explained(clf, X, y)
    positive = np.maximum(maps, 0, dtype=np.float64)
    totals = positive.sum(axis=(1, 2), keepdims=True)
    positive = np.divide(positive, totals, out=np.zeros_like(positive), where=totals > 0)
    random, grouped = (np.nan, np.nan) if groups is None else _by_groups(clf, X, y, groups)
    with images_may_be_strange():
        right, still_right = predicted == y, clf.predict(_without_most_important(clf, X, maps)) == y
    of_class = [y == label for label in clf.classes_]
    fixed = np.array([_fixed_share(positive[chosen]) for chosen in of_class])
    before, after = (np.array([_mean(of[chosen]) for chosen in of_class]) for of in (right, still_right))
    fixed_map = np.array(
        [positive[of].mean(axis=0) if of.any() else np.full(maps.shape[1:], np.nan) for of in of_class]
    )
    n = np.array([int(chosen.sum()) for chosen in of_class])
    findings = [*_group_findings(random, grouped, n), *_findings(clf.classes_, n, fixed, before, after)]
    heads = ["class", "images", "evidence in fixed places", "accuracy", "without a tenth of the pixels"]
    lines = [
        [str(label), str(count), *map(_number, numbers)]
        for label, count, *numbers in zip(clf.classes_, n, fixed, before, after, strict=True)
    ]
    return _Printable(
        classes=clf.classes_,
        n=n,
        accuracy_random=random,
        accuracy_groups=grouped,
        fixed=fixed,
        fixed_map=fixed_map,
        accuracy=before,
        accuracy_without=after,
        findings=findings,
        text="\n".join([*findings, "", _table(heads, lines)]),
    )


def _by_groups(clf, X, y, groups):
    """Accuracy of cross-validation at random, and with the images of a group kept together."""
    groups = column_or_1d(as_numpy(groups))
    check_consistent_length(y, groups)
    unfitted = clone(clf).set_params(checkpoint=None)
    found = []
    for kind, of in ((StratifiedKFold, None), (StratifiedGroupKFold, groups)):
        splits = kind(N_SPLITS, shuffle=True, random_state=SEED).split(np.zeros(len(y)), y, of)
        found.append(float(cross_val_score(unfitted, X, y, cv=splits, error_score="raise").mean()))
    return found


def _fixed_share(positive):
    """How much evidence lies in the same tenth of the pixels, beyond chance; each map of `positive` has sum 1."""
    if len(positive) < 2:
        return np.nan
    positive = positive.reshape(len(positive), -1)
    n_places = max(1, round(TENTH * positive.shape[1]))
    halves = positive[::2].mean(axis=0), positive[1::2].mean(axis=0)
    shares = [there[np.argsort(-here, kind="stable")[:n_places]].sum() for here, there in (halves, halves[::-1])]
    chance = n_places / positive.shape[1]
    return float((np.mean(shares) - chance) / (1 - chance)) if chance < 1 else np.nan


def _without_most_important(clf, X, maps):
    """The images of X, in its units; in each the tenth of the pixels with most evidence has the mean colour."""
    images = np.concatenate([part.images for part in clf.explain_batches(X, clf.classes_[:1])])
    n_lost = max(1, round(TENTH * maps[0].size))
    flat = images.reshape(len(images), -1, images.shape[3])
    lost = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")[:, :n_lost, None]
    np.put_along_axis(flat, lost, flat.mean(axis=1, keepdims=True), axis=1)
    low, high = clf.value_range_
    images = low + flat.reshape(images.shape) * (high - low)
    images = np.moveaxis(images, 3, 1) if clf.net_.image_format.channels_first else images
    if hasattr(X, "columns") and hasattr(clf, "feature_names_in_"):  # a data frame, of pandas or polars
        return type(X)(dict(zip(clf.feature_names_in_, images.reshape(len(images), -1).T, strict=True)))
    return images


def _group_findings(random, grouped, n_of_class):
    """Sentences on the accuracy of two kinds of splits."""
    if np.isnan(random):
        return []
    n = n_of_class.sum()
    chance = n_of_class.max() / n  # of naming the most frequent class always
    said = f"Accuracy is {random:.2f} if images are split at random and {grouped:.2f} if groups stay together"
    uncertain = 2 * np.sqrt(0.5 * (random * (1 - random) + grouped * (1 - grouped)) / n)
    if random - grouped > max(uncertain, 0.02):
        return [f"The decision leans on what the images of a group have in common. {said}. Split by groups."]
    if max(random, grouped) < chance + 2 * np.sqrt(chance * (1 - chance) / n):
        return [
            f"{said}. Always naming the most frequent class gives {chance:.2f}: too few images or epochs to tell "
            "whether groups are recognised."
        ]
    return [f"{said}: no sign that groups are recognised."]


def _findings(classes, n_of_class, fixed, before, after):
    found = []
    for label, n, share, right, without in zip(classes, n_of_class, fixed, before, after, strict=True):
        if share > MUCH:
            evidence = TENTH + (1 - TENTH) * share
            found.append(
                f"The decision for {label} leans on fixed places. {evidence:.0%} of its evidence lies in the same "
                "tenth of the pixels of all images. Is this the object, or a mark, a border or the background?"
            )
        if right > 0 and without < right / 2:
            leans = f"The decision for {label} leans on few pixels."
            if n < FEW:
                leans = f"Few images: the decision for {label} may lean on few pixels, but {n} images cannot show it."
            found.append(
                f"{leans} Without the tenth that contributes most, accuracy falls from {right:.2f} to {without:.2f}."
            )
    if not found:
        found.append("The evidence of no class lies mainly in fixed places or depends on a tenth of the pixels.")
    return found
