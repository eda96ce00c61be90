"""Forward and backward pass of a network as one CUDA graph each: on CUDA, launching kernels one by one is slow."""

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

MAX_CHANGES = 10  # a network that changes more often than this runs without graphs


def autocast(device, autocast_dtype):
    """Context in which convolutions are computed in the dtype `autocast_dtype`, unless it is None."""
    return torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None, cache_enabled=False)


def _captures_on(device):
    """Whether PyTorch can capture on this GPU: its stream for captures belongs to the GPU of the first capture."""
    stream = torch.cuda.graph.default_capture_stream
    return stream is None or stream.device == device


class _Call(nn.Module):
    """The network with fixed options that are not tensors. Forward runs under autocast, and backward outside of it.

    PyTorch replaces the forward method of the module that it captures. This wrapper keeps the network unchanged.
    """

    def __init__(self, network, autocast_dtype, options, names):
        super().__init__()
        self.network, self.autocast_dtype, self.options, self.names = network, autocast_dtype, options, names

    def forward(self, images, *tensors):
        with autocast(images.device, self.autocast_dtype):
            return self.network(images, **self.options, **dict(zip(self.names, tensors, strict=True)))


@dataclass
class _Captured:
    """The function that replays a graph, the shape of its images, and whether a second batch had that shape."""

    replay: Callable
    shape: torch.Size
    recurs: bool = False


class GraphedForward:
    """A network in training, under autocast if a dtype is given; on CUDA with `use_cuda_graph`, replayed from a graph.

    Only the network is captured, at the first batch. Loss, optimizer, learning rates, random numbers and callbacks stay
    outside of the graph and need not be capturable. PyTorch captures on one GPU in a process, the first. The network
    runs without a graph on other GPUs, for a smaller batch (the last of an epoch), and while a module has hooks, which
    a graph would skip. Each set of options has its own graph. A larger batch is captured again if only one batch had
    the captured size. All graphs are captured again if parameters were frozen, unfrozen or moved in memory. The
    gradients of a replay are memory of the graph: to keep them after the step, clone them.

    As a context manager it frees its graphs at the end, and runs without graphs from then on.
    """

    def __init__(self, network, autocast_dtype=None, use_cuda_graph=False):
        self.network, self.autocast_dtype, self.use_cuda_graph = network, autocast_dtype, use_cuda_graph
        self.modules = list(network.modules())
        self.captured, self.outgrown = {}, []
        self.fixed, self.changes = None, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.use_cuda_graph = False
        self._forget()

    def __call__(self, images, **options):
        """The network's output for images and further arguments, which can be tensors or other objects."""
        names = [name for name, value in options.items() if isinstance(value, torch.Tensor)]
        tensors = (images, *(options.pop(name) for name in names))
        call = partial(_Call, self.network, self.autocast_dtype, options, names)
        if self.use_cuda_graph:
            self._notice_changes()
        if not self.use_cuda_graph or self._has_hooks() or not _captures_on(images.device):
            return call()(*tensors)
        key = (*names, *options.items())
        found = self.captured.get(key)
        # the last batch of an epoch can come first and be smaller than others; later it can be larger, by one
        larger = found is not None and len(images) > found.shape[0] and not found.recurs
        if found is None or larger:
            if larger:
                self.outgrown.append(found)  # graphs share scratch memory, which must not be freed with one of them
            found = self.captured[key] = _Captured(self._capture(call(), tensors), images.shape)
        elif images.shape == found.shape:
            found.recurs = True
        if images.shape != found.shape:
            return call()(*tensors)
        out = found.replay(*tensors)  # clone: the next replay overwrites it, and a callback may keep it
        return tuple(part.clone() for part in out) if isinstance(out, tuple) else out.clone()

    def _notice_changes(self):
        """Delete all graphs if something that is fixed in them has changed; after many changes, stop using graphs.

        Fixed are which parameters are trained, where they and the buffers are in memory, and the modules' modes.
        """
        fixed = [module.training for module in self.modules]
        for module in self.modules:
            for tensors in (module._parameters, module._buffers):
                fixed += [(x.requires_grad, x.data_ptr()) for x in tensors.values() if x is not None]
        if fixed != self.fixed:
            self._forget()
            self.fixed, self.changes = fixed, self.changes + 1
            self.use_cuda_graph = self.changes <= MAX_CHANGES

    def _forget(self):
        if self.captured:
            self.captured.clear()
            self.outgrown.clear()
            gc.collect()  # graphs are in reference cycles, and hold their memory until collected

    def _has_hooks(self):
        kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
        return any(getattr(module, kind) for module in self.modules for kind in kinds)

    def _capture(self, call, tensors):
        gc.collect()  # collecting an old graph (of a failed fit) during a capture would break the capture
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        # entered so that it is restored: after a failed capture PyTorch may stay on the stream of the capture
        stream = torch.cuda.current_stream(tensors[0].device) if tensors[0].is_cuda else None
        with torch.cuda.device_of(tensors[0]), torch.cuda.stream(stream), warnings.catch_warnings():
            # the warm-up runs used another stream, and PyTorch's capture waits for it
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            try:
                graphed = torch.cuda.make_graphed_callables(call, tuple(tensor.clone() for tensor in tensors))
            except RuntimeError as error:
                kind = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else RuntimeError
                raise kind(
                    f"{error}\nThis happened while a training step was captured as a CUDA graph. A graph keeps memory, "
                    "and no other thread may use the GPU meanwhile. Fit with net_params={'cuda_graph': False}, in a "
                    "new process if the GPU fails in this one."
                ) from error
        for buffer, before in buffers:  # the warm-up runs have changed the statistics of batch norm
            buffer.copy_(before)
        return graphed
