"""What a classifier saw and how it decided: images, class weight maps, scores, and the arithmetic on them."""

import numpy as np


def _check_shapes(images, cwm, scores, classes):
    """Raise unless the four arrays describe the same n images and k classes."""
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}; expected (n, R, C, D), with D = 1 for grey images. "
            "A single image (R, C, D) is passed as images[None]."
        )
    n, n_rows, n_columns, _ = images.shape
    k = classes.shape[1] if classes.ndim == 2 else "k"
    expected = {"classes": (n, k), "scores": (n, k), "cwm": (n, k, n_rows, n_columns)}
    for name, array in (("classes", classes), ("scores", scores), ("cwm", cwm)):
        if array.shape != expected[name]:
            shape = ", ".join(map(str, expected[name]))
            raise ValueError(
                f"{name} has shape {array.shape}; expected ({shape}) to go with images {images.shape} "
                f"and classes {classes.shape}. Pass all four arrays for the same images and classes."
            )


class Explanation:
    """The evidence for k classes in each of n images.

    Returned by ``GCMClassifier.explain``. The plain average of a contribution map is the class score:
    ``ccm.mean(axis=(2, 3, 4)) == scores``, to float32 rounding.

    Parameters
    ----------
    images : array-like of shape (n, R, C, D)
        What the network saw: R rows, C columns, D channels (kept when it is 1), value range [0, 1]. Values a
        little outside it are kept as they are.
    cwm : array-like of shape (n, k, R, C)
        Class weight maps, signed; the channels of an image share them.
    scores : array-like of shape (n, k)
        Class scores.
    classes : array-like of shape (n, k)
        Class labels, of any dtype, image by image.

    Attributes
    ----------
    images : ndarray of shape (n, R, C, D), float32
    cwm : ndarray of shape (n, k, R, C), float32
    scores : ndarray of shape (n, k), float32
    classes : ndarray of shape (n, k)

    Raises
    ------
    ValueError
        If the shapes do not belong together.

    Notes
    -----
    For an image I and a class j, equations (2) to (4) of the paper are ``CCM_j = CWM_j * I``, with the weight map
    repeated for each channel, and ``score_j = mean(CCM_j)``.

    Arrays are referred to, not copied, where they already have the right dtype: treat them as read-only.
    ``len(evidence)`` is n. An index selects images, always along the first axis of all four arrays and always
    giving an Explanation: ``evidence[3:5]``, ``evidence[mask]``, ``evidence[[0, 7]]``; an integer, as in
    ``evidence[3]`` or in ``for one in evidence``, gives an Explanation of length one.

    References
    ----------
    Generative Contribution Mappings: IPSJ Transactions on Mathematical Modeling and its Applications 10(2), 1-13, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.explanation import Explanation
    >>> images = np.array([[[[0.5], [1.0]]]])  # one grey image of one row and two columns
    >>> cwm = np.array([[[[4.0, -1.0]], [[0.0, 3.0]]]])
    >>> evidence = Explanation(images, cwm, scores=[[0.5, 1.5]], classes=[["cat", "dog"]])
    >>> evidence
    <Explanation of 1 image, 1x2x1 (rows x columns x channels), 2 classes each>
    >>> evidence.ccm.shape
    (1, 2, 1, 2, 1)
    >>> evidence.ccm.mean(axis=(2, 3, 4))
    array([[0.5, 1.5]], dtype=float32)
    """

    def __init__(self, images, cwm, scores, classes):
        self.images = np.asarray(images, dtype=np.float32)
        self.cwm = np.asarray(cwm, dtype=np.float32)
        self.scores = np.asarray(scores, dtype=np.float32)
        self.classes = np.asarray(classes)
        _check_shapes(self.images, self.cwm, self.scores, self.classes)

    @property
    def ccm(self):
        """Class contribution maps, equation (3): ndarray of shape (n, k, R, C, D), float32, in score units.

        Computed each time it is asked for: images and weight maps are what is stored, so that memory is not paid
        D times over. Keep the result in a variable if it is needed twice.
        """
        return self.cwm[..., None] * self.images[:, None]

    @property
    def pixel_contributions(self):
        """What each pixel contributes: ndarray of shape (n, k, R, C), float32, in score units.

        The mean of `ccm` over channels, without building `ccm`; its mean over rows and columns is the score.
        Computed each time it is asked for.
        """
        return self.cwm * self.images.mean(axis=-1)[:, None]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if isinstance(index, tuple):
            raise TypeError(
                f"an Explanation has one axis, its images, and got {len(index)} indices: {index!r}. "
                "Select images first, evidence[i], then classes in the arrays: evidence[i].cwm[:, j]."
            )
        if not isinstance(index, slice):  # a slice stays one, so that the arrays are views
            index = np.atleast_1d(np.arange(len(self))[index])
            if index.ndim != 1:
                raise IndexError(
                    f"the index of an Explanation selects images and has 1 dimension, not {index.ndim}: "
                    "use an integer, a slice, a boolean mask or a sequence of integers."
                )
        return type(self)(self.images[index], self.cwm[index], self.scores[index], self.classes[index])

    def __repr__(self):
        n, k = self.classes.shape
        size = "x".join(map(str, self.images.shape[1:]))
        images, classes = "image" if n == 1 else "images", "class" if k == 1 else "classes"
        return f"<{type(self).__name__} of {n} {images}, {size} (rows x columns x channels), {k} {classes} each>"

    def plot(self, *, y=None, kind="contribution", ax=None):
        """Draw each image beside the positive and the negative evidence for its classes.

        Parameters
        ----------
        y : array-like of shape (n,), optional
            True labels. The true class is framed in red and named under the image.
        kind : {"contribution", "spotlight"}, default="contribution"
            What a map shows; see :meth:`skgcm.display.ContributionDisplay.plot`.
        ax : matplotlib Axes, optional
            Drawn in the place of this Axes. Default: a new figure.

        Returns
        -------
        ContributionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install skgcm[plot]``.
        """
        from skgcm.display import ContributionDisplay

        return ContributionDisplay(self, y=y).plot(kind=kind, ax=ax)
