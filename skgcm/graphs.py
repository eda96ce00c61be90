"""A network's forward and backward pass as one launch each, where launching costs more than computing: on CUDA."""

import torch
from torch import nn


class Replay:
    """A network in training that is captured as CUDA graphs at its first batch, and replayed.

    Only the network is captured: loss, optimizer, learning rates, random numbers and callbacks stay as they are, and
    need not be capturable. A batch of another shape, the last of an epoch, runs the network itself, and so does every
    batch while some module has hooks, which a graph would leave out. Parameters that are frozen or thawed on the way
    are captured anew. Capturing needs an autocast, if any, without a cache.
    """

    def __init__(self, network):
        self.network = network
        self.graphed = self.captured = None

    def __call__(self, images):
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in self.network.modules()):
            return self.network(images)
        trainable = [parameter.requires_grad for parameter in self.network.parameters()]
        if self.graphed is None or self.captured[1] != trainable:
            self.graphed = self._capture(images)
            self.captured = images.shape, trainable
        if images.shape != self.captured[0]:
            return self.network(images)
        return self.graphed(images).clone()  # the next replay writes over its own, which a callback may have kept

    def _capture(self, images):
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        # PyTorch replaces the forward method of what it captures: of a wrapper, so that the network stays as it is
        graphed = torch.cuda.make_graphed_callables(nn.Sequential(self.network), (images.clone(),))
        for buffer, before in buffers:  # batch norm has counted the rehearsals
            buffer.copy_(before)
        return graphed
