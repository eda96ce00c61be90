"""From a fitted network to arrays: batches of bounded memory, IEEE float32, batch norm fused."""

import math
from contextlib import contextmanager

import numpy as np
import torch

from skgcm.inputs.files import read_ahead
from skgcm.utils.torch_state import fork_safe, ieee_float32

FLOATS_PER_BATCH = 2**22  # activations alive at once, per layer: 16 MB keep a processor's cache busy without spilling
GPU_BATCH_FACTOR = 64  # a GPU wants this many times more in a batch
FAINT = 1e-3  # contrast and sharpness, of 1, below which differences are none
QUANTILES = 0.02, 0.25, 0.5, 0.75, 0.98  # of the grey values of an image
SORTED = 4096  # pixels, about, for that
MIN_PIXELS = 256  # pixels: batches of fewer meet special kernels


@contextmanager
def prepared(network):
    """The network as it is best asked, in a context where its sums are exact to rounding. Nothing is kept."""
    device = next(network.parameters()).device.type
    with ieee_float32[device], torch.inference_mode(), torch.autocast(device, enabled=False):
        yield network.fused().to(memory_format=torch.channels_last)


def batches(network, image_format, X_flat, floats=0):
    """Batches of rows that, with so many floats a pixel beside the network's own, stay within a fixed memory.

    Yields where a batch belongs, a slice of 0 .. n, which rows it is made of, an index array, and these rows: those of
    the slice, and the last of them again where these are too few. Libraries compute a lone image with other kernels
    than two, and round otherwise: with company, an image has the same scores alone as in any batch, on the processor.
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
    if device.type == "mps":  # which has no float64, to scale with
        return image_format.images(X_flat).to(device)
    return image_format.images(X_flat.to(device))


@fork_safe
def scores(network, image_format, X_flat):
    """float32 (n, N), the scores of all classes. X_flat : ndarray (n, R * C * D), any dtype, or ImageFiles."""
    return scores_and_descriptions(network, image_format, X_flat, described=False)[0]


@fork_safe
def scores_and_descriptions(network, image_format, X_flat, described=True):
    """Scores, and float32 (n, P) what :mod:`skgcm.typicality` compares images by, or None."""
    out, descriptions = np.empty((len(X_flat), network.n_classes), np.float32), []
    with prepared(network) as fused:
        for part, _, piece in batches(fused, image_format, X_flat):
            images = _images(fused, image_format, piece)
            features = fused.features(images)
            n = part.stop - part.start
            out[part] = fused(images, features=features)[:n].cpu().numpy()
            if described:
                descriptions.append(_describe(images, features, fused.head.levels)[:n].cpu().numpy())
    return out, np.concatenate(descriptions) if described else None


def n_described(network, n_channels):
    """How many numbers describe an image, see :func:`scores_and_descriptions`."""
    levels = network.head.levels
    return sum(width for width, _, _ in levels[:-1] or levels) + n_channels + 5 + len(QUANTILES)


def _describe(images, features, levels):
    """Features of all resolutions but the coarsest, averaged over the image, and simple statistics of it: (B, P).

    The coarsest know the classes, and an image of another kind looks to them like one of these.
    """
    pooled = []
    for feature, (_, _, groups) in zip(features[:-1] or features, levels[:-1] or levels, strict=True):
        mean = feature.mean((2, 3))
        # of decoders that are not shared, a thousand classes would have too many
        pooled.append(mean if groups == 1 else mean.unflatten(1, (groups, -1)).mean(1))
    grey = images.mean(1)
    changes = [grey.diff(n, dim=axis).abs().flatten(1).mean(1) for n in (1, 2) for axis in (1, 2)]
    spreads = torch.stack([grey.flatten(1).std(1, correction=0), *changes], 1)
    step = max(1, math.isqrt(grey[0].numel() // SORTED))  # not all pixels of a large image
    values = torch.quantile(grey[:, ::step, ::step].flatten(1), grey.new_tensor(QUANTILES), dim=1).T
    return torch.cat([*pooled, images.mean((2, 3)), (spreads + FAINT).log(), values], 1)


@fork_safe
def evidence(network, image_format, X_flat, classes=None):
    """What an :class:`skgcm.explanation.Explanation` is made of, but for classes as positions.

    Parameters
    ----------
    X_flat : ndarray (n, R * C * D), any dtype, or ImageFiles
    classes : int64 array (n, k), int k for the k classes of highest score, or None for all N in order

    Returns
    -------
    dict of ndarray
        images (n, R, C, D), scores (n, k), cwm (n, k, R, C), cwm_mean (n, R, C) and, where the polarity is both,
        cwm_dark and cwm_dark_mean likewise, all float32; classes (n, k), int64.
    """
    n, (n_rows, n_columns, n_channels) = len(X_flat), image_format.shape
    per_image = isinstance(classes, np.ndarray)
    k = classes.shape[1] if per_image else classes or network.n_classes
    names = ("cwm", "cwm_dark")[: network.head.n_polarities]
    floats = len(names) * (k if classes is None else 10 * k)  # chosen maps of 3x3 kernels have nine shifts
    shapes = {"images": (n, n_rows, n_columns, n_channels), "scores": (n, k), "classes": (n, k)}
    for name in names:
        shapes |= {name: (n, k, n_rows, n_columns), f"{name}_mean": (n, n_rows, n_columns)}
    out = {name: np.empty(shape, np.int64 if name == "classes" else np.float32) for name, shape in shapes.items()}
    with prepared(network) as fused:
        for part, index, piece in batches(fused, image_format, X_flat, floats):
            batch = _images(fused, image_format, piece)
            wanted = torch.from_numpy(classes[index]).to(batch.device) if per_image else classes
            scores, chosen, cwm, mean = fused.evidence(batch, wanted)
            found = {"images": batch.permute(0, 2, 3, 1), "scores": scores.gather(1, chosen), "classes": chosen}
            for i, name in enumerate(names):
                found |= {name: cwm[:, i], f"{name}_mean": mean[:, i]}
            for name, array in out.items():  # PyTorch reorders faster than NumPy
                torch.from_numpy(array[part]).copy_(found[name][: part.stop - part.start])
    return out
