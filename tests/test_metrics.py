import numpy as np
import pytest

from skgcm.metrics import decline_ratio

SCORES = np.eye(4)[[0, 1, 2, 3, 0]]  # the last is wrong
Y = np.array([0, 1, 2, 3, 1])


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 3)])
def test_maps_that_say_what_the_scores_say_lose_nothing(shape):
    maps = np.broadcast_to(SCORES.reshape(5, 4, *[1] * len(shape)), (5, 4, *shape))
    assert decline_ratio(maps, SCORES, Y) == 0


def test_by_hand():
    maps = np.zeros((5, 4, 2, 2))
    maps[[0, 1], [0, 1], 1, 1] = 1  # two of the four that were right
    maps[[2, 3], [0, 0], 0, 0] = 1
    maps[4, 2] = -1
    assert decline_ratio(maps, SCORES, Y) == 0.5
    maps[4, 1] = 1  # the one that was wrong
    assert decline_ratio(maps, SCORES, Y) == 0.25


def test_float16_sums_do_not_overflow():
    maps = np.full((5, 4, 100, 100), 10, np.float16) * SCORES[:, :, None, None].astype(np.float16)
    assert decline_ratio(maps, SCORES, Y) == 0


@pytest.mark.parametrize(
    ("maps", "scores", "y", "message"),
    [
        (np.zeros((5, 1, 2, 2)), SCORES, Y, r"maps of shape \(5, 1, 2, 2\) are not those of all classes"),
        (SCORES, SCORES, Y[:4], "inconsistent numbers of samples"),
        (SCORES, SCORES, Y + 1, "must hold a position 0 .. 3"),
        (SCORES, SCORES, Y.astype(str), "must hold a position 0 .. 3"),
        (SCORES, SCORES, SCORES, "must hold a position 0 .. 3"),
        (SCORES, SCORES, np.array([1, 2, 3, 0, 2]), "no image is classified rightly"),
        (SCORES * np.nan, SCORES, Y, "NaN"),
    ],
)
def test_errors(maps, scores, y, message):
    with pytest.raises(ValueError, match=message):
        decline_ratio(maps, scores, y)
