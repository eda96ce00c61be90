"""Random changes of training images."""

import itertools

import numpy as np
import pytest
import torch

from skgcm import GCMClassifier
from skgcm.inputs.images import ImageFormat
from skgcm.training.augmentation import CUTOUT, JITTER, NAMES, REACH, augment_batch, augmented, parse, reflect, resolve

SQUARE, OBLONG = (16, 16), (16, 8)
sizes = pytest.mark.parametrize("size", [SQUARE, OBLONG, (8, 24)], ids=str)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _draw(n, size, n_channels=3):
    """Images (n, C, H, W) of which no two pixels are the same."""
    n_values = n * n_channels * size[0] * size[1]
    order = torch.randperm(n_values, generator=_generator(1)).double()
    return (order / n_values).view(n, n_channels, *size)


def _positions(image, names):
    """All that an image (C, H, W) can become by "flip" and "rotate", {(quarter turns, mirrored): image}."""
    square = image.shape[1] == image.shape[2]
    turns = (range(4) if square else (0, 2)) if "rotate" in names else (0,)
    found = {}
    for turn, mirror in itertools.product(turns, (False, True) if "flip" in names else (False,)):
        found[turn, mirror] = torch.rot90(image.flip(2) if mirror else image, turn, (1, 2))
    return found


def _shifted(image, dy, dx):
    padded = np.pad(image.numpy(), ((0, 0), (abs(dy),) * 2, (abs(dx),) * 2), mode="reflect")
    n_rows, n_columns = image.shape[1:]
    return torch.from_numpy(padded[:, abs(dy) + dy :, abs(dx) + dx :][:, :n_rows, :n_columns].copy())


# ---- what images become ----------------------------------------------------------------------------------------------


@sizes
def test_shift_moves_images_whole_and_fills_the_border_with_its_reflection(size):
    images = _draw(150, size)
    reach = [n // REACH for n in size]
    moves = list(itertools.product(*(range(-most, most + 1) for most in reach)))
    seen = set()
    for before, after in zip(images, augment_batch(images, {"shift"}, _generator()), strict=True):
        fits = [move for move in moves if torch.equal(after, _shifted(before, *move))]
        assert len(fits) == 1
        seen.update(fits)
    assert {dy for dy, _ in seen} == set(range(-reach[0], reach[0] + 1))
    assert {dx for _, dx in seen} == set(range(-reach[1], reach[1] + 1))


@sizes
@pytest.mark.parametrize("names", [{"flip"}, {"rotate"}, {"flip", "rotate"}], ids="+".join)
def test_flip_and_rotate_take_all_positions_equally_often(size, names):
    images = _draw(800, size, 1)
    counts = {}
    for before, after in zip(images, augment_batch(images, names, _generator()), strict=True):
        (found,) = [key for key, image in _positions(before, names).items() if torch.equal(after, image)]
        counts[found] = counts.get(found, 0) + 1
    square = size[0] == size[1]
    assert len(counts) == (2 if "flip" in names else 1) * ((4 if square else 2) if "rotate" in names else 1)
    assert min(counts.values()) > 0.7 * 800 / len(counts)


@pytest.mark.parametrize("size", [SQUARE, OBLONG], ids=str)
def test_shift_flip_and_rotate_go_together(size):
    images, names = _draw(60, size), {"shift", "flip", "rotate"}
    reach = [n // REACH for n in size]
    moves = list(itertools.product(*(range(-most, most + 1) for most in reach)))
    for before, after in zip(images, augment_batch(images, names, _generator()), strict=True):
        positions = _positions(after, names).values()  # undone: the group has the inverse of each
        assert any(torch.equal(image, _shifted(before, *move)) for image in positions for move in moves)


def test_brightness_adds_one_number_to_each_image():
    images = _draw(300, OBLONG)
    added = augment_batch(images, {"brightness"}, _generator()) - images
    assert added.flatten(1).std(1).max() < 1e-6
    added = added[:, 0, 0, 0]
    assert added.abs().max() <= JITTER
    assert added.max() > 0.9 * JITTER
    assert added.min() < -0.9 * JITTER


def test_contrast_stretches_around_the_mean():
    images = _draw(300, OBLONG)
    changed = augment_batch(images, {"contrast"}, _generator())
    mean = images.mean((1, 2, 3))
    torch.testing.assert_close(changed.mean((1, 2, 3)), mean, atol=1e-6, rtol=0)
    factors = changed.flatten(1).std(1) / images.flatten(1).std(1)
    torch.testing.assert_close(
        changed, mean[:, None, None, None] + factors[:, None, None, None] * (images - mean[:, None, None, None])
    )
    assert ((factors - 1).abs() <= JITTER + 1e-6).all()
    assert factors.max() > 1 + 0.9 * JITTER
    assert factors.min() < 1 - 0.9 * JITTER


@sizes
def test_cutout_gives_a_rectangle_the_mean_colour(size):
    images = _draw(300, size)
    changed = augment_batch(images, {"cutout"}, _generator())
    shares = []
    for before, after in zip(images, changed, strict=True):
        lost = (before != after).any(0)
        torch.testing.assert_close(after[:, lost], before.mean((1, 2))[:, None].expand(-1, int(lost.sum())))
        rows, columns = lost.any(1), lost.any(0)
        assert torch.equal(lost, rows[:, None] & columns)
        for side in (rows, columns):  # in one piece
            assert (side.int().diff() != 0).sum() <= 2
            assert side.sum() <= CUTOUT * len(side) + 1
        shares.append(float(lost.double().mean()))
    assert max(shares) > 0.6 * CUTOUT**2
    assert 0.02 < np.mean(shares) < CUTOUT**2


# ---- sizes, dtypes, random numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_reflection_is_numpy_s_also_beyond_the_image(size):
    reach = 12
    expected = np.pad(np.arange(size), reach, mode="reflect")
    assert reflect(torch.arange(-reach, size + reach), size).tolist() == expected.tolist()


def test_images_narrower_than_the_shift_are_reflected_again_and_again(monkeypatch):
    monkeypatch.setattr("skgcm.training.augmentation.REACH", 0.25)  # up to four times the image's size
    monkeypatch.setattr(
        "skgcm.training.augmentation._Draws.integers",
        lambda draws, low, high: torch.randint(int(low), int(high) + 1, (draws.n,), generator=_generator()),
    )
    for size in ((2, 3), (1, 4), (1, 1)):
        images = _draw(20, size)
        for before, after in zip(images, augment_batch(images, {"shift"}, _generator()), strict=True):
            moves = itertools.product(range(-4 * size[0], 4 * size[0] + 1), range(-4 * size[1], 4 * size[1] + 1))
            assert any(torch.equal(after, _shifted(before, *move)) for move in moves)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (7, 7)], ids=str)
@pytest.mark.parametrize("n_channels", [1, 4])
def test_small_images_stay_finite_and_keep_their_shape(size, n_channels):
    images = torch.rand(20, n_channels, *size, generator=_generator())
    for names in (*({name} for name in NAMES), set(NAMES)):
        changed = augment_batch(images, names, _generator())
        assert changed.shape == images.shape
        assert changed.dtype == images.dtype
        assert changed.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_each_change_changes_something_and_images_differently(name):
    images = torch.rand(1, 1, *SQUARE, generator=_generator()).expand(8, -1, -1, -1)
    changed = augment_batch(images, {name}, _generator())
    assert not torch.equal(changed, images)
    assert len(changed.flatten(1).unique(dim=0)) > 1


def test_random_numbers_come_from_the_generator_and_from_it_alone():
    images, state = _draw(16, SQUARE), torch.get_rng_state()
    one, two, other = (augment_batch(images, set(NAMES), _generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_batch_that_comes_in_is_left_alone():
    images = _draw(16, SQUARE)
    before = images.clone()
    augment_batch(images, set(NAMES), _generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize("low", [0.0, -50.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32, torch.bool])
def test_images_of_every_dtype_and_range_are_scaled_first(dtype, low):
    scale = ImageFormat((8, 8, 1), False, (low, 1.0)).scale
    images = torch.ones(200, 1, 8, 8).to(dtype)
    moved = augmented(images, "shift+flip+rotate", _generator(), scale)
    assert moved.dtype == torch.float32
    assert set(moved.unique().tolist()) == {1.0}
    assert torch.equal(augmented(images, None, None, scale), scale(images))


# ---- what an estimator takes -----------------------------------------------------------------------------------------


def test_auto_is_shift_unless_images_are_too_small_to_move():
    assert resolve("auto", (REACH, REACH, 1)) == "shift"
    assert resolve("auto", (REACH - 1, 200, 1)) is None
    assert resolve("flip", (2, 2, 1)) == "flip"
    assert resolve(None, (99, 99, 1)) is None


def test_names_are_parsed():
    assert parse("+".join(NAMES)) == set(NAMES)
    assert parse("flip+shift") == {"shift", "flip"}
    assert parse(None) == set()


@pytest.mark.parametrize(
    ("augment", "problem"),
    [
        ("spin", "has 'spin', which is unknown"),
        ("shift+", "has '', which is unknown"),
        ("", "has '', which is unknown"),
        ("shift, flip", "has 'shift, flip', which is unknown"),
        ("Shift", "has 'Shift', which is unknown"),
        ("auto+flip", "has 'auto', which is unknown"),
        ("shift+flip+shift", "has a name twice"),
    ],
)
def test_unknown_and_repeated_names_are_an_error_at_fit_that_says_which_there_are(augment, problem):
    X, y = np.random.default_rng(0).random((8, 8, 8)), np.arange(8) % 2
    clf = GCMClassifier(augment=augment, encoder_width=2, max_epochs=1, device="cpu")
    for method in (clf.fit, lambda X, y: clf.partial_fit(X, y, classes=[0, 1])):
        with pytest.raises(ValueError, match=rf"augment=.*{problem}.*shift, flip, rotate.*'shift\+flip'") as caught:
            method(X, y)
        assert repr(augment) in str(caught.value)
    assert not hasattr(clf, "net_")


@pytest.mark.parametrize("shape", [(8, 8), (3, 11, 2), (1, 1)], ids=str)
def test_a_fit_with_every_change_repeats_itself(shape):
    X, y = np.random.default_rng(0).random((12, *shape)), np.arange(12) % 2
    params = {"augment": "+".join(NAMES), "encoder_width": 2, "max_epochs": 2, "batch_size": 4, "device": "cpu"}
    one, two = (GCMClassifier(**params, image_shape=shape, random_state=0).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.decision_function(X), two.decision_function(X))
    plain = GCMClassifier(**{**params, "augment": None}, image_shape=shape, random_state=0).fit(X, y)
    assert not np.array_equal(one.decision_function(X), plain.decision_function(X))
