"""Batch norm in training and the ReLU after it, in two kernels each way: on CUDA, written in Triton.

PyTorch's own batch norm takes a third of a training step's time on a GPU, since features here have few channels. This
module is only imported where a net asks for it (``fused_norm``): Triton comes with PyTorch for CUDA on Linux, needs a C
compiler, and takes seconds to compile the kernels for each number of channels.

A batch is M rows of C channels, one row per pixel. Each program reads some of the rows, twice: in the first kernel for
their sums, in the second for what the sums of all rows are needed for. Each leaves its sums in a place of its own, from
where they are added in the same order every time.
"""

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

MOST_CHANNELS, MOST_VALUES = 2048, 2**30  # blocks that fit into registers, and places that fit into 32 bits
ELEMENTS = 4096  # that a program reads at once
PROGRAMS, STEPS = 528, 4  # most programs, and least reads of each: all of them read the sums of all
NOT_SPECIALIZED = ["M", "P", "steps"]  # or each batch size would be compiled for


@triton.jit
def _block(x, i, steps, M, C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of the i-th block of this program: where its values lie, which of them exist, and the values."""
    m, c = (tl.program_id(0) * steps + i) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_C)
    at, inside = m[:, None] * C + c[None, :], (m < M)[:, None] & (c < C)[None, :]
    return at, inside, tl.load(x + at, inside, 0.0).to(tl.float32)


@triton.jit
def _leave(a, b, part, P, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Write this program's sums over its rows into `part`, (2, P, C)."""
    c = tl.arange(0, BLOCK_C)
    at = tl.program_id(0) * C + c
    tl.store(part + at, tl.sum(a, 0), c < C)
    tl.store(part + P * C + at, tl.sum(b, 0), c < C)


@triton.jit
def _collect(part, P, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """The sums over all programs, twice (C,)."""
    p, c = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_C)
    a = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    b = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for start in range(0, P, BLOCK_P):
        at, inside = (start + p)[:, None] * C + c[None, :], (start + p < P)[:, None] & (c < C)[None, :]
        a += tl.load(part + at, inside, 0.0)
        b += tl.load(part + P * C + at, inside, 0.0)
    return tl.sum(a, 0), tl.sum(b, 0)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _sums(x, part, M, P, steps, C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of x and of its square, both less the first row: what is far from 0 keeps its digits."""
    c = tl.arange(0, BLOCK_C)
    first = tl.load(x + c, c < C, 0.0).to(tl.float32)[None, :]
    a = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    b = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for i in range(steps):
        _, inside, v = _block(x, i, steps, M, C, BLOCK_M, BLOCK_C)
        v = tl.where(inside, v - first, 0.0)
        a += v
        b += v * v
    _leave(a, b, part, P, C, BLOCK_C)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _normalize(
    x, part, y, weight, bias, running_mean, running_var, moments, M, P, steps, momentum, eps,
    C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """y; moments, (2, C): the batch's mean and 1 / standard deviation; and the running statistics."""
    c = tl.arange(0, BLOCK_C)
    a, b = _collect(part, P, C, BLOCK_P, BLOCK_C)
    offset = a / M
    mean = tl.load(x + c, c < C, 0.0).to(tl.float32) + offset
    var = tl.maximum(b / M - offset * offset, 0.0)
    rstd = tl.rsqrt(var + eps)
    if tl.program_id(0) == 0:
        tl.store(moments + c, mean, c < C)
        tl.store(moments + C + c, rstd, c < C)
        old_mean, old_var = tl.load(running_mean + c, c < C), tl.load(running_var + c, c < C)
        tl.store(running_mean + c, (1 - momentum) * old_mean + momentum * mean, c < C)
        tl.store(running_var + c, (1 - momentum) * old_var + momentum * (var * M / (M - 1)), c < C)
    scale, shift = tl.load(weight + c, c < C, 0.0)[None, :], tl.load(bias + c, c < C, 0.0)[None, :]
    for i in range(steps):
        at, inside, v = _block(x, i, steps, M, C, BLOCK_M, BLOCK_C)
        out = (v - mean[None, :]) * rstd[None, :] * scale + shift
        out = tl.where(out < 0, 0.0, out)  # tl.maximum would make 0 of NaN
        tl.store(y + at, out.to(y.dtype.element_ty), inside)


@triton.jit
def _passed(x, dy, weight, bias, moments, i, steps, M, C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of the i-th block: where it lies, which of it exists, the normalized x, and the gradient behind the ReLU."""
    c = tl.arange(0, BLOCK_C)
    mean, rstd = tl.load(moments + c, c < C, 0.0)[None, :], tl.load(moments + C + c, c < C, 0.0)[None, :]
    scale, shift = tl.load(weight + c, c < C, 0.0)[None, :], tl.load(bias + c, c < C, 0.0)[None, :]
    at, inside, v = _block(x, i, steps, M, C, BLOCK_M, BLOCK_C)
    normalized = (v - mean) * rstd
    gradient = tl.load(dy + at, inside, 0.0).to(tl.float32)
    return at, inside, normalized, tl.where(normalized * scale + shift <= 0, 0.0, gradient)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _gradient_sums(
    x, dy, part, weight, bias, moments, M, P, steps,
    C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Of the gradient behind the ReLU, and of its product with the normalized x."""
    a = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    b = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for i in range(steps):
        _, _, v, g = _passed(x, dy, weight, bias, moments, i, steps, M, C, BLOCK_M, BLOCK_C)
        a += g
        b += g * v
    _leave(a, b, part, P, C, BLOCK_C)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _gradients(
    x, dy, part, dx, dweight, dbias, weight, bias, moments, M, P, steps,
    C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    c = tl.arange(0, BLOCK_C)
    a, b = _collect(part, P, C, BLOCK_P, BLOCK_C)
    if tl.program_id(0) == 0:
        tl.store(dbias + c, a, c < C)
        tl.store(dweight + c, b, c < C)
    scale = (tl.load(weight + c, c < C, 0.0) * tl.load(moments + C + c, c < C, 0.0))[None, :]
    a, b = (a / M)[None, :], (b / M)[None, :]
    for i in range(steps):
        at, inside, v, g = _passed(x, dy, weight, bias, moments, i, steps, M, C, BLOCK_M, BLOCK_C)
        out = (g - a - v * b) * scale
        tl.store(dx + at, out.to(dx.dtype.element_ty), inside)


def _layout(x):
    """M, P, steps, and the sizes of blocks."""
    n_channels = x.shape[1]
    n_rows, block_c = x.numel() // n_channels, triton.next_power_of_2(n_channels)
    block_m = max(1, ELEMENTS // block_c)
    steps = max(STEPS, triton.cdiv(n_rows, block_m * PROGRAMS))
    programs = triton.cdiv(n_rows, block_m * steps)
    return (n_rows, programs, steps), {"C": n_channels, "BLOCK_M": block_m, "BLOCK_C": block_c}


def _sums_of(n, x):
    """A place for n times two sums of each channel of x."""
    return torch.empty(2, n, x.shape[1], dtype=torch.float32, device=x.device)


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        x = x.contiguous(memory_format=torch.channels_last)
        sizes, blocks = _layout(x)
        y = torch.empty_like(x)
        part, moments = (_sums_of(n, x) for n in (sizes[1], 1))
        with torch.cuda.device_of(x):
            _sums[sizes[1:2]](x, part, *sizes, **blocks)
            _normalize[sizes[1:2]](
                x, part, y, weight, bias, running_mean, running_var, moments, *sizes, momentum, eps,
                **blocks, BLOCK_P=blocks["BLOCK_M"],
            )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, moments)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, bias, moments = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        sizes, blocks = _layout(x)
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        part = _sums_of(sizes[1], x)
        with torch.cuda.device_of(x):
            _gradient_sums[sizes[1:2]](x, dy, part, weight, bias, moments, *sizes, **blocks)
            _gradients[sizes[1:2]](
                x, dy, part, dx, dweight, dbias, weight, bias, moments, *sizes, **blocks, BLOCK_P=blocks["BLOCK_M"]
            )
        return dx, dweight, dbias, None, None, None, None


def takes(x):
    """Whether x is of a size that the kernels are for."""
    return x.shape[1] <= MOST_CHANNELS and x.shape[1] < x.numel() <= MOST_VALUES


def norm_relu(x, norm):
    """``relu(norm(x))`` of a :class:`torch.nn.BatchNorm2d` in training, and its effect on the running statistics.

    x : Tensor (B, C, R, S) on CUDA, floating point, of a size that :func:`takes` takes.
    """
    norm.num_batches_tracked.add_(1)
    return _NormReLU.apply(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps)
