"""Standardise images for the encoder. The maps multiply the plain image."""

import torch
import torch.nn.functional as F

from skgcm.network.head import mean_over_pixels

EPSILON = 1e-4  # standard deviation of an image in [0, 1] below which it counts as flat
ITERATIONS = 3
REACH = 2  # standard deviations from the mean at which a pixel counts exp(-1/2) of one at the mean
MIN_SHARE = 0.1  # minimum share of the plain variance, for images that are flat except for a few pixels


def standardise(images, window=None, regions=None):
    """Subtract from each image its mean and divide by its standard deviation, each one number for all channels.

    Both are robust: pixels far from the mean count little. Otherwise a small defect would change the mean and the
    deviation, and so every pixel of the image: the encoder could see it everywhere, and the evidence for it could lie
    anywhere.

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

    Notes
    -----
    Welsch's M-estimator by iteratively reweighted least squares: a pixel at d deviations from the mean has the weight
    ``exp(-d^2 / 8)``, in three iterations. In larger images d is by the window around that pixel.
    """
    if images.dtype.itemsize < 4:  # the square of EPSILON is 0 in half precision
        return standardise(images.float(), window, None if regions is None else regions.float()).to(images.dtype)
    windows = regions is None and window is not None and (images.shape[2] > window[0] or images.shape[3] > window[1])
    if windows:

        def local_mean(values):
            return _window_means(values, window)
    elif regions is None:

        def local_mean(values):
            return mean_over_pixels(values)[:, :, None, None]
    else:
        area = regions.sum((2, 3)).clamp_min(1)  # (B, G)

        def local_mean(values):
            means = torch.einsum("bhw,bghw->bg", values[:, 0], regions) / area
            return torch.einsum("bg,bghw->bhw", means, regions)[:, None]

    # the square of the mean, subtracted from that of the values, must not take the digits of a small variance with it
    x = images.double() if windows else images - local_mean(images.mean(1, keepdim=True))
    grey, square = x.mean(1, keepdim=True), x.square().mean(1, keepdim=True)  # (B, 1, H, W)
    mean = local_mean(grey)
    total = variance = (local_mean(square) - mean.square()).clamp_min(0)
    for _ in range(ITERATIONS):
        distance = (square - 2 * mean * grey + mean.square()) / variance.clamp_min(EPSILON**2)
        weights = torch.exp(distance / (-2 * REACH**2))
        norm = local_mean(weights).clamp_min(torch.finfo(x.dtype).tiny)
        mean = local_mean(weights * grey) / norm
        variance = torch.maximum(local_mean(weights * square) / norm - mean.square(), MIN_SHARE * total)
    # not + EPSILON**2, which the exporter to ONNX takes for 0
    return ((x - mean) * variance.clamp_min(EPSILON**2).rsqrt()).to(images.dtype)


def _window_means(x, window):
    """The mean of a window around each pixel, (B, 1, H, W)."""
    for dim, size in zip((2, 3), window, strict=True):
        n = x.shape[dim]
        size = min(size, n)
        if size == 1:
            continue
        padding = [0, 0, 0, 0]
        x = _window_sums(x, dim, size) / size
        # windows that would leave the image are those at its border
        padding[2 * (3 - dim)], padding[2 * (3 - dim) + 1] = (size - 1) // 2, n - x.shape[dim] - (size - 1) // 2
        x = F.pad(x, padding, mode="replicate")
    return x


def _window_sums(x, dim, size):
    """The sums of each `size` neighbours along an axis, which gets shorter by `size - 1`.

    From sums of 1, 2, 4, ... neighbours, so that the time hardly depends on `size`, as it does in average pooling. No
    sum is a difference of longer ones: that would lose digits, and a sum of positive numbers could be negative.
    """
    n, width, start, total = x.shape[dim] - size + 1, 1, 0, 0
    while True:
        if size & width:
            total = total + x.narrow(dim, start, n)
            start += width
        width *= 2
        if width > size:
            return total
        n_sums = x.shape[dim] - width // 2
        x = x.narrow(dim, 0, n_sums) + x.narrow(dim, width // 2, n_sums)
