"""More images than memory: how fast files are read, what a fit on them costs, and how memory grows with their number.

    python benchmarks/scale.py                # all rows of the tables, about 4 minutes on two cores
    python benchmarks/scale.py read-100000    # these rows; the others stay as they were measured

The files are JPEGs of 224 × 224 pixels, in colour, made here: as many names as asked for, links to 50 files. Each
measurement has its own process. Writes benchmarks/results/scale.md and .json.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import machine, origin, versions, write_row_by_row
from _timing import in_process
from PIL import Image, ImageFilter
from skorch.callbacks import Callback
from skorch.dataset import Dataset

from skgcm import GCMClassifier
from skgcm.inputs.files import ImageFiles
from skgcm.training.batches import Batches

SHAPE, FILES, BATCH_SIZE = (224, 224, 3), 50, 64
TOGETHER = 128  # images of the fits by several processes
FITTED = 64  # images of the fits whose time is taken
NETWORKS = {"thin": {"encoder_width": 4, "decoder_width": 4}, "default": {}}
ROWS = [f"read-{n}" for n in (1000, 10_000, 100_000)] + [f"processes-{n}" for n in (1, 2)]
ROWS += [f"fit-{network}-{X}" for network in NETWORKS for X in ("arrays", "files")]


def make(folder, n):
    """n names of JPEG files that compress like photos, and labels."""
    rng, paths = np.random.default_rng(0), []
    for i in range(n):
        path = Path(folder, f"{i}.jpg")
        if i < FILES:
            coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            image = np.asarray(coarse.resize((224, 224)).filter(ImageFilter.GaussianBlur(2)), np.int16)
            noisy = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path, quality=90)
        else:
            os.link(Path(folder, f"{i % FILES}.jpg"), path)
        paths.append(str(path))
    return paths, np.arange(n) % 2


def _peak():
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_once(paths):
    """Seconds of checking headers and of one pass over all batches, CPU seconds of the pass, MB that memory grew by."""
    y, generator = np.zeros(len(paths), np.int64), torch.Generator().manual_seed(0)
    for _ in Batches(Dataset(ImageFiles(paths[:200], SHAPE), y[:200]), BATCH_SIZE, generator):
        pass
    before, start = _peak(), time.perf_counter()
    files = ImageFiles(paths, SHAPE)
    files.check()
    checked, cpu = time.perf_counter(), time.process_time()
    for _ in Batches(Dataset(files, y), BATCH_SIZE, generator):
        pass
    return {
        "check_s": checked - start,
        "pass_s": time.perf_counter() - checked,
        "pass_cpu_s": time.process_time() - cpu,
        "growth_mb": _peak() - before,
    }


def fit_once(paths, y, network, kind):
    """Seconds, wall and CPU, of the second epoch. The check of the headers is before the first."""
    X = paths if kind == "files" else ImageFiles(paths, SHAPE)[:].reshape(-1, *SHAPE)
    clf = GCMClassifier(
        image_shape=SHAPE, batch_size=BATCH_SIZE, max_epochs=2, device="cpu", precision="float32", random_state=0
    )
    clf.set_params(**NETWORKS[network], callbacks=[_Clock()]).fit(X, y)
    clock = clf.callbacks[0]
    return {"wall_s": clock.wall[1] - clock.wall[0], "cpu_s": clock.cpu[1] - clock.cpu[0]}


class _Clock(Callback):
    """The time at the end of each epoch."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def on_epoch_end(self, net, **kwargs):
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def train(folder):
    """Called by torchrun: fit, and write the times of the epochs after the first to a file of this process."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (TOGETHER, 64, 64, 3), dtype=np.uint8), np.arange(TOGETHER) % 2
    clf = GCMClassifier(batch_size=BATCH_SIZE, max_epochs=2, device="cpu", precision="float32", random_state=0)
    clf.set_params(callbacks=[_Clock()]).fit(X, y)
    clock, network = clf.callbacks[0], clf.net_.network
    result = {
        "wall_s": clock.wall[1] - clock.wall[0],
        "cpu_s": clock.cpu[1] - clock.cpu[0],
        "gradient_bytes": sum(4 * parameter.numel() for parameter in network.parameters()),
        "norms": sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()),
    }
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(result))


def together(n):
    """The times of each of n processes with one thread, for its part of a fit."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", __file__]
        subprocess.run([*command, "train", folder], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(n)]


def measured(row):
    """What a row of the tables is made of."""
    kind, *what = row.split("-")
    if kind == "processes":
        return together(int(what[0]))
    with tempfile.TemporaryDirectory() as folder:
        n = int(what[0]) if kind == "read" else FITTED
        paths, y = make(folder, n)
        found = in_process(read_once, paths) if kind == "read" else in_process(fit_once, paths, y, *what)
        return {**found, "kb": sum(os.path.getsize(path) for path in paths[:FILES]) / len(paths[:FILES]) / 1024}


def tables(rows, head):
    """The lines of the page, of the rows that are known."""
    read = {int(row.split("-")[1]): found for row, found in rows.items() if row.startswith("read")}
    fits = {row: found for row, found in rows.items() if row.startswith("fit")}
    processes = {row.split("-")[1]: found for row, found in rows.items() if row.startswith("processes")}
    note = "Where other programs used the processor meanwhile, the CPU time counts, and images/s are too low."
    lines = ["# More images than memory", "", f"{origin(head)} {note}"]
    if read:
        kb = max(row["kb"] for row in read.values())
        lines += [
            "",
            f"JPEG files of 224 × 224 pixels and {kb:.0f} KB, links to {FILES} files, which the system has in memory. "
            f"One pass over all in batches of {BATCH_SIZE}, without training, in a process of its own. Memory: how "
            "much the largest resident memory grew after a first pass over 200 files.",
            "",
            "| files | as an array, MB | memory, MB | headers, files/s | decoding, images/s | CPU ms an image |",
            "|---|---|---|---|---|---|",
        ]
    for n, row in read.items():
        lines.append(
            f"| {n:,} | {n * np.prod(SHAPE) / 2**20:,.0f} | {row['growth_mb']:.0f} | {n / row['check_s']:,.0f} | "
            f"{n / row['pass_s']:,.0f} | {1000 * row['pass_cpu_s'] / n:.2f} |"
        )
    if fits:
        lines += [
            "",
            f"The second epoch of a fit on {FITTED} of them, in float32.",
            "",
            "| network | X | images/s | CPU ms an image |",
            "|---|---|---|---|",
        ]
    for row, found in fits.items():
        _, network, X = row.split("-")
        lines.append(f"| {network} | {X} | {FITTED / found['wall_s']:.1f} | {1000 * found['cpu_s'] / FITTED:.1f} |")
    if processes:
        one = next(iter(processes.values()))[0]
        megabytes, messages = one["gradient_bytes"] / 1e6, 2 * one["norms"]
        lines += [
            "",
            f"The second epoch of a fit of the default network on {TOGETHER} arrays of 64 × 64 pixels, by processes of "
            "one thread each that talk by gloo. Their batch norm is not fused, and slower than that of one.",
            "",
            "| processes | images/s | CPU ms an image, all processes |",
            "|---|---|---|",
        ]
        for n, ranks in processes.items():
            wall, cpu = max(rank["wall_s"] for rank in ranks), sum(rank["cpu_s"] for rank in ranks)
            lines.append(f"| {n} | {TOGETHER / wall:.1f} | {1000 * cpu / TOGETHER:.1f} |")
        lines += [
            "",
            f"On paper, not measured: in a step each process averages gradients of {megabytes:.2f} MB, and "
            f"{messages // 2} batch norms exchange their statistics forward and backward. Of eight GPUs in a ring each "
            f"passes on {1.75 * megabytes:.2f} MB, in {17.5 * megabytes:.0f} µs at 100 GB/s; {messages} small "
            f"messages of 30 µs, as is assumed here, take {messages * 0.03:.1f} ms. The messages cost more than the "
            "gradients, so batches should be large.",
        ]
    return lines


def main(*wanted):
    head = {
        "command": "python benchmarks/scale.py",
        "machine": machine(),
        "versions": versions("pillow", "scikit-learn", "skorch"),
    }
    write_row_by_row("scale", wanted, ROWS, measured, lambda rows: tables(rows, head), head)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2])
    elif set(sys.argv[1:]) <= set(ROWS):
        main(*sys.argv[1:])
    else:
        sys.exit(f"{__doc__}\nRows: {', '.join(ROWS)}")
