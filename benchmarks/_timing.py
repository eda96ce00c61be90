"""Time functions in turn, each in its own process, and compare them by ratio."""

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from _common import spread


def in_process(function, *args):
    """The result of a function of a module, called in its own process."""
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
    """A function in its own process, so that memory allocator and caches of one do not help the other.

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
    """{name: [(wall, cpu), ...]} of functions, each in its own process: two uncounted rounds, then `rounds`."""
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
