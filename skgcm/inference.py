"""From a fitted network to arrays: batches of limited memory, IEEE float32, batch norm fused."""

import math
from contextlib import contextmanager

import numpy as np
import torch

from skgcm.inputs.files import read_ahead
from skgcm.utils.torch_state import fork_safe, ieee_float32

FLOATS_PER_BATCH = 2**22  # activations in memory at once, per layer: 16 MB fit into a processor's cache
GPU_BATCH_FACTOR = 64  # a batch on a GPU has this many times more
FAINT = 1e-3  # smaller differences of contrast and sharpness do not count; the value range is 1
QUANTILES = 0.02, 0.25, 0.5, 0.75, 0.98  # of the grey values of an image
SORTED = 4096  # pixels, about, from which these quantiles are computed
MIN_PIXELS = 256  # libraries use special kernels for batches of fewer pixels


@contextmanager
def prepared(network):
    """Context that gives the network fused for inference; in it, sums are exact to float32 rounding."""
    device = next(network.parameters()).device.type
    with ieee_float32[device], torch.inference_mode(), torch.autocast(device, enabled=False):
        yield network.fused().to(memory_format=torch.channels_last)


def batches(network, image_format, X_flat, floats=0):
    """Batches of rows within a fixed memory. `floats` are kept for each pixel in addition to the network's own.

    Yields the position of a batch, a slice of 0 .. n; the indices of its rows, an array; and these rows. They are the
    rows of the slice, padded by repeating the last one if they are too few. Libraries use other kernels for one image
    than for two, which round differently. With padding, an image on the CPU has the same scores alone as in any batch.
    """
    n, pixels = len(X_flat), image_format.shape[0] * image_format.shape[1]
    budget = FLOATS_PER_BATCH // (network.floats_per_pixel + floats)
    if next(network.parameters()).device.type == "cuda":
        budget *= GPU_BATCH_FACTOR
    size = max(1, budget // pixels)
    min_size = min(size, max(2, math.ceil(MIN_PIXELS / pixels)))

    def read(start):
        stop = min(start + size, n)
        index = np.minimum(np.arange(start, max(stop, start + min_size)), stop - 1)
        return slice(start, stop), index, X_flat[index]

    return read_ahead(X_flat, read, range(0, n, size))


def _images(network, image_format, X_flat):
    X_flat, device = torch.from_numpy(X_flat), next(network.parameters()).device
    if device.type == "mps":  # it has no float64, which scaling can need
        return image_format.images(X_flat).to(device)
    return image_format.images(X_flat.to(device))


@fork_safe
def scores(network, image_format, X_flat):
    """float32 (n, N), the scores of all classes. X_flat : ndarray (n, R * C * D), any dtype, or ImageFiles."""
    return scores_and_descriptions(network, image_format, X_flat, described=False)[0]


@fork_safe
def scores_and_descriptions(network, image_format, X_flat, described=True):
    """Scores, and the descriptions float32 (n, P) by which :mod:`skgcm.typicality` compares images, or None."""
    out, descriptions = np.empty((len(X_flat), network.n_classes), np.float32), []
    with prepared(network) as fused:
        for part, _, piece in batches(fused, image_format, X_flat):
            images = _images(fused, image_format, piece)
            features = fused.features(images)
            n = part.stop - part.start
            out[part] = fused(images, features=features)[:n].cpu().numpy()
            if described:
                descriptions.append(describe(images, features, fused.head.levels)[:n].cpu().numpy())
    return out, np.concatenate(descriptions) if described else None


def n_described(network, n_channels):
    """The length P of a description, see :func:`scores_and_descriptions`."""
    levels = network.head.levels
    return sum(width for width, _, _ in levels[:-1] or levels) + n_channels + 5 + len(QUANTILES)


def describe(images, features, levels):
    """Features of all resolutions but the coarsest, averaged over the image, and simple statistics of it: (B, P).

    The coarsest features are specific to the classes: for them an image of another kind looks like one of the classes.
    """
    pooled = []
    for feature, (_, _, groups) in zip(features[:-1] or features, levels[:-1] or levels, strict=True):
        mean = feature.mean((2, 3))
        # without a shared decoder, each class has features: their mean keeps the description short
        pooled.append(mean if groups == 1 else mean.unflatten(1, (groups, -1)).mean(1))
    grey = images.mean(1)
    changes = [grey.diff(n, dim=axis).abs().flatten(1).mean(1) for n in (1, 2) for axis in (1, 2)]
    spreads = torch.stack([grey.flatten(1).std(1, correction=0), *changes], 1)
    step = max(1, math.isqrt(grey[0].numel() // SORTED))  # not all pixels of a large image
    values = torch.quantile(grey[:, ::step, ::step].flatten(1), grey.new_tensor(QUANTILES), dim=1).T
    return torch.cat([*pooled, images.mean((2, 3)), (spreads + FAINT).log(), values], 1)


@fork_safe
def evidence(network, image_format, X_flat, classes=None):
    """The arrays of a :class:`skgcm.explanation.Explanation`, with classes as positions.

    Parameters
    ----------
    X_flat : ndarray (n, R * C * D), any dtype, or ImageFiles
    classes : int64 array (n, k), an int k for the k classes of highest score, or None for all N in order

    Returns
    -------
    dict of ndarray
        images (n, R, C, D), scores and probabilities (n, k), cwm (n, k, R, C), cwm_mean (n, R, C) and, with polarity
        "both", cwm_dark and cwm_dark_mean in the same shapes, all float32; classes (n, k), int64.
    """
    n, (n_rows, n_columns, n_channels) = len(X_flat), image_format.shape
    per_image = isinstance(classes, np.ndarray)
    k = classes.shape[1] if per_image else classes or network.n_classes
    names = ("cwm", "cwm_dark")[: network.head.n_polarities]
    floats = len(names) * (k if classes is None else 10 * k)  # maps of chosen classes need nine shifts for 3x3 kernels
    shapes = {"images": (n, n_rows, n_columns, n_channels), "scores": (n, k), "classes": (n, k)}
    shapes["probabilities"] = (n, k)
    for name in names:
        shapes |= {name: (n, k, n_rows, n_columns), f"{name}_mean": (n, n_rows, n_columns)}
    out = {name: np.empty(shape, np.int64 if name == "classes" else np.float32) for name, shape in shapes.items()}
    with prepared(network) as fused:
        for part, index, piece in batches(fused, image_format, X_flat, floats):
            batch = _images(fused, image_format, piece)
            wanted = torch.from_numpy(classes[index]).to(batch.device) if per_image else classes
            scores, chosen, cwm, mean = fused.evidence(batch, wanted)
            found = {"images": batch.permute(0, 2, 3, 1), "scores": scores.gather(1, chosen), "classes": chosen}
            found["probabilities"] = scores.softmax(dim=1).gather(1, chosen)
            for i, name in enumerate(names):
                found |= {name: cwm[:, i], f"{name}_mean": mean[:, i]}
            for name, array in out.items():  # PyTorch reorders faster than NumPy
                torch.from_numpy(array[part]).copy_(found[name][: part.stop - part.start])
    return out
