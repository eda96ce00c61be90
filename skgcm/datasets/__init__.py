"""From image files to arrays for ``fit(X, y)``. Nothing is downloaded."""

from skgcm.datasets._folder import list_image_folder, load_image_folder, load_images

__all__ = ["list_image_folder", "load_image_folder", "load_images"]
