"""What fit, predict and explain cost, against hand-written PyTorch, stock skorch and Captum.

    python benchmarks/speed.py                    # all of it, about twelve minutes on two cores
    python benchmarks/speed.py --only fit predict # some parts; the others stay as they are

Every ratio is taken in one run: the functions compared run in turn, each in its own process, and the ratios of the
rounds are printed as median and range. Images are random: the time does not depend on their content. Writes
benchmarks/results/speed-cpu.md and .json (speed-cuda where there is a GPU), part by part, and .png. Needs the
extra `bench`.
"""

import argparse
import warnings
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _cnn import CNN, for_captum
from _common import machine, origin, spread, versions, write_row_by_row
from _timing import in_process, in_turn, ratio, seconds
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skgcm import GCMClassifier
from skgcm.network import GCM
from skgcm.network.blocks import ConvBlock

warnings.simplefilter("ignore", ConvergenceWarning)  # random images cannot be learned

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCH = 512 if CUDA else 64
TRAIN, PREDICT = (50_000, 50_000) if CUDA else (2560, 5120)
ROUNDS, REPEATS = (3, 1) if CUDA else (9, 3)  # of what is timed, and of measurements of memory: time on a GPU is scarce
NAME = "speed-cuda" if CUDA else "speed-cpu"
EPOCHS = {  # on a GPU: batch size, and what the net is told beyond its defaults
    "batches of 512, not replayed": (512, {"cuda_graph": False}),
    "batches of 512": (512, {}),
    "batches of 1024": (1024, {}),
    "batches of 2048": (2048, {}),
    "batches of 4096": (4096, {}),
}


COUNTS = [(n, 32) for n in (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)]  # images, and their side
SIDES = [(2**21 // side**2, side) for side in (16, 32, 64, 128, 256)]


def draw(n, side=32):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return X, np.arange(n) % 10


class Plain(GCM):
    """The network in PyTorch's default memory format, without optimisation for speed."""

    def __init__(self, n_classes):
        super().__init__(n_classes)
        self.encoder.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))


class Direct(Plain):
    """The same with its maps built in training and prediction, as equations (1) to (4) are written."""

    def forward(self, images):
        return self.contributions(images).mean((2, 3, 4))


def sgd(network, **options):
    return torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, **options)


def plain_fit(X, y):
    """(a): DataLoader over a TensorDataset, float32, maps built, no tricks."""
    network = Direct(10).to(DEVICE)
    images = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
    data = torch.utils.data.TensorDataset(images, torch.from_numpy(y))
    optimizer = sgd(network)
    for xb, yb in torch.utils.data.DataLoader(data, BATCH, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(network(xb.to(DEVICE)), yb.to(DEVICE)).backward()
        optimizer.step()
    return network.eval()


def best_fit(X, y):
    """(b): bfloat16, channels last, contracted score, fused optimizer, whole batches sliced from uint8."""
    network = GCM(10).to(DEVICE, memory_format=torch.channels_last)
    optimizer, order = sgd(network, fused=True), torch.randperm(len(X)).to(DEVICE)
    images, labels = torch.from_numpy(X).to(DEVICE), torch.from_numpy(y).to(DEVICE)
    for chosen in order.split(BATCH):
        xb = images[chosen].permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16):
            scores = network(xb)
        F.cross_entropy(scores, labels[chosen]).backward()
        optimizer.step()
    return network.eval()


def skorch_fit(X, y):
    """(c): skorch's NeuralNetClassifier as it comes, with the same network."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        Plain, module__n_classes=10, criterion=nn.CrossEntropyLoss, optimizer__momentum=0.9, optimizer__nesterov=True,
        lr=0.05, max_epochs=1, batch_size=BATCH, train_split=None, verbose=0, iterator_train__shuffle=True,
        device=DEVICE,
    )  # fmt: skip
    return net.fit(X.transpose(0, 3, 1, 2).astype(np.float32) / 255, y)


def our_fit(X, y, **params):
    params = {"max_epochs": 1, "batch_size": BATCH, "augment": None, "random_state": 0, "device": DEVICE} | params
    return GCMClassifier(**params).fit(X, y)


@torch.inference_mode()
def plain_predict(network, X):
    images = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), BATCH)
    return torch.cat([network(xb.to(DEVICE)).argmax(1) for (xb,) in loader]).cpu().numpy()


@torch.inference_mode()
def best_predict(network, X):
    fused = network.fused().to(memory_format=torch.channels_last)
    parts = torch.from_numpy(X).split(BATCH)
    return torch.cat([fused(part.to(DEVICE).permute(0, 3, 1, 2).float() / 255).argmax(1) for part in parts]).cpu()


# Makers of what a process then runs again and again.


def fitting(fit):
    X, y = draw(TRAIN)
    return lambda: fit(X, y)


def predicting(fit, predict):
    X, y = draw(PREDICT)
    fitted = fit(X[:640], y[:640])
    return lambda: predict(fitted, X)


def stepping(kind, n_classes, repeats):
    step = training_step(kind, n_classes)
    return lambda: [step() for _ in range(repeats)]


def explaining(method):
    X, y = draw(128)
    if method == "ours":
        clf = our_fit(X, y)
        return lambda: clf.explain(X, classes="all")
    from captum.attr import GuidedBackprop, LayerGradCam

    cnn = for_captum(CNN(10)).to(DEVICE)
    images = (torch.from_numpy(X).to(DEVICE).permute(0, 3, 1, 2).float() / 255).requires_grad_()
    captum = LayerGradCam(cnn, cnn.encoder) if method == "cam" else GuidedBackprop(cnn)
    warnings.simplefilter("ignore")  # Captum's, about its hooks
    return lambda: [captum.attribute(images, target=j) for j in range(10)]


def row(figure, reach, found):
    return {"figure": figure, "reach": reach, **found}


def throughputs(times, n):
    """Images a second of each function, as text."""
    return ", ".join(f"{name} {n / seconds(pairs):,.0f}" for name, pairs in times.items())


def bench_fit():
    fits = {"ours": our_fit, "a": plain_fit, "b": best_fit, "c": skorch_fit}
    times = in_turn({name: partial(fitting, fit) for name, fit in fits.items()}, ROUNDS)
    return [
        row(f"fit, over plain loop (a) [images/s: {throughputs(times, TRAIN)}]", ">= 2.5", ratio(times, "ours", "a")),
        row("fit, over stock skorch (c)", ">= 2.5", ratio(times, "ours", "c")),
        row("fit, over best loop (b)", ">= 0.95", ratio(times, "ours", "b")),
    ]


def bench_epochs():
    """On a GPU alone."""
    rows, floor = [], bytes_moved() * TRAIN / in_process(bandwidth)
    for words, epochs in in_process(seconds_of_epochs).items():
        figure = f"epoch of {TRAIN:,} images, {words}"
        rows.append(row(f"{figure} [{len(epochs)} of one fit], s", "<= 0.25", {"s": spread(epochs)}))
        shares = [floor / epoch for epoch in epochs]
        rows.append(row(f"{figure}: estimated share of moving memory", "", {"share": spread(shares)}))
    return rows


def seconds_of_epochs(epochs=8):
    """Of one fit each; in the first, the longest, libraries are loaded, kernels compiled and graphs captured."""
    X, y = draw(TRAIN)
    params = {"max_epochs": epochs, "augment": "shift+flip"}
    return {
        words: [epoch["dur"] for epoch in our_fit(X, y, batch_size=size, net_params=net_params, **params).history_]
        for words, (size, net_params) in EPOCHS.items()
    }


def bytes_moved():
    """What a training step reads and writes for an image of 32 x 32 in bfloat16, an estimate.

    A block of convolution, norm and activation reads its input and writes its output; its backward pass reads both
    again, and the gradient of one to write the other's. Caches and fusing across blocks can save some of this;
    statistics of batch norm, the head and the optimizer come on top.
    """
    network, floats = GCM(10).eval(), []
    blocks = [module for module in network.modules() if isinstance(module, ConvBlock)]
    for module in [*blocks, *network.decoder.ups, *network.decoder.laterals]:
        module.register_forward_hook(lambda _, args, out: floats.append(args[0].numel() + out.numel()))
    network(torch.zeros(1, 3, 32, 32))
    return 3 * 2 * sum(floats)


def bandwidth(n_bytes=2**30, repeats=20):
    """Bytes a second, read and written, of a copy on the GPU."""
    source, copy = (torch.zeros(n_bytes, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    copy.copy_(source)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        copy.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return 2 * n_bytes * repeats / (start.elapsed_time(end) / 1000)


def explain_all(clf, X):
    return clf.explain(X, classes="all")


def bench_predict():
    makers = {
        "ours": partial(predicting, our_fit, GCMClassifier.predict),
        "a": partial(predicting, plain_fit, plain_predict),
        "b": partial(predicting, best_fit, best_predict),
        "explain": partial(predicting, our_fit, explain_all),
    }
    times = in_turn(makers, ROUNDS)
    rates = throughputs(times, PREDICT)
    return [
        row(f"predict, over plain loop (a) [images/s: {rates}]", ">= 1.3", ratio(times, "ours", "a")),
        row("predict, over best loop (b)", ">= 0.95", ratio(times, "ours", "b")),
        row('time of explain(classes="all") over predict', "<= 1.5", ratio(times, "ours", "explain")),
    ]


def training_step(kind, n_classes):
    network = kind(n_classes).to(DEVICE, memory_format=torch.channels_last)
    images = torch.rand(BATCH, 3, 32, 32, device=DEVICE).contiguous(memory_format=torch.channels_last)
    labels, optimizer = torch.arange(BATCH, device=DEVICE) % n_classes, sgd(network, fused=True)

    def step():
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16):
            scores = network(images)
        F.cross_entropy(scores, labels).backward()
        optimizer.step()

    return step


def growth_of_peak(function):
    """How far the GPU's memory (where there is none, resident memory) rises above what it is now, MB."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return growth_of_resident(function)


def growth_of_resident(function):
    """How far resident memory rises, at its highest, above what it is now, MB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


def status(field):
    """A line of this process's status, MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))


def growth_of_step(kind, n_classes):
    return growth_of_peak(training_step(kind, n_classes))


def bench_classes():
    makers = {f"{k.__name__} {n}": partial(stepping, k, n, 10) for k in (GCM, Direct) for n in (10, 1000)}
    makers["Direct 1000"] = partial(stepping, Direct, 1000, 1)  # takes seconds
    times = in_turn(makers, ROUNDS)
    times["Direct 1000"] = [(10 * wall, 10 * cpu) for wall, cpu in times["Direct 1000"]]
    rows = [
        row("training step, time at 1000 classes over 10", "<= 1.2", ratio(times, "GCM 10", "GCM 1000")),
        row("the same, direct form", "", ratio(times, "Direct 10", "Direct 1000")),
    ]
    for kind, reach in ((GCM, "<= 1.2"), (Direct, "")):
        few, many = ([in_process(growth_of_step, kind, n) for _ in range(REPEATS)] for n in (10, 1000))
        ratios = [b / a for a, b in zip(few, many, strict=True)]
        figure = (
            f"training step, growth of peak memory at 1000 over 10, {kind.__name__} [MB: {many[0]:.0f}, {few[0]:.0f}]"
        )
        rows.append(row(figure, reach, {"memory": spread(ratios)}))
    return rows


def bench_captum():
    times = in_turn({method: partial(explaining, method) for method in ("ours", "cam", "guided")}, ROUNDS)
    n = sum(p.numel() for p in CNN(10).parameters())
    return [
        row(f"maps of 10 classes, over Captum's LayerGradCam [CNN of {n:,}]", ">= 10", ratio(times, "ours", "cam")),
        row("maps of 10 classes, over Captum's GuidedBackprop", ">= 20", ratio(times, "ours", "guided")),
    ]


def growth_of_predict_proba():
    X, y = draw(50_000)
    clf = our_fit(X[:640], y[:640])
    return growth_of_resident(lambda: clf.predict_proba(X))


def bench_memory():
    growths = [in_process(growth_of_predict_proba) for _ in range(REPEATS)]
    figure = "growth of peak resident memory, predict_proba on 50,000 images, MB"
    return [row(figure, "<= 300", {"MB": spread(growths)})]


def scaling(n, side, repeats):
    X, y = draw(max(n, 20), side)
    clf = our_fit(X[:20], y[:20])
    return lambda: [clf.predict(X[:n]) for _ in range(repeats)]


def bench_scale(rounds=3):
    """In turn within the counts, and within the sides."""
    rows = []
    for sizes in (COUNTS, SIDES):
        repeats = {(n, side): max(1, 5_000 * 32**2 // (n * side**2)) for n, side in sizes}
        times = in_turn({size: partial(scaling, *size, repeats[size]) for size in sizes}, rounds)
        for n, side in sizes:
            pixels = n * side**2 * repeats[n, side]
            found = {"ns": spread([wall * 1e9 / pixels for wall, _ in times[n, side]])}
            rows.append(row(f"predict {n:,} images of {side} x {side}, ns a pixel", "linear", found))
    plot(rows)
    return rows


def plot(rows):
    """Nanoseconds that predict takes for a pixel, against the count and against the side of images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    measured = iter([row["ns"] for row in rows])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    panels = (("images of 32 × 32", [n for n, _ in COUNTS]), ("side of an image, pixels", [side for _, side in SIDES]))
    for ax, (label, x) in zip(axes, panels, strict=True):
        middle, low, high = np.transpose([next(measured) for _ in x])
        errors = [np.subtract(middle, low), np.subtract(high, middle)]
        ax.errorbar(x, middle, errors, fmt="o-", color="tab:blue", capsize=3)
        ax.set(xscale="log", xlabel=label, xticks=x)
        ax.set_xticks(x, [f"{value:,}" for value in x], minor=False)
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time of predict, ns a pixel")
    axes[0].set_ylim(0)  # of both, once both are drawn
    figure.suptitle("Level is linear: a pixel costs the same however many images, however large")
    figure.savefig(Path(__file__).parent / "results" / f"{NAME}.png", dpi=100)


def table(parts):
    lines = ["| figure | reach | measured | by CPU time |", "|---|---|---|---|"]
    for r in chain.from_iterable(parts.values()):
        cells = ["{:.2f} ({:.2f}, {:.2f})".format(*r[k]) for k in r if k not in ("figure", "reach")] + [""]
        lines.append(f"| {r['figure']} | {r['reach']} | {cells[0]} | {cells[1]} |")
    lines += ["", f"![What predict takes for a pixel]({NAME}.png)"] * ("scale" in parts)
    return lines


BENCHES = {
    **({"epochs": bench_epochs} if CUDA else {}),
    "memory": bench_memory,
    "fit": bench_fit,
    "predict": bench_predict,
    "classes": bench_classes,
    "captum": bench_captum,
    "scale": bench_scale,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BENCHES, nargs="+", metavar="PART", help=", ".join(BENCHES))
    args = parser.parse_args()
    head = {
        "command": "python benchmarks/speed.py",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch", "captum"),
    }
    about = "Median (smallest, largest) over rounds in turn, each function in its own process."
    if CUDA:
        about += " Epochs are of fits one after the other in one process, shifted and flipped, in batches as they say."
    title = [f"# Speed on the {'GPU' if CUDA else 'CPU'}", "", f"{origin(head)} Batches of {BATCH}. {about}", ""]
    write_row_by_row(
        NAME, args.only, BENCHES, lambda part: BENCHES[part](), lambda parts: [*title, *table(parts)], head
    )


if __name__ == "__main__":
    main()
