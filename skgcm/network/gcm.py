"""The GCM network: equations (1) to (7) of the paper.

:class:`GCM` can be used on its own::

    scores = network(images)              # (B, N)
    ccm = network.contributions(images)   # (B, N, C, H, W); ccm.mean((2, 3, 4)) == scores

Sizes in comments: B images, N classes, C channels of an image, H rows, W columns; P polarities, G regions.
The paper calls rows, columns and channels R, C and D, and these are its equations:

(1) CWM_j = Decoder_j(Encoder(I)), (2) W_j = CWM_j for each channel, (3) CCM_j = W_j * I, (4) score_j = mean(CCM_j),
(5) the class of the highest score, (6, 7) so the score is linear in I, by weights that are generated for each image.
"""

import copy

import torch
from torch import nn

from skgcm.network import backbone
from skgcm.network.blocks import ConvBlock
from skgcm.network.head import ContributionHead
from skgcm.network.multiscale import Decoder, Encoder, decoder_widths
from skgcm.network.normalisation import standardise
from skgcm.network.paper import PaperDecoder, PaperEncoder

ARCHITECTURES = ("multiscale", "paper")
UPSAMPLING = ("nearest", "deconvolution")
POLARITIES = ("bright", "both")
# default parameters of the architectures
DEFAULTS = {
    "multiscale": {"decoder_width": 8, "polarity": "both"},
    "paper": {"decoder_width": 16, "polarity": "bright"},
}


def _shallow_copy(module):
    """A copy of a module that shares parameters and buffers until they are replaced: a sixth of deepcopy's time."""
    if isinstance(module, backbone.Backbone):
        return module.detached()
    other = copy.copy(module)
    other._parameters, other._buffers = module._parameters.copy(), module._buffers.copy()
    other._modules = {name: _shallow_copy(child) for name, child in module._modules.items()}
    return other


def contribution_maps(maps, polarities):
    """Equation (3): weight maps (B, P, k, ...) times what they multiply, (B, P, ...), added up to (B, k, ...)."""
    return (maps * polarities[:, :, None]).sum(1)


class GCM(nn.Module):
    """Generative Contribution Mappings: a classifier whose class scores are plain averages of maps.

    For an image I and class j, ``score_j = mean(CWM_j * I)`` over rows, columns and channels, where the class weight
    map CWM_j has the image's own resolution and is shared by its channels. With ``polarity="both"`` a second weight map
    is multiplied with 1 - I: ``score_j = mean(CWM_j * I + CWM_dark_j * (1 - I))``.

    Parameters
    ----------
    n_classes : int
        Number of classes N.
    in_channels : int, default=3
        Channels of an image.
    architecture : {"multiscale", "paper"}, default="multiscale"
        "multiscale": residual blocks, a thin decoder, and weights of each class at every resolution, whose maps are
        enlarged and added. The encoder reads each image standardised by a robust mean and deviation and as it is; the
        maps multiply the plain image. "paper": the network of the paper, which has weights at the full resolution alone
        and reads the plain image.
    encoder : str or callable, default="gcm"
        "gcm": the architecture's own encoder. The name of a model of timm (extra ``encoders``) that has features at
        several resolutions: these take the place of the encoder's, and the decoder goes back from them to the image's
        own resolution. Its weights are random. A callable without arguments: it returns a module that takes images
        (B, C, H, W) in [0, 1] and returns a list of features, fine to coarse. Then `encoder_width` and `n_stages` do
        not count.
    encoder_width : int, default=16
        Channels of the first convolutions; later stages have 2 and 4 times as many.
    decoder_width : int, default=None
        Channels of the last decoder stage, the ones before it have 2 and 4 times as many, with another `encoder` up to
        8 times. None: 8, or 16 in the paper's architecture.
    n_stages : int, default=3
        Number of resolutions. Each stage after the first halves rows and columns (rounded up), and the decoder
        returns through the same sizes. With more than three, for images of 96 pixels and more, the multiscale
        architecture is thin where resolution is high: the encoder begins with the image itself at the full resolution
        and a single convolution at half of it, and the decoder has half of `decoder_width` at the full resolution. In
        the paper's architecture each stage has twice the width of the one before.
    shared_decoder : bool, default=True
        True: the decoder serves all classes. False: each class has one for itself.
    clip_negative : bool, default=False
        The paper's clipped variant: a ReLU on the weight maps, so that CWM >= 0.
    polarity : {"bright", "both"}, default=None
        "both" adds a second weight map of each class, on 1 - I, so that dark pixels can contribute. "bright" is the
        paper's form. None: "both", or "bright" in the paper's architecture.
    upsampling : {"nearest", "deconvolution"}, default="nearest"
        How a decoder stage of the paper's architecture enlarges: nearest-neighbour followed by a 3x3 convolution, or a
        stride-2 deconvolution. The multiscale architecture has "nearest" alone.
    window : tuple of int (rows, columns), default=None
        The size of the training images. Larger images are standardised by a window of this size around each pixel, so
        that a part of a frame looks to the encoder as it would alone. None: by the whole image.
    generator : torch.Generator, optional
        Source of the initial weights. Default: torch's global generator.

    Attributes
    ----------
    n_classes : int
    polarity : {"bright", "both"}
    stride : int
        Stride of the coarsest features, in rows and columns of the image.
    encoder : Module
        From an image to features of each stage, a list, fine to coarse.
    decoder : Module
        From these to the features for `head`, a list, fine to coarse.
    head : skgcm.network.head.ContributionHead
        From these to maps and to scores.

    Raises
    ------
    ValueError
        For an unknown architecture, polarity or upsampling, an encoder that timm does not know or that does not return
        features of several sizes, and an encoder in the paper's architecture.
    TypeError
        For an encoder that does not return a module.
    ImportError
        For the name of an encoder if timm is not installed.

    Notes
    -----
    Images are (B, C, H, W), floating point in [0, 1], **not** centred: with ``polarity="bright"`` nothing contributes
    where the image is 0.
    Any size from 1x1 up works. In training mode batch norm needs more than one value per channel, so a batch of a
    single image whose smallest feature map is one pixel raises ValueError.

    Unless negative weights are clipped, scores come from the contracted form and no N x H x W tensor is built,
    in the forward or in the backward pass. Under autocast the head still runs in the dtype of the images. In float32,
    scores differ from the means of the maps by less than 1e-6 of themselves, unless contributions cancel to nearly 0,
    for images of up to 4096 x 4096 pixels.

    References
    ----------
    Generative Contribution Mappings: IPSJ Transactions on Mathematical Modeling and its Applications 10(2), 1-13, 2017.

    Examples
    --------
    >>> import torch
    >>> from skgcm.network import GCM
    >>> network = GCM(n_classes=10, in_channels=3, generator=torch.Generator().manual_seed(0)).eval()
    >>> sum(p.numel() for p in network.parameters())
    169060
    >>> images = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    >>> scores, ccm = network(images), network.contributions(images)
    >>> scores.shape, ccm.shape
    (torch.Size([2, 10]), torch.Size([2, 10, 3, 33, 47]))
    >>> torch.allclose(ccm.mean((2, 3, 4)), scores, atol=1e-6)
    True
    """

    def __init__(
        self,
        n_classes,
        in_channels=3,
        *,
        architecture="multiscale",
        encoder="gcm",
        encoder_width=16,
        decoder_width=None,
        n_stages=3,
        shared_decoder=True,
        clip_negative=False,
        polarity=None,
        upsampling="nearest",
        window=None,
        generator=None,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture={architecture!r} is not one of {ARCHITECTURES}.")
        paper, defaults = architecture == "paper", DEFAULTS[architecture]
        decoder_width = defaults["decoder_width"] if decoder_width is None else decoder_width
        polarity = defaults["polarity"] if polarity is None else polarity
        for name, value, known in (
            ("polarity", polarity, POLARITIES),
            ("upsampling", upsampling, UPSAMPLING if paper else UPSAMPLING[:1]),
        ):
            if value not in known:
                where = f" in architecture={architecture!r}" if name == "upsampling" else ""
                raise ValueError(f"{name}={value!r} is not one of {known}{where}.")
        groups, own_encoder = 1 if shared_decoder else n_classes, isinstance(encoder, str) and encoder == "gcm"
        if paper and not own_encoder:
            raise ValueError(
                f"encoder={encoder!r}, but architecture='paper' has its own encoder. Use architecture='multiscale'."
            )
        self.stride = 2 ** (n_stages - 1)  # rows and columns of an image for one of the coarsest features
        widest = encoder_width
        if not own_encoder:
            self.encoder = backbone.build(encoder, in_channels, generator)
            self.decoder = backbone.BackboneDecoder(self.encoder.widths, decoder_width, groups)
            self.stride, widest = self.encoder.strides[-1], self.encoder.floats_per_pixel
        elif paper:
            self.encoder = PaperEncoder(in_channels, encoder_width, n_stages)
            self.decoder = PaperDecoder(self.encoder.widths, decoder_width, upsampling, groups)
        else:
            self.encoder = Encoder(2 * in_channels, encoder_width, n_stages)  # the standardised image and the plain one
            self.decoder = Decoder(self.encoder.widths, decoder_widths(n_stages, decoder_width), groups)
        self.head = ContributionHead(self.decoder.levels, n_classes, 1 + (polarity == "both"), clip_negative)
        self.n_classes, self.polarity, self.window = n_classes, polarity, window
        self.standardises = own_encoder and not paper
        # roughly what a forward pass holds at once: a widest layer's input and output, and maps where scores need them
        maps = self.head.n_polarities * n_classes if clip_negative else 0
        self.floats_per_pixel = 4 * max(widest, decoder_width * groups) + maps
        if not self.head.bias.is_meta:  # on the meta device nothing is drawn: it would import many modules of PyTorch
            self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator=None):
        """Draw new weights: He's normal initialisation for each convolution, from `generator`.

        An encoder of timm or of a callable keeps its own.
        """
        for module in (self.decoder if isinstance(self.encoder, backbone.Backbone) else self).modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan_in = module.kernel_size[0] ** 2 * module.in_channels // module.groups
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.head.reset_parameters(generator)

    def polarities(self, images):
        """What the maps of each polarity multiply, the image and perhaps 1 minus it: (B, ...) to (B, P, ...)."""
        return images[:, None] if self.polarity == "bright" else torch.stack([images, 1 - images], 1)

    def intensities(self, images):
        """The same, averaged over channels: (B, P, H, W)."""
        return self.polarities(images.mean(1))

    def features(self, images, regions=None):
        """The inputs of the head, a list of Tensor (B, K, h, w), fine to coarse, channels last, dtype of the images."""
        dtype = images.dtype
        if self.standardises:
            with torch.autocast(images.device.type, enabled=False):
                # brightness itself can be evidence too
                images = torch.cat([standardise(images, self.window, regions), images - 0.5], 1)
        stages = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return [feature.to(dtype) for feature in self.decoder(stages)]

    def forward(self, images, regions=None, shown=None, shown_classes=None, features=None):
        """Class scores, equations (1) to (4).

        Parameters
        ----------
        images : Tensor (B, C, H, W), floating point in [0, 1]
        regions : Tensor (B, G, H, W), floating point, default=None
            The images are mosaics of G parts, and it is the parts that are scored. Masks, 1 inside a part and 0
            outside; each part has at least one pixel. The score of a part is the mean of the contributions in it.
            None: one part, the whole image.
        shown : LongTensor (b,), default=None
            The images, by position, whose contributions are returned too. None: all, if `shown_classes` is given.
        shown_classes : LongTensor (b, m), default=None
            To which classes, image by image. None: no contributions are returned.
        features : list of Tensor, default=None
            What :meth:`features` made of the images, where that is known.

        Returns
        -------
        scores : Tensor (B * G, N)
        contributions : Tensor (b, m, H, W), if asked for
            Averaged over channels.
        """
        regions = None if regions is None else regions.to(images.dtype)
        features = self.features(images, regions) if features is None else features
        with torch.autocast(images.device.type, enabled=False):
            intensities = self.intensities(images)  # (B, P, H, W)
            if regions is None:
                shares = intensities.new_full((1, 1, 1, 1), 1 / (images.shape[2] * images.shape[3]))
            else:
                shares = regions / regions.sum((2, 3), keepdim=True)  # (B, G, H, W)
            scores = self.head.scores(features, intensities[:, :, None] * shares[:, None]).flatten(0, 1)
            if shown_classes is None:
                return scores
            if shown is not None:
                features, intensities = [feature[shown] for feature in features], intensities[shown]
            maps = self.head.weight_maps(features, tuple(images.shape[2:]), shown_classes)  # (b, P, m, H, W)
            return scores, contribution_maps(maps, intensities)

    def weight_maps(self, images, classes=None, *, dark=False):
        """Class weight maps, equation (1).

        Parameters
        ----------
        images : Tensor (B, C, H, W), floating point in [0, 1]
        classes : LongTensor (B, k), default=None
            Class indices, image by image. None: all N classes in order.
        dark : bool, default=False
            The maps on 1 - I, which there are with ``polarity="both"``.

        Returns
        -------
        Tensor (B, k, H, W) or (B, N, H, W)

        Raises
        ------
        ValueError
            With ``dark=True`` where the polarity is bright.
        """
        if dark and self.polarity == "bright":
            raise ValueError('dark=True, but this network has polarity="bright". Build it with polarity="both".')
        return self._weight_maps(images, classes)[:, int(dark)]

    def _weight_maps(self, images, classes):
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head.weight_maps(features, tuple(images.shape[2:]), classes)

    def contributions(self, images, classes=None):
        """Class contribution maps, equation (3), whose means are the scores.

        Parameters
        ----------
        images : Tensor (B, C, H, W), floating point in [0, 1]
        classes : LongTensor (B, k), default=None
            Class indices, image by image. None: all N classes in order.

        Returns
        -------
        Tensor (B, k, C, H, W) or (B, N, C, H, W)
        """
        maps = self._weight_maps(images, classes)[:, :, :, None]  # the channels share the weights
        return contribution_maps(maps, self.polarities(images))

    def evidence(self, images, classes=None, features=None):
        """All scores and the weight maps of some classes, in one pass.

        Parameters
        ----------
        images : Tensor (B, C, H, W), floating point in [0, 1]
        classes : LongTensor (B, k), int k or None
            Class indices, image by image; an integer asks for the k classes of highest score, None for all N in order.
        features : list of Tensor, default=None
            What :meth:`features` made of the images, where that is known.

        Returns
        -------
        scores : Tensor (B, N)
        classes : LongTensor (B, k)
        cwm : Tensor (B, P, k, H, W)
            The weight maps on the image and, with ``polarity="both"``, those on 1 minus the image.
        mean : Tensor (B, P, H, W)
            The mean of the weight maps of all N classes, for each polarity.
        """
        features = self.features(images) if features is None else features
        size = tuple(images.shape[2:])
        with torch.autocast(images.device.type, enabled=False):
            scores = self.head.scores(features, self.intensities(images)[:, :, None] / (size[0] * size[1]))[:, 0]
            if isinstance(classes, int):
                classes = scores.argsort(dim=1, descending=True, stable=True)[:, :classes]  # stable: ties as in argmax
            cwm = self.head.weight_maps(features, size, classes)
            mean = cwm.mean(2) if classes is None else self.head.mean_map(features, size)
        if classes is None:
            classes = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        return scores, classes, cwm, mean

    def fused(self):
        """A copy for inference: evaluation mode, no gradients, each batch norm fused into its convolution."""
        network = _shallow_copy(self).eval()
        for module in list(network.modules()):
            if isinstance(module, ConvBlock):
                module.fuse_bn()
        for module in network.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        return network
