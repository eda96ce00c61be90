"""Reports of a classifier: evidence in masks, and what a decision leans on, on images whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from skgcm import GCMClassifier
from skgcm.explanation import Explanation
from skgcm.metrics import check_evidence, evidence_report


class Marked(ClassifierMixin, BaseEstimator):
    """Decides by hand: the score of class j is the mean of its weights times the image.

    `reads` says where: "corner", class 1 by a bright corner; "spot", by the brightest pixels; "first", by the first.
    """

    classes_ = np.array(["dull", "marked"])
    checkpoint, value_range_ = None, (0, 1)
    net_ = SimpleNamespace(image_format=SimpleNamespace(channels_first=False))

    def __init__(self, reads="spot", checkpoint=None):
        self.reads, self.checkpoint = reads, checkpoint

    def fit(self, X, y):
        return self

    def _evidence(self, X):
        X = np.asarray(X, np.float32)
        X = X[..., None] if X.ndim == 3 else X
        weights = np.zeros((len(X), 2, *X.shape[1:3]), np.float32)
        weights[:, 0] = 0.3
        if self.reads == "corner":
            weights[:, 1, :3, :3] = 8
        elif self.reads == "spot":
            weights[:, 1] = 8 * (X[..., 0] > 0.9)
        return X, weights, (weights * X[:, None, :, :, 0]).mean((2, 3))

    def predict(self, X):
        return self.classes_[self._evidence(X)[2].argmax(1)]

    def explain_batches(self, X, classes):
        X, weights, scores = self._evidence(X)
        classes = np.broadcast_to(classes, (len(X), 1))
        at = np.arange(len(X))[:, None], (classes == self.classes_[1]).astype(int)
        yield Explanation(X, weights[at], scores[at], classes)


def draw(n=60, corner=False, seed=0):
    """Images where the second class has a bright spot, anywhere or always in one corner, and the masks of the spots."""
    rng = np.random.default_rng(seed)
    X, y = rng.uniform(0.2, 0.3, (n, 16, 16)), np.arange(n) % 2
    masks = np.zeros(X.shape, bool)
    for mask, label in zip(masks, y, strict=True):
        row, column = (0, 0) if corner else rng.integers(0, 14, 2)
        mask[row : row + 3, column : column + 3] = label
    X[masks] = 1
    return X, Marked.classes_[y], masks


# ---- evidence in masks -----------------------------------------------------------------------------------------------


def test_the_report_says_where_the_evidence_is_class_by_class():
    X, y, masks = draw()
    report = evidence_report(Marked("spot"), X, y, masks)
    assert report.classes.tolist() == ["dull", "marked"]
    assert report.n.tolist() == [0, 30]
    np.testing.assert_array_equal(report.share, [np.nan, 1])
    np.testing.assert_allclose(report.chance[1], masks[1::2].mean())
    np.testing.assert_array_equal(report.pointing, [np.nan, 1])
    np.testing.assert_array_equal(report.accuracy_inside, [np.nan, 1])
    np.testing.assert_array_equal(report.accuracy_outside, [np.nan, np.nan])
    assert report.overall["n"] == 30
    assert report.overall["inside"] == 1
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines] == ["class", "dull", "marked", "all"]
    assert len({len(line) for line in lines}) == 1
    assert repr(report) == str(report)


def test_the_report_separates_images_whose_evidence_is_elsewhere():
    X, y, masks = draw()
    cornered = masks.copy()
    cornered[:30] = False
    cornered[:30, 12:, 12:] = True  # where these have no evidence
    report = evidence_report(Marked("spot"), X, y, cornered)
    inside = masks[1:30:2, 12:, 12:].any((1, 2)).sum()
    assert report.n.tolist() == [15, 30]
    assert report.inside[1] == (15 + inside) / 30
    dim = X.copy()
    dim[1:30:2] = 0.25  # no spot is left, and "dull" is what is said
    report = evidence_report(Marked("spot"), dim, y, cornered)
    assert report.accuracy_inside[1] == 1
    assert report.accuracy_outside[1] == 0
    assert report.accuracy[1] == report.inside[1] == 0.5


def test_the_report_takes_boxes_and_masks_of_other_sizes():
    X, y, masks = draw()
    rows, columns = (masks.any(axis).argmax(1) for axis in (2, 1))
    boxes = [[(c, r, c + 3, r + 3)] if m.any() else None for r, c, m in zip(rows, columns, masks, strict=True)]
    expected = str(evidence_report(Marked("spot"), X, y, masks))
    assert str(evidence_report(Marked("spot"), X, y, boxes)) == expected
    assert str(evidence_report(Marked("spot"), X, y, masks.repeat(2, 1).repeat(2, 2))) == expected
    with pytest.raises(ValueError, match="masks has no mask with a pixel inside"):
        evidence_report(Marked(), X, y, [None] * 60)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        evidence_report(Marked(), X, y, masks[:3])


# ---- what the decision leans on --------------------------------------------------------------------------------------


def test_a_mark_that_is_always_in_one_corner_is_found():
    X, y, _ = draw(corner=True)
    check = check_evidence(Marked("corner"), X, y)
    assert check.fixed[1] > 0.95
    assert check.fixed_map[1, :3, :3].sum() == pytest.approx(1)
    assert "The decision for marked leans on fixed places. 100% of its evidence" in str(check)
    assert not any("for dull" in finding for finding in check.findings)


def test_evidence_that_moves_is_in_no_fixed_place():
    X, y, _ = draw(400)
    check = check_evidence(Marked("spot"), X, y)
    assert abs(check.fixed[1]) < 0.15
    assert abs(check.fixed[0]) < 0.05  # it is nearly the same everywhere
    assert not any("fixed places" in finding for finding in check.findings)


def test_a_decision_that_needs_few_pixels_loses_them():
    X, y, _ = draw()
    check = check_evidence(Marked("spot"), X, y)
    assert check.accuracy.tolist() == [1, 1]
    assert check.accuracy_without.tolist() == [1, 0]
    assert "Without the tenth that contributes most, accuracy falls from 1.00 to 0.00." in str(check)
    assert sum("few pixels" in finding for finding in check.findings) == 1


def test_few_images_of_a_class_weaken_the_sentence_on_few_pixels():
    X, y, _ = draw(39)  # 19 are marked
    check = check_evidence(Marked("spot"), X, y)
    assert check.n.tolist() == [20, 19]
    assert "Few images: the decision for marked may lean on few pixels, but 19 images cannot show it." in str(check)
    assert "leans on few pixels" not in str(check)
    assert check.text.splitlines()[-1].split()[:2] == ["marked", "19"]


def test_accuracy_near_chance_tells_nothing_of_groups():
    class Guesses(Marked):
        def predict(self, X):
            return np.full(len(X), "dull")

    X, y, _ = draw(60)
    check = check_evidence(Guesses(), X, y, groups=np.arange(60) // 4)
    assert check.accuracy_random == pytest.approx(0.5)
    assert "Always naming the most frequent class gives 0.50: too few images or epochs to tell" in check.findings[0]
    assert "no sign" not in str(check)


def test_groups_that_give_the_class_away_are_found(monkeypatch):
    class Remembers(Marked):
        """Knows each group by the value of its first pixel."""

        def fit(self, X, y):
            assert self.checkpoint is None
            self.known_ = dict(zip(X[:, 0, 0].tolist(), y.tolist(), strict=True))
            return self

        def predict(self, X):
            known = getattr(self, "known_", {})
            return np.array([known.get(value, "dull") for value in X[:, 0, 0].tolist()])

    X, y, _ = draw(120)
    groups = np.arange(120) // 8 * 2 + np.arange(120) % 2
    X[:, 0, 0] = groups / 100
    clf = Remembers().fit(X, y).set_params(checkpoint="folder")
    monkeypatch.setattr("skgcm.metrics._report._without_most_important", lambda clf, X, maps: X)
    check = check_evidence(clf, X, y, groups)
    assert check.accuracy_random == 1
    assert check.accuracy_groups == 0.5
    assert check.findings[0].startswith("The decision leans on what the images of a group have in common.")
    free = check_evidence(Marked("spot"), X, y, groups)
    assert free.accuracy_random == free.accuracy_groups == 1
    assert "no sign that groups are recognised" in free.findings[0]
    assert np.isnan(check_evidence(Marked("spot"), X, y).accuracy_groups)


def test_a_class_without_images_has_no_numbers():
    X, y, _ = draw()
    check = check_evidence(Marked("spot"), X[1::2], y[1::2])
    assert np.isnan(check.fixed[0])
    assert np.isnan(check.accuracy_without[0])
    assert check.text.splitlines()[-2].split() == ["dull", "0", "-", "-", "-"]


def test_a_report_without_findings_states_this():
    X, y, _ = draw(400)
    check = check_evidence(Marked("first"), X[::2], y[::2])
    nothing = "The evidence of no class lies mainly in fixed places or depends on a tenth of the pixels."
    assert check.findings == [nothing]


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_data_frame_keeps_its_names_and_the_order_of_its_numbers(channels_first):
    pandas = pytest.importorskip("pandas")
    rng, y = np.random.default_rng(0), np.arange(12) % 2
    X = rng.integers(50, 200, (12, 2, 6, 5) if channels_first else (12, 6, 5, 2)).astype(np.float32)
    X[y == 1] += 50
    frame = pandas.DataFrame(X.reshape(12, -1)).rename(columns="p{}".format)
    params = {"encoder_width": 2, "decoder_width": 2, "max_epochs": 2, "device": "cpu", "random_state": 0}
    params |= {"image_shape": (6, 5, 2), "channels_first": channels_first, "value_range": (0, 255)}
    clf, on_arrays = GCMClassifier(**params).fit(frame, y), GCMClassifier(**params).fit(X, y)
    expected = check_evidence(on_arrays, X, y)
    on_arrays.set_params(channels_first=not channels_first)  # since the fit: it does not count
    for found in (check_evidence(clf, frame, y), check_evidence(on_arrays, X, y)):
        np.testing.assert_array_equal(found.accuracy_without, expected.accuracy_without)
        np.testing.assert_array_equal(found.fixed_map, expected.fixed_map)
