"""A network's forward and backward pass as one launch each, where launching costs more than computing: on CUDA."""

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

MAX_CHANGES = 10  # of what graphs have fixed: a network that changes more often is run step by step


def autocast(device, autocast_dtype):
    """Context in which convolutions are computed in the dtype `autocast_dtype`, if any."""
    return torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None, cache_enabled=False)


def _captures_on(device):
    """Whether PyTorch can capture on this GPU: its stream for that is of the GPU it first captured on."""
    stream = torch.cuda.graph.default_capture_stream
    return stream is None or stream.device == device


class _Call(nn.Module):
    """The network with options that are not tensors, under an autocast of its own: backward runs outside of it.

    PyTorch replaces the forward method of what it captures: this one's, so that the network stays as it is.
    """

    def __init__(self, network, autocast_dtype, options, names):
        super().__init__()
        self.network, self.autocast_dtype, self.options, self.names = network, autocast_dtype, options, names

    def forward(self, images, *tensors):
        with autocast(images.device, self.autocast_dtype):
            return self.network(images, **self.options, **dict(zip(self.names, tensors, strict=True)))


@dataclass
class _Captured:
    """What replays a graph, the shape of its images, and whether that came again."""

    replay: Callable
    shape: torch.Size
    recurs: bool = False


class GraphedForward:
    """A network in training under autocast to a dtype, if any; with `use_cuda_graph`, on CUDA, from a graph.

    Only the network is captured, at the first batch: loss, optimizer, learning rates, random numbers and callbacks stay
    as they are, and need not be capturable. PyTorch captures on one GPU in a process, the first: on others the network
    runs itself. So it does for a smaller batch, the last of an epoch, and for every batch while some module has hooks,
    which a graph would leave out. Each set of options has a graph of its own. A larger batch is captured anew while no
    second one came of the size captured, and everything where parameters were frozen, thawed or given other memory. The
    gradients of a replay are the graph's own memory: whoever keeps them beyond the step clones them.

    As a context manager it lets go of its graphs at the end, and replays no more.
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
        """The network's output for images and its further arguments, tensors and others."""
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
                self.outgrown.append(found)  # graphs share scratch memory, which none must take along from the others
            found = self.captured[key] = _Captured(self._capture(call(), tensors), images.shape)
        elif images.shape == found.shape:
            found.recurs = True
        if images.shape != found.shape:
            return call()(*tensors)
        out = found.replay(*tensors)  # the next replay writes over its own, which a callback may have kept
        return tuple(part.clone() for part in out) if isinstance(out, tuple) else out.clone()

    def _notice_changes(self):
        """Forget all graphs where what they do not read anew has changed, and replay no more where it often does.

        That is which parameters are trained, where they and the buffers lie in memory, and the modules' modes.
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
            gc.collect()  # graphs lie in cycles of references, and their memory serves nobody else

    def _has_hooks(self):
        kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
        return any(getattr(module, kind) for module in self.modules for kind in kinds)

    def _capture(self, call, tensors):
        gc.collect()  # a graph, of a fit that failed, that is collected while another is captured spoils that
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        # entered to be restored: after a capture that failed PyTorch may stay on the stream it captured on
        stream = torch.cuda.current_stream(tensors[0].device) if tensors[0].is_cuda else None
        with torch.cuda.device_of(tensors[0]), torch.cuda.stream(stream), warnings.catch_warnings():
            # the rehearsals ran on a stream of their own, which PyTorch's capture waits for
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            try:
                graphed = torch.cuda.make_graphed_callables(call, tuple(tensor.clone() for tensor in tensors))
            except RuntimeError as error:
                kind = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else RuntimeError
                raise kind(
                    f"{error}\nThis happened while a training step was captured as a CUDA graph, which keeps memory "
                    "and wants a GPU that no other thread uses. net_params={'cuda_graph': False} fits without, in a "
                    "new process if this one's GPU is of no more use."
                ) from error
        for buffer, before in buffers:  # batch norm has counted the rehearsals
            buffer.copy_(before)
        return graphed
