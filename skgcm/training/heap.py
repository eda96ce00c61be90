"""Keep the memory that a training step frees in the process, for the next step."""

from contextlib import contextmanager

import torch

RESERVED = 2**28  # bytes; a step of the default network on 64 images of 32 x 32 takes 70 MB
BLOCK = 2**24  # bytes; glibc maps blocks of 32 MB and more one by one, and unmaps them when they are freed


@contextmanager
def reserved():
    """Context in which C's allocator keeps freed memory instead of returning it to the kernel.

    glibc returns the free end of its heap to the kernel. To get it back costs a page fault and zeroing for each page:
    thousands in a step of 64 small images. With an empty block above it, the memory of a step is not the end of the
    heap. The blocks are never written, so they use addresses and no memory. With other allocators there is no effect.
    """
    torch.empty(2 * BLOCK - 2**16, dtype=torch.uint8)  # freed at once: glibc then takes blocks up to this from its heap
    below = [torch.empty(BLOCK, dtype=torch.uint8) for _ in range(RESERVED // BLOCK)]
    above = torch.empty(BLOCK, dtype=torch.uint8)
    del below
    try:
        yield
    finally:
        del above
