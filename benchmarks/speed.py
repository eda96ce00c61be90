"""What fit, predict and explain cost, against hand-written PyTorch, stock skorch and Captum.

    python benchmarks/speed.py            # all of it, about four minutes on two cores
    python benchmarks/speed.py --only fit

Every ratio is taken in one run, the things compared in turn, and printed as median and range. Images are random: time
does not depend on what they show. Writes benchmarks/results/speed-cpu.md and .json. Needs the extra `bench` (Captum).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from skgcm import GCMClassifier
from skgcm.network import GCM

RESULTS = Path(__file__).parent / "results"
BATCH = 64


def draw(n, side=32, n_classes=10):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return X, np.arange(n) % n_classes


class Plain(GCM):
    """The network in PyTorch's default memory format, as it is when nobody thinks of it."""

    def features(self, images):
        codes, sizes = self.encoder(images.contiguous())
        return self.decoder(codes, sizes).to(images.dtype)


class Direct(Plain):
    """The same with its maps built in training and prediction, as equations (1) to (4) are written."""

    def forward(self, images):
        return (self.weight_maps(images)[:, :, None] * images[:, None]).mean((2, 3, 4))


def sgd(network, **options):
    return torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, **options)


def plain_fit(X, y):
    """(a): DataLoader over a TensorDataset, float32, maps built, no tricks."""
    network = Direct(10)
    images = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
    data = torch.utils.data.TensorDataset(images, torch.from_numpy(y))
    optimizer = sgd(network)
    for xb, yb in torch.utils.data.DataLoader(data, BATCH, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(network(xb), yb).backward()
        optimizer.step()
    return network.eval()


def best_fit(X, y):
    """(b): bfloat16, channels last, contracted score, fused optimizer, whole batches sliced from uint8."""
    network = GCM(10).to(memory_format=torch.channels_last)
    optimizer, order = sgd(network, fused=True), np.random.default_rng(0).permutation(len(X))
    for start in range(0, len(X), BATCH):
        chosen = order[start : start + BATCH]
        xb = torch.from_numpy(X[chosen]).permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(xb)
        F.cross_entropy(scores, torch.from_numpy(y[chosen])).backward()
        optimizer.step()
    return network.eval()


def skorch_fit(X, y):
    """(c): skorch's NeuralNetClassifier as it comes, with the same network."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        Plain, module__n_classes=10, criterion=nn.CrossEntropyLoss, optimizer__momentum=0.9, optimizer__nesterov=True,
        lr=0.05, max_epochs=1, batch_size=BATCH, train_split=None, verbose=0, iterator_train__shuffle=True,
    )  # fmt: skip
    return net.fit(X.transpose(0, 3, 1, 2).astype(np.float32) / 255, y)


def our_fit(X, y):
    return GCMClassifier(max_epochs=1, batch_size=BATCH, random_state=0, device="cpu").fit(X, y)


@torch.inference_mode()
def plain_predict(network, X):
    images = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), BATCH)
    return torch.cat([network(xb).argmax(1) for (xb,) in loader]).numpy()


@torch.inference_mode()
def best_predict(network, X):
    folded = network.folded().to(memory_format=torch.channels_last)
    parts = [torch.from_numpy(X[i : i + BATCH]).permute(0, 3, 1, 2).float() / 255 for i in range(0, len(X), BATCH)]
    return torch.cat([folded(part).argmax(1) for part in parts]).numpy()


def in_turn(functions, rounds):
    """{name: [(wall, cpu), ...]}; a round not counted, then `rounds` in turn."""
    times = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if i:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def ratio(times, one, other):
    """Median, smallest and largest of other / one, round by round: how many times faster `one` is."""
    found = {}
    for i, clock in enumerate(("wall", "cpu")):
        ratios = [b[i] / a[i] for a, b in zip(times[one], times[other], strict=True)]
        found[clock] = [statistics.median(ratios), min(ratios), max(ratios)]
    return found


def row(figure, reach, found):
    return {"figure": figure, "reach": reach, **found}


def throughputs(times, n):
    """Images a second of each function, as text."""
    rates = {name: n / statistics.median(wall for wall, _ in pairs) for name, pairs in times.items()}
    return ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())


def bench_fit(rounds=5):
    X, y = draw(2560)
    functions = {
        name: lambda f=f: f(X, y)
        for name, f in (("ours", our_fit), ("a", plain_fit), ("b", best_fit), ("c", skorch_fit))
    }
    times = in_turn(functions, rounds)
    rates = throughputs(times, len(X))
    return [
        row(f"fit, over plain loop (a) [images/s: {rates}]", ">= 2.5", ratio(times, "ours", "a")),
        row("fit, over stock skorch (c)", ">= 2.5", ratio(times, "ours", "c")),
        row("fit, over best loop (b)", ">= 0.95", ratio(times, "ours", "b")),
    ]


def bench_predict(rounds=9):
    X, y = draw(5120)
    clf, plain, best = our_fit(X[:640], y[:640]), plain_fit(X[:640], y[:640]), best_fit(X[:640], y[:640])
    functions = {
        "ours": lambda: clf.predict(X),
        "a": lambda: plain_predict(plain, X),
        "b": lambda: best_predict(best, X),
        "explain": lambda: clf.explain(X, classes="all"),
    }
    times = in_turn(functions, rounds)
    rates = throughputs(times, len(X))
    return [
        row(f"predict, over plain loop (a) [images/s: {rates}]", ">= 1.3", ratio(times, "ours", "a")),
        row("predict, over best loop (b)", ">= 0.95", ratio(times, "ours", "b")),
        row('time of explain(classes="all") over predict', "<= 1.5", ratio(times, "ours", "explain")),
    ]


def step(network, n_classes):
    images = torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels, optimizer = torch.arange(BATCH) % n_classes, sgd(network, fused=True)

    def run():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(images)
        F.cross_entropy(scores, labels).backward()
        optimizer.step()

    return run


def growth_of_peak(function):
    """How far resident memory rises, at its highest, above what it is now, MB."""

    def status(field):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


def peak_of_steps(kind, n_classes):
    """Memory of a first training step, MB, in a process of its own."""
    code = f"from speed import *; print(growth_of_peak(step({kind}({n_classes}), {n_classes})))"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return float(out.stdout)


def bench_classes(rounds=15):
    functions = {f"{kind.__name__} {n}": step(kind(n), n) for kind in (GCM, Direct) for n in (10, 1000)}
    direct = functions.pop("Direct 1000")  # takes seconds: fewer rounds
    times = in_turn(functions, rounds)
    times["Direct 1000"] = in_turn({"d": direct}, 2)["d"]
    times["Direct 10"] = times["Direct 10"][:2]
    rows = [
        row("training step, time at 1000 classes over 10", "<= 1.2", ratio(times, "GCM 10", "GCM 1000")),
        row("the same, direct form", "", ratio(times, "Direct 10", "Direct 1000")),
    ]
    for kind, reach in (("GCM", "<= 1.2"), ("Direct", "")):
        few, many = ([peak_of_steps(kind, n) for _ in range(3)] for n in (10, 1000))
        ratios = [b / a for a, b in zip(few, many, strict=True)]
        figure = f"training step, growth of peak memory at 1000 over 10, {kind} [MB: {many[0]:.0f}, {few[0]:.0f}]"
        rows.append(row(figure, reach, {"memory": [statistics.median(ratios), min(ratios), max(ratios)]}))
    return rows


class CNN(nn.Sequential):
    """A plain CNN of about as many parameters: the same layers, global average pooling at 8 x 8, one linear layer."""

    def __init__(self):
        widths, layers = [3, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64], []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            conv = nn.Conv2d(n_in, n_out, 3, stride=1 + (i in (3, 6)), padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(n_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def bench_captum(rounds=5):
    from captum.attr import GuidedBackprop, LayerGradCam

    X, y = draw(640)
    clf, cnn = our_fit(X, y), CNN().eval()
    images = torch.from_numpy(X[:128]).permute(0, 3, 1, 2).float() / 255
    images.requires_grad_()
    cam, guided = LayerGradCam(cnn, cnn[-4]), GuidedBackprop(cnn)
    functions = {
        "ours": lambda: clf.explain(X[:128], classes="all"),
        "cam": lambda: [cam.attribute(images, target=j) for j in range(10)],
        "guided": lambda: [guided.attribute(images, target=j) for j in range(10)],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's, about its hooks
        times = in_turn(functions, rounds)
    n = sum(p.numel() for p in cnn.parameters())
    return [
        row(f"maps of 10 classes, over Captum's LayerGradCam [CNN of {n:,}]", ">= 10", ratio(times, "ours", "cam")),
        row("maps of 10 classes, over Captum's GuidedBackprop", ">= 20", ratio(times, "ours", "guided")),
    ]


def bench_memory():
    X, y = draw(50_000)
    clf = our_fit(X[:640], y[:640])
    growth = growth_of_peak(lambda: clf.predict_proba(X))
    return [row("growth of peak memory, predict_proba on 50,000 images, MB", "<= 300", {"MB": [growth] * 3})]


def bench_scale(rounds=3):
    clf = our_fit(*draw(640))
    rows = []
    for n in (1_000, 5_000, 20_000, 50_000):
        X, _ = draw(n)
        wall = statistics.median(
            w for w, _ in in_turn({"p": lambda X=X: clf.predict(X)}, 1 if n > 5000 else rounds)["p"]
        )
        rows.append(row(f"predict {n:,} images of 32 x 32, ns a pixel", "linear", {"ns": [wall * 1e9 / n / 1024] * 3}))
    for side in (16, 32, 64, 128, 256):
        n = 2**21 // side**2
        X, y = draw(n, side)
        model = our_fit(X[:20], y[:20])
        wall = statistics.median(w for w, _ in in_turn({"p": lambda X=X, m=model: m.predict(X)}, rounds)["p"])
        rows.append(row(f"predict images of {side} x {side}, ns a pixel", "linear", {"ns": [wall * 1e9 / 2**21] * 3}))
    return rows


BENCHES = {
    "memory": bench_memory,  # first: a peak is of the whole process
    "fit": bench_fit,
    "predict": bench_predict,
    "classes": bench_classes,
    "captum": bench_captum,
    "scale": bench_scale,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BENCHES, help="one part; prints, writes nothing")
    only = parser.parse_args().only
    rows = [row for name, bench in BENCHES.items() if only in (None, name) for row in bench()]
    packages = ("torch", "scikit-learn", "skorch", "captum", "numpy")
    head = {
        "command": "python benchmarks/speed.py",
        "machine": f"{torch.get_num_threads()} threads, {torch.cpu.get_capabilities().get('cpu_name', '')}, no GPU",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    lines = [
        "# Speed on the CPU",
        "",
        f"`{head['command']}` on {head['machine']}; {', '.join(f'{k} {v}' for k, v in head['versions'].items())}. "
        f"Batches of {BATCH}. Median (smallest, largest) over rounds in turn.",
        "",
        "| figure | reach | measured | by CPU time |",
        "|---|---|---|---|",
    ]
    for r in rows:
        cells = ["{:.2f} ({:.2f}, {:.2f})".format(*r[k]) for k in r if k not in ("figure", "reach")] + [""]
        lines.append(f"| {r['figure']} | {r['reach']} | {cells[0]} | {cells[1]} |")
    print("\n".join(lines))
    if only is None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "speed-cpu.md").write_text("\n".join(lines) + "\n")
        (RESULTS / "speed-cpu.json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
