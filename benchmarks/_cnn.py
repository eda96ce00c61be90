"""The comparison CNN of the paper's section 4.4: layers like GCM's, average pooling at 8 x 8, one linear layer."""

import copy
from itertools import pairwise

import torch
from torch import nn

from skgcm import GCMClassifier
from skgcm.network import GCM
from skgcm.network.blocks import ConvBlock
from skgcm.network.head import pool
from skgcm.network.normalisation import standardise


class CNN(GCM):
    """162,778 parameters for 10 classes and 3 channels. Images come in [0, 1] and are centred inside.

    Inherits from GCM how it is fused, predicts in batches and gets initial weights. It has no maps.
    """

    widths = (16, 16, 16, 32, 32, 32, 64, 64, 64, 64)
    standardises = False

    def __init__(self, n_classes, in_channels=3, *, generator=None, **gcm_params):
        nn.Module.__init__(self)
        pairs = pairwise((in_channels, *self.widths))
        blocks = [ConvBlock(*pair, stride=1 + (i in (3, 6))) for i, pair in enumerate(pairs)]
        self.encoder = nn.Sequential(*blocks, ConvBlock(64, 64, kernel=1))
        self.head = _Linear(64, n_classes)
        self.n_classes, self.floats_per_pixel, self.stride = n_classes, 64, 4
        self.reset_parameters(generator)

    def features(self, images, regions=None):
        """A list of one Tensor (B, 64, H / 4, W / 4)."""
        dtype = images.dtype
        images = standardise(images, regions=regions) if self.standardises else images - 0.5
        return [self.encoder(images.contiguous(memory_format=torch.channels_last)).to(dtype)]

    def forward(self, images, regions=None, features=None):
        (features,) = self.features(images, regions) if features is None else features
        with torch.autocast(images.device.type, enabled=False):
            if regions is None:
                return self.head(features.mean((2, 3)))
            shares = pool(regions / regions.sum((2, 3), keepdim=True), tuple(features.shape[2:]))
            return self.head(torch.einsum("bkhw,bghw->bgk", features, shares).flatten(0, 1))


class StandardisedCNN(CNN):
    """The same, which reads each image standardised, as GCM does."""

    standardises = True


class _Linear(nn.Linear):
    levels = ((64, None, 1),)  # GCM's heads have one for each resolution

    def reset_parameters(self, generator=None):
        """The first weights that GCM's coarsest head has."""
        nn.init.normal_(self.weight, 0, self.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.bias)


def for_captum(cnn):
    """A copy in evaluation whose ReLUs do not work in place: Captum changes the gradients at them."""
    cnn = copy.deepcopy(cnn).eval().requires_grad_(False)
    for module in cnn.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return cnn


class CNNClassifier(GCMClassifier):
    """Trained by the same code and schedule as GCM, without `sparsity`. `explain` and `transform` do not work."""

    network = CNN

    def _build_net(self, *args, **other_params):
        return super()._build_net(*args, **other_params).set_params(module=self.network, sparsity=0.0)


class StandardisedCNNClassifier(CNNClassifier):
    """The same for images that are standardised."""

    network = StandardisedCNN
