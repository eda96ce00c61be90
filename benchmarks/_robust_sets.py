"""Small image sets of many kinds, each made by a function of a random generator."""

from dataclasses import dataclass

import numpy as np
from _common import load
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIDE = 64  # of steel and of drawn defects, in pixels


@dataclass
class Images:
    """Training and held-out images with labels, and masks (n, H, W) of where the evidence for them should be."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    masks: np.ndarray | None = None  # of the held-out images
    training_masks: np.ndarray | None = None


def digits_on_gradients(rng, n_train=500):
    """scikit-learn's digits, enlarged to 24 x 24, at random places of a linear gradient of 32 x 32."""
    digits, y = load_digits(return_X_y=True)
    images = np.empty((len(y), 32, 32))
    rows, columns = np.mgrid[:32, :32] / 31
    for image, digit in zip(images, digits.reshape(-1, 8, 8), strict=True):
        angle, low, high = rng.uniform(0, 2 * np.pi), *rng.uniform(0, 160, 2)
        ramp = rows * np.sin(angle) + columns * np.cos(angle)
        image[:] = low + (high - low) * (ramp - ramp.min()) / np.ptp(ramp)
        top, left = rng.integers(0, 9, 2)
        image[top : top + 24, left : left + 24] += resized(digit * 15, 24) / 240 * rng.uniform(40, 95)
    seed = int(rng.integers(2**31))
    X, X_test, y, y_test = train_test_split(
        images.astype(np.uint8), y, train_size=n_train, stratify=y, random_state=seed
    )
    return Images(X, y, X_test, y_test)


def few(X, y, X_test, y_test, rng, *, per_class, n_test=5000):
    """A number of training images of each class, and the first held-out ones."""
    chosen = [rng.choice(np.flatnonzero(y == label), per_class, replace=False) for label in np.unique(y)]
    chosen = np.concatenate(chosen)
    return Images(X[chosen], y[chosen], X_test[:n_test], y_test[:n_test])


def faint(images, rng, contrast=0.2):
    """A part of the contrast, and another brightness for each image."""
    X, X_test = (_faint(part, rng, contrast) for part in (images.X, images.X_test))
    return Images(X, images.y, X_test, images.y_test, images.masks)


def _faint(X, rng, contrast):
    X = X.astype(float)
    brightness = rng.uniform(40, 215, (len(X), *[1] * (X.ndim - 1)))
    return _uint8((X - X.mean((1, 2), keepdims=True)) * contrast + brightness)


DEFECTS = np.array(["bright scratch", "bright spot", "dark scratch", "dark spot"])


def drawn_defects(textures, test_textures, rng, *, per_class=60, photos=15, n_test=100):
    """Scratches and spots of 1 % of the area on crops of grey photos. In training each class has its own photos."""
    textures, test_textures = textures.squeeze(-1), test_textures.squeeze(-1)  # (n, H, W, 1) to (n, H, W)
    order, made, held_out = rng.permutation(len(textures)), [], []
    for label in range(len(DEFECTS)):
        own = textures[order[label * photos : (label + 1) * photos]]
        made += [(*_with_defect(own[i % photos], label, rng), label) for i in range(per_class)]
        others = test_textures[rng.integers(len(test_textures), size=n_test)]
        held_out += [(*_with_defect(photo, label, rng), label) for photo in others]
    X, training_masks, y = map(np.array, zip(*made, strict=True))
    X_test, masks, y_test = map(np.array, zip(*held_out, strict=True))
    return Images(X, DEFECTS[y], X_test, DEFECTS[y_test], masks, training_masks)


def _with_defect(photo, label, rng):
    top, left = rng.integers(0, photo.shape[0] - SIDE + 1, 2)
    image = photo[top : top + SIDE, left : left + SIDE].astype(float)
    sign, spot = 1 if label < 2 else -1, label % 2 == 1
    row, column = rng.uniform(12, SIDE - 12, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    rows, columns = rows - row, columns - column
    if spot:
        mask = rows**2 + columns**2 <= 3.6**2
    else:
        angle = rng.uniform(0, np.pi)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        mask = (abs(along) <= 10) & (abs(across) <= 1)
    return _uint8(image + sign * mask * rng.uniform(50, 90)), mask


def resized(image, side):
    return np.asarray(Image.fromarray(_uint8(image)).resize((side, side), Image.Resampling.BILINEAR))


def _uint8(image):
    return image.clip(0, 255).round().astype(np.uint8)


def boxes_as_masks(boxes, side):
    masks = np.zeros((len(boxes), side, side), bool)
    for mask, of_image in zip(masks, boxes, strict=True):
        for left, top, right, bottom in of_image:
            mask[top:bottom, left:right] = True
    return masks


def breast(path):
    """BreastMNIST (MedMNIST v2), official training and test images."""
    with np.load(path) as arrays:
        parts = [arrays[f"{split}_{kind}"] for split in ("train", "test") for kind in ("images", "labels")]
    X, y, X_test, y_test = parts
    return Images(X, y.ravel(), X_test, y_test.ravel())


def arrays(path):
    """X_train, y_train, X_test, y_test of an .npz file."""
    return load(path, None)
