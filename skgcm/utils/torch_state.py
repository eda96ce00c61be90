"""Settings that are not a model's: torch's flags belong to the process, its modes and its workers to a thread."""

import functools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext

import torch


class _IEEEFloat32:
    """Context in which float32 convolutions and products are computed as such, and not in TF32 or bfloat16.

    The flags are the process's, not a thread's: they stay set until the last thread leaves, which gives back what was
    found. A flag that somebody changes in between is set again for whoever enters next, and then it is the change that
    is given back. "ieee" cannot be told from what is set here, so that a user's own change to it may be lost.
    """

    def __init__(self, *backends):
        self._backends, self._lock, self._depth, self._found = backends, threading.Lock(), 0, {}
        if hasattr(os, "register_at_fork"):
            # of a fork's threads only the one that forked lives on: the child must not wait for another's lock, nor
            # for another to give the flags back
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._after_fork
            )

    def __enter__(self):
        with self._lock:
            self._depth += 1
            for backend in self._backends:
                found = backend.fp32_precision
                if found != "ieee":
                    # "none" is what the setting above it says. Where that is what was found, it is what is given back,
                    # so that later changes of the setting above are followed again.
                    backend.fp32_precision = "none"
                    inherited = backend.fp32_precision == found
                    self._found[backend] = "none" if inherited else found
                    backend.fp32_precision = "ieee"

    def __exit__(self, *exception):
        with self._lock:
            self._depth = max(0, self._depth - 1)  # less than 1 where its own network has forked
            if self._depth == 0:
                self._give_back()

    def _give_back(self):
        for backend, precision in self._found.items():
            if backend.fp32_precision == "ieee":
                backend.fp32_precision = precision
        self._found.clear()

    def _after_fork(self):
        self._depth = 0
        self._give_back()
        self._lock.release()


ieee_float32 = {
    "cpu": _IEEEFloat32(torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul),
    "cuda": _IEEEFloat32(torch.backends.cudnn.conv, torch.backends.cuda.matmul),
    "mps": nullcontext(),  # it has no other float32
}

_thread = threading.local()  # .forked: this thread has come through a fork, and the workers it had have not


def _remember_fork():
    _thread.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def _waits_for_lost_workers():
    """Whether OpenMP, asked by this thread, might wait forever for workers that a fork has left behind."""
    return getattr(_thread, "forked", False) and torch.get_num_threads() > 1


def fork_safe(function):
    """A function of tensors that can be called in the child of a fork.

    GNU OpenMP keeps workers for each thread that has computed with several, and PyTorch leaves it so. After a fork the
    thread still counts on its workers, which are gone. A new thread gets workers of its own, as many, and so the same
    results to the bit.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        if not _waits_for_lost_workers():
            return function(*args, **kwargs)
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return call


@contextmanager
def default_modes():
    """Context, or decorator, in which tensors are made and trained as if the thread were in no mode of torch's.

    After a fork, where :func:`fork_safe` says why, training takes one thread: it calls what users wrote, and has to
    hear of Ctrl-C, both of which belong into the thread that called.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # not always: the context delays each call
            stack.enter_context(torch.device("cpu"))
        if _waits_for_lost_workers():
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


@contextmanager
def noting_interrupts():
    """Context that gives a list, to which the first Ctrl-C within adds itself. The second is a KeyboardInterrupt.

    Only in the main thread, the only one that hears of Ctrl-C, and where it means a KeyboardInterrupt: a handler of the
    user's stays. What is found is given back.
    """
    noted, before = [], signal.getsignal(signal.SIGINT)

    def note(number, frame):
        if noted:
            before(number, frame)
        noted.append(number)

    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
