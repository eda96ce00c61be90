"""Blocks of the encoders and decoders: convolution and upsampling."""

import torch
import torch.nn.functional as F
from torch import nn

LEAK = 0.1  # slope of LeakyReLU: a unit that is negative for all images still has a gradient, so no layer can die


def _stride_2(conv, x, **options):
    """A convolution of stride 2, in float32 if the gradient in bfloat16 would be incomplete.

    For features of one column, PyTorch 2.13's oneDNN does not write parts of the weights' gradient in bfloat16.
    """
    if x.shape[3] > 1 or x.device.type != "cpu":
        return conv(x, **options)
    with torch.autocast("cpu", enabled=False):
        return conv(x.to(conv.weight.dtype), **options)


def conv_without_init(convolution, *args, **kwargs):
    """A convolution without bias whose weights are not drawn, on the device of a `with torch.device(...)` block."""
    return nn.utils.skip_init(convolution, *args, bias=False, device=torch.get_default_device(), **kwargs)


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, activation. The convolution has no bias, because batch norm has one."""

    def __init__(self, n_in, n_out, *, kernel=3, stride=1, groups=1, activation=None):
        conv = conv_without_init(nn.Conv2d, n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups)
        super().__init__(conv, nn.BatchNorm2d(n_out), activation or nn.ReLU(inplace=True))

    def forward(self, x):
        conv = self[0]
        return self.norm_act(_stride_2(conv, x) if conv.stride == (2, 2) else conv(x))

    def norm_act(self, x):
        """Batch norm and activation."""
        _, norm, activation = self
        return activation(norm(x))

    def fuse_bn(self):
        """Fuse batch norm in evaluation mode into the convolution, in place."""
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


class LeakyConvBlock(ConvBlock):
    """A :class:`ConvBlock` with LeakyReLU."""

    def __init__(self, n_in, n_out, **options):
        super().__init__(n_in, n_out, activation=nn.LeakyReLU(LEAK, inplace=True), **options)


class Residual(nn.Module):
    """Residual block: two 3x3 convolutions, added to the identity (He et al., CVPR 2016)."""

    def __init__(self, width):
        super().__init__()
        self.convs = nn.Sequential(LeakyConvBlock(width, width), ConvBlock(width, width, activation=nn.Identity()))
        self.activation = nn.LeakyReLU(LEAK, inplace=True)

    def forward(self, x):
        return self.activation(x + self.convs(x))


class NearestUp(ConvBlock):
    """Nearest-neighbour upsampling to a given size, then a :class:`ConvBlock`."""

    def forward(self, x, size):
        conv = self[0]
        if size != (2 * x.shape[2], 2 * x.shape[3]):  # an odd size, which doubling overshoots
            return super().forward(F.interpolate(x, size=size, mode="nearest"))
        # On doubled pixels a 3x3 kernel reads each pixel up to four times. A stride-2 deconvolution with the kernel's
        # sums over 2x2 windows, 4x4 of them, gives the same with 16 products instead of 36, and needs no memory for
        # the enlarged features.
        # (Means times four, and not divisor_override=1: PyTorch's ONNX exporter silently ignores that.)
        windows = 4 * F.avg_pool2d(conv.weight.flip(2, 3), 2, stride=1, padding=1)
        kernel = windows.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)  # (n_in, n_out / groups, 4, 4)
        return self.norm_act(F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1, groups=conv.groups))


class DeconvolutionUp(ConvBlock):
    """Stride-2 deconvolution to a given size. Leaves a 2-pixel lattice in the maps; kept because the paper uses it."""

    def __init__(self, n_in, n_out, *, groups=1):
        super().__init__(n_in, n_out, groups=groups)
        self[0] = conv_without_init(nn.ConvTranspose2d, n_in, n_out, 3, stride=2, padding=1, groups=groups)

    def forward(self, x, size):
        return self.norm_act(_stride_2(self[0], x, output_size=size))
