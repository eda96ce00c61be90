"""What the GCM network is built of: convolution blocks, upsampling, encoder (layers 1 to 10), decoder (11 to 14)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def _stride_2(conv, x, **options):
    """A convolution of stride 2, in float32 where bfloat16 has no whole gradient.

    From features of one column, PyTorch 2.13's oneDNN leaves parts of the weights' gradient in bfloat16 unwritten.
    """
    if x.shape[3] > 1 or x.device.type != "cpu":
        return conv(x, **options)
    with torch.autocast("cpu", enabled=False):
        return conv(x.to(conv.weight.dtype), **options)


def empty(convolution, *args, **kwargs):
    """A convolution without bias whose weights are not drawn, on the device of a `with torch.device(...)` block."""
    return nn.utils.skip_init(convolution, *args, bias=False, device=torch.get_default_device(), **kwargs)


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU. The convolution has no bias: batch norm brings its own."""

    fused = False  # whether, in training on CUDA, batch norm and ReLU are those of skgcm.norm_relu

    def __init__(self, n_in, n_out, *, kernel=3, stride=1, groups=1):
        conv = empty(nn.Conv2d, n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups)
        super().__init__(conv, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))

    def forward(self, x):
        conv = self[0]
        return self.activated(_stride_2(conv, x) if conv.stride == (2, 2) else conv(x))

    def activated(self, x):
        """Batch norm and ReLU."""
        _, norm, relu = self
        if self.fused and self.training and norm.training and x.is_cuda:
            from skgcm import norm_relu  # here, since it needs Triton

            if norm_relu.takes(x):
                return norm_relu.norm_relu(x, norm)
        return relu(norm(x))

    def fold(self):
        """Absorb batch norm, as it acts in evaluation, into the convolution. In place."""
        conv, norm = self[0], self[1]
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight, bias = conv.weight.double(), norm.bias.double() - norm.running_mean.double() * scale
        if isinstance(conv, nn.ConvTranspose2d):  # weight: (n_in, n_out / groups, 3, 3), groups along n_in
            by_group = weight.unflatten(0, (conv.groups, -1)) * scale.view(conv.groups, 1, -1, 1, 1)
            weight = by_group.flatten(0, 1)
        else:
            weight = weight * scale.view(-1, 1, 1, 1)
        conv.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
        self[1] = nn.Identity()


def fuse_norms(network):
    """Let the network's blocks train batch norm and ReLU by the kernels of :mod:`skgcm.norm_relu`."""
    try:
        import skgcm.norm_relu  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "net_params={'fused_norm': True} needs Triton, which comes with PyTorch for CUDA on Linux. Install it, or "
            f"fit without fused_norm. {error}"
        ) from error
    for module in network.modules():
        if isinstance(module, ConvBlock):
            module.fused = True


class NearestUp(ConvBlock):
    """Nearest-neighbour upsampling to a given size, then a :class:`ConvBlock`."""

    def forward(self, x, size):
        conv = self[0]
        if size != (2 * x.shape[2], 2 * x.shape[3]):  # an odd size, which doubling overshoots
            return super().forward(F.interpolate(x, size=size, mode="nearest"))
        # On doubled pixels a 3x3 kernel reads each pixel up to four times. A stride-2 deconvolution by the kernel's
        # sums over 2x2 windows, 4x4 of them, gives the same for 16 products instead of 36, and the enlarged features
        # never exist.
        # (Means times four, and not divisor_override=1: PyTorch's ONNX exporter ignores that without a word.)
        windows = 4 * F.avg_pool2d(conv.weight.flip(2, 3), 2, stride=1, padding=1)
        kernel = windows.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)  # (n_in, n_out / groups, 4, 4)
        return self.activated(F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1, groups=conv.groups))


class DeconvolutionUp(ConvBlock):
    """Stride-2 deconvolution to a given size. Leaves a 2-pixel lattice in the maps; kept because the paper uses it."""

    def __init__(self, n_in, n_out, *, groups=1):
        super().__init__(n_in, n_out, groups=groups)
        self[0] = empty(nn.ConvTranspose2d, n_in, n_out, 3, stride=2, padding=1, groups=groups)

    def forward(self, x, size):
        return self.activated(_stride_2(self[0], x, output_size=size))


class Encoder(nn.Module):
    """Layers 1 to 10: stages of three convolutions, each stage after the first at half the size and twice the width."""

    def __init__(self, in_channels, width, n_stages):
        super().__init__()
        widths = [in_channels] + [width * 2**i for i in range(n_stages)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvBlock(n_in, n_out, stride=1 if i == 0 else 2),
                ConvBlock(n_out, n_out),
                ConvBlock(n_out, n_out),
            )
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        )
        self.out_channels = widths[-1]
        self.mix = ConvBlock(self.out_channels, self.out_channels, kernel=1)

    def forward(self, x):
        """Features, and the size (R, C) that each stage but the last returned: the decoder goes back through them."""
        sizes = []
        for stage in self.stages:
            x = stage(x)
            sizes.append(x.shape[2:])
        return self.mix(x), sizes[:-1]


class Decoder(nn.Module):
    """Layers 11 to 14: stages of an upsampling and a plain convolution. With groups > 1, that many decoders abreast."""

    def __init__(self, in_channels, width, n_stages, upsampling, groups):
        super().__init__()
        up = {"nearest": NearestUp, "deconvolution": DeconvolutionUp}[upsampling]
        widths = [groups * width * 2**i for i in reversed(range(n_stages - 1))]
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList()
        for i, (n_in, n_out) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            # every group reads the same encoder output, so the first layer is an ordinary convolution
            self.ups.append(up(n_in, n_out, groups=1 if i == 0 else groups))
            self.convs.append(ConvBlock(n_out, n_out, groups=groups))

    def forward(self, x, sizes):
        for up, conv, size in zip(self.ups, self.convs, reversed(sizes), strict=True):
            x = conv(up(x, size))
        return x
