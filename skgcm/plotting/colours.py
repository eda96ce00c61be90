"""Colours of signed contributions, and pictures in them as arrays. Needs no matplotlib."""

from numbers import Real

import numpy as np

PERCENTILE = 99.5  # of contributions that are not zero: with the maximum, a few pixels would make all others pale
# ColorBrewer's RdBu, which colour-blind people can read, with white as its centre
BLUES = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0"]
REDS = ["#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"]
SIGNED = [*BLUES, "#ffffff", *REDS]
FOR, AGAINST = REDS[2], BLUES[2]  # colours of a layer: medium, so that they differ from dark and bright images


def _rgb(colours):
    """Colours "#rrggbb" as float64 (m, 3), 0 .. 255."""
    return np.array([list(bytes.fromhex(colour[1:])) for colour in colours], dtype=np.float64)


def common_scale(values):
    """The magnitude at which the colours end: robust to outliers, and positive even if nothing contributes."""
    magnitudes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(magnitudes, PERCENTILE)) if magnitudes.size else 1.0


def checked_scale(scale, values):
    """`scale` as float, or the common scale of the values where it is None. Raises ValueError."""
    if scale is None:
        return common_scale(values)
    if not isinstance(scale, Real) or isinstance(scale, bool) or not 0 < scale < np.inf:
        raise ValueError(f"scale={scale!r} must be a positive finite number, in units of contributions.")
    return float(scale)


def _with_alpha(rgb, alpha, known):
    """Float arrays (..., 3) and (...), 0 .. 255 -> uint8 (..., 4), all 0 where `known` is False."""
    rgba = np.concatenate([rgb, np.broadcast_to(alpha, rgb.shape[:-1])[..., None]], axis=-1)
    return np.where(known[..., None], np.rint(rgba), 0).astype(np.uint8)


def picture(values, intensity, kind, scale, colours=(FOR, AGAINST)):
    """What :meth:`skgcm.Explanation.to_images` returns.

    Parameters
    ----------
    values : ndarray (n, k, R, C)
        Contributions.
    intensity : ndarray (n, R, C)
        The images in grey, 0 .. 1.
    kind : {"map", "layer", "overlay"}
    scale : float
        Magnitude of full colour.
    colours : pair of str "#rrggbb"
        Of layers and overlays: of contributions above 0, and below.

    Returns
    -------
    uint8 ndarray (n, k, R, C, 4)
    """
    known = ~np.isnan(values)
    share = np.clip(np.where(known, values, 0) / scale, -1, 1).astype(np.float64)
    if kind == "map":
        places, anchors = np.linspace(-1, 1, len(SIGNED)), _rgb(SIGNED)
        rgb = np.stack([np.interp(share, places, anchors[:, channel]) for channel in range(3)], axis=-1)
        return _with_alpha(rgb, 255, known)
    rgb = np.where((share > 0)[..., None], *_rgb(colours))
    weight = np.abs(share)
    if kind == "layer":
        return _with_alpha(rgb, 255 * weight, known)
    grey = 255 * np.clip(np.nan_to_num(intensity), 0, 1)[:, None, ..., None]  # (n, 1, R, C, 1)
    return _with_alpha(grey + weight[..., None] * (rgb - grey), 255, known)
