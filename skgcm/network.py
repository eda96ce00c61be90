"""The GCM network in plain PyTorch: encoder, decoder and contribution head, equations (1) to (7).

Nothing here knows scikit-learn or skorch. :class:`GCM` can be used on its own::

    scores = network(images)              # (B, N)
    cwm = network.weight_maps(images)     # (B, N, R, C); (cwm * images.mean(1, keepdim=True)).mean((2, 3)) == scores

Sizes in comments: B images, N classes, D channels of an image, R rows, C columns, K channels of the last features.
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

UPSAMPLING = ("nearest", "deconvolution")


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU. The convolution has no bias: batch norm brings its own."""

    def __init__(self, n_in, n_out, *, kernel=3, stride=1, groups=1):
        conv = nn.utils.skip_init(
            nn.Conv2d, n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        super().__init__(conv, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))

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


class NearestUp(ConvBlock):
    """Nearest-neighbour upsampling to a given size, then a :class:`ConvBlock`."""

    def forward(self, x, size):
        conv, norm, relu = self
        if size != (2 * x.shape[2], 2 * x.shape[3]):  # an odd size, which doubling overshoots
            return super().forward(F.interpolate(x, size=size, mode="nearest"))
        # On doubled pixels a 3x3 kernel reads each pixel up to four times. A stride-2 deconvolution by the kernel's
        # sums over 2x2 windows, 4x4 of them, gives the same for 16 products instead of 36, and the enlarged features
        # never exist.
        windows = F.avg_pool2d(conv.weight.flip(2, 3), 2, stride=1, padding=1, divisor_override=1)
        kernel = windows.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)  # (n_in, n_out / groups, 4, 4)
        return relu(norm(F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1, groups=conv.groups)))


class DeconvolutionUp(ConvBlock):
    """Stride-2 deconvolution to a given size. Leaves a 2-pixel lattice in the maps; kept because the paper uses it."""

    def __init__(self, n_in, n_out, *, groups=1):
        super().__init__(n_in, n_out, groups=groups)
        self[0] = nn.utils.skip_init(nn.ConvTranspose2d, n_in, n_out, 3, stride=2, padding=1, groups=groups, bias=False)

    def forward(self, x, size):
        conv, norm, relu = self
        return relu(norm(conv(x, output_size=size)))


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


class ContributionHead(nn.Module):
    """Layer 15 and the average: one 3x3 kernel and one bias per class, from features to maps and to scores.

    Features are (B, K, R, C), or (B, N * K, R, C) where every class has a decoder of its own (``shared=False``).
    """

    def __init__(self, n_features, n_classes, shared, clip_negative):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, n_features, 3, 3))  # (N, K, 3, 3)
        self.bias = nn.Parameter(torch.empty(n_classes))
        self.shared, self.clip_negative = shared, clip_negative

    def extra_repr(self):
        n, k = self.weight.shape[:2]
        return f"{k}, {n}, shared={self.shared}, clip_negative={self.clip_negative}"

    def scores(self, features, grey):
        """Equation (4), (B, N), from features and the channel mean of the images, ``grey`` (B, R, C)."""
        if not self.shared or self.clip_negative:
            cwm = self.weight_maps(features)
            return torch.bmm(cwm.flatten(2), grey.flatten(1)[:, :, None])[:, :, 0] / grey[0].numel()
        # Layer 15 and the average are both linear, so they can change places: average the features' nine shifts
        # against the image first, T (B, 9, K), and no N x R x C tensor exists. The tap (dy, dx) reads the features
        # (dy - 1, dx - 1) further on, which is the image that far back: hence the flip. (F.unfold would do, but several
        # times slower.)
        windows = F.pad(grey, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (B, R, C, 3, 3), a view
        shifts = windows.permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2)  # (B, 9, R C)
        pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, R C, K), a view of channels-last features
        taps = torch.bmm(shifts, pixels) / grey[0].numel()
        kernels = self.weight.flip(2, 3).flatten(2).transpose(1, 2)  # (N, 9, K)
        return taps.flatten(1) @ kernels.flatten(1).T + grey.mean((1, 2))[:, None] * self.bias

    def weight_maps(self, features, classes=None):
        """Equation (1), (B, k, R, C), of the classes (B, k) asked for image by image, or of all N."""
        if classes is None:
            groups = 1 if self.shared else len(self.weight)
            cwm = F.conv2d(features, self.weight, self.bias, padding=1, groups=groups)
        else:
            size, n_kernels = features.shape[2:], classes.shape[1]
            kernels = self.weight[classes].flatten(3).flip(3).transpose(2, 3)  # (B, k, 9, K)
            if self.shared:
                taps = kernels.flatten(1, 2) @ features.flatten(2)  # (B, 9 k, R C)
            else:
                own = features.unflatten(1, (len(self.weight), -1))  # (B, N, K, R, C)
                own = own[torch.arange(len(own), device=own.device)[:, None], classes]
                taps = (kernels @ own.flatten(3)).flatten(1, 2)
            cwm = F.fold(taps, size, 3, padding=1) + self.bias[classes].view(-1, n_kernels, 1, 1)
        return cwm.relu() if self.clip_negative else cwm

    def mean_map(self, features):
        """The mean of the weight maps of all N classes, (B, R, C)."""
        if not self.shared or self.clip_negative:
            return self.weight_maps(features).mean(1)
        weight, bias = self.weight.mean(0, keepdim=True), self.bias.mean(0, keepdim=True)
        return F.conv2d(features, weight, bias, padding=1)[:, 0]


def _twin(module):
    """A module that has this one's parameters and buffers, and can be given others: a sixth of deepcopy's time."""
    twin = copy.copy(module)
    twin._parameters, twin._buffers = module._parameters.copy(), module._buffers.copy()
    twin._modules = {name: _twin(child) for name, child in module._modules.items()}
    return twin


class GCM(nn.Module):
    """Generative Contribution Mappings: a classifier whose class scores are plain averages of maps.

    For an image I and class j, ``score_j = mean(CWM_j * I)`` over rows, columns and channels, where the class weight
    map CWM_j has the image's own resolution and is shared by its channels.

    Parameters
    ----------
    n_classes : int
        Number of classes N.
    in_channels : int, default=3
        Channels D of an image.
    encoder_width : int, default=16
        Channels of the first encoder stage; each further stage has twice as many.
    decoder_width : int, default=16
        Channels of the last decoder stage; each stage before it has twice as many.
    n_stages : int, default=3
        Number of resolutions. Each stage after the first halves rows and columns (rounded up), and the decoder
        returns through the same sizes.
    shared_decoder : bool, default=True
        True: layers 11 to 14 serve all classes. False: each class has them for itself.
    clip_negative : bool, default=False
        The paper's clipped variant: a ReLU on layer 15, so that CWM >= 0.
    upsampling : {"nearest", "deconvolution"}, default="nearest"
        How a decoder stage enlarges: nearest-neighbour followed by a 3x3 convolution, or a stride-2 deconvolution.
    generator : torch.Generator, optional
        Source of the initial weights. Default: torch's global generator.

    Notes
    -----
    Images are (B, D, R, C), floating point in [0, 1], **not** centred: where the image is 0, nothing contributes.
    Any size from 1x1 up works. In training mode batch norm needs more than one value per channel, so a batch of a
    single image whose smallest feature map is one pixel raises ValueError.

    With a shared decoder and signed maps the scores come from the contracted form and no N x R x C tensor is built,
    in the forward or in the backward pass. Under autocast the head still runs in the dtype of the images.

    References
    ----------
    Generative Contribution Mappings: IPSJ Transactions on Mathematical Modeling and its Applications 10(2), 1-13, 2017.

    Examples
    --------
    >>> import torch
    >>> from skgcm.network import GCM
    >>> network = GCM(n_classes=10, in_channels=3, generator=torch.Generator().manual_seed(0)).eval()
    >>> sum(p.numel() for p in network.parameters())
    161338
    >>> images = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    >>> scores, cwm = network(images), network.weight_maps(images)
    >>> scores.shape, cwm.shape
    (torch.Size([2, 10]), torch.Size([2, 10, 33, 47]))
    >>> ccm = cwm[:, :, None] * images[:, None]  # (B, N, D, R, C)
    >>> torch.allclose(ccm.mean((2, 3, 4)), scores, atol=1e-6)
    True
    """

    def __init__(
        self,
        n_classes,
        in_channels=3,
        *,
        encoder_width=16,
        decoder_width=16,
        n_stages=3,
        shared_decoder=True,
        clip_negative=False,
        upsampling="nearest",
        generator=None,
    ):
        super().__init__()
        if upsampling not in UPSAMPLING:
            raise ValueError(f"upsampling={upsampling!r} is not one of {UPSAMPLING}")
        groups = 1 if shared_decoder else n_classes
        self.encoder = Encoder(in_channels, encoder_width, n_stages)
        self.decoder = Decoder(self.encoder.out_channels, decoder_width, n_stages, upsampling, groups)
        n_features = decoder_width if n_stages > 1 else self.encoder.out_channels
        # one stage leaves no decoder, and then there is nothing that could be unshared
        self.head = ContributionHead(n_features, n_classes, shared_decoder or n_stages == 1, clip_negative)
        self.n_classes = n_classes
        # roughly what a forward pass holds at once: a widest layer's input and output, and maps where scores need them
        maps = n_classes if groups > 1 or clip_negative else 0
        self.floats_per_pixel = 4 * max(encoder_width, decoder_width * groups) + maps
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator=None):
        """Draw new weights: He's normal initialisation for each convolution, from `generator`."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = module.kernel_size[0] ** 2 * module.in_channels // module.groups
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.head.weight.normal_(0, (1 / self.head.weight[0].numel()) ** 0.5, generator=generator)
        self.head.bias.zero_()

    def features(self, images):
        """Output of layer 14, (B, K, R, C), channels last in memory, in the dtype of the images."""
        codes, sizes = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return self.decoder(codes, sizes).to(images.dtype)

    def forward(self, images):
        """Class scores, equations (1) to (4), (B, N)."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head.scores(features, images.mean(1))

    def weight_maps(self, images, classes=None):
        """Class weight maps, equation (1).

        Parameters
        ----------
        images : Tensor (B, D, R, C), floating point in [0, 1]
        classes : LongTensor (B, k), optional
            Class indices, image by image. Default: all N classes in order.

        Returns
        -------
        Tensor (B, k, R, C) or (B, N, R, C)
        """
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head.weight_maps(features, classes)

    def evidence(self, images, classes=None):
        """All scores and the weight maps of some classes, in one pass.

        Parameters
        ----------
        images : Tensor (B, D, R, C), floating point in [0, 1]
        classes : LongTensor (B, k), int k or None
            Class indices, image by image; an integer asks for the k classes of highest score, None for all N in order.

        Returns
        -------
        scores : Tensor (B, N)
        classes : LongTensor (B, k)
        cwm : Tensor (B, k, R, C)
        mean : Tensor (B, R, C)
            The mean of the weight maps of all N classes.
        """
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            scores = self.head.scores(features, images.mean(1))
            if isinstance(classes, int):
                classes = scores.argsort(dim=1, descending=True, stable=True)[:, :classes]  # stable: ties as in argmax
            cwm = self.head.weight_maps(features, classes)
            mean = self.head.mean_map(features) if classes is not None else cwm.mean(1)
        if classes is None:
            classes = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        return scores, classes, cwm, mean

    def folded(self):
        """A copy for inference: evaluation mode, no gradients, each batch norm absorbed into its convolution."""
        network = _twin(self).eval()
        for module in list(network.modules()):
            if isinstance(module, ConvBlock):
                module.fold()
        for name, parameter in network.head.named_parameters():
            setattr(network.head, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
        return network
