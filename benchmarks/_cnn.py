"""The comparison CNN of the paper's section 4.4: layers like GCM's, average pooling at 8 x 8, one linear layer."""

import copy
from itertools import pairwise

import torch
from torch import nn

from skgcm import GCMClassifier, mosaics
from skgcm.blocks import ConvBlock
from skgcm.network import GCM


class CNN(GCM):
    """162,778 parameters for 10 classes and 3 channels. Images come in [0, 1] and are centred inside.

    Inherits how GCM is folded, asked in batches and given its first weights; there are no maps.
    """

    widths = (16, 16, 16, 32, 32, 32, 64, 64, 64, 64)

    def __init__(self, n_classes, in_channels=3, *, generator=None, **gcm_params):
        nn.Module.__init__(self)
        pairs = pairwise((in_channels, *self.widths))
        blocks = [ConvBlock(*pair, stride=1 + (i in (3, 6))) for i, pair in enumerate(pairs)]
        self.layers = nn.Sequential(*blocks, ConvBlock(64, 64, kernel=1))
        self.head = nn.Linear(64, n_classes)
        self.n_classes, self.floats_per_pixel, self.dark_head = n_classes, 64, None
        self.reset_parameters(generator)

    def features(self, images):
        """(B, 64, R / 4, C / 4)."""
        return self.layers(images.contiguous(memory_format=torch.channels_last) - 0.5).to(images.dtype)

    def forward(self, images, grid=1):
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            features = mosaics.cut(features, grid, border=0) if grid > 1 else features
            return self.head(features.mean((2, 3)))


def for_captum(cnn):
    """A copy in evaluation whose ReLUs do not work in place: Captum changes the gradients at them."""
    cnn = copy.deepcopy(cnn).eval().requires_grad_(False)
    for module in cnn.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return cnn


class CNNClassifier(GCMClassifier):
    """Trained by the same code and schedule as GCM. `explain` and `transform` do not work."""

    network = CNN

    def _build_net(self, *args, **other_params):
        return super()._build_net(*args, **other_params).set_params(module=self.network)
