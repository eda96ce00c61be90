"""What the benchmarks share: timing in turn, the machine in words, result files."""

import json
import multiprocessing
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch

from skgcm.datasets import load_cifar10, load_npz
from skgcm.datasets._official import CIFAR10_CLASSES

RESULTS = Path(__file__).parent / "results"


def machine():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processor = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{torch.get_num_threads()} threads, {processor}, no GPU"


def versions(*packages):
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", *packages)}}


def origin(head):
    """The line under a table's title: command, machine and versions."""
    return f"`{head['command']}` on {head['machine']}; {', '.join(f'{k} {v}' for k, v in head['versions'].items())}."


def write(name, lines, result):
    """Write results/NAME.md and, the same as data, .json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, default=float) + "\n")


def load(path, official):
    """X_train, y_train, X_test, y_test of an .npz file, or of the official files by their loader."""
    return load_npz(path) if str(path).endswith(".npz") else official(path)


def cifar10(path):
    """The same of CIFAR-10, labels as words."""
    X, y, X_test, y_test = load(path, load_cifar10)
    if y.dtype.kind in "iu":
        y, y_test = CIFAR10_CLASSES[y], CIFAR10_CLASSES[y_test]
    return X, y, X_test, y_test


def spread(values):
    """Median, smallest and largest."""
    return [statistics.median(values), min(values), max(values)]


def in_process(function, *args):
    """What a function of a module returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _timed(make, pipe):
    function = make()
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))


class Alone:
    """A function in a process of its own, so that what one does to memory allocator or caches is not the other's gain.

    `make`, a function of a module, makes it there. Calling returns seconds (wall, CPU).
    """

    def __init__(self, make):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_timed, args=(make, theirs), daemon=True)
        self.process.start()

    def __call__(self):
        self.pipe.send(True)
        return self.pipe.recv()

    def close(self):
        self.pipe.send(False)
        self.process.join()


def in_turn(makers, rounds):
    """{name: [(wall, cpu), ...]} of functions, each in a process of its own: two rounds not counted, then `rounds`."""
    functions = {name: Alone(make) for name, make in makers.items()}
    times = {name: [] for name in makers}
    for i in range(rounds + 2):
        for name, function in functions.items():
            pair = function()
            if i >= 2:
                times[name].append(pair)
    for function in functions.values():
        function.close()
    return times


def seconds(times):
    """Median wall time."""
    return statistics.median(wall for wall, _ in times)


def ratio(times, one, other):
    """Spread of other / one, round by round, by wall and by CPU time: how many times faster `one` is."""
    rounds = list(zip(times[one], times[other], strict=True))
    return {clock: spread([b[i] / a[i] for a, b in rounds]) for i, clock in enumerate(("wall", "cpu"))}
