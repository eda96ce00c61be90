"""From features at several resolutions to class weight maps and to scores, equations (1) and (4).

Sizes in comments: B images, N classes, G regions of an image, H rows, W columns; h and w those of coarser features
with K channels (of each class where a decoder is not shared); T taps of a kernel; P polarities: 1, or 2 with weights on
1 - image.
"""

import torch
import torch.nn.functional as F
from torch import nn

PIXELS_PER_SUM = 256  # float32 sums over more pixels lose digits (6e-6 for 4,096 in a product with a single row)
CONTRAST = 0.25  # share of the contrast weights in the weights on the image, see ContributionHead


def enlargement(n_out, n_in, like):
    """The matrix (n_out, n_in) of linear interpolation, on the device and in the dtype of `like`."""
    eye = torch.eye(n_in, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(eye, size=n_out, mode="linear", align_corners=False)[0].T


def enlarge(maps, size):
    """Bilinear interpolation of maps (..., h, w) to a size (H, W)."""
    if maps.shape[-2:] == size:
        return maps
    rows, columns = (enlargement(n_out, n_in, maps) for n_out, n_in in zip(size, maps.shape[-2:], strict=True))
    return rows @ maps @ columns.T


def pool(weights, size):
    """The adjoint of :func:`enlarge`: (..., H, W) -> (..., h, w), with <enlarge(m), g> = <m, pool(g)>."""
    if weights.shape[-2:] == size:
        return weights
    rows, columns = (enlargement(n_out, n_in, weights) for n_out, n_in in zip(weights.shape[-2:], size, strict=True))
    return rows.T @ weights @ columns


def weighted_sums(features, weights, kernel):
    """Sums over pixels of the features (B, C, h, w), with weights (B, J, h, w) moved by each tap: (B, J, T, C).

    ``sum(weights_j * conv(features, w))`` is the product of this with the kernel w, mirrored both ways: no map exists.
    """
    if kernel == 3:
        # The tap (i, j) reads the features shifted by (i - 1, j - 1), which equals shifting the weights back: so they
        # are mirrored. (F.unfold is several times slower.)
        windows = F.pad(weights, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, J, h, w, 3, 3), a view
        taps = windows.permute(0, 1, 4, 5, 2, 3).flatten(2, 3)  # (B, J, 9, h, w)
    else:
        taps = weights[:, :, None]
    left = taps.flatten(3).flatten(1, 2)  # (B, J T, h w)
    right = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, h w, C), a view of channels-last features
    n_blocks = -(-left.shape[2] // PIXELS_PER_SUM)
    missing = n_blocks * PIXELS_PER_SUM - left.shape[2]
    if missing and n_blocks > 1:
        left, right = F.pad(left, (0, missing)), F.pad(right, (0, 0, 0, missing))
    left = left.unflatten(2, (n_blocks, -1)).transpose(1, 2)  # (B, blocks, J T, pixels)
    sums = (left @ right.unflatten(1, (n_blocks, -1))).sum(1)
    return sums.unflatten(1, taps.shape[1:3])


def mean_over_pixels(x):
    """Mean over the last two axes, one after the other: no float32 sum is long."""
    return x.mean(-1).mean(-1)


class ContributionHead(nn.Module):
    """A kernel for each class at each resolution, a bias for each class, and the average over the image.

    ``CWM_j = sum over resolutions of enlarge(w_j * features) + b_j``. With two polarities the weights on the image are
    ``common + contrast / 4``, those on 1 - image ``common - contrast / 4``. So a fit starts with weights that do not
    depend on brightness, as in a CNN with average pooling, and learns them as fast as that would.

    Parameters
    ----------
    levels : list of tuple (K, side, groups)
        Features at each resolution, fine to coarse: channels of a class, side of the kernels (1 or 3), and groups: 1,
        or N if every class has its own features.
    n_classes, n_polarities : int
    clip_negative : bool

    Attributes
    ----------
    temperature : float, default=1.0
        What all weights are divided by, and with them maps and scores. A number of inference: it is not in the
        ``state_dict``, and a network is trained at 1.
    """

    temperature = 1.0  # class attribute: networks in old pickles have none

    def __init__(self, levels, n_classes, n_polarities, clip_negative):
        super().__init__()
        self.levels, self.clip_negative = levels, clip_negative  # tuples (K, side, groups)
        self.kernels = nn.ParameterList(
            torch.empty(n_polarities * n_classes, width, side, side) for width, side, _ in levels
        )
        self.bias = nn.Parameter(torch.empty(n_polarities * n_classes))
        self.n_classes, self.n_polarities = n_classes, n_polarities

    @torch.no_grad()
    def reset_parameters(self, generator=None):
        self.bias.zero_()
        for kernels in self.kernels:
            kernels.zero_()
            kernels[: self.n_classes].normal_(0, 0.5 / kernels[0].numel() ** 0.5, generator=generator)

    def extra_repr(self):
        return f"{self.levels}, {self.n_classes}, n_polarities={self.n_polarities}, clip_negative={self.clip_negative}"

    def _on_image(self, weight):
        """Common and contrast weights (P N, ...) -> those on the image and on 1 - image, (P, N, ...)."""
        if self.temperature != 1:  # all maps and all scores get their weights here
            weight = weight / self.temperature
        weight = weight.unflatten(0, (-1, self.n_classes))
        if len(weight) == 1:
            return weight
        common, contrast = weight
        return torch.stack([common + CONTRAST * contrast, common - CONTRAST * contrast])

    def scores(self, features, weights):
        """Equation (4), (B, G, N).

        Parameters
        ----------
        features : list of Tensor (B, C, h, w), fine to coarse
        weights : Tensor (B, P, G, H, W)
            What the maps are multiplied with, the image or 1 - image in each region, divided by the region's size.
        """
        size = weights.shape[-2:]
        if self.clip_negative:
            products = self._maps(features, size)[:, :, None] * weights[:, :, :, None]  # (B, P, G, N, H, W)
            return products.sum(-1).sum(-1).sum(1)
        # The convolution and the average are both linear, so they can change places: average the features against the
        # image first, and no N x H x W tensor exists.
        total = mean_over_pixels(weights).transpose(1, 2) @ self._on_image(self.bias) * (size[0] * size[1])  # (B, G, N)
        for feature, kernels, (_, side, groups) in zip(features, self.kernels, self.levels, strict=True):
            sums = weighted_sums(feature, pool(weights.flatten(1, 2), tuple(feature.shape[2:])), side)
            sums = sums.unflatten(1, weights.shape[1:3])  # (B, P, G, T, C)
            mirrored = self._on_image(kernels).flip(3, 4).flatten(3)  # (P, N, K, T)
            if groups > 1:
                own = sums.unflatten(4, (groups, -1))  # (B, P, G, T, N, K)
                total = total + torch.einsum("bpgtnk,pnkt->bgn", own, mirrored)
            else:
                flat = sums.transpose(1, 2).flatten(2)  # (B, G, P T K)
                total = total + flat @ mirrored.permute(0, 3, 2, 1).flatten(0, 2)
        return total

    def weight_maps(self, features, size, classes=None):
        """Equation (1), (B, P, k, H, W), of the classes (B, k) asked for image by image, or of all N."""
        return self._maps(features, size) if classes is None else self._chosen_maps(features, size, classes)

    def mean_map(self, features, size):
        """The mean of the weight maps of all N classes, (B, P, H, W)."""
        if self.clip_negative:
            return self._maps(features, size).mean(2)
        total = self._on_image(self.bias).mean(1)[:, None, None]
        for feature, kernels, (_, side, groups) in zip(features, self.kernels, self.levels, strict=True):
            kernels = self._on_image(kernels)
            mean = kernels.mean(1) if groups == 1 else kernels.flatten(1, 2) / groups  # (P, C, side, side)
            total = total + enlarge(F.conv2d(feature, mean, padding=side // 2), size)
        return total

    def _maps(self, features, size):
        total = self._on_image(self.bias)[:, :, None, None]
        for feature, kernels, (_, side, groups) in zip(features, self.kernels, self.levels, strict=True):
            kernels = self._on_image(kernels).transpose(0, 1).flatten(0, 1)  # (N P, K, side, side), class by class
            maps = F.conv2d(feature, kernels, padding=side // 2, groups=groups)
            maps = maps.unflatten(1, (self.n_classes, -1)).transpose(1, 2)  # (B, P, N, h, w)
            total = total + enlarge(maps, size)
        return total.relu() if self.clip_negative else total

    def _chosen_maps(self, features, size, classes):
        n_images, k = classes.shape
        total = self._on_image(self.bias)[:, classes].transpose(0, 1)[..., None, None]  # (B, P, k, 1, 1)
        for feature, kernels, (_, side, groups) in zip(features, self.kernels, self.levels, strict=True):
            chosen = self._on_image(kernels)[:, classes]  # (P, B, k, K, side, side)
            chosen = chosen.permute(1, 2, 0, 4, 5, 3)  # (B, k, P, side, side, K)
            if groups > 1:
                own = feature.unflatten(1, (groups, -1))  # (B, N, K, h, w)
                own = own[torch.arange(n_images, device=own.device)[:, None], classes].flatten(3)  # (B, k, K, h w)
            else:
                own = feature.flatten(2)[:, None]  # (B, 1, K, h w)
            if side == 3:  # each pixel of the features adds to nine of the map
                taps = chosen.flip(3, 4).flatten(2, 4) @ own  # (B, k, P T, h w)
                small = F.fold(taps.flatten(1, 2), tuple(feature.shape[2:]), 3, padding=1)  # (B, k P, h, w)
            else:
                small = (chosen.flatten(2, 4) @ own).flatten(1, 2).unflatten(2, tuple(feature.shape[2:]))
            total = total + enlarge(small.unflatten(1, (k, -1)).transpose(1, 2), size)
        return total.relu() if self.clip_negative else total
