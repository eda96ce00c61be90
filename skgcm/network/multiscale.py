"""The default network: a residual encoder, and a thin decoder with features for a head at every resolution."""

from itertools import pairwise

import torch.nn.functional as F
from torch import nn

from skgcm.network.blocks import LeakyConvBlock, Residual, conv_without_init


class Encoder(nn.Module):
    """Stages of one convolution and a residual block, each after the first at half the size (rounded up).

    Up to three stages have `width` times 1, 2 and 4. With more, nearly all the time would go at the high resolutions:
    then the first stage is the image itself, without a layer, and the second has no residual block. The last ones have
    4 times the width.
    """

    def __init__(self, in_channels, width, n_stages):
        super().__init__()
        self.widths = [in_channels] if n_stages > 3 else []
        self.widths += [width * 2 ** min(i, 2) for i in range(n_stages - len(self.widths))]
        self.stages = nn.ModuleList([nn.Sequential()] if n_stages > 3 else [])
        widths = self.widths if n_stages > 3 else [in_channels, *self.widths]
        for n_in, n_out in pairwise(widths):
            conv = LeakyConvBlock(n_in, n_out, stride=2 if len(self.stages) else 1)
            self.stages.append(nn.Sequential(conv, Residual(n_out)))
            if n_stages > 3 and len(self.stages) == 2:
                del self.stages[-1][1]
        # more capacity at the coarsest stage, where a convolution has the largest field of view
        self.stages[-1].extend([LeakyConvBlock(n_out, n_out), LeakyConvBlock(n_out, n_out, kernel=1)])

    def forward(self, x):
        """Features of each stage, fine to coarse."""
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return stages


def decoder_widths(n_stages, width):
    """Channels of the decoder's stages, fine to coarse: `width`, then 2 and 4 times as many.

    With more than three stages this starts at the second; the finest, at the full resolution, has half of `width`.
    """
    if n_stages <= 3:
        return [width * 2**i for i in range(n_stages - 1)]
    return [max(1, width // 2), *(width * 2 ** min(i, 2) for i in range(n_stages - 2))]


class Decoder(nn.Module):
    """From the coarsest features back to the finest. Each stage adds the upsampled features and those of the encoder.

    Its stages have `widths` channels, fine to coarse; the coarsest features are the encoder's own. With groups > 1,
    there are that many parallel decoders.
    """

    def __init__(self, encoder_widths, widths, groups):
        super().__init__()
        self.ups, self.laterals, self.convs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.levels = [(encoder_widths[-1], 1, 1)]  # inputs of the heads: channels of a class, kernel, groups
        n_in = encoder_widths[-1]
        for own, lateral_width in zip(reversed(widths), reversed(encoder_widths[:-1]), strict=True):
            n_out, from_one = groups * own, len(self.levels) == 1
            # every group reads the same encoder output, so these layers are ordinary convolutions
            self.ups.append(conv_without_init(nn.Conv2d, n_in, n_out, 1, groups=1 if from_one else groups))
            self.laterals.append(conv_without_init(nn.Conv2d, lateral_width, n_out, 1))
            self.convs.append(LeakyConvBlock(n_out, n_out, groups=groups))
            self.levels.insert(0, (own, 1, groups))
            n_in = n_out

    def forward(self, stages):
        """Features for the heads, fine to coarse."""
        x = stages[-1]
        features = [x]
        for up, lateral, conv, finer in zip(self.ups, self.laterals, self.convs, reversed(stages[:-1]), strict=True):
            x = conv(F.interpolate(up(x), size=finer.shape[2:], mode="nearest") + lateral(finer))
            features.insert(0, x)
        return features
