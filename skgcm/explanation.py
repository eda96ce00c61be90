"""The evidence for a decision: images, class weight maps, scores, and the arithmetic on them."""

from contextlib import suppress
from numbers import Real

import numpy as np

from skgcm.plotting.colours import checked_scale, picture
from skgcm.utils.arrays import as_numpy
from skgcm.utils.regions import evidence_boxes, region_masks


def _check_shapes(images, classes, others):
    """Raise unless the arrays describe the same n images and k classes. others : scores and maps by name."""
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}; expected (n, R, C, D), with D = 1 for grey images. "
            "A single image (R, C, D) is passed as images[None]."
        )
    n, n_rows, n_columns, _ = images.shape
    k = classes.shape[1] if classes.ndim == 2 else "k"
    size = n_rows, n_columns
    for name, array in {"classes": classes, **others}.items():
        map_shape = (n, *size) if name.endswith("mean") else (n, k, *size)
        expected = (n, k) if name in ("classes", "scores", "probabilities") else map_shape
        if array.shape != expected:
            shape = ", ".join(map(str, expected))
            raise ValueError(
                f"{name} has shape {array.shape}; expected ({shape}) to go with images {images.shape} "
                f"and classes {classes.shape}. Pass all arrays for the same images and classes."
            )


def _maps(cwm, mean):
    """Weight maps and their mean as float32 arrays, or None twice without weight maps."""
    if cwm is None:
        if mean is not None:
            raise ValueError("cwm_dark_mean is given without cwm_dark. Pass both, or neither.")
        return None, None
    cwm = np.asarray(as_numpy(cwm), dtype=np.float32)
    if mean is None and cwm.ndim == 4:  # _check_shapes reports other numbers of axes
        mean = cwm.mean(axis=1)
    return cwm, np.asarray(as_numpy(mean), dtype=np.float32)


def _contributions(intensity, cwm, cwm_dark):
    """Equation (3), for images (n, R, C, D) or for their channel means (n, R, C)."""
    every = (slice(None),) * 4 + (None,) * (intensity.ndim - 3)  # the channels share the weights
    ccm = cwm[every] * intensity[:, None]
    if cwm_dark is not None:
        ccm += cwm_dark[every] * (1 - intensity[:, None])
    return ccm


class Explanation:
    """The evidence for k classes in each of n images.

    Returned by ``GCMClassifier.explain``. The plain average of a contribution map is the class score:
    ``ccm.mean(axis=(2, 3, 4)) == scores``, to float32 rounding.

    Parameters
    ----------
    images : array-like of shape (n, R, C, D)
        Inputs of the network: R rows, C columns, D channels (kept if it is 1), value range [0, 1]. Values outside of it
        are not clipped.
    cwm : array-like of shape (n, k, R, C)
        Class weight maps, signed; the channels of an image share them.
    scores : array-like of shape (n, k)
        Class scores.
    classes : array-like of shape (n, k)
        Class labels, of any dtype, image by image.
    cwm_mean : array-like of shape (n, R, C), default=None
        The mean weight map of all N classes, these k and the others. None: the mean of `cwm`, if these are all classes.
    cwm_dark : array-like of shape (n, k, R, C), default=None
        The weight maps on 1 - image, of a classifier with ``polarity="both"``.
    cwm_dark_mean : array-like of shape (n, R, C), default=None
        Their mean over all N classes. None: the mean of `cwm_dark`.
    against : "mean" or label, default=None
        The class that :meth:`versus` has subtracted from maps and scores. None: nothing was subtracted.
    probabilities : array-like of shape (n, k), default=None
        The probabilities of these k classes among all N. None: unknown.

    Attributes
    ----------
    images : ndarray of shape (n, R, C, D), float32
    cwm : ndarray of shape (n, k, R, C), float32
    scores : ndarray of shape (n, k), float32
    classes : ndarray of shape (n, k)
    cwm_mean : ndarray of shape (n, R, C), float32
    cwm_dark : ndarray of shape (n, k, R, C), float32, or None
    cwm_dark_mean : ndarray of shape (n, R, C), float32, or None
    against : "mean", label or None
    probabilities : ndarray of shape (n, k), float32, or None
        0 .. 1, the softmax over the scores of all N classes, which ``predict_proba`` returns. None where they are
        unknown: after :meth:`versus`, or if they were not given.

    Raises
    ------
    ValueError
        If the shapes do not belong together.

    Notes
    -----
    For an image I and a class j, equations (2) to (4) of the paper are ``CCM_j = CWM_j * I``, with the weight map
    repeated for each channel, and ``score_j = mean(CCM_j)``. With dark weight maps
    ``CCM_j = CWM_j * I + CWM_dark_j * (1 - I)``.

    Arrays that have the right dtype already are not copied: treat them as read-only.
    ``len(evidence)`` is n. An index selects images, always along the first axis of all arrays and always
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

    def __init__(
        self,
        images,
        cwm,
        scores,
        classes,
        cwm_mean=None,
        cwm_dark=None,
        cwm_dark_mean=None,
        *,
        against=None,
        probabilities=None,
    ):
        self.images = np.asarray(as_numpy(images), dtype=np.float32)
        self.scores = np.asarray(as_numpy(scores), dtype=np.float32)
        self.classes = np.asarray(as_numpy(classes))
        self.cwm, self.cwm_mean = _maps(cwm, cwm_mean)
        self.cwm_dark, self.cwm_dark_mean = _maps(cwm_dark, cwm_dark_mean)
        self.against = against
        self.probabilities = None if probabilities is None else np.asarray(as_numpy(probabilities), dtype=np.float32)
        # What only a classifier knows: labels (n,) of the highest of all N scores, if they are shown; is k == N?
        self._predicted, self._complete = None, False
        names = ("scores", "cwm", "cwm_mean", "cwm_dark", "cwm_dark_mean", "probabilities")
        others = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        _check_shapes(self.images, self.classes, others)

    @property
    def ccm(self):
        """Class contribution maps, equation (3): ndarray of shape (n, k, R, C, D), float32, in score units.

        Computed on each access: only images and weight maps are stored, which saves memory. Keep the result in a
        variable if you need it twice.
        """
        return _contributions(self.images, self.cwm, self.cwm_dark)

    @property
    def pixel_contributions(self):
        """What each pixel contributes: ndarray of shape (n, k, R, C), float32, in score units.

        The mean of `ccm` over channels, without building `ccm`; its mean over rows and columns is the score.
        Computed on each access.
        """
        return _contributions(self.images.mean(axis=-1), self.cwm, self.cwm_dark)

    @property
    def positive(self):
        """Contributions that raise the score: `ccm` where it is positive, else 0. Computed on each access."""
        return np.maximum(self.ccm, 0)

    @property
    def negative(self):
        """Contributions that lower the score: `ccm` where it is negative, else 0. Computed on each access."""
        return np.minimum(self.ccm, 0)

    def _reference(self, against):
        """The maps of `against`, (cwm, cwm_dark), each (n, R, C), and its positions in `classes`, (n,) or None."""
        if isinstance(against, str) and against == "mean":
            return (self.cwm_mean, self.cwm_dark_mean), None
        found = np.zeros_like(self.classes, dtype=bool)
        with suppress(TypeError, ValueError):  # a value that NumPy cannot compare with labels is not a label
            flag = isinstance(against, bool | np.bool_) and self.classes.dtype.kind != "b"  # True == 1
            if np.ndim(against) == 0 and not flag:
                found |= self.classes == against
        if not found.any(axis=1).all():
            raise ValueError(
                f"against={against!r} is not among the explained classes of every image. Expected 'mean' or a label "
                "that is: request it by explain(X, classes=[...]), or use classes='all'."
            )
        position = found.argmax(axis=1)
        at = np.arange(len(self)), position
        return [None if m is None else m[at] for m in (self.cwm, self.cwm_dark)], position

    def versus(self, against="mean"):
        """Why these classes rather than another: their evidence minus that for the other class.

        Adding the same map to all classes changes no probability, so a single map can show evidence that does not
        matter. In the difference to another class this part cancels, and only evidence that separates them is left.

        Parameters
        ----------
        against : "mean" or label, default="mean"
            "mean": the mean of all N classes, also where a label has that name. A label: that class, which must be
            among `classes` for every image.

        Returns
        -------
        Explanation
            The same images and the same classes, without `against`. Its maps, contributions, region scores and pictures
            are differences. The contributions average to its `scores`, which are differences of scores. Its
            `probabilities` are None.

        Raises
        ------
        ValueError
            If the label is not among the classes of some image, or is the only one.

        Examples
        --------
        >>> import numpy as np
        >>> from skgcm.explanation import Explanation
        >>> images, cwm = np.ones((1, 1, 2, 1)), np.array([[[[4.0, 1.0]], [[4.0, 3.0]]]])
        >>> evidence = Explanation(images, cwm, scores=[[2.5, 3.5]], classes=[["cat", "dog"]])
        >>> rather = evidence.versus("cat")  # the left pixel speaks as much for a cat
        >>> rather.classes, rather.scores, rather.cwm
        (array([['dog']], dtype='<U3'), array([[1.]], dtype=float32), array([[[[0., 2.]]]], dtype=float32))
        """
        others, position = self._reference(against)
        (n, k), keep = self.classes.shape, slice(None)
        if position is None:
            mean = _contributions(self.images.mean(axis=-1), *(None if m is None else m[:, None] for m in others))
            score = mean.mean(axis=(2, 3))
        else:
            score = self.scores[np.arange(n), position][:, None]
            if k == 1:
                raise ValueError(f"against={against!r} is the only explained class. Call explain with more classes.")
            rest = np.arange(k - 1)
            keep = np.arange(n)[:, None], rest + (rest >= position[:, None])
        maps, means = (self.cwm, self.cwm_dark), (self.cwm_mean, self.cwm_dark_mean)
        cwm, cwm_dark = (None if m is None else m[keep] - o[:, None] for m, o in zip(maps, others, strict=True))
        cwm_mean, cwm_dark_mean = (None if m is None else m - o for m, o in zip(means, others, strict=True))
        arrays = self.images, cwm, self.scores[keep] - score, self.classes[keep]
        against = against.item() if isinstance(against, np.generic) else against
        return type(self)(*arrays, cwm_mean, cwm_dark, cwm_dark_mean, against=against)

    def region_scores(self, regions):
        """The part of each score that a region contributes.

        If regions partition the image, their parts add up to the score, to rounding.

        Parameters
        ----------
        regions : array-like of bool, (R, C) or (n, R, C), or of numbers, (4,) or (n, 4)
            A mask that is True in the region, or a box (left, top, right, bottom) in pixels, right and bottom just
            outside, fractions rounded; one for all images, or one for each. A mask of another size, of the original
            image for instance, is resized as in ``GCMClassifier.fit``.

        Returns
        -------
        ndarray of shape (n, k), float64
            The sum of `pixel_contributions` over the region, divided by R * C. Divided by `scores`: the region's share.

        Raises
        ------
        ValueError
            If `regions` has another shape, or a box is empty or leaves the image.

        Examples
        --------
        >>> import numpy as np
        >>> from skgcm.explanation import Explanation
        >>> images, cwm = np.ones((1, 1, 2, 1)), np.array([[[[4.0, -1.0]]]])
        >>> evidence = Explanation(images, cwm, scores=[[1.5]], classes=[["cat"]])
        >>> evidence.region_scores((0, 0, 1, 1)), evidence.region_scores([[False, True]])
        (array([[2.]]), array([[-0.5]]))
        """
        masks = region_masks(regions, self.cwm_mean.shape)
        parts = np.einsum("nkrc,nrc->nk", self.pixel_contributions, masks, dtype=np.float64)
        return parts / self.cwm_mean[0].size if len(self) else parts

    def boxes(self, share=0.9):
        """The smallest boxes that hold a share of the positive evidence, image by image and class by class.

        Parameters
        ----------
        share : float in (0, 1], default=0.9
            Part of the sum of the positive `pixel_contributions` of a class that must lie inside the boxes.

        Returns
        -------
        list of n lists of k ndarrays of shape (m, 4), int64
            ``boxes()[i][j]`` are the m boxes of class j in image i, (left, top, right, bottom) in pixels, right and
            bottom just outside, those with the most positive evidence first. The shape is (0, 4) if nothing is
            positive.

        Raises
        ------
        ValueError
            If `share` is not in (0, 1], or contributions are not finite.

        Notes
        -----
        Pixels whose contribution is at least a threshold form connected components, in which pixels touch at a side or
        a corner (``scipy.ndimage.label``). A box is the smallest that holds one component. The threshold is the highest
        at which all boxes together hold the share; a pixel in two boxes counts once. Evidence that is spread out has
        many small boxes. Boxes show where evidence lies, not where an object ends.

        Examples
        --------
        >>> import numpy as np
        >>> from skgcm.explanation import Explanation
        >>> images, cwm = np.ones((1, 2, 6, 1)), np.array([[[[5.0, 4, 0, 0, 0, 0.5], [0, 4, 0, -1, 0, 0]]]])
        >>> evidence = Explanation(images, cwm, scores=[[12.5 / 12]], classes=[["cat"]])
        >>> evidence.boxes()[0][0]
        array([[0, 0, 2, 2]])
        >>> evidence.boxes(share=1)[0][0]
        array([[0, 0, 2, 2],
               [5, 0, 6, 1]])
        """
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share <= 1:
            raise ValueError(f"share={share!r} must be a number above 0 and at most 1.")
        positive = np.maximum(self.pixel_contributions, 0)
        if not np.isfinite(positive).all():
            raise ValueError("Contributions have values that are not finite, so their share is undefined.")
        return [[evidence_boxes(one, share) for one in several] for several in positive]

    def to_images(self, kind="overlay", *, scale=None):
        """Pictures of the evidence as arrays, to save or show with other tools. Needs no matplotlib.

        Parameters
        ----------
        kind : {"map", "layer", "overlay"}, default="overlay"
            "map": `pixel_contributions`, from blue (they lower the score) through white (0) to red (they raise it), as
            :meth:`plot` draws them. "layer": red or blue that is opaque where the magnitude is `scale` and transparent
            where nothing contributes, to be laid over a picture. "overlay": this layer over the image, which is grey
            (the mean of its channels), so that all colour is evidence.
        scale : float, default=None
            Contribution that has full colour, with one sign or the other. None: the 99.5th percentile of all magnitudes
            that are not zero. Pictures of several explanations can be compared when they have one scale.

        Returns
        -------
        ndarray of shape (n, k, R, C, 4), uint8
            Red, green, blue and alpha. Alpha is 255, except in layers. Where a contribution is NaN, all four are 0.

        Raises
        ------
        ValueError
            If `kind` is unknown, or `scale` is not a positive finite number.

        Examples
        --------
        >>> import numpy as np
        >>> from skgcm.explanation import Explanation
        >>> images, cwm = np.ones((1, 1, 3, 1)), np.array([[[[2.0, 0, -2.0]]]])
        >>> evidence = Explanation(images, cwm, scores=[[0]], classes=[["cat"]])
        >>> evidence.to_images("map")[0, 0].tolist()
        [[[103, 0, 31, 255], [255, 255, 255, 255], [5, 48, 97, 255]]]
        >>> from PIL import Image
        >>> Image.fromarray(evidence.to_images()[0, 0]).save("cat.png")  # doctest: +SKIP
        """
        if kind not in ("map", "layer", "overlay"):
            raise ValueError(f"kind={kind!r} is not one of ('map', 'layer', 'overlay')")
        values = self.pixel_contributions
        return picture(values, self.images.mean(axis=-1), kind, checked_scale(scale, values))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if isinstance(index, tuple):
            raise TypeError(
                f"an Explanation has one axis, its images, and got {len(index)} indices: {index!r}. "
                "Select images first, evidence[i], then classes in the arrays: evidence[i].cwm[:, j]."
            )
        if not isinstance(index, slice):  # a slice keeps the arrays views
            index = np.atleast_1d(np.arange(len(self))[index])
            if index.ndim != 1:
                raise IndexError(
                    f"the index of an Explanation selects images and has 1 dimension, not {index.ndim}: "
                    "use an integer, a slice, a boolean mask or a sequence of integers."
                )

        def at(array):
            return None if array is None else array[index]

        maps = (self.cwm_mean, self.cwm_dark, self.cwm_dark_mean)
        arrays = (self.images, self.cwm, self.scores, self.classes, *maps)
        selected = type(self)(*map(at, arrays), against=self.against, probabilities=at(self.probabilities))
        selected._predicted, selected._complete = at(self._predicted), self._complete
        return selected

    def __repr__(self):
        n, k = self.classes.shape
        size = "x".join(map(str, self.images.shape[1:]))
        images, classes = "image" if n == 1 else "images", "class" if k == 1 else "classes"
        less = "" if self.against is None else f" versus {self.against!r}"
        return f"<{type(self).__name__} of {n} {images}, {size} (rows x columns x channels), {k} {classes} each{less}>"

    def plot(self, *, y=None, kind="contribution", cmap=None, scale=None, masks=None, ax=None):
        """Draw each image next to the evidence for and against its classes.

        Parameters
        ----------
        y : array-like of shape (n,) or (n, 1), optional
            True labels. The true class is framed, and named under the image. If the predicted class is among those
            shown and is another, the text under the image says WRONG, in orange.
        kind : {"contribution", "overlay", "spotlight"}, default="contribution"
            What a map shows: contributions in red and blue; these over the image in grey; or the image times its
            weights. See :meth:`skgcm.ContributionDisplay.plot`.
        cmap : str or matplotlib Colormap, default=None
            Colours of contributions, from the lowest to the highest. None: blue, white, red. Not for "spotlight".
        scale : float, default=None
            Contribution at which the colours end, for figures that are compared. None: the 99.5th percentile.
        masks : array-like of bool (n, R', C'), or sequence of n items, default=None
            Masks or boxes of the images, as in ``GCMClassifier.fit``, that are outlined.
        ax : matplotlib Axes, optional
            Drawn in the place of this Axes. Default: a new figure.

        Returns
        -------
        ContributionDisplay

        Raises
        ------
        ValueError
            As in :meth:`skgcm.ContributionDisplay.plot`.
        ImportError
            If matplotlib is not installed: ``pip install matplotlib``.

        Notes
        -----
        If both classes of a classifier of two are shown, there is one map: the second of ``classes_`` minus the first.
        """
        from skgcm.plotting.display import ContributionDisplay

        return ContributionDisplay(self, y=y).plot(kind=kind, cmap=cmap, scale=scale, masks=masks, ax=ax)

    def to_html(self, path=None):
        """One HTML file of the images and their evidence, for anyone with a browser. See :class:`skgcm.Report`.

        In the page you can compare two classes, point at a pixel, and drag a box to read how much a part of an image
        adds to each score.

        Parameters
        ----------
        path : str, path-like or binary file object, default=None
            Where the file is written, whole or not at all. None: nothing is written.

        Returns
        -------
        str or None
            The file's content, where `path` is None.

        Raises
        ------
        ValueError
            If there is no image or no class, or contributions are not finite.
        OSError
            If the file cannot be written.
        """
        from skgcm.report.report import Report

        report = Report(self)
        return report.to_html() if path is None else report.save(path)

    def _repr_html_(self):
        from skgcm.report.page import preview

        return preview(self)
