"""Figures for the overview of a report, from predictions for labelled images. Arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

BINS = 10  # of the reliability diagram
CASES = 2000  # simulated, for the calibration error by chance
RISKS = (0.01, 0.02, 0.05)  # shares of errors for which the report says how many images the machine can decide


@dataclass(frozen=True)
class Quality:
    """How good the answers to n images of N classes are.

    Attributes
    ----------
    confusion : int64 ndarray (N, N)
        Images of a true class (row) for which a class is predicted (column).
    accuracy, balanced_accuracy, calibration_error : float
        The balanced one is the mean recall of the classes that there are images of; the calibration error the mean
        distance between probability and accuracy in the bins of `reliability`, weighted by their images.
    accuracy_interval : tuple of float
        95 % confidence interval (Clopper and Pearson) for images drawn like these.
    recall, precision : float64 ndarray (N,)
        NaN where there is no image to measure it on.
    calibration_chance : float
        With so many images, the calibration error of perfect probabilities is below it in 95 of 100 cases.
    overconfidence : float
        The mean probability minus the accuracy: above 0 where the classifier is too sure on the whole.
    reliability : float64 ndarray (m, 5)
        For each bin of the predicted class's probability that has images: their mean probability, the share that is
        right, the ends of its 95 % interval, and the number of images.
    risk_coverage : float64 ndarray (m, 3)
        Where the machine decides all images from a probability on: the share of images that it decides, the share of
        these that is wrong, and that probability, for all probabilities there are, from the highest down.
    """

    confusion: np.ndarray
    accuracy: float
    accuracy_interval: tuple
    balanced_accuracy: float
    recall: np.ndarray
    precision: np.ndarray
    reliability: np.ndarray
    calibration_error: float
    calibration_chance: float
    overconfidence: float
    risk_coverage: np.ndarray

    def decided(self, risk):
        """The most images that can be left to the machine so that at most a share `risk` of them is wrong.

        Returns
        -------
        tuple (share, n, wrong, upper, probability) or None
            Share and number of the images that it decides, how many are wrong, the upper end of the 95 % interval for
            the share of wrong ones, and from which probability on. None: with no threshold is so small a share wrong.
        """
        allowed = np.flatnonzero(self.risk_coverage[:, 1] <= risk)
        if not len(allowed):
            return None
        share, wrong, probability = self.risk_coverage[allowed[-1]].tolist()
        n = round(share * self.confusion.sum())
        n_wrong = round(wrong * n)
        return share, n, n_wrong, interval(n_wrong, n)[1], probability


def interval(count, n):
    """95 % confidence interval of a share, `count` of n."""
    found = binomtest(int(count), int(n)).proportion_ci()
    return float(found.low), float(found.high)


def _share(part, whole):
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def measure(true, predicted, probability, n_classes):
    """The :class:`Quality` of answers.

    Parameters
    ----------
    true, predicted : int64 ndarray (n,)
        Positions of classes, 0 .. n_classes - 1; n is at least 1.
    probability : ndarray (n,)
        Of the predicted class.
    n_classes : int
    """
    n, right = len(true), true == predicted
    confusion = np.bincount(true * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    recall = _share(confusion.diagonal().astype(float), confusion.sum(axis=1))
    precision = _share(confusion.diagonal().astype(float), confusion.sum(axis=0))

    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    reliability = []
    for which in np.unique(bins):
        inside = bins == which
        hits = right[inside].sum()
        row = probability[inside].mean(), hits / inside.sum(), *interval(hits, inside.sum()), inside.sum()
        reliability.append(row)
    reliability = np.array(reliability, dtype=float)
    error = (np.abs(reliability[:, 0] - reliability[:, 1]) * reliability[:, 4]).sum() / n

    # the same error where the answers are right as often as the probabilities say
    means, counts = np.minimum(reliability[:, 0], 1), reliability[:, 4].astype(int)
    hits = np.random.default_rng(0).binomial(counts, means, (CASES, len(means)))
    chance = np.quantile(np.abs(counts * means - hits).sum(axis=1) / n, 0.95)

    order = np.argsort(-probability, kind="stable")
    decided = np.arange(1, n + 1)
    risk = np.cumsum(~right[order]) / decided
    last = np.append(np.diff(probability[order]) != 0, True)  # images of one probability are decided together
    curve = np.stack([decided / n, risk, probability[order]], axis=1)[last]

    return Quality(
        confusion=confusion,
        accuracy=float(right.mean()),
        accuracy_interval=interval(right.sum(), n),
        balanced_accuracy=float(np.nanmean(recall)),
        recall=recall,
        precision=precision,
        reliability=reliability,
        calibration_error=float(error),
        calibration_chance=float(chance),
        overconfidence=float(probability.mean() - right.mean()),
        risk_coverage=curve.astype(float),
    )
