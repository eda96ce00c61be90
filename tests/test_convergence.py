"""The warning of a fit that has not learned its training images."""

import re
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skgcm import GCMClassifier
from skgcm.training.convergence import MARGIN, warn_if_near_chance

SMALL = {"encoder_width": 4, "decoder_width": 4, "batch_size": 16, "device": "cpu", "random_state": 0}


def draw(n=60, n_classes=3):
    """Images of n_classes kinds, told apart by their brightest channel, and labels."""
    X = np.random.default_rng(0).integers(0, 100, (n, 6, 6, n_classes), dtype=np.uint8)
    y = np.arange(n) % n_classes
    X[np.arange(n), ..., y] += 120
    return X, y


def heard(*args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_near_chance(*args)
    return caught


def scores_of(y, right, n_classes=4, size=9.0):
    """Scores that name the right class of that share of the images, and the next one of the others."""
    named = np.where(np.arange(len(y)) < right * len(y), y, (y + 1) % n_classes)
    return (size * np.eye(n_classes)[named]).astype(np.float32)


# ---- what is near chance ---------------------------------------------------------------------------------------------


def test_random_scores_are_near_chance_and_the_message_has_the_numbers():
    y = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    (warning,) = heard(np.zeros((100, 4), np.float32), y, None, 7)
    assert warning.category is ConvergenceWarning
    message = str(warning.message)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    assert message.startswith(
        "After 7 epochs the classifier has hardly learned its training images. On 100 of these images its"
    )
    assert "accuracy is 0.40, and 0.40 for always naming one class" in message
    assert f"loss is {np.log(4):.2f}, and {-(shares @ np.log(shares)):.2f} for the class frequencies" in message
    assert "Check that y belongs to X" in message
    for name in ("max_epochs", "lr", "augmentation", "sparsity"):
        assert name in message


def test_correct_scores_are_no_warning():
    y = np.arange(100) % 4
    assert heard(scores_of(y, 1.0), y, None, 7) == []
    assert heard(scores_of(y, 0.25 + 1.2 * MARGIN * 0.75), y, None, 7) == []  # a bit above what is near chance
    assert len(heard(scores_of(y, 0.25), y, None, 7)) == 1


def test_a_low_loss_or_a_high_accuracy_is_enough():
    y = np.arange(100) % 4
    faint = scores_of(y, 1.0, size=1e-3)  # the right class, hardly
    assert heard(faint, y, None, 7) == []
    # never the right class first, but nearly all of the probability for it and one other
    scores = 5 * np.eye(4)[y] + 5.01 * np.eye(4)[(y + 1) % 4]
    assert heard(scores.astype(np.float32), y, None, 7) == []


def test_large_scores_do_not_overflow():
    y = np.arange(8) % 4
    (warning,) = heard(1e30 * scores_of(y, 0.0), y, None, 1)
    assert str(warning.message).startswith("After 1 epoch the")
    assert "inf" not in str(warning.message)


def test_one_class_in_the_sample_is_no_warning():
    assert heard(np.zeros((9, 3), np.float32), np.ones(9, int), None, 7) == []


def test_class_weights_count_as_in_the_loss():
    y, weights = np.repeat([0, 1], [90, 10]), np.array([1, 9], np.float32)
    always_first = np.tile(np.float32([2, 0]), (100, 1))
    (warning,) = heard(always_first, y, weights, 3)
    assert "On 100 of these images, with class_weight, its accuracy is 0.50, and 0.50 for" in str(warning.message)
    balanced_and_right = (4 * np.eye(2)[y]).astype(np.float32)
    assert heard(balanced_and_right, y, weights, 3) == []
    assert heard(always_first, y, np.array([1, 0], np.float32), 3) == []  # only one class counts
    assert heard(always_first, y, np.zeros(2, np.float32), 3) == []


# ---- after a fit -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_labels_that_are_learned_are_no_warning():
    X, y = draw()
    assert GCMClassifier(**SMALL, max_epochs=30).fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_labels_that_are_random_are_a_warning_at_the_line_that_fits(class_weight):
    X = np.random.default_rng(0).random((200, 6, 6))
    y = np.random.default_rng(1).integers(0, 2, 200)
    clf = GCMClassifier(**SMALL, max_epochs=2, lr=1e-3, class_weight=class_weight)
    with pytest.warns(ConvergenceWarning, match=r"After 2 epochs .* hardly learned") as caught:
        clf.fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    accuracy, chance, loss, chance_loss = map(float, re.findall(r"\d\.\d\d", str(caught[0].message)))
    assert ("with class_weight" in str(caught[0].message)) == (class_weight is not None)
    if class_weight is None:
        assert accuracy == pytest.approx(clf.score(X, y), abs=0.006)
        log_proba = clf.predict_log_proba(X)
        assert loss == pytest.approx(-log_proba[np.arange(200), y].mean(), abs=0.006)
        assert chance == pytest.approx(max(y.mean(), 1 - y.mean()), abs=0.006)
    else:
        assert (chance, chance_loss) == (0.5, 0.69)


@pytest.mark.filterwarnings("error")
def test_one_epoch_of_a_stream_is_no_warning():
    X = np.random.default_rng(0).random((40, 6, 6))
    GCMClassifier(**SMALL, lr=1e-3).partial_fit(X, np.arange(40) % 2, classes=[0, 1])
