import numpy as np
import pytest
import torch

from skgcm.inputs import labels

PETS = np.array(["cat", "dog", "eel"])


@pytest.mark.parametrize(
    ("y", "n_classes", "expected"),
    [
        ([7, 3, 3], None, [3, 7]),
        (["b", "a"], None, ["a", "b"]),
        ([True, False], None, [False, True]),
        ([0, 2], 4, [0, 1, 2, 3]),
        ([3, 7], 2, [3, 7]),
        (np.array([0, 1], np.int8), 200, list(range(200))),
    ],
)
def test_find(y, n_classes, expected):
    np.testing.assert_array_equal(labels.find(np.array(y), n_classes), expected)


@pytest.mark.parametrize(
    ("y", "n_classes", "message"),
    [
        ([0, 1, 2], 2, "n_classes=2, but y has 3 classes"),
        ([0, 9], 5, "n_classes=5, but y has 2 classes"),
        ([-1, 1], 5, "n_classes=5"),
        (["a", "b"], 3, "n_classes=3"),
        ([0.0, 1.0], 3, "n_classes=3"),
        ([4, 4], None, "one class"),
    ],
)
def test_find_names_what_is_wrong(y, n_classes, message):
    with pytest.raises(ValueError, match=message):
        labels.find(np.array(y), n_classes)


@pytest.mark.parametrize("y", [["a", None], [[1, 2], [3]], [{}, {}]])
def test_labels_that_cannot_be_sorted_are_named(y):
    with pytest.raises(ValueError, match="classes has labels that cannot be sorted"):
        labels.find(y, None, "classes")


@pytest.mark.parametrize(
    ("wanted", "classes", "expected"),
    [
        ("predicted", PETS, 1),
        ("all", PETS, None),
        ("top-2", PETS, 2),
        (["eel"], PETS, [[2], [2]]),
        (["eel", "cat"], PETS, [[2, 0], [2, 0]]),
        ([["eel"], ["cat"]], PETS, [[2], [0]]),
        (np.array(["dog", "cat"])[:, None], PETS, [[1], [0]]),
        ([["cat", "dog"], ["dog", "dog"]], PETS, [[0, 1], [1, 1]]),
        (20, np.array([10, 20]), [[1], [1]]),
        (np.int64(10), np.array([10, 20]), [[0], [0]]),
        ([20, 10], np.array([10, 20]), [[1, 0], [1, 0]]),
        (["all"], np.array(["all", "top-1"]), [[0], [0]]),
        (False, np.array([False, True]), [[0], [0]]),
    ],
)
def test_choose(wanted, classes, expected):
    chosen = labels.choose(wanted, classes, n=2)
    if isinstance(expected, list):
        np.testing.assert_array_equal(chosen, expected)
    else:
        assert chosen == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cat", r"classes='cat' is not 'predicted'.*\['cat'\]"),
        ("top-0", "classes='top-0'"),
        ("top-4", "4 classes an image, but there are 3"),
        (["cat", "dog", "eel", "cat"], "4 classes an image, but there are 3"),
        (
            ["cat", "cat"],
            r"label twice.*One label for each of 2 images is a column, \(2, 1\): y\[:, None\]",
        ),
        (["cow"], r"classes has the label 'cow', but the classes are \['cat', 'dog', 'eel'\]"),
        ([0], "classes has the label 0"),
        ([], "classes of shape"),
        ([["cat"]], "classes of shape"),
        ([["cat"], ["cat", "dog"]], "same number of classes for each image"),
        ([{}], "classes has an invalid label"),
        ("top-" + "9" * 5000, "is not 'predicted'"),
        ("top-٢", "is not 'predicted'"),
        (torch.ones(1, requires_grad=True), "classes=.*requires grad"),
        (True, "not a sequence of labels"),
        (np.zeros((2, 1, 1)), "classes of shape"),
    ],
)
def test_choose_names_what_is_wrong(wanted, message):
    with pytest.raises(ValueError, match=message):
        labels.choose(wanted, PETS, n=2)
