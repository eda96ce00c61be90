"""Report: a classifier's evidence, and how good its answers are, as one HTML file."""

from numbers import Integral

import numpy as np

from skgcm.inputs import labels, validation
from skgcm.report import page, selection
from skgcm.report.measures import measure
from skgcm.report.survey import label_fingerprint, survey
from skgcm.typicality import STRANGE
from skgcm.utils import atomic
from skgcm.utils.arrays import as_numpy
from skgcm.utils.sklearn_compat import safe_indexing
from skgcm.utils.warnings import images_may_be_strange


class Report:
    """The evidence as one HTML file that opens in any browser, without Python and without a network.

    In it one can sort and filter the images, ask why one class rather than another, point at a pixel, and drag a box
    over a part of an image to read what this part adds to each score. A report made by :meth:`from_estimator` also
    says how good the classifier's answers are.

    Parameters
    ----------
    explanation : Explanation
        The images that are shown, and the classes of each.
    names : sequence of str, default=None
        A name for each image, its file for instance. None: their numbers.

    Attributes
    ----------
    explanation : Explanation
        What is shown.
    names : list of str
        Of the images shown.
    shown : ndarray (m,)
        Positions of the images shown among all that were given.
    reasons : list of m str
        Why an image is shown where not all are: "doubtful", "wrong" or "sample".
    quality : object or None
        Measures on all labelled images: ``accuracy``, ``accuracy_interval``, ``balanced_accuracy``, ``confusion``
        (N, N), ``recall`` and ``precision`` (N,), ``calibration_error``, and ``decided(risk)``, how many images can be
        left to the machine. None where there are no labels.

    Raises
    ------
    ValueError
        For an explanation of no image or no class, contributions that are not finite, or names that are not one for
        each image.

    Notes
    -----
    The file makes no request to anywhere: styles and script are within it, and its Content-Security-Policy forbids all
    others. Any labels, names and parameters are shown as text.

    Maps are stored as integers times a step, 1/511 of a map's largest contribution, so that what the page says of
    any box differs from ``explanation.region_scores`` by at most two steps over the number of pixels. The page states
    the largest such error.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm import GCMClassifier, Report
    >>> X, y = np.random.default_rng(0).random((20, 8, 8)), np.arange(20) % 2
    >>> clf = GCMClassifier(max_epochs=1, device="cpu").fit(X, y)
    >>> report = Report.from_estimator(clf, X, y)
    >>> report.save("report.html")  # doctest: +SKIP
    """

    def __init__(self, explanation, *, names=None):
        n, k = explanation.classes.shape
        if n * k == 0:
            raise ValueError(f"There is nothing to show: the explanation holds {n} images with {k} classes each.")
        self.explanation = explanation
        self.names = _check_names(names, n)
        self.shown = np.arange(n)
        self.reasons = [""] * n
        self.quality = None
        # also for the page: all classes, positions (n, k) of the explained and (n,) of the true ones, logarithms of the
        # probabilities (n, N), facts about the model, and (n,) whether an image is unlike the training images
        known = labels.unique(explanation.classes, "explanation.classes")
        self._labels, self._classes = known.tolist(), labels.indices(explanation.classes, known, "explanation.classes")
        self._true = self._log_proba = self._survey = None
        self._strange = np.zeros(n, dtype=bool)

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, names=None, max_images=200):
        """Explain images, and measure how good the answers are.

        Parameters
        ----------
        estimator : GCMClassifier or Pipeline
            Fitted; of a Pipeline the last step is the classifier.
        X : array-like (n, R, C), (n, R, C, D) or (n, R * C * D), numbers
            Images, as at fit. Figures mean something for images that the classifier was not fitted on.
        y : array-like (n,), default=None
            True labels. None: the report shows the evidence and does not say how good the answers are.
        names : sequence of n str, default=None
            A name for each image, its file for instance. None: their numbers, from 0.
        max_images : int, default=200
            Images shown. Of more, the report shows the most doubtful, wrong ones, and a sample in which all classes
            have as many as possible, a third each; all are measured.

        Returns
        -------
        Report

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        TypeError
            For an estimator that is no GCMClassifier.
        ValueError
            As :meth:`GCMClassifier.explain` raises it; for labels in y that the classifier does not know, names that
            are not one for each image, and a `max_images` that is no positive integer.

        Notes
        -----
        Where the maps of all classes would make the file too large, an image has those of the predicted class, the
        true class and the classes next in score. The report states this.

        Images with a :meth:`GCMClassifier.typicality` below 0.001 are marked as unlike the training images, and are no
        warning.
        """
        if not isinstance(max_images, Integral) or isinstance(max_images, bool) or max_images < 1:
            raise ValueError(f"max_images={max_images!r} must be an integer of at least 1.")
        estimator, X = _last_step(estimator, X)
        with images_may_be_strange():  # the report says which
            log_proba = estimator.predict_log_proba(X)
        strange = estimator.typicality(X) < STRANGE  # NaN, where it is unknown, is not
        n, classes = len(log_proba), estimator.classes_
        true = None
        if y is not None:
            y = validation.check_labels(estimator, y, n)
            true = labels.indices(y, classes, "y", "Expected labels that the classifier was fitted on.")
        names = _check_names(names, n)

        order = np.argsort(-log_proba, axis=1, kind="stable")
        predicted = order[:, 0]
        margin = np.take_along_axis(log_proba, order[:, :2], axis=1) @ [1, -1]
        shown, reasons = selection.choose_images(margin, predicted, true, int(max_images))
        about = survey(estimator, X, predicted if true is None else true, page.LARGEST_TABLE)
        about["strange"] = int(strange.sum())
        about["predicted"] = np.bincount(predicted, minlength=len(classes))

        true_shown = None if true is None else true[shown]
        n_pixels = estimator.image_shape_[0] * estimator.image_shape_[1]
        chosen = selection.choose_classes(order[shown], true_shown, n_pixels)
        some = X if len(shown) == n else safe_indexing(as_numpy(X), shown)
        report = cls(estimator.explain(some, classes[chosen]), names=[names[i] for i in shown.tolist()])
        report.shown, report.reasons = shown, reasons
        report._labels, report._classes = classes.tolist(), chosen
        report._true, report._log_proba, report._survey = true_shown, log_proba[shown], about
        report._strange = strange[shown]
        if true is not None:
            report.quality = measure(true, predicted, np.exp(log_proba[np.arange(n), predicted]), len(classes))
            about["fingerprints"]["Labels"] = label_fingerprint(true)
        return report

    def save(self, path):
        """Write the file.

        Parameters
        ----------
        path : str, path-like or binary file object
            Written whole or not at all; what is there is replaced. ``~`` is the home folder.

        Raises
        ------
        OSError
            Where the file cannot be written.
        TypeError
            For a file object of text.
        """
        atomic.write(path, self.to_html().encode())

    def to_html(self):
        """The file's content, str."""
        return page.render(self)

    def _repr_html_(self):
        return page.preview(self.explanation, self.names)


def _last_step(estimator, X):
    """The classifier at the end of a Pipeline, and X transformed by the steps before it."""
    if hasattr(estimator, "steps"):
        if len(estimator.steps) > 1:
            X = estimator[:-1].transform(X)
        estimator = estimator[-1]
    if not hasattr(estimator, "explain_batches"):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}. A report needs a fitted GCMClassifier, or a Pipeline that "
            "ends in one: no other estimator has evidence maps."
        )
    return estimator, X


def _check_names(names, n):
    if names is None:
        return [str(i) for i in range(n)]
    if isinstance(names, str | bytes) or not hasattr(names, "__len__"):
        raise ValueError(f"names is a {type(names).__name__}. Expected a sequence of {n} names, one for each image.")
    if len(names) != n:
        raise ValueError(f"names has {len(names)} names for {n} images. Expected one for each image.")
    return [str(name) for name in names]
