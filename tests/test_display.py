import functools
import itertools
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skgcm import GCMClassifier
from skgcm.explanation import Explanation
from skgcm.plotting.display import KINDS, WRONG_COLOUR, ContributionDisplay, grey_colormap, signed_colormap
from skgcm.plotting.layout import Layout, fit_text, text_width

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

LABELS = np.array(["cat", "dog", "emu", "fox", "gnu", "hen", "ibis", "jay", "kea", "lion", "mole", "newt"])


@pytest.fixture(autouse=True)
def _leave_pyplot_as_it_was():
    before = matplotlib.rcParams.copy()
    plt.close("all")  # a doctest may have drawn before
    yield
    plt.close("all")
    assert matplotlib.rcParams == before


def make(n=2, k=3, shape=(8, 8, 3), factor=1.0, labels=LABELS):
    rng = np.random.default_rng(0)
    images = rng.random((n, *shape), dtype=np.float32)
    cwm = factor * rng.normal(size=(n, k, *shape[:2])).astype(np.float32)
    scores = (cwm * images.mean(axis=-1)[:, None]).mean(axis=(2, 3))
    return Explanation(images, cwm, scores, np.tile(labels[:k], (n, 1)))


def picture(axes):
    return np.asarray(axes.images[0].get_array())


def pixels(axes):
    """What the canvas shows within an Axes, (rows, columns, 3) uint8, without its frame."""
    figure = axes.figure
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3]
    box = axes.get_window_extent()
    return canvas[round(box.y0) + 3 : round(box.y1) - 3, round(box.x0) + 3 : round(box.x1) - 3]


def test_axes_have_the_documented_shapes():
    display = make(n=4, k=3).plot()
    assert isinstance(display, ContributionDisplay)
    assert display.axes_.shape == (4, 1, 3)
    assert make(n=4, k=3).plot(kind="spotlight").axes_.shape == (4, 2, 3)
    assert display.image_axes_.shape == (4,)
    assert display.figure_.axes.count(display.colorbar_.ax) == 1
    assert display.frames_ == {}
    assert display.figure_.number in plt.get_fignums()


def test_a_map_shows_the_contributions():
    evidence = make()
    display = evidence.plot()
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(picture(display.axes_[i, 0, j]), evidence.pixel_contributions[i, j])


@pytest.mark.parametrize("shape", [(8, 8, 3), (200, 200, 1), (5, 9, 1), (1, 9, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_as_large_as_the_image(shape, kind):
    display = make(n=1, k=2, shape=shape).plot(kind=kind)
    sizes = {axes.get_position().bounds[2:] for axes in (*display.image_axes_, *display.axes_.flat)}
    np.testing.assert_allclose(list(sizes), [next(iter(sizes))] * len(sizes))
    upper, lower = (display.axes_[0, part, 0].get_position() for part in (0, -1))
    image = display.image_axes_[0].get_position()
    assert image.y0 + image.y1 == pytest.approx(upper.y1 + lower.y0)
    assert (upper.y0 > lower.y1) == (kind == "spotlight")


@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 5, 1), (4, 4, 2)], ids=str)
def test_an_overlay_is_that_of_to_images(shape):
    evidence = make(shape=shape)
    for scale in (None, 0.7):
        display = evidence.plot(kind="overlay", scale=scale)
        expected = evidence.to_images("overlay", scale=scale)
        for i, j in np.ndindex(2, 3):
            np.testing.assert_array_equal(picture(display.axes_[i, 0, j]), expected[i, j])
    assert "grey" in display.colorbar_.ax.get_ylabel()


def test_the_colour_bar_of_an_overlay_has_its_colours():
    cwm = np.array([[[[-2, -1, 0, 1, 2]]]], np.float32)
    evidence = Explanation(np.full((1, 1, 5, 1), 0.5), 2 * cwm, [[0]], [["cat"]])
    display = evidence.plot(kind="overlay", scale=2)
    shown = picture(display.axes_[0, 0, 0])[0]
    np.testing.assert_allclose(display.colorbar_.mappable.to_rgba(cwm[0, 0, 0], bytes=True), shown, atol=1)
    assert shown[2].tolist() == [128, 128, 128, 255]


def test_all_kinds_and_figures_have_the_scale_asked_for():
    for kind in KINDS:
        for factor, extend in ((1, "neither"), (100, "max" if kind == "spotlight" else "both")):
            bar = make(factor=factor).plot(kind=kind, scale=9).colorbar_
            assert (bar.vmin, bar.vmax) == (0 if kind == "spotlight" else -9, 9)
            assert bar.extend == extend


def test_a_colour_map_of_the_users():
    evidence = make()
    for cmap in ("PuOr", matplotlib.colormaps["PuOr"]):
        display = evidence.plot(cmap=cmap)
        assert {axes.images[0].cmap.name for axes in display.axes_.flat} == {display.colorbar_.cmap.name} == {"PuOr"}
        colours = np.array([matplotlib.colormaps["PuOr"](at)[:3] for at in (0.2, 0.8)]) * 255
        ends = evidence.plot(kind="overlay", cmap=cmap).colorbar_.mappable.to_rgba([-99, 99], bytes=True)
        np.testing.assert_allclose(ends[:, :3], colours, atol=1)


STEEL = np.array(["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"])


@pytest.mark.parametrize(
    ("against", "text"), [("mean", "the mean over classes"), ("pitted_surface", "that to pitted_surface")]
)
@pytest.mark.parametrize(("n", "factor", "prefix"), [(2, 99, "Δ score "), (8, 1e-9, "Δ ")])
def test_evidence_versus_a_class_says_so(against, text, n, factor, prefix):
    evidence = make(n=n, k=6, factor=factor, labels=STEEL).versus(against)
    display = evidence.plot()
    assert display.axes_.shape == (n, 1, 6 - (against != "mean"))
    for i, j in np.ndindex(evidence.classes.shape):
        axes = display.axes_[i, 0, j]
        np.testing.assert_array_equal(picture(axes), evidence.pixel_contributions[i, j])
        assert axes.get_title().replace("\n", "") == evidence.classes[i, j]
        assert axes.get_xlabel().startswith(prefix)
    for kind, what in (("contribution", "contribution of a pixel"), ("spotlight", "size of contribution")):
        label = evidence[:1].plot(kind=kind).colorbar_.ax.get_ylabel()
        assert label.replace("\n", " ") == f"{what} minus {text}"


def test_labels_are_no_formulas():
    evidence = make(labels=np.array(["$x_{$", "dog", "bird"]))
    evidence.versus("$x_{$").plot(y=["$x_{$"] * 2).figure_.draw_without_rendering()


def test_one_symmetric_scale_for_everything():
    display = make(n=3, k=4).plot()
    limits = {axes.images[0].get_clim() for axes in display.axes_.flat}
    assert len(limits) == 1
    low, high = limits.pop()
    assert -low == high == display.colorbar_.vmax
    assert "score" in display.colorbar_.ax.get_ylabel()


@pytest.mark.parametrize(
    ("outlier", "extend"), [((), "neither"), ((90,), "max"), ((-90,), "min"), ((90, -90), "both")], ids=str
)
def test_clipped_values_give_the_colour_bar_arrows(outlier, extend):
    cwm = np.ones((1, 1, 30, 40), np.float32)
    cwm[0, 0, 0, : len(outlier)] = outlier
    display = Explanation(np.ones((1, 30, 40, 1)), cwm, [[1]], [["cat"]]).plot()
    assert display.colorbar_.extend == extend
    assert display.colorbar_.vmax == 1


def test_the_centre_of_the_colours_is_exactly_white():
    assert signed_colormap()(0.5) == (1, 1, 1, 1)
    assert signed_colormap()(0.6)[0] > signed_colormap()(0.6)[2]  # positive is red


@pytest.mark.parametrize("size", [8, 30, 300], ids=["enlarged", "near", "reduced"])
@pytest.mark.parametrize("factor", [0, 1, 1e-30, 1e30], ids=str)
def test_nothing_is_drawn_white(size, factor):
    rng = np.random.default_rng(0)
    cwm = np.zeros((1, 2, size, size), np.float32)
    cwm[0, 1] = factor * rng.normal(size=(size, size))
    display = Explanation(np.ones((1, size, size, 1)), cwm, [[0, 0]], [["cat", "dog"]]).plot()
    shown = pixels(display.axes_[0, 0, 0])
    assert shown.size > 1000
    assert (shown == 255).all()
    assert (pixels(display.axes_[0, 0, 1]) < 255).any() == (factor != 0)


def test_maps_that_are_not_finite_do_not_spoil_the_scale():
    evidence = make()
    scale = evidence.plot().colorbar_.vmax
    evidence.cwm[0, 0, 0, 0] = np.nan
    display = evidence.plot()
    display.figure_.canvas.draw()
    assert display.colorbar_.vmax == pytest.approx(scale, rel=0.1)


def test_labels_above_and_scores_beneath():
    evidence = make(factor=9)
    display = evidence.plot()
    for i, j in np.ndindex(2, 3):
        axes = display.axes_[i, 0, j]
        assert axes.get_title() == evidence.classes[i, j]
        score = axes.get_xlabel().removeprefix("score ").replace("\N{MINUS SIGN}", "-")
        assert float(score) == pytest.approx(evidence.scores[i, j], abs=0.005001)
        bold = evidence.scores[i, j] == evidence.scores[i].max()
        assert (axes.title.get_weight() == axes.xaxis.label.get_weight() == "bold") == bold
    for upper, lower in make().plot(kind="spotlight").axes_[0].T:
        assert upper.get_title()
        assert lower.get_xlabel()
        assert not lower.get_title() + upper.get_xlabel()


@pytest.mark.parametrize(
    ("score", "text"),
    [(-0.001, "0.00"), (-12.345, "\N{MINUS SIGN}12.35"), (1234.5, "1234.50"), (0, "0.00"), (np.nan, "nan")],
)
def test_scores_as_text(score, text):
    scores = np.array([[score, 3]], np.float32)
    evidence = Explanation(np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 2)), scores, [["cat", "dog"]])
    assert evidence.plot().axes_[0, 0, 0].get_xlabel() == f"score {text}"


def test_small_scores_keep_three_digits():
    evidence = Explanation(np.ones((1, 2, 2, 1)), np.ones((1, 1, 2, 2)), [[0.00123]], [["cat"]])
    assert evidence.plot().axes_[0, 0, 0].get_xlabel() == "score 0.00123"


def test_scores_that_would_look_equal_have_more_decimals():
    scores = np.array([[1.23449, 1.23441, 3], [1, 1, 2]], np.float32)
    evidence = Explanation(np.ones((2, 2, 2, 1)), np.ones((2, 3, 2, 2)), scores, [LABELS[:3]] * 2)
    texts = [[axes.get_xlabel() for axes in row] for row in evidence.plot().axes_[:, 0]]
    assert texts[0] == ["score 1.2345", "score 1.2344", "score 3.0000"]
    assert texts[1] == ["score 1.00", "score 1.00", "score 2.00"]  # they are equal


@pytest.mark.parametrize(("scores", "bold"), [([3, 1, 2], []), ([2, 1, 3], ["emu"]), ([2, 2, 2], [])])
def test_a_difference_is_bold_only_above_0(scores, bold):
    evidence = Explanation(np.ones((1, 2, 2, 1)), np.ones((1, 3, 2, 2)), [scores], [LABELS[:3]]).versus("cat")
    titles = [axes.title for axes in evidence.plot().axes_[0, 0]]
    assert [title.get_text() for title in titles if title.get_weight() == "bold"] == bold


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.98, "98 %"),
        (0.9049, "90 %"),
        (0.994, "99.4 %"),
        (0.999, "99.9 %"),
        (0.9994, "> 99.9 %"),
        (1, "> 99.9 %"),
        (0.01, "1 %"),
        (0.0051, "0.5 %"),
        (0.001, "0.1 %"),
        (0.0009, "< 0.1 %"),
        (0, "< 0.1 %"),
        (np.nan, "nan"),
    ],
)
def test_probabilities_as_text_are_never_certain(probability, text):
    evidence = make(n=1, k=2)
    evidence.probabilities = np.array([[probability, 0.5]], np.float64)
    assert evidence.plot().axes_[0, 0, 0].get_xlabel().endswith(f"\nprobability {text}")
    many = make(n=1, k=10)
    many.probabilities = np.full((1, 10), probability)
    shown = many.plot().axes_[0, 0, 9].get_xlabel().split("\n")[1]  # columns are narrow
    assert shown == text if ">" in text else shown == f"prob. {text}"


def fitted(labels):
    rng = np.random.default_rng(0)
    X, y = rng.random((4 * len(labels), 8, 8)), np.repeat(labels, 4)
    clf = GCMClassifier(max_epochs=1, architecture="paper", verbose=0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clf.fit(X, y), X[::4]


@pytest.mark.parametrize("labels", [["cat", "dog"], [0, 1], ["mean", "zero"]], ids=str)
def test_two_classes_have_one_map(labels):
    clf, X = fitted(labels)
    decision, predicted, largest = clf.decision_function(X), clf.predict(X), clf.predict_proba(X).max(axis=1)
    first, second = labels
    sign = 1 if first != "mean" else -1  # the label "mean" cannot be subtracted
    texts = f"{second} (red) or {first} (blue)", f"{first} (red) or {second} (blue)"
    every = clf.explain(X, "all")
    for evidence in (every, clf.explain(X, "top-2"), clf.explain(X, labels[::-1])):
        display = evidence.plot(y=predicted)
        assert display.axes_.shape == (2, 1, 1)
        assert display.frames_ == {}
        for i, axes in enumerate(display.axes_.flat):
            pixels = every.pixel_contributions[i, 1] - every.pixel_contributions[i, 0]
            np.testing.assert_allclose(picture(axes), sign * pixels, atol=1e-5)
            assert axes.get_title().replace("\n", " ") == texts[sign < 0]
            answer, score = axes.get_xlabel().replace("\N{MINUS SIGN}", "-").split("\n")
            assert answer.removeprefix("predicted ") == f"{predicted[i]}: {100 * largest[i]:.0f} %"
            assert float(score.removeprefix("Δ score ")) == pytest.approx(sign * decision[i], rel=0.1, abs=0.006)
        overlay = evidence.versus(first if sign > 0 else second).to_images("overlay")
        np.testing.assert_array_equal(picture(evidence.plot(kind="overlay").axes_[1, 0, 0]), overlay[1, 0])
    assert every.plot(cmap="PuOr").axes_[0, 0, 0].get_title().count("(+)") == 1  # its colours have other names
    assert "WRONG" in every[:1].plot(y=clf.classes_[[int(predicted[0] == first)]]).image_axes_[0].get_xlabel()


def test_two_columns_where_two_classes_are_not_all_or_it_is_unknown():
    clf, X = fitted(["cat", "dog"])
    every = clf.explain(X, "all")
    assert clf.explain(X).plot().axes_[0, 0, 0].get_title() in ("cat", "dog")
    assert every.plot(kind="spotlight").axes_.shape == (2, 2, 2)
    assert every.versus("mean").plot().axes_.shape == (2, 1, 2)
    assert make(k=2).plot().axes_.shape == (2, 1, 2)
    clf, X = fitted(["cat", "dog", "emu"])
    assert clf.explain(X, "top-2").plot().axes_.shape == clf.explain(X, ["cat", "dog"]).plot().axes_.shape == (3, 1, 2)


def test_a_wrong_answer_is_said_to_be_wrong():
    clf, X = fitted(["cat", "dog", "a long name of emu"])
    predicted = clf.predict(X[:2])
    other = np.where(predicted == "cat", "dog", "cat")
    truth = np.array([predicted[0], other[1]])
    for classes in ("predicted", "top-2", "all", list(clf.classes_)):
        right, wrong = (axes.xaxis.label for axes in clf.explain(X[:2], classes).plot(y=truth).image_axes_)
        assert right.get_text().startswith("true: ")
        assert "WRONG" not in right.get_text()
        assert right.get_color() == "black"
        assert wrong.get_text().startswith(f"true: {truth[1]}\n")
        assert "WRONG" in wrong.get_text()
        assert wrong.get_color() == WRONG_COLOUR
    (text,) = (axes.get_xlabel() for axes in clf.explain(X[:2])[1].plot(y=truth[1:]).image_axes_)
    assert "WRONG" in text
    some = clf.explain(X[:2], list(clf.classes_[:2]))  # the predicted class may not be among them
    for evidence in (some, clf.explain(X[:2], "all").versus("cat")):
        assert not any("WRONG" in axes.get_xlabel() for axes in evidence.plot(y=truth).image_axes_)


def test_the_true_class_is_framed_and_named():
    evidence = make(n=3)
    display = evidence.plot(y=["dog", "gnu", "cat"])
    assert set(display.frames_) == {(0, 1), (2, 0)}
    assert [axes.get_xlabel() for axes in display.image_axes_] == ["true: dog", "true: gnu", "true: cat"]
    frame = display.frames_[0, 1].get_position()
    for axes in display.axes_[0, :, 1]:
        box = axes.get_position()
        assert frame.x0 < box.x0 < box.x1 < frame.x1
        assert frame.y0 < box.y0 < box.y1 < frame.y1
    assert frame.x0 >= display.axes_[0, 0, 0].get_position().x1
    assert frame.x1 <= display.axes_[0, 0, 2].get_position().x0


@pytest.mark.parametrize("y", [np.array([2, 0]), [2, 0], np.array([2.0, 0.0])], ids=["array", "list", "float"])
def test_integer_labels(y):
    assert set(make(labels=np.arange(12)).plot(y=y).frames_) == {(0, 2), (1, 0)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (8, 8, 3), (8, 8, 4), (5, 7, 2), (5, 7, 7), (1, 9, 1), (9, 1, 3)], ids=str
)
def test_any_image_is_drawn(shape, kind):
    evidence = make(shape=shape)
    display = evidence.plot(y=["cat", "cat"], kind=kind)
    display.figure_.canvas.draw()
    for i, axes in enumerate(display.image_axes_):
        if shape[2] in (3, 4):
            np.testing.assert_array_equal(picture(axes), evidence.images[i, ..., :3])
        else:
            np.testing.assert_allclose(picture(axes), evidence.images[i].mean(axis=-1))
            assert axes.images[0].get_clim() == (0, 1)
    for axes in display.axes_.flat:
        box = axes.get_window_extent()
        assert min(box.width, box.height) > 40


def test_grey_is_never_scaled_to_the_picture():
    dim = Explanation(np.full((1, 8, 8, 1), 0.5), np.ones((1, 1, 8, 8)), [[0.5]], [["cat"]])
    shown = pixels(dim.plot().image_axes_[0])
    assert np.unique(shown).tolist() in ([127], [128])


def test_values_out_of_range_are_clipped_for_display():
    evidence = make()
    evidence = Explanation(evidence.images * 3 - 1, evidence.cwm, evidence.scores, evidence.classes)
    display = evidence.plot(kind="spotlight")
    for axes in [*display.image_axes_, *display.axes_.flat]:
        assert picture(axes).min() >= 0
        assert picture(axes).max() <= 1


def test_a_spotlight_is_the_image_times_the_weight_on_one_scale():
    images = np.zeros((1, 1, 4, 3), np.float32)
    images[0, 0, 1:] = [[1, 0.5, 0], [1, 0, 0], [0.5, 0.5, 0.5]]
    cwm = np.array([[[[9, 2, 1, -2]], [[-9, -1, 0, 0]]]], np.float32)  # the black pixel has large weights
    display = Explanation(images, cwm, [[0, 0]], [["cat", "dog"]]).plot(kind="spotlight")
    scale = display.colorbar_.vmax
    assert display.colorbar_.vmin == 0
    assert scale == pytest.approx(2, rel=0.05)
    expected = {
        (0, 0): [[0, 0, 0], [2, 1, 0], [1, 0, 0], [0, 0, 0]],
        (1, 0): [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]],
        (0, 1): np.zeros((4, 3)),
        (1, 1): [[0, 0, 0], [1, 0.5, 0], [0, 0, 0], [0, 0, 0]],
    }
    for (sign, j), values in expected.items():
        shown = picture(display.axes_[0, sign, j])[0]
        np.testing.assert_allclose(shown, np.clip(np.array(values) / scale, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    "masks",
    [
        [[(1, 1, 4, 3), (3, 2, 6, 8)], None],
        np.array([[(1 <= r < 3 and 1 <= c < 4) or (r >= 2 and 3 <= c < 6) for c in range(8)] for r in range(8)]),
    ],
    ids=["boxes", "masks"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_outlined_in_image_and_maps(masks, kind):
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:4] = mask[2:8, 3:6] = True
    if isinstance(masks, np.ndarray):
        masks = np.stack([masks, np.zeros_like(masks)])
    display = make().plot(kind=kind, masks=masks)
    assert not any(axes.collections for axes in (display.image_axes_[1], *display.axes_[1].flat) if masks[1] is None)
    for axes in (display.image_axes_[0], *display.axes_[0].flat):
        halo, line = axes.collections
        assert halo.get_linewidth()[0] > line.get_linewidth()[0]
        np.testing.assert_array_equal([*halo.get_color(), *line.get_color()], [[1, 1, 1, 1], [0, 0, 0, 1]])
        for one in (halo, line):
            points = np.array([segment[[0, -1]] for segment in one.get_segments()])
            assert len(points) == 8  # sides
            length = np.abs(points[:, 1] - points[:, 0]).sum()
            assert length == np.diff(np.pad(mask, 1), axis=0).sum() + np.diff(np.pad(mask, 1), axis=1).sum()
            assert points.min() == 0.5
            assert points.max() == 7.5
        assert axes.get_xlim() == (-0.5, 7.5)
        assert axes.get_ylim() == (7.5, -0.5)


def test_an_outline_is_seen_on_bright_and_dark_pixels():
    for value in (0.0, 1.0):
        evidence = Explanation(np.full((1, 8, 8, 1), value), np.zeros((1, 1, 8, 8)), [[0]], [["cat"]])
        shown = pixels(evidence.plot(masks=[[(2, 2, 5, 5)]]).image_axes_[0])
        assert np.abs(shown - 255 * value).max() > 200


def test_masks_of_another_size_are_resized():
    mask = np.zeros((2, 16, 16), bool)
    mask[:, 4:8, 4:8] = True
    (_, line) = make().plot(masks=mask).image_axes_[1].collections
    assert np.array(line.get_segments()).min() == 1.5
    assert np.array(line.get_segments()).max() == 3.5


@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
def test_an_axes_is_drawn_within(layout):
    figure, (other, ax) = plt.subplots(1, 2, figsize=(10, 4), layout=layout)
    display = make().plot(y=["cat", "hen"], ax=ax)
    assert display.figure_ is figure
    assert figure.axes == [other, ax]
    figure.canvas.draw()
    outer = ax.get_window_extent()
    for axes in [*display.image_axes_, *display.axes_.flat, *display.frames_.values(), display.colorbar_.ax]:
        box = axes.get_window_extent()
        assert outer.x0 <= box.x0 < box.x1 <= outer.x1
        assert outer.y0 <= box.y0 < box.y1 <= outer.y1


def test_an_axes_without_a_grid_and_one_too_small():
    figure = plt.figure(figsize=(6, 4))
    make().plot(ax=figure.add_axes([0.1, 0.1, 0.8, 0.8]))
    make(k=12).plot(y=["cat", "dog"], ax=figure.add_axes([0, 0, 0.02, 0.02]))
    make().plot(ax=figure.subfigures().add_subplot())
    figure.canvas.draw()


def places(layout, n, k):
    """Left, bottom, right and top of everything in the layout."""
    boxes = [layout.image(i) for i in range(n)] + [layout.frame(i, j) for i, j in np.ndindex(n, k)]
    left, bottom, width, height = np.array([*boxes, layout.bar()]).T
    return left, bottom, left + width, bottom + height


@pytest.mark.parametrize("shape", [(8, 8), (200, 200), (1, 9), (9, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("parts", [1, 2])
def test_nothing_overlaps(shape, parts):
    for n, k, canvas in itertools.product([1, 2, 6, 12], [1, 2, 3, 10, 12], [None, (9, 8)]):
        if canvas is not None and n * k > 40:  # with their texts, too many for a small canvas
            continue
        layout = Layout.choose(n, k, shape, parts=parts, label_lines=2, text_lines=2, canvas=canvas)
        left, bottom, right, top = places(layout, n, k)
        assert min(left.min(), bottom.min()) >= 0
        assert max(right.max(), top.max()) <= 1
        beside = (left[:, None] >= right - 1e-9) | (left >= right[:, None] - 1e-9)
        above = (bottom[:, None] >= top - 1e-9) | (bottom >= top[:, None] - 1e-9)
        assert (beside | above | np.eye(len(left), dtype=bool)).all()
        for i, j in np.ndindex(n, k):  # maps and their texts are in their frame
            x, y, width, height = layout.frame(i, j)
            for part in range(parts):
                inner = layout.map(i, part, j)
                assert x < inner[0] < inner[0] + inner[2] < x + width
                assert y < inner[1] < inner[1] + inner[3] < y + height


LONG = np.array(["great white shark, white shark, man-eater", "W" * 30, "pitted_surface", *LABELS[:9]])


@pytest.mark.parametrize("kind", ["contribution", "spotlight"])
@pytest.mark.parametrize(
    ("n", "k", "shape", "inside"),
    [
        (1, 1, (8, 8, 1), False),
        (1, 1, (10, 40, 1), False),
        (2, 3, (200, 200, 3), False),
        (3, 12, (40, 10, 1), False),
        (6, 2, (32, 32, 3), False),
        (12, 1, (8, 8, 1), False),
        (1, 10, (8, 8, 3), False),
        (3, 3, (8, 8, 3), True),
    ],
    ids=str,
)
def test_no_text_lies_over_a_picture_or_another_text(n, k, shape, inside, kind):
    evidence = make(n=n, k=k, shape=shape, factor=9, labels=LONG)
    evidence.probabilities = np.ones((n, k), np.float32)
    evidence._predicted = evidence.classes[np.arange(n), evidence.scores.argmax(axis=1)]
    evidence._complete = n == 6  # two classes, one map
    ax = plt.figure(figsize=(7, 8)).add_axes([0, 0, 1, 1]) if inside else None
    display = evidence.plot(y=evidence.classes[:, 0], kind=kind, ax=ax)
    display.figure_.canvas.draw()
    pictures = [*display.image_axes_, *display.axes_.flat]
    parts = [*pictures, display.colorbar_.ax]
    texts = [text for axes in pictures for text in (axes.title, axes.xaxis.label, axes.yaxis.label) if text.get_text()]
    texts += [display.colorbar_.ax.yaxis.label, *display.colorbar_.ax.get_yticklabels()]
    boxes = [axes.get_window_extent() for axes in parts]
    boxes += [text.get_window_extent() for text in texts]
    x0, y0, x1, y1 = np.array([box.extents for box in boxes]).T
    assert min(x0.min(), y0.min()) >= -1
    assert x1.max() <= display.figure_.bbox.width + 1
    assert y1.max() <= display.figure_.bbox.height + 1
    over = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0) > 1
    over &= np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0) > 2.5  # the box of a line is higher than letters
    assert over.sum() == len(boxes)


def test_a_users_layout_setting_moves_nothing():
    places = []
    for constrained in (False, True):
        with plt.rc_context({"figure.constrained_layout.use": constrained}):
            figure = make().plot().figure_
        figure.canvas.draw()
        places.append([axes.get_position().bounds for axes in figure.axes])
    assert places[0] == places[1]


SETTINGS = {  # of a user's matplotlibrc
    "origin": {"image.origin": "lower"},
    "colours of images": {"image.cmap": "jet", "image.lut": 2},
    "resampling": {"image.interpolation": "bicubic", "image.interpolation_stage": "rgba", "image.resample": False},
    "shape": {"image.aspect": "auto", "axes.autolimit_mode": "round_numbers", "axes.xmargin": 0.4, "axes.ymargin": 0.4},
    "spines": {"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.linewidth": 9},
    "places of text": {
        "axes.titlelocation": "left",
        "axes.titley": 0.2,
        "xaxis.labellocation": "left",
        "yaxis.labellocation": "top",
    },
    "latex": {"text.usetex": True},
    "mathematics": {"text.parse_math": False, "axes.formatter.use_mathtext": True, "axes.formatter.limits": (0, 0)},
    "ticks": {"ytick.labelright": True, "ytick.labelleft": False, "ytick.right": False, "ytick.minor.visible": True},
    "ticks of images": {"xtick.top": True, "xtick.labeltop": True, "xtick.minor.visible": True},
    "grid": {"axes.grid": True, "axes.grid.which": "both", "axes.axisbelow": False, "grid.linewidth": 9},
    "sketch": {"path.sketch": (9, 9, 9)},
    "layout": {"figure.autolayout": True},
    "classic": {"_internal.classic_mode": True},
    "lines": {"lines.linewidth": 9, "patch.linewidth": 9, "patch.facecolor": "red", "patch.force_edgecolor": True},
}


@functools.cache
def drawn(setting=None):
    """What the canvas shows with a user's settings, which also hold while it is drawn."""
    evidence = make(n=1, k=2, shape=(8, 8, 1))
    with plt.rc_context(SETTINGS.get(setting)):
        figure = evidence.plot(y=evidence.classes[:, :1]).figure_
        figure.canvas.draw()
        return np.array(figure.canvas.buffer_rgba())


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_users_settings_do_not_change_what_is_shown(setting):
    np.testing.assert_array_equal(drawn(setting), drawn())


def test_text_and_background_follow_the_users_style():
    with plt.style.context("dark_background"):
        display = make(labels=np.array(["$x_1", "b", "c"])).plot()
        assert display.figure_.get_facecolor() == (0, 0, 0, 1)
        assert display.axes_[0, 0, 0].title.get_color() == display.colorbar_.ax.yaxis.label.get_color() == "white"


def test_images_with_the_first_row_above():
    with plt.rc_context({"image.origin": "lower"}):
        ax = plt.figure().add_subplot()
        for display in (make().plot(), make().plot(ax=ax)):
            for axes in (*display.image_axes_, *display.axes_.flat):
                assert axes.get_ylim() == (7.5, -0.5)


def test_grey_images_have_all_their_steps():
    steps = grey_colormap()(np.arange(256), bytes=True)
    np.testing.assert_allclose(steps[:, :3], np.arange(256)[:, None].repeat(3, axis=1), rtol=0, atol=1)  # of rounding
    assert make(shape=(8, 8, 1)).plot().image_axes_[0].images[0].cmap == grey_colormap()


def test_pixels_stay_squares_and_none_is_skipped():
    assert make().plot().axes_[0, 0, 0].images[0].get_interpolation() == "nearest"
    stripes = np.zeros((1, 1, 1200, 1200), np.float32)
    stripes[..., ::12] = 1  # of which the nearest of 12 pixels sees all or nothing
    display = Explanation(np.ones((1, 1200, 1200, 1)), stripes, [[1 / 12]], [["cat"]]).plot()
    shown = pixels(display.axes_[0, 0, 0])
    assert 0 < (255 - shown[..., 2]).mean() < 60


def test_figures_grow_with_what_they_show():
    assert Layout.choose(1, 1, (8, 8)).width < 6
    assert Layout.choose(6, 10, (8, 8)).width < 12.6
    assert Layout.choose(1, 1, (8, 8)).map_width > Layout.choose(9, 1, (8, 8)).map_width > 1
    assert Layout.choose(20, 1, (8, 8)).abreast > 1
    assert Layout.choose(100, 1, (8, 8)).width < 13
    assert Layout.choose(2, 1000, (8, 8)).width < 16


@pytest.mark.parametrize(
    "label",
    [
        "cat",
        "automobile",
        "great white shark, white shark, man-eater",
        "W" * 30,
        "scratch_left_severe",
        "x y" * 5000,
        "i",
        "",
    ],
    ids=lambda label: label[:12],
)
@pytest.mark.parametrize("width", [0.3, 0.7, 1.1])
def test_labels_fit(label, width):
    for max_lines in (1, 2):
        lines = fit_text(label, width, size=9, max_lines=max_lines).split("\n")
        assert len(lines) <= max_lines
        assert max(text_width(line, 9) for line in lines) <= width


def test_labels_keep_both_ends_and_are_taken_literally():
    assert fit_text("scratch", 1, size=9) == "scratch"
    assert fit_text("", -1, size=9) == "…"  # an empty label where there is no room at all
    short = fit_text("scratchscratchleft", 0.7, size=9)
    assert short.startswith("scr")
    assert short.endswith("ft")
    display = make(n=1, k=2, labels=np.array(["$a_b$", "$\\frac$"])).plot(y=["$\\bad$"])
    display.figure_.canvas.draw()
    assert display.axes_[0, 0, 0].get_title() == "$a_b$"


class Stub(BaseEstimator):
    def __init__(self, evidence=None):
        self.evidence = evidence

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def explain(self, X, *, classes):
        self.asked = X, classes
        return self.evidence


def test_from_estimator_explains_and_draws():
    evidence = make()
    stub = Stub(evidence).fit(None)
    masks = [[(0, 0, 2, 2)], None]
    options = {"kind": "overlay", "cmap": "PuOr", "scale": 7, "masks": masks}
    display = ContributionDisplay.from_estimator(stub, "images", ["cat", "cat"], classes="top-3", **options)
    assert stub.asked == ("images", "top-3")
    assert display.explanation is evidence
    assert set(display.frames_) == {(0, 0), (1, 0)}
    assert display.colorbar_.vmax == 7
    assert len(display.image_axes_[0].collections) == 2
    other = evidence.plot(**options)
    for axes, same in zip(display.axes_.flat, other.axes_.flat, strict=True):
        np.testing.assert_array_equal(picture(axes), picture(same))
    ContributionDisplay.from_estimator(stub, "images")
    assert stub.asked == ("images", "predicted")


def test_from_estimator_wants_a_fitted_one():
    with pytest.raises(NotFittedError):
        ContributionDisplay.from_estimator(Stub(make()), "images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "heat"}, r"kind='heat' is not one of \('contribution', 'overlay', 'spotlight'\)"),
        ({"cmap": "PuOr", "kind": "spotlight"}, "cmap='PuOr' is given for kind='spotlight'"),
        ({"cmap": "heat"}, "cmap='heat' is not a colour map that matplotlib knows"),
        ({"scale": 0}, "scale=0 must be a positive finite number"),
        ({"scale": np.nan, "kind": "overlay"}, "scale=nan must be a positive finite number"),
        ({"scale": True, "kind": "spotlight"}, "scale=True must be a positive finite number"),
        ({"masks": [None]}, "masks has 1 items for 2 images. Expected bool"),
        ({"masks": [None, [(0, 0, 9, 1)]]}, r"masks\[1\] has \(0.0, 0.0, 9.0, 1.0\), which is empty or leaves"),
        ({"y": ["cat"]}, r"y has shape \(1,\); expected \(2,\)"),
        ({"y": [["cat", "dog"]]}, r"y has shape \(1, 2\); expected \(2,\)"),
        ({"y": "cat"}, r"y has shape \(\); expected \(2,\)"),
        ({"y": [1, 2]}, r"y has dtype int64 and holds numbers, .*<U4, are text: no label is equal to another"),
        ({"y": np.array([1, None], object)}, "y has dtype object and holds numbers"),
        ({"y": [b"cat", b"dog"]}, r"y has dtype \|S3 and holds bytes"),
    ],
    ids=str,
)
def test_errors_say_what_was_given_and_what_is_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        make().plot(**arguments)
    assert plt.get_fignums() == []


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="0 images"):
        make()[:0].plot()


@pytest.mark.parametrize("y", [np.array([["dog"], ["cat"]]), [["dog"], ["cat"]], np.array(["dog", "cat"])])
def test_true_labels_may_be_a_column(y):
    display = make(n=2, k=3).plot(y=y)
    assert display.image_axes_[0].get_xlabel() == "true: dog"
    assert set(display.frames_) == {(0, 1), (1, 0)}


def test_true_labels_may_be_a_tensor():
    assert set(make(n=2, k=2, labels=np.array([3, 7])).plot(y=torch.tensor([[7], [3]])).frames_) == {(0, 1), (1, 0)}
