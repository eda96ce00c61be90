"""Pictures of an Explanation, in scikit-learn's Display convention. matplotlib is imported on drawing."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skgcm.plotting.colours import BLUES, REDS, SIGNED, common_scale
from skgcm.plotting.layout import LABEL_SIZE, TEXT_SIZE, Layout, fit_text, text_width
from skgcm.utils.arrays import as_numpy

KINDS = ("contribution", "spotlight")
WRONG_COLOUR = "#c75b00"  # not among those of the maps
# The picture follows these settings of matplotlib, and those of fonts, figures and files: they change only its look.
# Other settings of the groups below could change its meaning: image.origin, image.lut, axes.spines.top, text.usetex.
LOOKS = {
    "axes.edgecolor",
    "axes.labelcolor",
    "axes.titlecolor",
    "axes.unicode_minus",
    "text.antialiased",
    "text.color",
    "text.hinting",
    "text.hinting_factor",
    "text.kerning_factor",
    "text.language",
    "xtick.color",
    "xtick.labelcolor",
    "ytick.color",
    "ytick.labelcolor",
}
GROUPS = ("_internal", "axes", "grid", "image", "lines", "mathtext", "patch", "path", "text")
GROUPS += ("xaxis", "xtick", "yaxis", "ytick")


def _kinds(labels):
    """The kinds of labels in an array of any dtype. Labels of two kinds are never equal. None is an unknown label."""
    return {
        "text" if isinstance(label, str) else "bytes" if isinstance(label, bytes) else "numbers"
        for label in labels.ravel().tolist()
        if label is not None
    }


def _import_pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("drawing needs matplotlib, which is not installed: pip install matplotlib") from error
    return plt


def _settings():
    """Context in which all settings that could change the meaning of a picture have matplotlib's defaults."""
    import matplotlib

    names = [name for name in matplotlib.rcParamsDefault if name.split(".")[0] in GROUPS and name not in LOOKS]
    return matplotlib.rc_context({name: matplotlib.rcParamsDefault[name] for name in names})


def grey_colormap():
    """Black to white in 256 steps. In matplotlib's own map the user's image.lut sets the number."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("gray", ["#000000", "#ffffff"], N=256)


def _grey():
    """Options to draw grey pictures on a fixed scale. Colour pictures ignore them."""
    return {"cmap": grey_colormap(), "vmin": 0, "vmax": 1}


def signed_colormap():
    """Blue, white, red: the colour map of signed contributions, whose centre is exactly #ffffff."""
    from matplotlib.colors import LinearSegmentedColormap

    # an odd number of colours: with an even one no colour is exactly the centre
    return LinearSegmentedColormap.from_list("contribution", SIGNED, N=257)


def _visible(array):
    """(..., D) to a drawable array: three channels are colours, of four the first three, else their mean in grey."""
    return array[..., :3] if array.shape[-1] in (3, 4) else array.mean(axis=-1)


def _score_texts(scores, width, prefixes):
    """Scores (n, k) with the same decimals: two, or as many as show three digits of the largest.

    An image has more where its scores would look equal and are not. The texts start with the first of the prefixes that
    fits, else with the last.
    """
    largest = float(np.abs(scores).max())
    decimals = max(2, 2 - math.floor(math.log10(largest))) if 0 < largest < math.inf else 2
    texts = np.empty(scores.shape, dtype=object)
    for i, row in enumerate(scores.astype(np.float64)):
        ordered, own = np.sort(row[np.isfinite(row)]), decimals
        differ = np.diff(ordered) > 1e-6 * np.abs(ordered).max(initial=0)  # by more than float32 rounding
        while (np.diff([round(score, own) for score in ordered.tolist()])[differ] == 0).any():
            own += 1
        for j, score in enumerate(row.tolist()):
            score = round(score, own) + 0.0  # and not -0.0
            texts[i, j] = f"{score:.{own}f}".replace("-", "\N{MINUS SIGN}")
    for prefix in prefixes:
        if max(text_width(prefix + text, TEXT_SIZE, "bold") for text in set(texts.flat)) <= width:
            break
    return prefix + texts


def _size(ax):
    """Width and height of an Axes in inches."""
    ax.figure.canvas.figure.draw_without_rendering()  # only then does a layout engine set the position
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def _lay_out(evidence, bold, canvas):
    """The layout, and the class labels (n, k) as they fit it."""
    (n, k), shape = evidence.classes.shape, evidence.images.shape[1:3]
    labels = np.empty((n, k), dtype=object)
    for lines in (1, 2):
        layout = Layout.choose(n, k, shape, label_lines=lines, canvas=canvas)
        for at in np.ndindex(n, k):
            weight = "bold" if bold[at] else "normal"
            labels[at] = fit_text(evidence.classes[at], layout.column - 0.14, size=LABEL_SIZE, weight=weight)
        if not any("\n" in label for label in labels.flat):
            break
    return layout, labels


class ContributionDisplay:
    """Images next to the evidence for and against their classes.

    Each image is followed by a column for every class: its label, the positive contributions (CCM+) above the
    negative ones (CCM-), and below them the score, which is the mean of both together. All classes and images have
    one scale and one colour bar: a pale map is weak compared with the others, but not empty. ``evidence[i].plot()``
    draws one image with its own scale. If an image shows several classes, the one of highest score among those shown is
    in bold type. It is the predicted class unless you named classes, which may not include that one.

    For the result of :meth:`skgcm.Explanation.versus`, maps and scores are differences, and the colour bar names what
    was subtracted. The class of the largest difference is in bold type if that is above 0. Otherwise none is: no class
    shown has a higher score than the subtracted one.

    Use :meth:`skgcm.Explanation.plot` or :meth:`from_estimator` to create it.

    Parameters
    ----------
    explanation : Explanation
        What to draw: n images and k classes each.
    y : array-like of shape (n,) or (n, 1), optional
        True labels. The true class is framed, and named under the image, even if it is not among the classes shown.
        If the predicted class is another, the text under the image names it and says WRONG, in orange. Nothing is said
        where the predicted class is unknown: after `versus`, or if you named some classes only.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of shape (n, 2, k) of matplotlib Axes
        The maps: ``axes_[i, 0, j]`` is CCM+ and ``axes_[i, 1, j]`` CCM- of the j-th class of image i.
    image_axes_ : ndarray of shape (n,) of matplotlib Axes
        The images.
    frames_ : dict of (i, j) to matplotlib Axes
        The frames around true classes.
    colorbar_ : matplotlib Colorbar

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.plotting.display import ContributionDisplay
    >>> from skgcm.explanation import Explanation
    >>> evidence = Explanation(np.ones((1, 8, 8, 1)), np.ones((1, 2, 8, 8)), [[1.0, 1.0]], [["cat", "dog"]])
    >>> display = ContributionDisplay(evidence, y=["dog"]).plot()
    >>> display.axes_.shape
    (1, 2, 2)
    >>> display.figure_.savefig("evidence.png")  # doctest: +SKIP
    """

    def __init__(self, explanation, *, y=None):
        self.explanation = explanation
        self.y = y

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, classes="predicted", kind="contribution", ax=None):
        """Explain images with a fitted classifier, and draw.

        Parameters
        ----------
        estimator : GCMClassifier
            Fitted classifier.
        X : array-like
            Images, in any form that the classifier accepts.
        y : array-like of shape (n,) or (n, 1), optional
            True labels.
        classes : str, label or array-like of labels, default="predicted"
            Classes to show, as in ``estimator.explain``: "predicted", "all", "top-3", or labels.
        kind : {"contribution", "spotlight"}, default="contribution"
            What a map shows; see :meth:`plot`.
        ax : matplotlib Axes, optional
            Drawn in the place of this Axes. Default: a new figure.

        Returns
        -------
        ContributionDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator)
        return cls(estimator.explain(X, classes=classes), y=y).plot(kind=kind, ax=ax)

    def plot(self, *, kind="contribution", ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"contribution", "spotlight"}, default="contribution"
            "contribution": what each pixel contributes (the mean over its channels), positive in red, negative in
            blue, nothing in white. The colours end at the 99.5th percentile of the magnitudes shown that are not
            zero; the colour bar ends in an arrow where values lie beyond.

            "spotlight": the paper's pictures, the image times the positive weights and, beneath, times the
            magnitude of the negative weights, in the image's own colours. Brightness is contribution, full at the
            99.5th percentile and clipped there. Black means no contribution: the weight has the other sign or is
            zero, *or the image itself is black*. Where dark pixels contribute too (``polarity="both"``) bright
            colours are not the image's own.
        ax : matplotlib Axes, optional
            Drawn inside this Axes, whose own frame and ticks are hidden: images and maps become its ``child_axes``,
            as large as fit. Default: a new figure, whose size follows from what it shows.

        Returns
        -------
        ContributionDisplay
            This object.

        Raises
        ------
        ValueError
            If `kind` is unknown, `y` does not have one label for each image, `y` has text and the classes are numbers
            (or the reverse), or there is nothing to draw.
        ImportError
            If matplotlib is not installed: ``pip install matplotlib``.

        Notes
        -----
        In grey images 0 is always black and 1 white. Three channels are drawn as colours, and of four the first three.
        For any other number of channels, their mean is drawn in grey. Maps narrower than 1 to 3 or 3 to 1 are
        stretched to that shape. Long labels are wrapped or shortened.

        The picture follows matplotlib's settings (``rcParams``, style sheets) for fonts, colours of text and
        background, figures and files. All other settings have matplotlib's defaults in this picture.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is not one of {KINDS}")
        evidence, y = self.explanation, self._check_y()
        n, k = evidence.classes.shape
        if n * k == 0:
            raise ValueError(f"nothing to draw: the explanation holds {n} images with {k} classes each")
        plt = _import_pyplot()

        highest = (np.arange(k) == evidence.scores.argmax(axis=1)[:, None]) & (k > 1)  # only one: ties as in predict
        if evidence.against is not None:
            highest &= evidence.scores > 0  # otherwise the subtracted class has the highest score
        layout, labels = _lay_out(evidence, highest, None if ax is None else _size(ax))
        with _settings():
            if ax is None:
                self.figure_ = plt.figure(figsize=layout.canvas, layout="none")
                add_axes = self.figure_.add_axes
            else:  # inset axes stay within `ax` wherever a layout engine moves it
                self.figure_ = ax.figure
                add_axes = ax.inset_axes
                ax.set_axis_off()
            self._draw_images(add_axes, layout, y)
            self._draw_maps(add_axes, layout, kind)
            self._write(layout, labels, highest)
            self._frame(add_axes, layout, y)
            for axes in (self.colorbar_.ax.xaxis, self.colorbar_.ax.yaxis):
                axes.get_ticklabels(which="both")  # create them now, with these settings, and not at the first drawing
        return self

    def _check_y(self):
        if self.y is None:
            return None
        n, y = len(self.explanation), np.asarray(as_numpy(self.y))
        y = y[:, 0] if y.shape == (n, 1) else y  # a column, which fit accepts too
        if y.shape != (n,):
            raise ValueError(
                f"y has shape {y.shape}; expected ({n},), one true label for each image of the explanation"
            )
        classes = self.explanation.classes
        own, known = _kinds(y), _kinds(classes)
        if own and known and not own & known:
            raise ValueError(
                f"y has dtype {y.dtype} and holds {' and '.join(sorted(own))}, and the classes, {classes.dtype}, are "
                f"{' and '.join(sorted(known))}: no label is equal to another. Convert y."
            )
        return y

    def _show(self, axes, picture, layout, **colours):
        # nearest would skip pixels if the picture has more pixels than the figure
        points = np.array([layout.map_height, layout.map_width]) * self.figure_.dpi
        enlarged = (picture.shape[:2] <= points).all()
        axes.imshow(picture, aspect="auto", interpolation="nearest" if enlarged else "antialiased", **colours)
        axes.set_box_aspect(layout.aspect)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.75", linewidth=0.5)  # so that an all-white map has a border
        return axes

    def _draw_images(self, add_axes, layout, y):
        images = np.clip(_visible(self.explanation.images), 0, 1)
        self.image_axes_ = np.empty(len(images), dtype=object)
        for i, image in enumerate(images):
            self.image_axes_[i] = self._show(add_axes(layout.image(i)), image, layout, **_grey())
        if y is None:
            return
        predicted = y if self.explanation._predicted is None else self.explanation._predicted
        wrong = np.asarray(predicted != y)
        font = {"size": TEXT_SIZE, "weight": "bold"}

        def fit(label, template):
            width = layout.image_width - text_width(template.format(""), **font)
            return template.format(fit_text(label, width, max_lines=1, **font))

        for template in ("predicted: {}, WRONG", "WRONG: {}"):
            if all(fit(label, template) == template.format(label) for label in predicted[wrong]):
                break
        for i, axes in enumerate(self.image_axes_):
            text, look = fit(y[i], "true: {}"), {"size": TEXT_SIZE}
            if wrong[i]:
                text, look = f"{text}\n{fit(predicted[i], template)}", {"color": WRONG_COLOUR, **font}
            axes.set_xlabel(text, labelpad=3, parse_math=False, linespacing=1.1, **look)

    def _draw_maps(self, add_axes, layout, kind):
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        if kind == "contribution":
            values = self.explanation.pixel_contributions
            scale = common_scale(values)
            parts = np.maximum(values, 0), np.minimum(values, 0)
            colours = {"cmap": signed_colormap(), "norm": Normalize(-scale, scale)}
            scalars = ScalarMappable(**colours)
            what, note = "contribution of a pixel", "(mean over pixels = score)"
            clipped = (values < -scale).any() + 2 * (values > scale).any()
        else:
            values = _visible(self.explanation.ccm)
            scale = common_scale(values)
            parts = np.clip(values / scale, 0, 1), np.clip(-values / scale, 0, 1)
            colours = _grey()
            scalars = ScalarMappable(Normalize(0, scale), grey_colormap())
            what, note = "size of contribution", "(black: none)"
            clipped = 2 * (np.abs(values) > scale).any()
        self.axes_ = np.empty((len(values), 2, values.shape[1]), dtype=object)
        for i, sign, j in np.ndindex(self.axes_.shape):
            axes = add_axes(layout.map(i, sign, j))
            self.axes_[i, sign, j] = self._show(axes, parts[sign][i, j], layout, **colours)
        extend = ("neither", "min", "max", "both")[clipped]
        self.colorbar_ = self.figure_.colorbar(scalars, cax=add_axes(layout.bar()), extend=extend)
        against = self.explanation.against
        if against is not None:
            other = "the mean over classes" if against == "mean" else f"that to {against}"
            length = layout.bar()[3] * layout.canvas[1]
            what, note = f"{what} minus", fit_text(other, length, size=TEXT_SIZE, max_lines=1)
        self.colorbar_.set_label(f"{what}\n{note}", size=TEXT_SIZE, parse_math=False)
        self.colorbar_.ax.tick_params(labelsize=TEXT_SIZE - 1)
        self.colorbar_.outline.set_linewidth(0.5)

    def _write(self, layout, labels, highest):
        prefixes = ("score ", "") if self.explanation.against is None else ("Δ score ", "Δ ")
        scores = _score_texts(self.explanation.scores, layout.column - 0.08, prefixes)
        signs, turn = ("positive", "negative"), {}
        if text_width("negative", TEXT_SIZE - 1) > layout.map_height:
            signs, turn = ("+", "\N{MINUS SIGN}"), {"rotation": 0, "va": "center"}
        sign = {"size": TEXT_SIZE - 1, "labelpad": 72 * (layout.column - layout.map_width) / 2 + 3, **turn}
        for i, j in np.ndindex(labels.shape):
            weight = "bold" if highest[i, j] else "normal"
            upper, lower = self.axes_[i, :, j]
            upper.set_title(labels[i, j], size=LABEL_SIZE, weight=weight, pad=4, linespacing=1, parse_math=False)
            lower.set_xlabel(scores[i, j], size=TEXT_SIZE, weight=weight, labelpad=3)
            if j % layout.classes_abreast == 0:
                upper.set_ylabel(signs[0], color=REDS[3], **sign)
                lower.set_ylabel(signs[1], color=BLUES[1], **sign)

    def _frame(self, add_axes, layout, y):
        self.frames_ = {}
        if y is None:
            return
        import matplotlib

        colour = matplotlib.rcParams["text.color"]  # a colour of its own could be taken for one of the maps
        for i, j in np.argwhere(self.explanation.classes == y[:, None]).tolist():
            self.frames_[i, j] = frame = add_axes(layout.frame(i, j), zorder=-1)
            frame.set(xticks=[], yticks=[], facecolor="none")
            frame.spines[:].set(color=colour, linewidth=1.8)
