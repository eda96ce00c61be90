"""What the encoder reads: each image standardised. The maps multiply the plain image."""

import torch
import torch.nn.functional as F

from skgcm.network.head import mean_over_pixels

EPSILON = 1e-4  # standard deviation of an image in [0, 1] below which it counts as flat


def standardise(images, window=None, regions=None):
    """Subtract from each image its mean and divide by its standard deviation, each one number for all channels.

    Parameters
    ----------
    images : Tensor (B, C, H, W)
    window : tuple of int (h, w), default=None
        In larger images mean and deviation are those of the window of this size around each pixel, moved inside the
        image where it would leave it. None: of the whole image.
    regions : Tensor (B, G, H, W), default=None
        Masks of the parts of a mosaic, 1 inside and 0 outside: each part is standardised for itself.

    Returns
    -------
    Tensor (B, C, H, W)
        Zero for an image that is the same everywhere.
    """
    if images.dtype.itemsize < 4:  # in which the square of EPSILON is 0
        return standardise(images.float(), window, None if regions is None else regions.float()).to(images.dtype)
    if regions is None and window is not None and (images.shape[2] > window[0] or images.shape[3] > window[1]):
        wide = images.double()  # float32 would lose the digits of a small variance in the difference
        mean = _window_means(wide.mean(1, keepdim=True), window)
        variance = _window_means(wide.square().mean(1, keepdim=True), window) - mean.square()
        return (wide - mean).mul((variance.clamp_min(0) + EPSILON**2).rsqrt()).to(images.dtype)
    if regions is None:

        def local_mean(x):
            return mean_over_pixels(x)[:, :, None, None]
    else:
        area = regions.sum((2, 3)).clamp_min(1)  # (B, G)

        def local_mean(x):
            means = torch.einsum("bhw,bghw->bg", x[:, 0], regions) / area
            return torch.einsum("bg,bghw->bhw", means, regions)[:, None]

    centred = images - local_mean(images.mean(1, keepdim=True))
    variance = local_mean(centred.square().mean(1, keepdim=True))
    return centred * (variance + EPSILON**2).rsqrt()


def _window_means(x, window):
    """The mean of a window around each pixel, (B, 1, H, W)."""
    for dim, size in zip((2, 3), window, strict=True):
        n = x.shape[dim]
        size = min(size, n)
        if size == 1:
            continue
        kernel, padding = [(size, 1), (1, size)][dim - 2], [0, 0, 0, 0]
        x = F.avg_pool2d(x, kernel, stride=1)
        # windows that would leave the image are those at its border
        padding[2 * (3 - dim)], padding[2 * (3 - dim) + 1] = (size - 1) // 2, n - x.shape[dim] - (size - 1) // 2
        x = F.pad(x, padding, mode="replicate")
    return x
