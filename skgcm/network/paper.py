"""The paper's network: encoder (layers 1 to 10) and decoder (11 to 14), one resolution of features at the end."""

from itertools import pairwise

from torch import nn

from skgcm.network.blocks import ConvBlock, DeconvolutionUp, NearestUp


class PaperEncoder(nn.Module):
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
        self.widths = widths[1:]
        self.bottleneck = ConvBlock(widths[-1], widths[-1], kernel=1)

    def forward(self, x):
        """Features of each stage, fine to coarse."""
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return [*stages[:-1], self.bottleneck(x)]


class PaperDecoder(nn.Module):
    """Layers 11 to 14: stages of upsampling and a plain convolution. With groups > 1, that many parallel decoders."""

    def __init__(self, encoder_widths, width, upsampling, groups):
        super().__init__()
        up = {"nearest": NearestUp, "deconvolution": DeconvolutionUp}[upsampling]
        widths = [groups * width * 2**i for i in reversed(range(len(encoder_widths) - 1))]
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList()
        for i, (n_in, n_out) in enumerate(zip([encoder_widths[-1], *widths], widths, strict=False)):
            # every group reads the same encoder output, so the first layer is an ordinary convolution
            self.ups.append(up(n_in, n_out, groups=1 if i == 0 else groups))
            self.convs.append(ConvBlock(n_out, n_out, groups=groups))
        # inputs of the heads: channels of a class, kernel, number of groups
        # with one stage there is no decoder, so all classes share the features
        self.levels = [(width, 3, groups)] if widths else [(encoder_widths[-1], 3, 1)]

    def forward(self, stages):
        """The finest features, in a list of one."""
        x = stages[-1]
        for up, conv, finer in zip(self.ups, self.convs, reversed(stages[:-1]), strict=True):
            x = conv(up(x, finer.shape[2:]))
        return [x]
