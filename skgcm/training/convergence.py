"""Check whether a fit has learned its own training images, and warn if it has hardly done so."""

import numpy as np
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skgcm.utils.warnings import warn

CHECKED, CHECKED_VALUES = 1000, 2**25  # at most this many training images are checked, and values
MARGIN = 0.1  # share of the way from chance to perfect; less than this is a warning


def warn_if_near_chance(scores, y, class_weights, n_epochs):
    """Compare a fit with the best constant prediction, on some of its training images.

    Parameters
    ----------
    scores : ndarray (n, N)
        Scores of training images.
    y : ndarray (n,) of int
        Their class indices.
    class_weights : ndarray (N,) or None
        Weights of the classes in the loss.
    n_epochs : int
        Number of epochs, for the message.
    """
    weights = np.ones(len(y)) if class_weights is None else class_weights[y].astype(float)
    if not weights.sum():
        return
    weights = weights / weights.sum()
    shares = np.bincount(y, weights, minlength=scores.shape[1])  # of each class in the loss
    present = shares[shares > 0]
    if len(present) < 2:
        return
    accuracy = weights @ (scores.argmax(1) == y)
    loss = -(weights @ log_softmax(scores.astype(float), axis=1)[np.arange(len(y)), y])
    chance, chance_loss = present.max(), -(present @ np.log(present))
    if accuracy < chance + MARGIN * (1 - chance) and loss > (1 - MARGIN) * chance_loss:
        weighted = "" if class_weights is None else ", with class_weight,"
        epochs = "epoch" if n_epochs == 1 else "epochs"
        warn(
            f"After {n_epochs} {epochs} the classifier has hardly learned its training images. On {len(y)} of these "
            f"images{weighted} its accuracy is {accuracy:.2f}, and {chance:.2f} for always naming one class; its loss "
            f"is {loss:.2f}, and {chance_loss:.2f} for the class frequencies alone. Check that y belongs to X. "
            "Then fit with more epochs (max_epochs), another learning rate (lr), less augmentation or sparsity, or "
            "larger images.",
            ConvergenceWarning,
        )
