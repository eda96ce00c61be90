"""Training by several processes that torchrun has started, each on its part of every batch.

PyTorch does the work: torchrun starts and ends the processes, DistributedDataParallel averages their gradients. All
processes have the same images and parameters, and the same epochs. If torchrun has not started the process, the
functions here have no effect.
"""

import atexit
import multiprocessing
import os
import warnings
import zlib
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from skgcm.network.backbone import Backbone


def is_launched():
    """Whether torchrun has started this process as one of several. False in its children, for example joblib's."""
    return (
        dist.is_available()
        and dist.is_torchelastic_launched()
        and int(os.environ["WORLD_SIZE"]) > 1
        and multiprocessing.parent_process() is None
    )


def rank():
    """The number of this process. The first, 0, writes files and shows progress."""
    return int(os.environ["RANK"]) if is_launched() else 0


def size():
    """The number of processes."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def own_gpu():
    """The name of this process's GPU: each process on a machine has its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if is_launched() else "cuda"


def _join():
    """Join the process group at the first exchange. The group lasts as long as the process: PyTorch makes only one."""
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)


def _leave():
    if dist.is_initialized():
        dist.destroy_process_group()


def from_first(value):
    """The value of the first process, in all processes."""
    if not is_launched():
        return value
    _join()
    shared = [value]
    dist.broadcast_object_list(shared, device=torch.device("cpu"))
    return shared[0]


def total(numbers):
    """Sums of a few numbers over the processes, the same to the bit in all processes."""
    if not is_launched():
        return list(numbers)
    _join()
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def mean(values, weights):
    """Weighted mean of the values of all processes."""
    if not is_launched():
        return float(np.average(values, weights=weights))
    weighted, weight = total([float(np.dot(np.asarray(values, np.float64), weights)), float(np.sum(weights))])
    return weighted / weight


def check_same_labels(y):
    """Raise ValueError, in all processes, unless all have the same labels (n,): each process must get all images."""
    if not is_launched():
        return
    _join()
    found = [None] * size()
    dist.all_gather_object(found, (len(y), zlib.crc32(np.ascontiguousarray(y))))
    if len(set(found)) > 1:
        raise ValueError(
            f"The processes that torchrun has started have different data, of {[n for n, _ in found]} images. Each "
            "takes its part of every batch by itself. Pass all images, in the same order, in every process."
        )


def check_batch_size(batch_size, n):
    """Raise ValueError if a batch has fewer images than there are processes."""
    if min(batch_size, n) < size():
        raise ValueError(
            f"A batch of {min(batch_size, n)} images cannot be shared by {size()} processes. Set a larger batch_size, "
            "which counts the images of all processes together, or start fewer processes."
        )


@contextmanager
def parallel(module):
    """Context that gives the module to call in a training step; its gradients are means over the processes.

    Raises ValueError, in all processes, for a batch norm whose statistics cannot be those of the whole batch.
    """
    if not is_launched():
        yield module
        return
    norms, foreign = _trained_norms(module), any(isinstance(part, Backbone) for part in module.modules())
    _join()
    try:
        for norm in norms:
            norm.__class__ = _CommonBatchNorm if norm.running_mean.device.type == "cpu" else _CommonBatchNormOnGPU
        with warnings.catch_warnings():
            # gradients of 1x1 kernels, channels last: the strides differ in number and not in meaning
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            # an encoder that other people made may have parameters that its features do not depend on
            yield nn.parallel.DistributedDataParallel(module, find_unused_parameters=foreign)
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


def _trained_norms(module):
    """The batch norms that are trained, plain ones. Raises ValueError where there are others."""
    frozen = {part for own in module.modules() if isinstance(own, Backbone) and own.frozen for part in own.modules()}
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm not in frozen]
    others = sorted({type(norm).__name__ for norm in norms if type(norm) is not nn.BatchNorm2d})
    if any(norm.weight is None or norm.momentum is None or norm.running_mean is None for norm in norms):
        others.append("batch norm without affine, momentum or running statistics")
    if others:
        raise ValueError(
            f"The encoder has {', '.join(others)}, which cannot be trained by several processes. Expected "
            "torch.nn.BatchNorm2d itself, with affine, momentum and running statistics. Set encoder_lr=0, train in one "
            "process, or use an encoder with plain BatchNorm2d, like 'resnet18.a1_in1k'."
        )
    return norms


class _Sum(torch.autograd.Function):
    """Sum of a tensor over the processes."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return _Sum.forward(ctx, grad)


class _CommonBatchNormOnGPU(nn.SyncBatchNorm, nn.BatchNorm2d):
    """PyTorch's batch norm with the statistics of all processes' images. It is a BatchNorm2d for isinstance checks."""

    process_group = None  # all


class _CommonBatchNorm(nn.BatchNorm2d):
    """The same on the CPU, for which PyTorch has no such module."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        wide = x.float()
        n = torch.tensor([float(x.numel() // x.shape[1])])
        sums = _Sum.apply(torch.cat([wide.sum((0, 2, 3)), n]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / n
        self.num_batches_tracked.add_(1)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1).clamp_min(1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
