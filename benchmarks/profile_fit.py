"""Where the time of a training step goes, by PyTorch's profiler.

    python benchmarks/profile_fit.py

A fit of random images of 32 x 32, shifted and flipped, one epoch after one to warm up; on a GPU in batches of 512, and
step by step, since a graph's kernels belong to no operation.
Writes benchmarks/results/profile-cpu.md and .json (profile-cuda where there is a GPU).
"""

import time

import numpy as np
import torch
from _common import machine, origin, versions, write
from skorch.callbacks import Callback
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from skgcm import GCMClassifier

CUDA = torch.cuda.is_available()
BATCH, STEPS = (512, 40) if CUDA else (64, 40)
KINDS = {  # what the name of an operation contains, the first that matches
    "convolutions": ("conv", "mkldnn_reorder"),
    "batch norm": ("batch_norm",),
    "activations": ("relu", "clamp_min", "threshold_backward"),
    "enlarging": ("upsample",),
    "contracted score": ("bmm", "aten::mm", "addmm", "unfold", "im2col", "constant_pad"),
    "optimizer": ("sgd", "adam"),
    "change of dtype and copies": ("copy_", "_to_copy", "aten::to", "clone"),
    "loss": ("softmax", "nll_loss", "cross_entropy"),
    "taking and moving the images": ("aten::index", "aten::where", "randint", "randperm"),
}


class SecondEpoch(Callback):
    """Profiles the second epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * CUDA
            self.profile_ = profile(activities=activities).__enter__()
            self.start_ = time.perf_counter()  # starting the profiler takes its time too

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.seconds_ = time.perf_counter() - self.start_
            self.profile_.__exit__(None, None, None)


def kind(name):
    return next((k for k, parts in KINDS.items() if any(part in name.lower() for part in parts)), "the rest")


def main():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (BATCH * STEPS, 32, 32, 3), dtype=np.uint8), np.arange(BATCH * STEPS) % 10
    epoch = SecondEpoch()
    params = {"max_epochs": 2, "batch_size": BATCH, "augment": "shift+flip", "random_state": 0}
    GCMClassifier(**params, callbacks=[epoch], net_params={"cuda_graph": False}).fit(X, y)
    attribute = "self_device_time_total" if CUDA else "self_cpu_time_total"
    times = {}
    for event in epoch.profile_.key_averages():
        if event.device_type != DeviceType.CPU:  # a kernel: its time is that of the operation that launched it
            continue
        times[kind(event.key)] = times.get(kind(event.key), 0) + getattr(event, attribute) / 1000 / STEPS
    times = dict(sorted(times.items(), key=lambda item: -item[1]))
    wall = epoch.seconds_ * 1000 / STEPS
    head = {
        "command": "python benchmarks/profile_fit.py",
        "machine": machine(),
        "versions": versions("skorch"),
        "batch": BATCH,
        "step_ms": wall,
        "ms": times,
    }
    lines = [
        "# Where a training step's time goes",
        "",
        f"{origin(head)} {STEPS} batches of {BATCH} images of 32 × 32, augmented. Under the profiler a step takes "
        f"{wall:.1f} ms, {sum(times.values()):.1f} of them in operations {'on the GPU' if CUDA else 'of PyTorch'}.",
        "",
        "| | ms | share |",
        "|---|---|---|",
        *(f"| {name} | {ms:.2f} | {ms / sum(times.values()):.0%} |" for name, ms in times.items()),
    ]
    print("\n".join(lines))
    write("profile-cuda" if CUDA else "profile-cpu", lines, head)


if __name__ == "__main__":
    main()
