"""The three sets of real images on which probabilities and typicality are measured."""

from pathlib import Path

import numpy as np
from _common import cifar10

from skgcm.datasets import load_image_folder


def breastmnist(path):
    with np.load(path) as file:
        return [file[f"{split}_{part}"].squeeze() for split in ("train", "test") for part in ("images", "labels")]


def sets(cifar10_path, neu_det, breast):
    """{name: (X_train, y_train, X_test, y_test, parameters of the fit)}."""
    X, y, X_test, y_test = cifar10(cifar10_path)
    some = np.random.default_rng(0).permutation(len(X))[:10_000]
    steel = [a for split in ("train", "test") for a in load_image_folder(Path(neu_det) / split, size=64, mode="L")]
    return {
        "NEU-DET at 64 × 64, 10 epochs": (*steel, {"max_epochs": 10}),
        "BreastMNIST, 60 epochs": (*breastmnist(breast), {"max_epochs": 60}),
        "CIFAR-10, 10,000 images, 6 epochs": (X[some], y[some], X_test, y_test, {"max_epochs": 6}),
    }
