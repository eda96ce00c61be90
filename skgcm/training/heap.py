"""Memory that a training step frees stays with the process until the next step needs it."""

from contextlib import contextmanager

import torch

RESERVED = 2**28  # bytes; a step of the default network on 64 images of 32 x 32 takes 70 MB
BLOCK = 2**24  # bytes; glibc maps blocks of 32 MB and more one by one, and unmaps them when they are freed


@contextmanager
def reserved():
    """Context in which C's allocator does not return to the kernel what it is about to ask for again.

    glibc gives the free end of its heap back, and receives it anew page by page, each a fault and a zeroing: thousands
    in a step of 64 small images. An empty block above the memory of a step keeps that memory from being the end of the
    heap. None of this is touched, so it takes addresses and no memory; with other allocators it does nothing.
    """
    torch.empty(2 * BLOCK - 2**16, dtype=torch.uint8)  # freed at once: glibc then takes blocks up to this from its heap
    below = [torch.empty(BLOCK, dtype=torch.uint8) for _ in range(RESERVED // BLOCK)]
    above = torch.empty(BLOCK, dtype=torch.uint8)
    del below
    try:
        yield
    finally:
        del above
