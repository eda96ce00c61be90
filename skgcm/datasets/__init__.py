"""Files to arrays: the first step from pictures on a disk to ``fit(X, y)``. Nothing here downloads anything."""

from skgcm.datasets._folder import load_image_folder, load_images
from skgcm.datasets._official import load_cifar10, load_npz, load_svhn

__all__ = ["load_cifar10", "load_image_folder", "load_images", "load_npz", "load_svhn"]
