"""Select the images, and the classes of each, that a report shows if not all fit."""

import numpy as np

MAP_PIXELS = 21_000_000  # of all maps in a file, which takes about 1.5 bytes for each


def choose_images(margin, predicted, true, most):
    """Positions of at most `most` images, in order, and why each is shown.

    A third are the most doubtful, of the lowest margin, a third errors, those of the highest margin first, and the rest
    a sample, drawn from the other images so that all classes have as many as possible.

    Parameters
    ----------
    margin : ndarray (n,)
    predicted : int64 ndarray (n,)
    true : int64 ndarray (n,) or None
    most : int

    Returns
    -------
    shown : int64 ndarray (m,)
    reasons : list of m str
        "doubtful", "wrong" or "sample"; "" where all images are shown.
    """
    n = len(margin)
    if n <= most:
        return np.arange(n), [""] * n
    reasons = {}
    ascending = np.argsort(margin, kind="stable")
    if true is not None:
        errors = [i for i in ascending[::-1].tolist() if predicted[i] != true[i]]
        reasons |= dict.fromkeys(errors[: most // 3], "wrong")
    doubtful = [i for i in ascending.tolist() if i not in reasons]
    reasons |= dict.fromkeys(doubtful[: most // 3], "doubtful")

    shuffled = np.random.default_rng(0).permutation(n)  # the same each time
    groups = predicted if true is None else true
    rest = np.array([i for i in shuffled.tolist() if i not in reasons], dtype=np.int64)
    turn = np.zeros(len(rest), dtype=np.int64)  # of each image among those of its class
    for group in np.unique(groups[rest]):
        members = groups[rest] == group
        turn[members] = np.arange(members.sum())
    drawn = rest[np.argsort(turn, kind="stable")][: most - len(reasons)]
    reasons |= dict.fromkeys(drawn.tolist(), "sample")
    shown = np.array(sorted(reasons), dtype=np.int64)
    return shown, [reasons[i] for i in shown.tolist()]


def choose_classes(order, true, n_pixels):
    """Positions (m, k) of the classes whose maps are shown, sorted: the predicted, the true, and the next best.

    Parameters
    ----------
    order : int64 ndarray (m, N)
        Classes of each image, the best first.
    true : int64 ndarray (m,) or None
    n_pixels : int
        R * C; k is all N where the maps do not become too large together, and at least 2.
    """
    m, n_classes = order.shape
    k = min(max(MAP_PIXELS // (m * n_pixels), 2), n_classes)
    if true is not None and k < n_classes:
        rank = np.tile(np.arange(1, n_classes + 1), (m, 1))
        rank[order == order[:, :1]] = -1  # the predicted stays the first
        wrong = (order == true[:, None]) & (rank > 0)
        rank[wrong] = 0
        order = np.take_along_axis(order, np.argsort(rank, axis=1, kind="stable"), axis=1)
    return np.sort(order[:, :k], axis=1)
