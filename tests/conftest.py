import gc
import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the networks here are too small to share


@pytest.fixture(scope="module", autouse=True)
def _quick_garbage_collection():
    """Objects from before a module are not searched for garbage again: with PyTorch that takes 0.3 s each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cifar10():
    """The first images of real CIFAR-10, from the .npz file that SKGCM_CIFAR10 names."""
    import numpy as np

    path = os.environ.get("SKGCM_CIFAR10", "")
    if not Path(path).is_file():
        pytest.skip("needs real images: set SKGCM_CIFAR10 to an .npz file with X_train, y_train, X_test, y_test")
    with np.load(path) as arrays:
        return [arrays[name] for name in ("X_train", "y_train", "X_test", "y_test")]
