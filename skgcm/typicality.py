"""How usual an image is among the training images, by Gaussians of averaged features and of simple statistics."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import ledoit_wolf

from skgcm.utils.warnings import warn

N_IMAGES = 2000  # number of training images that are used, at most
LEAST_IMAGES = 50  # with fewer training images there is no typicality
LEAST_SIDE = 8  # pixels: for smaller images, sharpness and the like have no meaning
STRANGE = 0.001  # an image of smaller typicality is of a kind that the classifier does not know
DOUBTFUL = 0.01  # an image of smaller typicality may be of such a kind: of usual images one in a hundred is
TOLERATED = 0.1  # largest share of strange images in a call without a warning
UNUSUAL, MANY, LEAST_CALL = 0.1, 0.4, 20  # warn if this share of at least LEAST_CALL images is below UNUSUAL
N_FOLDS = 5
NEAREST = np.float32(1e-6)  # smaller distances are raised to it
TAIL = 30  # number of farthest training images, at most a tenth, to which the tail is fitted


@dataclass(frozen=True)
class Typicality:
    """Statistics of the training images.

    Attributes
    ----------
    centre, scale : float32 ndarray (P,)
        Mean and standard deviation, which standardise descriptions of P numbers.
    means : float32 ndarray (K, P)
        Means of the K classes in the data, whitened.
    whitening : float32 ndarray (P, P)
        Matrix that gives standardised descriptions the identity as covariance within classes.
    distances : float32 ndarray (m,)
        Distances of m training images to the nearest mean, ascending, cross-fitted: each by the means and the whitening
        of other images.
    """

    centre: np.ndarray
    scale: np.ndarray
    means: np.ndarray
    whitening: np.ndarray
    distances: np.ndarray

    def __call__(self, descriptions):
        """The share of training images that are at least as far from all classes: float64 (n,), in [0, 1]."""
        far, m = self.distance(descriptions).astype(np.float64), len(self.distances)
        share = 1 - np.searchsorted(self.distances, far, side="left") / m
        start, share_of_tail, exponent = self.tail
        beyond = far > start
        share[beyond] = share_of_tail * (far[beyond] / start) ** exponent
        return share

    @property
    def tail(self):
        """For the largest distances, a Pareto distribution fitted to the last ones (Hill's estimate).

        Beyond the distance `start`, the share of training images at least as far is
        ``share_of_tail * (distance / start) ** exponent``. Returns these three.
        """
        m = len(self.distances)
        tail = self.distances[-min(m // 10, TAIL) :].astype(np.float64)
        start, n_tail = tail[0], len(tail)
        shape = max(np.log(tail / start).sum() / (n_tail - 1), 1e-3)
        return start, n_tail / m, -1 / shape

    def distance(self, descriptions):
        """Mahalanobis distance to the nearest class, float32 (n,)."""
        points = ((descriptions - self.centre) / self.scale).astype(np.float64) @ self.whitening.astype(np.float64)
        squares = np.stack([((points - mean) ** 2).sum(axis=1) for mean in self.means])
        return np.sqrt(squares.min(axis=0)).astype(np.float32)


def fit(descriptions, y):
    """The statistics of training images, or None if they are too few.

    Parameters
    ----------
    descriptions : ndarray (n, P)
    y : int64 array (n,)

    Returns
    -------
    Typicality or None

    Notes
    -----
    One Gaussian for each class, with a common covariance (Ledoit and Wolf's), as in K. Lee et al., A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS 2018. The distances for
    comparison are cross-fitted: each is computed with the images of the other folds.
    """
    if len(y) < LEAST_IMAGES:
        return None
    fold = np.arange(len(y)) % N_FOLDS
    parts = [(_gaussians(descriptions[fold != k], y[fold != k]), descriptions[fold == k]) for k in range(N_FOLDS)]
    distances = np.concatenate([gaussians.distance(part) for gaussians, part in parts])
    whole = _gaussians(descriptions, y)
    distances = np.sort(np.maximum(distances, NEAREST))
    return Typicality(whole.centre, whole.scale, whole.means, whole.whitening, distances)


def unpack(arrays, n_classes, n_numbers):
    """The Typicality from the arrays of a file, by name. Raises ValueError unless `fit` could have made them."""
    names = Typicality.__dataclass_fields__
    if arrays.keys() != names.keys():
        raise ValueError(f"its typicality has {sorted(arrays)}; expected {sorted(names)}.")
    known, p = Typicality(**arrays), n_numbers
    k, m = len(known.means), len(known.distances)
    expected = {"centre": (p,), "scale": (p,), "means": (k, p), "whitening": (p, p), "distances": (m,)}
    for name, shape in expected.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"its typicality has {name} that are not finite float32 of shape {shape}.")
    ordered = m >= LEAST_IMAGES and known.distances[0] >= NEAREST and (np.diff(known.distances) >= 0).all()
    if not (1 <= k <= n_classes and ordered and (known.scale > 0).all()):
        raise ValueError("its typicality cannot be the result of a fit.")
    return known


def warn_if_strange(usual):
    """Warn if some images are strange, or many unusual."""
    n, strange, unusual = len(usual), int((usual < STRANGE).sum()), int((usual < UNUSUAL).sum())
    if strange > TOLERATED * n:
        found, limit = strange, STRANGE
    elif n >= LEAST_CALL and unusual > MANY * n:
        found, limit = unusual, UNUSUAL
    else:
        return
    one = found == 1
    warn(
        f"{found} of {n} {'image' if n == 1 else 'images'} {'is' if one else 'are'} unlike the training images: "
        f"{'its' if one else 'their'} typicality is below {limit:g}. Do not trust the "
        f"{'answer for it' if one else 'answers for them'}. clf.typicality(X) finds {'it' if one else 'them'}. Compare "
        f"{'its' if one else 'their'} kind, exposure and sharpness with those of the training images."
    )


def _gaussians(descriptions, y):
    """A Typicality without distances."""
    x = descriptions.astype(np.float64)
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-6 * np.abs(x).max(axis=0) + 1e-12] = 1  # constant except for rounding
    x = (x - centre) / scale
    classes, index = np.unique(y, return_inverse=True)
    means = np.stack([x[index == k].mean(axis=0) for k in range(len(classes))])
    covariance, _ = ledoit_wolf(x - means[index], assume_centered=True)
    covariance.flat[:: len(covariance) + 1] += 1e-6  # for directions without variance
    # Sigma = L L^T, and points @ L^-T has the identity as covariance
    whitening = solve_triangular(cholesky(covariance, lower=True), np.eye(len(covariance)), lower=True).T
    arrays = centre, scale, means @ whitening, whitening, np.empty(0)
    return Typicality(*(array.astype(np.float32) for array in arrays))
