"""The GCM network in plain PyTorch: contribution head and network, equations (1) to (7).

Nothing here knows scikit-learn or skorch. :class:`GCM` can be used on its own::

    scores = network(images)              # (B, N)
    cwm = network.weight_maps(images)     # (B, N, R, C); (cwm * images.mean(1, keepdim=True)).mean((2, 3)) == scores

Sizes in comments: B images, N classes, D channels of an image, R rows, C columns, K channels of the last features.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from skgcm import mosaics
from skgcm.blocks import ConvBlock, Decoder, Encoder

UPSAMPLING = ("nearest", "deconvolution")
POLARITIES = ("bright", "both")


class ContributionHead(nn.Module):
    """Layer 15 and the average: one 3x3 kernel and one bias per class, from features to maps and to scores.

    ``light`` is what the maps are multiplied with, (B, R, C): the channel mean of the images, or 1 minus it.

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

    def scores(self, features, light):
        """Equation (4), (B, N)."""
        if not self.shared or self.clip_negative:
            cwm = self.weight_maps(features)
            return torch.bmm(cwm.flatten(2), light.flatten(1)[:, :, None])[:, :, 0] / light[0].numel()
        # Layer 15 and the average are both linear, so they can change places: average the features' nine shifts
        # against the image first, T (B, 9, K), and no N x R x C tensor exists. The tap (dy, dx) reads the features
        # (dy - 1, dx - 1) further on, which is the image that far back: hence the flip. (F.unfold would do, but several
        # times slower.)
        windows = F.pad(light, (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (B, R, C, 3, 3), a view
        shifts = windows.permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2)  # (B, 9, R C)
        pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, R C, K), a view of channels-last features
        taps = torch.bmm(shifts, pixels) / light[0].numel()
        kernels = self.weight.flip(2, 3).flatten(2).transpose(1, 2)  # (N, 9, K)
        return taps.flatten(1) @ kernels.flatten(1).T + light.mean((1, 2))[:, None] * self.bias

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
    polarity : {"bright", "both"}, default="bright"
        "both" adds a second weight map of each class, on 1 - I: ``CCM_j = CWM_j * I + CWM_dark_j * (1 - I)``, so that
        dark pixels can contribute. Not in the paper.
    upsampling : {"nearest", "deconvolution"}, default="nearest"
        How a decoder stage enlarges: nearest-neighbour followed by a 3x3 convolution, or a stride-2 deconvolution.
    generator : torch.Generator, optional
        Source of the initial weights. Default: torch's global generator.

    Attributes
    ----------
    n_classes : int
    encoder, decoder : Module
        Layers 1 to 10, and 11 to 14.
    heads : tuple of ContributionHead
        Layer 15 and the average: on the image and, with ``polarity="both"``, on 1 - image.

    Notes
    -----
    Images are (B, D, R, C), floating point in [0, 1], **not** centred: where the image is 0, nothing contributes
    (unless ``polarity="both"``).
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
        polarity="bright",
        upsampling="nearest",
        generator=None,
    ):
        super().__init__()
        for name, value, known in (("upsampling", upsampling, UPSAMPLING), ("polarity", polarity, POLARITIES)):
            if value not in known:
                raise ValueError(f"{name}={value!r} is not one of {known}")
        groups = 1 if shared_decoder else n_classes
        self.encoder = Encoder(in_channels, encoder_width, n_stages)
        self.decoder = Decoder(self.encoder.out_channels, decoder_width, n_stages, upsampling, groups)
        n_features = decoder_width if n_stages > 1 else self.encoder.out_channels
        # one stage leaves no decoder, and then there is nothing that could be unshared
        head = n_features, n_classes, shared_decoder or n_stages == 1, clip_negative
        self.head = ContributionHead(*head)
        self.dark_head = ContributionHead(*head) if polarity == "both" else None
        self.n_classes = n_classes
        # roughly what a forward pass holds at once: a widest layer's input and output, and maps where scores need them
        maps = len(self.heads) * n_classes if groups > 1 or clip_negative else 0
        self.floats_per_pixel = 4 * max(encoder_width, decoder_width * groups) + maps
        if not self.head.weight.is_meta:  # a network of shapes alone: drawing would import half of PyTorch for nothing
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
        for head in self.heads:
            head.weight.normal_(0, (1 / head.weight[0].numel()) ** 0.5, generator=generator)
            head.bias.zero_()

    @property
    def heads(self):
        """The head for the image and, with ``polarity="both"``, the one for 1 minus the image."""
        return (self.head,) if self.dark_head is None else (self.head, self.dark_head)

    def lights(self, images):
        """What the maps of each head are multiplied with, averaged over channels: (B, R, C) each."""
        grey = images.mean(1)
        return (grey,) if self.dark_head is None else (grey, 1 - grey)

    def features(self, images):
        """Output of layer 14, (B, K, R, C), channels last in memory, in the dtype of the images."""
        codes, sizes = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return self.decoder(codes, sizes).to(images.dtype)

    def _scores(self, features, lights):
        return sum(head.scores(features, light) for head, light in zip(self.heads, lights, strict=True))

    def forward(self, images, grid=1, magnitudes=False, classes=None):
        """Class scores, equations (1) to (4).

        Parameters
        ----------
        images : Tensor (B, D, R, C), floating point in [0, 1]
        grid : int, default=1
            The images are mosaics of grid x grid cells of equal size, and it is the cells that are scored: B becomes
            B * grid^2 in what is returned. A cell's score is the mean of the contributions in it.
        magnitudes : bool, default=False
            Also return how large contributions are, whatever their sign.
        classes : LongTensor (B, k), optional
            For `magnitudes`: class indices, image by image (cell by cell). Default: all N classes in order.

        Returns
        -------
        scores : Tensor (B, N)
        magnitudes : Tensor (B, k) or (B, N), if asked for
            The mean over pixels of the magnitude of their contributions.

        Raises
        ------
        ValueError
            If the images cannot be cut into grid x grid cells of equal size.
        """
        if grid != 1 and (grid < 1 or images.shape[2] % grid or images.shape[3] % grid):
            rows, columns = images.shape[2:]
            raise ValueError(f"Images of {rows} x {columns} pixels have no grid={grid} x {grid} cells of equal size.")
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            lights, rim = self.lights(images), 1.0
            if grid > 1:
                # a weight reads the features one pixel further on, and in the next cell: there nothing contributes
                features = mosaics.cut(features, grid, border=1)
                inner = [mosaics.cut(light[:, None], grid, border=0)[:, 0] for light in lights]
                lights = [F.pad(light, (1, 1, 1, 1)) for light in inner]
                rim = lights[0][0].numel() / inner[0][0].numel()  # what averages are taken over, and should be
            scores = self._scores(features, lights) * rim
            if not magnitudes:
                return scores
            maps = (head.weight_maps(features, classes) for head in self.heads)
            ccm = sum(cwm * light[:, None] for cwm, light in zip(maps, lights, strict=True))
            return scores, ccm.abs().mean((2, 3)) * rim

    def weight_maps(self, images, classes=None, *, dark=False):
        """Class weight maps, equation (1).

        Parameters
        ----------
        images : Tensor (B, D, R, C), floating point in [0, 1]
        classes : LongTensor (B, k), optional
            Class indices, image by image. Default: all N classes in order.
        dark : bool, default=False
            The maps on 1 - I, which there are with ``polarity="both"``.

        Returns
        -------
        Tensor (B, k, R, C) or (B, N, R, C)

        Raises
        ------
        ValueError
            With ``dark=True`` where the polarity is bright.
        """
        if dark and self.dark_head is None:
            raise ValueError('dark=True, but this network has polarity="bright". Build it with polarity="both".')
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return (self.dark_head if dark else self.head).weight_maps(features, classes)

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
        cwm : list of Tensor (B, k, R, C)
            The weight maps on the image and, with ``polarity="both"``, those on 1 minus the image.
        mean : list of Tensor (B, R, C)
            The mean of the weight maps of all N classes, likewise.
        """
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            scores = self._scores(features, self.lights(images))
            if isinstance(classes, int):
                classes = scores.argsort(dim=1, descending=True, stable=True)[:, :classes]  # stable: ties as in argmax
            cwm = [head.weight_maps(features, classes) for head in self.heads]
            if classes is None:
                mean = [maps.mean(1) for maps in cwm]
            else:
                mean = [head.mean_map(features) for head in self.heads]
        if classes is None:
            classes = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        return scores, classes, cwm, mean

    def folded(self):
        """A copy for inference: evaluation mode, no gradients, each batch norm absorbed into its convolution."""
        network = _twin(self).eval()
        for module in list(network.modules()):
            if isinstance(module, ConvBlock):
                module.fold()
        for head in network.heads:
            for name, parameter in head.named_parameters():
                setattr(head, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
        return network
