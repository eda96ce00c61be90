"""Files to arrays: the first step from pictures on a disk to ``fit(X, y)``. Nothing here downloads anything."""

from skgcm.datasets._folder import list_image_folder, load_image_folder, load_images

__all__ = ["list_image_folder", "load_image_folder", "load_images"]
