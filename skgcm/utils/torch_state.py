"""Global state of torch: its flags belong to the process, its modes and its worker threads to a thread."""

import functools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext

import torch


class _IEEEFloat32:
    """Context in which float32 convolutions and products are computed in float32, and not in TF32 or bfloat16.

    The flags belong to the process, not to a thread. They stay set until the last thread leaves the context, which
    restores the earlier values. If a user changes a flag in between, the next thread that enters sets it again, and the
    user's value is restored at the end. A change to "ieee" looks like the value set here, so it may be lost.
    """

    def __init__(self, *backends):
        self._backends, self._lock, self._depth, self._found = backends, threading.Lock(), 0, {}
        if hasattr(os, "register_at_fork"):
            # in the child of a fork only the thread that forked exists: it must not wait for another thread to release
            # the lock or to restore the flags
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._after_fork
            )

    def __enter__(self):
        with self._lock:
            self._depth += 1
            for backend in self._backends:
                found = backend.fp32_precision
                if found != "ieee":
                    # "none" inherits the more general setting. If the flag inherited it before, "none" is restored, so
                    # that it follows later changes of that setting again.
                    backend.fp32_precision = "none"
                    inherited = backend.fp32_precision == found
                    self._found[backend] = "none" if inherited else found
                    backend.fp32_precision = "ieee"

    def __exit__(self, *exception):
        with self._lock:
            self._depth = max(0, self._depth - 1)  # it is 0 already if a fork happened inside the context
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
    "mps": nullcontext(),  # it always computes in IEEE float32
}

_thread = threading.local()  # .forked: True in the child of a fork, where the workers of this thread do not exist


def _remember_fork():
    _thread.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def _waits_for_lost_workers():
    """Whether OpenMP could wait forever in this thread, for workers that do not exist after a fork."""
    return getattr(_thread, "forked", False) and torch.get_num_threads() > 1


def fork_safe(function):
    """Decorator: make a function of tensors safe to call in the child of a fork.

    GNU OpenMP keeps worker threads for each thread that computed in parallel. After a fork these workers do not exist,
    and the thread would wait for them. A new thread gets new workers, the same number, so the results are the same to
    the bit.
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
    """Context, or decorator, with the default modes of torch: gradients on, no autocast, no default device.

    After a fork, training uses one thread (:func:`fork_safe` gives the reason). It cannot run in a new thread: it calls
    functions of the user and must receive Ctrl-C, and both belong to the calling thread.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # only if needed: the context delays each call
            stack.enter_context(torch.device("cpu"))
        if _waits_for_lost_workers():
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


@contextmanager
def noting_interrupts():
    """Context that gives a list, to which the first Ctrl-C adds an item. The second raises KeyboardInterrupt.

    This works in the main thread only, the one that receives Ctrl-C, and only if Python's default handler is set: a
    handler of the user stays. The earlier handler is restored at the end.
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
