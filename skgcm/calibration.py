"""From scores and labels of held-out images to the temperature that calibrates probabilities."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BOUNDS = (0.01, 100.0)  # of a temperature


def fit_temperature(scores, labels):
    """The temperature T in BOUNDS for which ``softmax(scores / T)`` predicts the labels best.

    Parameters
    ----------
    scores : ndarray (n, N)
    labels : int64 array (n,)
        The true classes, as positions.

    Returns
    -------
    float
        It has the least mean negative log-likelihood (NLL) of the labels.

    Notes
    -----
    As in Platt's calibration of two classes, a label counts ``1 - 1 / (n + 2)`` and the other classes share the rest:
    without this, T would go to 0 and probabilities to 1 if all n images are classified correctly.

    References
    ----------
    J. Platt, Probabilistic outputs for support vector machines, 1999. C. Guo et al., On calibration of modern neural
    networks, ICML 2017.
    """
    n, n_classes = scores.shape
    scores = scores.astype(np.float64)
    rest = 1 / (n + 2)
    targets = np.full((n, n_classes), rest / (n_classes - 1))
    targets[np.arange(n), labels] = 1 - rest

    def loss(log_temperature):  # it falls and then rises; as a function of 1 / T it is convex
        return -(targets * log_softmax(scores / math.exp(log_temperature), axis=1)).sum(axis=1).mean()

    return math.exp(minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded").x)
