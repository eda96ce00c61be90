"""Whatever is passed as X, y or classes works, with one answer for the same images, or an error names it.

More, and other, examples than the suite tries: SKGCM_EXAMPLES=10 pytest tests/test_hypothesis.py --hypothesis-seed=1
"""

import contextlib
import math
import os
import re
import tempfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import DataConversionWarning

from skgcm import Explanation, GCMClassifier
from skgcm.inputs import images, labels
from skgcm.inputs.value_range import check_value_range, check_values_in_range, find_value_range
from skgcm.network import ARCHITECTURES, GCM, POLARITIES, UPSAMPLING
from skgcm.training.augmentation import NAMES

FACTOR = int(os.environ.get("SKGCM_EXAMPLES", "1"))
TINY = {"encoder_width": 2, "decoder_width": 2, "max_epochs": 1, "batch_size": 4, "precision": "float32"}
TINY |= {"device": "cpu", "random_state": 0}
NUMBERS = [*"?bBhHiIqQefdg", ">h", ">H", ">i", ">I", ">q", ">Q", ">e", ">f", ">d"]
OTHERS = ["F", "D", "O", "U3", "S3", "M8[s]", "m8[s]", "V4", "i4,f4", np.dtypes.StringDType()]


def examples(n):
    # the suite tries the same examples each time, so that it fails for who broke something
    return settings(
        max_examples=n * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def same(one, other, exact):
    if exact:
        np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(other).max(initial=0)))


def outcome(names, call):
    """What the call returns; None where it raises an error with one of the names, or what is documented elsewhere."""
    try:
        result = call()
    except (ValueError, TypeError) as error:
        event("raises")
        if not re.search(rf"\b({names})\b", str(error)):
            raise AssertionError(f"the error names none of {names}") from error
    except FloatingPointError as error:
        event("diverges")
        if not re.search("diverged", str(error)):
            raise
    except DataConversionWarning:
        event("warns")
    except UserWarning as warning:
        event("warns")
        if not re.search("Check whether X has the scale|such dark images|feature names", str(warning)):
            raise
    else:
        event("works")
        return result
    return None


# ---- the same images in another form -----------------------------------------------------------------------------


def _strided(X):
    wide = np.zeros((*X.shape[:-1], 2 * X.shape[-1]), X.dtype)
    wide[..., ::2] = X
    return wide[..., ::2]


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def _memory_map(X):
    with tempfile.NamedTemporaryFile() as file:
        X.tofile(file)
        file.flush()
        return np.memmap(file.name, dtype=X.dtype, mode="r", shape=X.shape)


def _tensor(X):
    return torch.from_numpy(images.native(np.ascontiguousarray(X)))


FORMS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": _strided,
    "backwards": lambda X: np.ascontiguousarray(X[::-1, ..., ::-1])[::-1, ..., ::-1],
    "read-only": _read_only,
    "memory map": _memory_map,
    "masked, nothing hidden": np.ma.asarray,
    "list": np.ndarray.tolist,
    "tuple of arrays": tuple,
    "objects": lambda X: X.astype(object),
    "tensor": _tensor,
    "tensors": lambda X: list(_tensor(X)),
    "strided tensor": lambda X: _tensor(X).transpose(0, -1).contiguous().transpose(0, -1),
    "bfloat16": lambda X: _tensor(X).bfloat16(),
    "tensor with gradient": lambda X: _tensor(X).double().requires_grad_(),
}
FRAMES = {
    "frame": pd.DataFrame,
    "frame with names": lambda X: pd.DataFrame(X).add_prefix("p"),
    "nullable frame": lambda X: pd.DataFrame(images.native(X)).convert_dtypes(),
}


@st.composite
def same_images(draw, form):
    """Images (n, R, C, D) uint8, parameters with which another form of them is read, and a function to that form."""
    n, R, C = draw(st.integers(2, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    D = draw(st.sampled_from([1, 1, 2, 3, 4]))
    dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
    high = 1 if dtype.kind == "b" else draw(st.sampled_from([1, 3, 100]))
    X = np.random.default_rng(draw(st.integers(0, 99))).integers(0, high, (n, R, C, D), np.uint8, endpoint=True)
    rows = form in FRAMES or draw(st.booleans())
    grey = D == 1 and not rows and draw(st.booleans())
    first = draw(st.booleans())
    params = {
        "value_range": draw(st.sampled_from([(0, high), (-1, high), (0, 2 * high - 0.5)])),
        "channels_first": first,
    }
    if rows or R in images.CHANNELS or D in images.CHANNELS or draw(st.booleans()):
        params["image_shape"] = (R, C, D)

    def change(X):
        X = X.astype(dtype)
        X = X.transpose(0, 3, 1, 2) if first else X
        X = X.reshape(len(X), -1) if rows else X.reshape(len(X), R, C) if grey else X
        return (FORMS | FRAMES)[form](X)

    return X, params, change


@pytest.mark.parametrize("form", [*FORMS, *FRAMES])
@given(n_stages=st.integers(1, 3), polarity=st.sampled_from(POLARITIES), data=st.data())
@examples(5)
def test_the_same_images_in_another_form_have_the_same_answers(form, n_stages, polarity, data):
    X, params, change = data.draw(same_images(form))
    y = np.unique(X.reshape(len(X), -1), axis=0, return_inverse=True)[1] % 2  # training needs one label for one image
    assume(len(set(y)) == 2)
    tiny = {**TINY, "n_stages": n_stages, "polarity": polarity}
    plain = GCMClassifier(**tiny, value_range=params["value_range"], image_shape=X.shape[1:]).fit(X, y)
    other = GCMClassifier(**tiny, **params).fit(change(X), y)
    exact = params["value_range"][0] == 0  # else float32 and float64 may round the subtraction differently
    same(other.decision_function(change(X)), plain.decision_function(X), exact)
    n = data.draw(st.integers(1, len(X)))
    classes = data.draw(st.sampled_from(["predicted", "all", "top-1", [1], [[i % 2] for i in range(n)]]))
    one, two = other.explain(change(X[:n]), classes), plain.explain(X[:n], classes)
    for name in ("images", "cwm", "scores", "cwm_mean"):
        same(getattr(one, name), getattr(two, name), exact)
    np.testing.assert_array_equal(one.classes, two.classes)
    same(other.transform(change(X[:n])), plain.transform(X[:n]), exact)
    assert other.score(change(X), y) == plain.score(X, y)


# ---- anything at all ---------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.sampled_from(
        [10**400, 2**64, 1j, np.float32(1), np.datetime64("2020"), pd.NA, pd.NaT, object(), {}, {1: 2}, {3}]
    ),
)
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=9)


def rarely(draw):
    return draw(st.integers(0, 7)) == 7


def _values(draw, dtype, shape):
    """An array of small numbers, or of one number, or of very large ones, or of what Hypothesis thinks of."""
    kind = draw(st.sampled_from(["small", "small", "unit", "constant", "huge", "any"]))
    if kind == "any" and dtype.char != "g":
        return draw(hnp.arrays(dtype, shape))
    X = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 5, shape)
    if kind == "unit":
        X = X / 4
    elif kind == "constant":
        X = np.full(shape, draw(st.sampled_from([0, 1, -3, 255, 1e30, -1e30, 1e-30])))
    elif kind == "huge" and dtype.kind == "f":
        return np.where(X > 2, np.finfo(dtype).max, draw(st.sampled_from([0, 1, np.finfo(dtype).min]))).astype(dtype)
    elif kind == "huge" and dtype.kind in "iu":
        return np.where(X > 2, np.iinfo(dtype).max, np.iinfo(dtype).min).astype(dtype)
    with np.errstate(all="ignore"):
        return np.asarray(X).astype(dtype)


@st.composite
def arrays(draw, image):
    """Arrays of any dtype, also of no numbers, and of any shape, also empty; most hold images of the given shape."""
    if rarely(draw):
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    else:
        n, (R, C, D) = draw(st.sampled_from([*range(2, 7), 0, 1])), image
        shape = draw(st.sampled_from(3 * [(n, R, C, D), (n, R * C * D)] + [(n, D, R, C), (n, R, C)]))
    dtype = np.dtype(draw(st.sampled_from(OTHERS if rarely(draw) else NUMBERS)))
    if dtype.kind == "O":
        X = np.full(shape, 1, object)
        X.flat[:1] = [draw(SCALARS)] if X.size else []
        return X
    return np.zeros(shape, dtype) if dtype.kind in "TV" else _values(draw, dtype, shape)


BAD_FORMS = {
    "first": lambda X: X[0],
    "series": lambda X: pd.Series(X.ravel()),
    "sparse": lambda X: scipy.sparse.csr_array(X),
    "sparse cube": lambda X: scipy.sparse.coo_array(X),
    "sparse frame": lambda X: pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(X)),
    "sparse tensor": lambda X: _tensor(X).to_sparse(),
    "masked": lambda X: np.ma.masked_equal(X, 1),
    "ragged": lambda X: [X[0], X[1][:1]],
}


@st.composite
def any_images(draw, image):
    if rarely(draw) and rarely(draw):
        return draw(ANYTHING)
    X, good = draw(arrays(image)), FORMS if rarely(draw) else FORMS | FRAMES
    change = draw(st.sampled_from(list((BAD_FORMS if rarely(draw) else good).values())))
    with contextlib.suppress(Exception), np.errstate(all="ignore"):  # not every array has every form
        X = change(X)
    return X


def length(X):
    try:
        return len(X)
    except TypeError:
        return 3


def _cast(values, dtype):
    with contextlib.suppress(Exception), np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype)
    return values


def any_labels(n):
    of = {
        "integers": st.integers(-2, 3),
        "some integers": st.integers(0, 2),
        "strings": st.sampled_from(["a", "b", "ü", ""]),
        "booleans": st.booleans(),
        "floats": st.sampled_from([0.0, 1.0, 2.0, 1e300, 0.5, np.nan, np.inf]),
        "mixed": st.sampled_from([0, "a", None, 1.0, True, b"x", (1,), np.nan, pd.NA]),
    }
    values = st.one_of([st.lists(labels, min_size=n, max_size=n) for labels in of.values()])
    integers = st.lists(of["some integers"], min_size=n, max_size=n)
    return st.one_of(
        values,
        values,
        st.builds(_cast, values, st.sampled_from([*NUMBERS, *OTHERS])),
        values.map(pd.Series),
        integers.map(lambda y: pd.Series(y, dtype="Int64")),
        integers.map(lambda y: pd.Series(y).astype("category")),
        integers.map(lambda y: np.array(y)[:, None]),
        integers.map(lambda y: np.array([y, y]).T),
        integers.map(torch.tensor),
        st.lists(of["integers"], max_size=n + 2),
        ANYTHING,
    )


OF_X = {
    "channels_first": st.booleans(),
    "augment": st.none() | st.sets(st.sampled_from(NAMES), min_size=1).map(sorted).map("+".join),
    "mosaic": st.sampled_from([0, 0.25, 0.5]),
    "polarity": st.sampled_from(POLARITIES),
}
SHAPES = [(2, 2), [4, 1], np.array([3, 1, 2]), (0, 3), (2,), np.array(3), (2**70, 1)]
RANGES = [(0, 255), (-1, 5), (0, 1e-300), (-1e308, 1e308), (1e10, 1e10 + 1), (0, 10**400), np.array(3), (1, 0)]
WEIGHTS = [None, "balanced", {0: 1e300}, {0: 10**400}, {0: [1, 2]}, {0: 0, 1: 0}, {"a": 2}, {np.nan: 1}]
OF_Y = {
    "n_classes": st.integers(2, 6),
    "early_stopping": st.booleans(),
    "class_weight": st.sampled_from(WEIGHTS),
}


def check_answers(clf, X):
    """The answers of a fitted classifier to an X that it takes."""
    scores = clf.decision_function(X)
    assert np.isfinite(scores).all()
    evidence = clf.explain(X, "all")
    same(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, False)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[evidence.scores.argmax(axis=1)])
    assert clf.transform(X).shape == (len(scores), evidence.cwm[0].size)


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 3), st.fixed_dictionaries({}, optional=OF_X), st.data())
@examples(150)
def test_fit_takes_any_images_or_names_x(image, n_stages, params, data):
    X = data.draw(any_images(image))
    params["image_shape"] = (
        data.draw(st.sampled_from(SHAPES)) if rarely(data.draw) else data.draw(st.sampled_from([image, None]))
    )
    params["value_range"] = data.draw(st.sampled_from(RANGES)) if rarely(data.draw) else None
    clf = GCMClassifier(**TINY, n_stages=n_stages, **params)
    y = np.arange(length(X)) % data.draw(st.sampled_from([2, 3, 5, 1]))
    if outcome("X|image_shape|value_range|channels_first|y has one class", lambda: clf.fit(X, y)):
        if outcome("X", lambda: clf.predict(X)) is not None:  # None: images only just within the range as a whole
            check_answers(clf, X)
    else:
        assert not vars(clf).keys() & {"net_", "classes_", "n_features_in_"}


@given(st.data(), st.integers(0, 8), st.fixed_dictionaries({}, optional=OF_Y))
@examples(150)
def test_fit_takes_any_labels_or_names_y(data, n, params):
    X = np.random.default_rng(0).integers(0, 255, (n, 2, 2, 3), np.uint8)
    y, classes = data.draw(any_labels(n)), data.draw(st.none() | any_labels(n))
    clf = GCMClassifier(**TINY, n_stages=1, **params)
    names = "y|n_classes|class_weight|early_stopping" + ("" if n else "|X")
    if outcome(names, lambda: clf.fit(X, y)):
        check_answers(clf, X)
        outcome("y", lambda: clf.score(X, y))
        known = clf.predict(X)
        np.testing.assert_array_equal(clf.explain(X, known[:, None]).classes[:, 0], known)
        assert clf.score(X, known) == 1
        outcome("y|classes|class_weight|n_classes", lambda: clf.partial_fit(X, y, classes))
    else:
        first = GCMClassifier(**TINY, n_stages=1, **params)
        outcome(names + "|classes", lambda: first.partial_fit(X, y, classes))


@pytest.fixture(scope="module")
def fitted():
    found = []
    for shape, value_range, dtype, names in (
        ((2, 2, 1), (0, 4), np.float64, np.array([0, 1, 2])),
        ((2, 2, 3), None, np.uint8, np.array(["a", "b", "all"])),
        ((1, 4, 1), None, bool, np.array([False, True])),
        ((3, 1, 2), (-1e300, 1e300), np.float64, np.array([-5.0, 7.0])),
    ):
        white = 255 if dtype == np.uint8 else 1
        X = (white * np.random.default_rng(0).integers(0, 2, (6, *shape))).astype(dtype)
        y = names[np.arange(6) % len(names)]
        found.append(GCMClassifier(**TINY, n_stages=2, image_shape=shape, value_range=value_range).fit(X, y))
    return found


@given(st.integers(0, 3), st.data())
@examples(150)
def test_a_fitted_classifier_takes_any_images_or_names_x(fitted, which, data):
    clf = fitted[which]
    X = data.draw(any_images(clf.image_shape_))
    before = vars(clf).copy()
    if outcome("X", lambda: clf.decision_function(X)) is not None:
        check_answers(clf, X)
        outcome("X|y", lambda: clf.score(X, data.draw(any_labels(length(X)))))
    else:
        for call in (clf.predict, clf.transform, clf.explain, lambda X: clf.score(X, [0])):
            assert outcome("X", lambda call=call: call(X)) is None
    outcome("X", lambda: clf.explain(X, any_size=True))
    assert vars(clf) == before


@given(st.integers(0, 3), st.integers(1, 4), st.data())
@examples(150)
def test_explain_takes_any_classes_or_names_them(fitted, which, n, data):
    clf = fitted[which]
    label = st.sampled_from(clf.classes_.tolist())
    keywords = ["predicted", "all", "top-1", "top-" + "9" * 5000, "top-٢", "top--1", "top-1.5", "Top-1", np.str_("all")]
    classes = data.draw(
        st.one_of(
            ANYTHING,
            arrays((1, 1, 1)),
            any_labels(n),
            label,
            st.lists(label, max_size=3),
            st.lists(label, min_size=n, max_size=n).map(lambda y: np.array(y)[:, None]),
            st.sampled_from(keywords),
            st.just(torch.ones(1, requires_grad=True)),
        )
    )
    X = np.zeros((n, *clf.image_shape_), dtype=bool)
    evidence = outcome("classes", lambda: clf.explain(X, classes))
    if evidence is not None:
        assert np.isin(evidence.classes, clf.classes_).all()
        assert len(evidence) == n


# ---- labels and images, function by function ---------------------------------------------------------------------

LABELS = st.one_of(
    st.sets(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=6),
    st.sets(st.text(max_size=3).filter(lambda label: "\0" not in label), min_size=2, max_size=6),
    st.just({False, True}),
)


@given(LABELS, st.integers(1, 4), st.data())
@examples(300)
def test_labels_and_their_positions_are_two_names_of_the_same(names, n, data):
    classes = labels.find(list(names))
    assert classes.tolist() == sorted(names)
    k = data.draw(st.integers(1, len(classes)))
    positions = np.array([data.draw(st.permutations(range(len(classes))))[:k] for _ in range(n)])
    change = data.draw(st.sampled_from([np.asarray, np.ndarray.tolist, pd.DataFrame, np.asfortranarray]))
    np.testing.assert_array_equal(labels.choose(change(classes[positions]), classes, n), positions)
    np.testing.assert_array_equal(labels.choose(classes[positions[0]], classes, n), np.tile(positions[0], (n, 1)))
    np.testing.assert_array_equal(labels.indices(classes[positions[0]], classes, "y"), positions[0])
    if classes.dtype.kind != "U":
        assert labels.choose(classes[positions[0, 0]], classes, n).tolist() == [[positions[0, 0]]] * n


@given(st.lists(st.integers(-2, 6), min_size=1, max_size=8), st.none() | st.integers(2, 7))
@examples(300)
def test_n_classes_makes_room_for_integers_only(y, n_classes):
    present = sorted(set(y))
    fits = n_classes in (None, len(present)) or (len(present) < n_classes and min(y) >= 0 and max(y) < n_classes)
    classes = outcome("n_classes|y", lambda: labels.find(y, n_classes))
    assert (classes is not None) == (fits and (len(present) > 1 or n_classes is not None))
    if classes is not None:
        expected = present if n_classes in (None, len(present)) else range(n_classes)
        assert classes.tolist() == list(expected)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=4).map(tuple), st.booleans(), st.data())
@examples(500)
def test_a_shape_is_read_as_one_that_holds_the_same_values(shape, first, data):
    given = data.draw(st.none() | st.lists(st.integers(0, 40), min_size=1, max_size=4).map(tuple) | st.just(shape[1:]))
    found = outcome("X|image_shape", lambda: images.find_shape(shape, given, first))
    if found is not None:
        assert len(found) == 3
        assert math.prod(found) == math.prod(shape[1:])
        images.check_shape(shape, found, first, "was found")
    frame = outcome("X", lambda: images.frame_shape(shape, data.draw(st.integers(1, 4)), first))
    assert frame is None or math.prod(frame) == math.prod(shape[1:])


@given(st.one_of(ANYTHING, st.tuples(SCALARS, SCALARS), hnp.arrays(float, hnp.array_shapes(min_dims=0))))
@examples(500)
def test_ranges_and_shapes_of_any_kind_are_checked(value):
    bounds = outcome("value_range", lambda: check_value_range(value))
    if bounds is not None:
        assert 0 < bounds[1] - bounds[0] < math.inf
    sizes = outcome("image_shape", lambda: images.check_image_shape(value))
    assert sizes is None or min(sizes) > 0


@st.composite
def rows(draw):
    dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
    rows = _values(draw, dtype, (draw(st.integers(1, 3)), 4))
    return rows if dtype.kind != "f" else np.nan_to_num(rows)


@given(rows(), st.sampled_from(NUMBERS))
@examples(400)
def test_images_fill_the_range_and_mean_the_same_in_another_dtype(rows, dtype):
    rows = outcome("X", lambda: images.native(rows))
    value_range = None if rows is None else outcome("X", lambda: find_value_range(rows))
    if value_range is None:
        return
    low, high = value_range
    outcome("X", lambda: check_values_in_range(rows, value_range))
    image_format = images.ImageFormat((1, 4, 1), False, value_range)
    found = image_format.images(torch.from_numpy(rows)).numpy()[:, 0, 0]
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    expected = (rows.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    with np.errstate(all="ignore"):
        other = rows.astype(dtype)
        equal = (other.astype(rows.dtype) == rows).all() and (other == rows).all()
    if equal:
        again = image_format.images(torch.from_numpy(images.native(other))).numpy()[:, 0, 0]
        np.testing.assert_allclose(again, found, rtol=0, atol=1e-6)


# ---- what the evidence adds up to --------------------------------------------------------------------------------


@st.composite
def explanations(draw):
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n, k, R, C, D = (draw(st.integers(low, 4)) for low in (0, 1, 1, 1, 1))
    seen, dark = rng.random((n, R, C, D)), rng.normal(size=(n, k, R, C)) if draw(st.booleans()) else None
    cwm = rng.normal(size=(n, k, R, C))
    ccm = cwm[..., None] * seen[:, None] + (0 if dark is None else dark[..., None] * (1 - seen[:, None]))
    return Explanation(seen, cwm, ccm.mean(axis=(2, 3, 4)), np.tile(np.arange(k), (n, 1)), cwm_dark=dark), rng


@given(explanations(), st.data())
@examples(300)
def test_contributions_add_up_and_differences_are_those_of_the_maps(drawn, data):
    evidence, rng = drawn
    n, k, R, C = evidence.cwm.shape
    part = rng.integers(0, 3, (n, R, C))
    parts = [evidence.region_scores(part == i) for i in range(3)]
    np.testing.assert_allclose(sum(parts), evidence.scores, atol=1e-5)
    cut = data.draw(st.integers(0, C))
    boxes = [(0, 0, cut, R), (cut, 0, C, R)]
    halves = [evidence.region_scores(box) for box in boxes if box[0] < box[2]]
    np.testing.assert_allclose(sum(halves), evidence.scores, atol=1e-5)
    ccm, i = evidence.ccm, rng.integers(0, k)
    np.testing.assert_array_equal(evidence.positive + evidence.negative, ccm)
    if k > 1:
        rest = np.arange(k) != i
        np.testing.assert_allclose(evidence.versus(int(i)).ccm, (ccm - ccm[:, [i]])[:, rest], atol=1e-5)
    np.testing.assert_allclose(evidence.versus("mean").ccm.sum(axis=1), 0, atol=1e-5)


@given(explanations(), st.one_of(ANYTHING, arrays((2, 2, 1)), hnp.arrays(float, 4)))
@examples(300)
def test_regions_and_labels_of_any_kind_are_checked(drawn, value):
    evidence, _ = drawn
    found = outcome("regions", lambda: evidence.region_scores(value))
    assert found is None or found.shape == evidence.scores.shape
    found = outcome("against", lambda: evidence.versus(value))
    assert found is None or found.ccm.shape[0] == len(evidence)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    st.fixed_dictionaries(
        {
            "n_classes": st.integers(2, 4),
            "architecture": st.sampled_from(ARCHITECTURES),
            "n_stages": st.integers(1, 5),
            "shared_decoder": st.booleans(),
            "clip_negative": st.booleans(),
            "polarity": st.sampled_from(POLARITIES),
            "upsampling": st.sampled_from(UPSAMPLING),
        }
    ),
    st.integers(0, 99),
)
@examples(100)
def test_the_mean_of_the_map_is_the_score_in_every_variant(shape, params, seed):
    assume(params["architecture"] == "paper" or params["upsampling"] == "nearest")
    generator = torch.Generator().manual_seed(seed)
    network = GCM(in_channels=shape[1], encoder_width=2, decoder_width=2, generator=generator, **params).double()
    for name, tensor in network.state_dict().items():  # as if trained
        if tensor.is_floating_point():
            tensor += torch.rand(tensor.shape, generator=generator).to(tensor) * (1 if "var" in name else 0.1)
    seen = torch.rand(shape, generator=generator, dtype=torch.float64)
    network, light = network.eval(), seen.mean(1, keepdim=True)
    for asked in (network, network.fused()):
        with torch.no_grad():
            scores, (every, index, cwm, mean) = asked(seen), asked.evidence(seen)
        maps = cwm[:, 0] * light + (cwm[:, 1] * (1 - light) if cwm.shape[1] > 1 else 0)
        torch.testing.assert_close(maps.mean((2, 3)), scores, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(every.gather(1, index), scores, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mean, cwm.mean(2), rtol=1e-9, atol=1e-12)
