"""Pictures of an Explanation, in scikit-learn's Display convention. matplotlib is imported on drawing."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skgcm.plotting.colours import AGAINST, BLUES, FOR, REDS, SIGNED, checked_scale, picture
from skgcm.plotting.layout import LABEL_SIZE, TEXT_SIZE, Layout, fit_text, text_width
from skgcm.utils.arrays import as_numpy
from skgcm.utils.regions import each_mask

KINDS = ("contribution", "overlay", "spotlight")
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
    return _first_that_fits(prefixes, texts.flat, width) + texts


def _percent(probability):
    """A probability as text, never 0 % or 100 %: no classifier is that sure, only float32 is rounded so."""
    if np.isnan(probability):
        return "nan"
    if not 0.001 <= probability <= 0.999:
        return "> 99.9 %" if probability > 0.5 else "< 0.1 %"
    return f"{100 * probability:.{0 if 0.01 <= probability <= 0.99 else 1}f} %"


def _first_that_fits(prefixes, texts, width):
    """The first of the prefixes with which each text fits, or the last."""
    texts = set(texts)
    for prefix in prefixes[:-1]:
        if max(text_width(prefix + text, TEXT_SIZE, "bold") for text in texts) <= width:
            return prefix
    return prefixes[-1]


def _size(ax):
    """Width and height of an Axes in inches."""
    ax.figure.canvas.figure.draw_without_rendering()  # only then does a layout engine set the position
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def _border(mask):
    """The borders of pixels inside (R, C) to pixels outside, as lines ((x, y), (x, y)) in pixels: (m, 2, 2)."""
    lines = []
    for inside in (mask, mask.T):
        border = np.diff(np.pad(inside, 1).astype(np.int8), axis=0) != 0  # above each row, and below the last
        ends = np.diff(border.astype(np.int8), axis=1)  # long lines: short ones would look dashed
        (y, left), (_, right) = np.nonzero(ends > 0), np.nonzero(ends < 0)
        one = np.stack([left, y, right, y], axis=1).reshape(-1, 2, 2) - 0.5
        lines.append(one if inside is mask else one[..., ::-1])
    return np.concatenate(lines)


def _two_classes(evidence):
    """The two labels of a classifier of two classes, (for, against), if both are shown, else None."""
    if not evidence._complete or evidence.classes.shape[1] != 2 or evidence.against is not None:
        return None
    first, second = np.unique(evidence.classes).tolist()
    return (first, second) if first == "mean" else (second, first)  # the label "mean" cannot be subtracted


def _titles(evidence, pair, signs, bold, layout):
    """Labels (n, k) as they fit the layout. Of two classes, `pair`, with their signs."""
    width, font = layout.column - 0.14, {"size": LABEL_SIZE}
    titles = np.empty(evidence.classes.shape, dtype=object)
    if pair is None:
        for at in np.ndindex(titles.shape):
            weight = "bold" if bold[at] else "normal"
            titles[at] = fit_text(evidence.classes[at], width, weight=weight, **font)
        return titles
    ends = [f" ({sign})" for sign in signs]
    title = f"{pair[0]}{ends[0]} or {pair[1]}{ends[1]}"
    if fit_text(title, width, max_lines=1, **font) != title:
        title = "\n".join(
            start + fit_text(label, width - text_width(start + end, **font), max_lines=1, **font) + end
            for start, label, end in zip(("", "or "), pair, ends, strict=True)
        )
    titles[:] = title
    return titles


def _texts(evidence, difference, layout):
    """What stands below the maps (n, k): scores, and probabilities where they are known.

    `difference` : of the two classes of `evidence`, or None. With it the answer comes first.
    """
    width, probabilities = layout.column - 0.08, evidence.probabilities
    shown = evidence if difference is None else difference
    prefixes = ("score ", "") if shown.against is None else ("Δ score ", "Δ ")
    texts = _score_texts(shown.scores, width, prefixes)
    if difference is not None:
        at = np.arange(len(evidence)), evidence.scores.argmax(axis=1)
        answers = [fit_text(label, 0.6 * width, size=TEXT_SIZE, max_lines=1) for label in evidence.classes[at]]
        answers = [f"{label}: {_percent(p)}" for label, p in zip(answers, probabilities[at].tolist(), strict=True)]
        prefix = _first_that_fits(("predicted ", ""), answers, width)
        texts[:, 0] = [f"{prefix}{answer}\n{text}" for answer, text in zip(answers, texts[:, 0], strict=True)]
    elif probabilities is not None:
        percents = np.array([_percent(p) for p in probabilities.flat], dtype=object)
        prefix = _first_that_fits(("probability ", "prob. ", ""), percents, width)
        texts += "\n" + prefix + percents.reshape(texts.shape)
    return texts


def _signed_pictures(evidence, kind, scale, cmap):
    """Pictures (n, 1, k, R, C) or RGBA, options of imshow, a mappable and a text for the bar, and what is clipped."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize, to_hex

    values = evidence.pixel_contributions
    scale = checked_scale(scale, values)
    norm, clipped = Normalize(-scale, scale), (values < -scale).any() + 2 * (values > scale).any()
    if kind == "contribution":
        options = {"cmap": cmap or signed_colormap(), "norm": norm}
        return values[:, None], options, ScalarMappable(**options), "(mean over pixels = score)", clipped
    colours = (FOR, AGAINST) if cmap is None else [to_hex(cmap(at)) for at in (0.8, 0.2)]
    pictures = picture(values, evidence.images.mean(axis=-1), kind, scale, colours)
    steps = np.linspace(-scale, scale, 257)[None, None, None]
    over_grey = ListedColormap(picture(steps, np.full((1, 1, 257), 0.5), kind, scale, colours)[0, 0, 0] / 255)
    return pictures[:, None], {}, ScalarMappable(norm, over_grey), "(0: the image in grey)", clipped


def _spotlights(evidence, scale):
    """As :func:`_signed_pictures`, (n, 2, k, R, C) or with channels: what is positive, and what is negative."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    values = _visible(evidence.ccm)
    scale = checked_scale(scale, values)
    pictures = np.stack([np.clip(values / scale, 0, 1), np.clip(-values / scale, 0, 1)], axis=1)
    scalars = ScalarMappable(Normalize(0, scale), grey_colormap())
    return pictures, _grey(), scalars, "(black: none)", 2 * (np.abs(values) > scale).any()


class ContributionDisplay:
    """Images next to the evidence for and against their classes.

    Each image is followed by a column for every class: its label, a map of what each pixel contributes, and below it
    the score, which is the mean of the map, and the probability where it is known. All classes and images have one
    scale and one colour bar: a pale map is weak compared with the others, but not empty. ``evidence[i].plot()``
    draws one image with its own scale. If an image shows several classes, the one of highest score among those shown is
    in bold type. It is the predicted class unless you named classes, which may not include that one.

    If both classes of a classifier of two are shown, there is one map, and not two of which one is nearly the other
    with signs reversed: the second of ``classes_`` minus the first. The text above says which colour speaks for which
    class. ``evidence.versus("mean").plot()`` draws two maps.

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
    axes_ : ndarray of shape (n, parts, k) of matplotlib Axes
        The maps: ``axes_[i, 0, j]`` is that of the j-th class of image i. With ``kind="spotlight"`` there are two
        parts: 0 is positive, 1 negative. k is 1 where two classes have one map.
    image_axes_ : ndarray of shape (n,) of matplotlib Axes
        The images.
    frames_ : dict of (i, j) to matplotlib Axes
        The frames around true classes. Empty where two classes have one map.
    colorbar_ : matplotlib Colorbar

    Examples
    --------
    >>> import numpy as np
    >>> from skgcm.plotting.display import ContributionDisplay
    >>> from skgcm.explanation import Explanation
    >>> evidence = Explanation(np.ones((1, 8, 8, 1)), np.ones((1, 2, 8, 8)), [[1.0, 1.0]], [["cat", "dog"]])
    >>> display = ContributionDisplay(evidence, y=["dog"]).plot()
    >>> display.axes_.shape
    (1, 1, 2)
    >>> display.figure_.savefig("evidence.png")  # doctest: +SKIP
    """

    def __init__(self, explanation, *, y=None):
        self.explanation = explanation
        self.y = y

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        classes="predicted",
        kind="contribution",
        cmap=None,
        scale=None,
        masks=None,
        ax=None,
    ):
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
        kind, cmap, scale, masks, ax
            As in :meth:`plot`.

        Returns
        -------
        ContributionDisplay

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError, ImportError
            As in :meth:`plot`.
        """
        check_is_fitted(estimator)
        display = cls(estimator.explain(X, classes=classes), y=y)
        return display.plot(kind=kind, cmap=cmap, scale=scale, masks=masks, ax=ax)

    def plot(self, *, kind="contribution", cmap=None, scale=None, masks=None, ax=None):
        """Draw.

        Parameters
        ----------
        kind : {"contribution", "overlay", "spotlight"}, default="contribution"
            "contribution": what each pixel contributes (the mean over its channels), positive in red, negative in
            blue, nothing in white.

            "overlay": the same over the image in grey, as :meth:`skgcm.Explanation.to_images` returns it. It shows
            where the evidence lies in the image. Compare amounts with "contribution": the grey changes the colours.

            "spotlight": the paper's pictures, the image times the positive weights and, beneath, times the
            magnitude of the negative weights, in the image's own colours. Brightness is contribution. Black means no
            contribution: the weight has the other sign or is zero, *or the image itself is black*. Where dark pixels
            contribute too (``polarity="both"``) bright colours are not the image's own.
        cmap : str or matplotlib Colormap, default=None
            Colours from the lowest to the highest contribution, the middle for 0, instead of blue to red. For an
            overlay two of them are used, at 0.2 and 0.8. Not for "spotlight".
        scale : float, default=None
            Contribution at which the colours end. Figures can be compared if they have one scale. None: the 99.5th
            percentile of the magnitudes shown that are not zero. The colour bar ends in an arrow where values lie
            beyond.
        masks : array-like of bool (n, R', C'), or sequence of n items, default=None
            Masks or boxes, as in ``GCMClassifier.fit``, that are outlined in image and maps. An item is a mask, boxes
            (m, 4), (left, top, right, bottom) in pixels of the images of the explanation, or None.
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
            If `kind` is unknown, `cmap` is unknown or given for "spotlight", `scale` is not a positive finite number,
            `masks` does not have a mask for each image, `y` does not have one label for each image, `y` has text and
            the classes are numbers (or the reverse), or there is nothing to draw.
        ImportError
            If matplotlib is not installed: ``pip install matplotlib``.

        Notes
        -----
        In grey images 0 is always black and 1 white. Three channels are drawn as colours, and of four the first three.
        For any other number of channels, their mean is drawn in grey. Maps narrower than 1 to 3 or 3 to 1 are
        stretched to that shape. Long labels are wrapped or shortened. Overlapping boxes have one common outline.

        The picture follows matplotlib's settings (``rcParams``, style sheets) for fonts, colours of text and
        background, figures and files. All other settings have matplotlib's defaults in this picture.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is not one of {KINDS}")
        evidence, y = self.explanation, self._check_y()
        n, k = evidence.classes.shape
        if n * k == 0:
            raise ValueError(f"nothing to draw: the explanation holds {n} images with {k} classes each")
        masks = None if masks is None else [*each_mask(masks, n, evidence.images.shape[1:3])]
        plt = _import_pyplot()
        if cmap is not None and kind == "spotlight":
            raise ValueError(f"cmap={cmap!r} is given for kind='spotlight', which has the colours of the image.")
        try:
            colormap = None if cmap is None else plt.get_cmap(cmap)
        except ValueError as error:
            raise ValueError(f"cmap={cmap!r} is not a colour map that matplotlib knows: {error}") from error
        pair = None if kind == "spotlight" else _two_classes(evidence)
        shown = evidence if pair is None else evidence.versus(pair[1])
        pictures = _spotlights(shown, scale) if kind == "spotlight" else _signed_pictures(shown, kind, scale, colormap)

        n_shown = shown.classes.shape[1]
        best = (np.arange(n_shown) == shown.scores.argmax(axis=1)[:, None]) & (n_shown > 1)  # ties as in predict
        if shown.against is not None:
            best &= shown.scores > 0  # otherwise the subtracted class has the highest score
        wrong = np.zeros(n, bool) if y is None or evidence._predicted is None else np.asarray(evidence._predicted != y)
        signs = ("red", "blue") if cmap is None else ("+", "\N{MINUS SIGN}")
        parts, canvas = pictures[0].shape[1], None if ax is None else _size(ax)
        text_lines = 2 if evidence.probabilities is not None or (wrong.any() and parts == 1) else 1
        for label_lines in (1, 2):
            layout = Layout.choose(
                n,
                n_shown,
                evidence.images.shape[1:3],
                parts=parts,
                label_lines=label_lines,
                text_lines=text_lines,
                canvas=canvas,
            )
            titles = _titles(shown, pair, signs, best, layout)
            if not any("\n" in title for title in titles.flat):
                break
        texts = _texts(evidence, None if pair is None else shown, layout)
        with _settings():
            if ax is None:
                self.figure_ = plt.figure(figsize=layout.canvas, layout="none")
                add_axes = self.figure_.add_axes
            else:  # inset axes stay within `ax` wherever a layout engine moves it
                self.figure_ = ax.figure
                add_axes = ax.inset_axes
                ax.set_axis_off()
            self._draw_images(add_axes, layout, y, wrong, text_lines if parts == 1 else 2)
            self._draw_maps(add_axes, layout, pictures, shown.against)
            self._write(layout, titles, texts, best, pair is not None)
            self._frame(add_axes, layout, y, shown.classes if pair is None else None)
            self._outline(masks)
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

    def _draw_images(self, add_axes, layout, y, wrong, max_lines):
        images = np.clip(_visible(self.explanation.images), 0, 1)
        self.image_axes_ = np.empty(len(images), dtype=object)
        for i, image in enumerate(images):
            self.image_axes_[i] = self._show(add_axes(layout.image(i)), image, layout, **_grey())
        if y is None:
            return
        predicted, font = self.explanation._predicted, {"size": TEXT_SIZE, "weight": "bold"}

        width = layout.column - 0.08

        def fit(label, template):
            return template.format(
                fit_text(label, width - text_width(template.format(""), **font), max_lines=1, **font)
            )

        for template in ("predicted: {}, WRONG", "WRONG: {}"):
            if all(fit(predicted[i], template) == template.format(predicted[i]) for i in np.flatnonzero(wrong)):
                break
        for i, axes in enumerate(self.image_axes_):
            text, look = fit_text(f"true: {y[i]}", width, size=TEXT_SIZE, max_lines=max_lines), {"size": TEXT_SIZE}
            if wrong[i]:
                text = f"{fit(y[i], 'true: {}')}\n{fit(predicted[i], template)}"
                look = {"color": WRONG_COLOUR, **font}
            axes.set_xlabel(text, labelpad=3, parse_math=False, linespacing=1.1, **look)

    def _draw_maps(self, add_axes, layout, pictures, against):
        shown, options, scalars, note, clipped = pictures
        self.axes_ = np.empty(shown.shape[:3], dtype=object)
        for i, part, j in np.ndindex(self.axes_.shape):
            axes = add_axes(layout.map(i, part, j))
            self.axes_[i, part, j] = self._show(axes, shown[i, part, j], layout, **options)
        extend = ("neither", "min", "max", "both")[clipped]
        self.colorbar_ = self.figure_.colorbar(scalars, cax=add_axes(layout.bar()), extend=extend)
        what = "contribution of a pixel" if shown.shape[1] == 1 else "size of contribution"
        if against is not None:
            what += " minus"
            note = "the mean over classes" if against == "mean" else f"that to {against}"
        length = layout.bar()[3] * layout.canvas[1] + 0.3  # the text may be a little longer than the bar
        label = "\n".join(fit_text(text, length, size=TEXT_SIZE) for text in (what, note))
        self.colorbar_.set_label(label, size=TEXT_SIZE, parse_math=False)
        self.colorbar_.ax.tick_params(labelsize=TEXT_SIZE - 1)
        self.colorbar_.outline.set_linewidth(0.5)

    def _write(self, layout, titles, texts, best, answers):
        signs, turn = ("positive", "negative"), {}
        if text_width("negative", TEXT_SIZE - 1) > layout.map_height:
            signs, turn = ("+", "\N{MINUS SIGN}"), {"rotation": 0, "va": "center"}
        sign = {"size": TEXT_SIZE - 1, "labelpad": 72 * (layout.column - layout.map_width) / 2 + 3, **turn}
        for i, j in np.ndindex(titles.shape):
            weight = "bold" if best[i, j] else "normal"
            axes = self.axes_[i, :, j]
            axes[0].set_title(titles[i, j], size=LABEL_SIZE, weight=weight, pad=4, linespacing=1, parse_math=False)
            look = {"size": TEXT_SIZE, "weight": "bold" if answers else weight, "linespacing": 1.1}
            axes[-1].set_xlabel(texts[i, j], labelpad=3, parse_math=False, **look)
            if len(axes) == 2 and j % layout.classes_abreast == 0:
                axes[0].set_ylabel(signs[0], color=REDS[3], **sign)
                axes[1].set_ylabel(signs[1], color=BLUES[1], **sign)

    def _frame(self, add_axes, layout, y, classes):
        self.frames_ = {}
        if y is None or classes is None:
            return
        import matplotlib

        colour = matplotlib.rcParams["text.color"]  # a colour of its own could be taken for one of the maps
        for i, j in np.argwhere(classes == y[:, None]).tolist():
            self.frames_[i, j] = frame = add_axes(layout.frame(i, j), zorder=-1)
            frame.set(xticks=[], yticks=[], facecolor="none")
            frame.spines[:].set(color=colour, linewidth=1.8)

    def _outline(self, masks):
        from matplotlib.collections import LineCollection

        for i, mask in enumerate(masks or []):
            if mask is None:
                continue
            lines = _border(mask)
            for axes in (self.image_axes_[i], *self.axes_[i].flat):
                for colour, width in (("white", 2.4), ("black", 1.0)):  # visible on dark and on bright pixels
                    look = {"colors": colour, "linewidths": width, "capstyle": "projecting", "zorder": 3}
                    axes.add_collection(LineCollection(lines, clip_on=False, **look), autolim=False)
