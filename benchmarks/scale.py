"""More images than memory: how fast files are read, what a fit on them costs, and how memory grows with their number.

    python benchmarks/scale.py                # all rows of the tables, about 12 minutes of CPU time
    python benchmarks/scale.py read-100000    # these rows; the others stay as they were measured

The files are JPEGs of 224 × 224 pixels, in colour, made here: as many names as asked for, links to 50 files. Each
measurement has its own process. The fit on a memory map writes its images to a temporary file of 3 GB. Reading the
memory of a process needs Linux. Writes benchmarks/results/scale.md and .json.
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
from _common import machine, origin, spread, versions, write_row_by_row
from _timing import in_process
from PIL import Image, ImageFilter
from skorch.callbacks import Callback
from skorch.dataset import Dataset

from skgcm import GCMClassifier
from skgcm.inputs.files import ImageFiles
from skgcm.training.batches import Batches

SHAPE, FILES, BATCH_SIZE = (224, 224, 3), 50, 64
SMALL, FIRST = 16, 256  # of the fits in little memory: batch size, and images of a fit before memory is limited
TOGETHER = 128  # images of the fits by several processes
FITTED, ROUNDS = 32, 3  # images of the fits whose time is taken, and how often
NETWORKS = {
    "thin": {"encoder_width": 4, "decoder_width": 4},
    "default": {},
    "efficientnet_lite0": {"encoder": "tf_efficientnet_lite0", "encoder_weights": None},
}
ROWS = [f"read-{n}" for n in (1000, 10_000, 100_000)] + [f"memory-{X}-20000" for X in ("files", "map")]
ROWS += [f"fit-{network}" for network in NETWORKS] + [f"processes-{n}" for n in (1, 2)]


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


def _classifier(network, *callbacks, batch_size=BATCH_SIZE):
    params = {**NETWORKS[network], "batch_size": batch_size, "max_epochs": 1, "callbacks": list(callbacks)}
    return GCMClassifier(image_shape=SHAPE, device="cpu", precision="float32", random_state=0, **params)


def _status(name):
    """A line of /proc/self/status, in MB: VmData is what RLIMIT_DATA limits, RssAnon what is in memory and no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def write_map(paths, folder):
    """Write the images as X.npy. In a process of its own: the pages that it writes count as its memory."""
    X = np.lib.format.open_memmap(Path(folder, "X.npy"), "w+", np.uint8, (len(paths), *SHAPE))
    files = ImageFiles(paths[:FILES], SHAPE)[:].reshape(-1, *SHAPE)
    for start in range(0, len(X), FILES):
        X[start : start + FILES] = files[: len(X) - start]
    X.flush()


def fit_in_little_memory(paths, y, kind, folder):
    """How memory grows in a fit, in MB, if the process may allocate a tenth of what the images take as an array."""
    X = np.array(paths) if kind == "files" else np.load(Path(folder, "X.npy"), mmap_mode="r")
    first, clock = _Clock(), _Clock()
    _classifier("thin", first, batch_size=SMALL).fit(X[:FIRST], y[:FIRST])
    peak = _peak()
    limit = len(paths) * np.prod(SHAPE) / 10
    used = _status("VmData") + peak - _status("VmRSS")  # with what a step allocates and frees
    resource.setrlimit(resource.RLIMIT_DATA, (int(2**20 * used + limit), -1))
    try:
        np.empty((len(paths), *SHAPE), np.uint8)
        raise RuntimeError("The limit has no effect.")
    except MemoryError:
        clf = _classifier("thin", clock, batch_size=SMALL).fit(X, y)
    return {
        "limit_mb": limit / 2**20,
        "growth_mb": _peak() - peak,
        "anonymous_mb": max(clock.anonymous) - max(first.anonymous),
        "cpu_s": clock.cpu[-1],
        "accuracy": clf.score(X[:FIRST], y[:FIRST]),
    }


def fit_in_turn(paths, y, network):
    """CPU seconds of epochs on arrays and on files, in turn. The check of the headers is before an epoch."""
    images = {"arrays": ImageFiles(paths, SHAPE)[:].reshape(-1, *SHAPE), "files": paths}
    clocks = {kind: _Clock() for kind in images}
    for kind in list(images) * (1 + ROUNDS):  # the first ones are not counted
        _classifier(network, clocks[kind]).partial_fit(images[kind], y, classes=[0, 1])
    return {f"{kind}_cpu_s": clock.cpu[1:] for kind, clock in clocks.items()}


class _Clock(Callback):
    """Seconds of each epoch, wall and CPU, and the memory after each step."""

    def __init__(self):
        self.wall, self.cpu, self.anonymous = [], [], []

    def on_epoch_begin(self, net, **kwargs):
        self.begun = time.perf_counter(), time.process_time()

    def on_batch_end(self, net, **kwargs):
        self.anonymous.append(_status("RssAnon"))

    def on_epoch_end(self, net, **kwargs):
        self.wall.append(time.perf_counter() - self.begun[0])
        self.cpu.append(time.process_time() - self.begun[1])


def train(folder):
    """Called by torchrun: fit, and write the times of the epochs after the first to a file of this process."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (TOGETHER, 64, 64, 3), dtype=np.uint8), np.arange(TOGETHER) % 2
    clf = GCMClassifier(batch_size=BATCH_SIZE, max_epochs=2, device="cpu", precision="float32", random_state=0)
    clf.set_params(callbacks=[_Clock()]).fit(X, y)
    clock, network = clf.callbacks[0], clf.net_.network
    result = {
        "wall_s": clock.wall[1],
        "cpu_s": clock.cpu[1],
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
        paths, y = make(folder, FITTED if kind == "fit" else int(what[-1]))
        if kind == "fit":
            return in_process(fit_in_turn, paths, y, *what)
        if kind == "memory":
            if what[0] == "map":
                in_process(write_map, paths, folder)
            return in_process(fit_in_little_memory, paths, y, what[0], folder)
        kb = sum(os.path.getsize(path) for path in paths[:FILES]) / FILES / 1024
        return {**in_process(read_once, paths), "kb": kb}


def tables(rows, head):
    """The lines of the page, of the rows that are known."""
    read = {int(row.split("-")[1]): found for row, found in rows.items() if row.startswith("read")}
    memory = {row: found for row, found in rows.items() if row.startswith("memory")}
    fits = {row.split("-")[1]: found for row, found in rows.items() if row.startswith("fit")}
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
    if memory:
        lines += [
            "",
            f"One epoch of a fit of the thin network, in batches of {SMALL}, on files or on a memory map of the same "
            "images. The process may allocate a tenth of what they take as an array (RLIMIT_DATA), above what a fit on "
            f"{FIRST} of them needs at most. Memory: how much the largest resident memory is above that of this fit. "
            "Pages of the map count in it as long as the system has room for them. Allocated: the same without them, "
            "after steps.",
            "",
            "| X | images | as an array, MB | limit, MB | memory, MB | allocated, MB | CPU ms an image |",
            "|---|---|---|---|---|---|---|",
        ]
    for row, found in memory.items():
        _, X, n = row.split("-")
        lines.append(
            f"| {X} | {int(n):,} | {int(n) * np.prod(SHAPE) / 2**20:,.0f} | {found['limit_mb']:.0f} | "
            f"{found['growth_mb']:,.0f} | {found['anonymous_mb']:.0f} | {1000 * found['cpu_s'] / int(n):.1f} |"
        )
    if fits:
        lines += [
            "",
            f"An epoch of {FITTED} of them in float32, on arrays and on files in turn, {ROUNDS} times: CPU ms an "
            "image, the median, and the ratio of each pair.",
            "",
            "| network | arrays | files | files / arrays, median (smallest to largest) |",
            "|---|---|---|---|",
        ]
    for network, found in fits.items():
        arrays, files = (1000 * np.array(found[f"{kind}_cpu_s"]) / FITTED for kind in ("arrays", "files"))
        median, least, most = spread(files / arrays)
        ratios = f"{median:.3f} ({least:.3f} to {most:.3f})"
        lines.append(f"| {network} | {np.median(arrays):.1f} | {np.median(files):.1f} | {ratios} |")
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
        "versions": versions("pillow", "scikit-learn", "skorch", "timm"),
    }
    write_row_by_row("scale", wanted, ROWS, measured, lambda rows: tables(rows, head), head)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2])
    elif set(sys.argv[1:]) <= set(ROWS):
        main(*sys.argv[1:])
    else:
        sys.exit(f"{__doc__}\nRows: {', '.join(ROWS)}")
