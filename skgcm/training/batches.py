"""From a skorch data set to whole batches. If the device has enough memory, all images are copied to it first."""

import math
from itertools import pairwise

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch.utils.data import Subset

from skgcm.inputs.files import read_ahead

SHARE = 1 / 4  # largest share of the device's free memory for the images; training steps need the rest
UPLOAD = 2**26  # bytes in one copy to the device


class Batches:
    """Whole batches of a skorch data set: each is one slice of one array, never a list of samples.

    Yields ``(X_flat, labels)``, tensors (B, R * C * D) in the dtype of the data and int64 (B,), and with
    :class:`skgcm.inputs.masks.Masks` also bool (B, R, C), all False for an image without a mask. Shuffled if there is a
    generator, which must be on the CPU. A last batch of one image has no batch statistics, so it joins the batch before
    it.

    For a CUDA device all rows are copied to it once and sliced there. If they do not fit, each batch is in pinned
    memory, from which the device copies it while the host continues.

    If the images are files, a thread reads the next batch during a step.

    `share` is the number of this process and the number of processes. The process gets its part of each batch; without
    a generator, its share of the whole batches. `weights` holds for each batch the weight of the mean over this
    process's part in the mean over all processes.
    """

    def __init__(self, dataset, batch_size, generator=None, device="cpu", masks=None, share=(0, 1)):
        indices = None
        if isinstance(dataset, Subset):
            dataset, indices = dataset.dataset, np.asarray(dataset.indices)
        self.n = len(dataset.X) if indices is None else len(indices)
        self.generator, self.device = generator, torch.device(device)
        self.X, self.y, self.indices = dataset.X, dataset.y, indices
        self.masks = masks
        if masks is not None:  # the last mask is for images without one
            self.packed = torch.from_numpy(np.concatenate([masks.packed, np.zeros_like(masks.packed[:1])]))
            self.of_image = torch.from_numpy(masks.index if indices is None else masks.index[indices])
        self.resident = None
        if fits(self.n * math.prod(self.X.shape[1:]) * self.X.dtype.itemsize, self.device):
            self.resident = self._upload()
            if masks is not None:
                self.packed, self.of_image = self.packed.to(self.device), self.of_image.to(self.device)
        starts = list(range(0, self.n, batch_size))
        number, n_shares = share
        if generator is not None and self.n > batch_size > 1 and 0 < self.n % batch_size < max(2, n_shares):
            starts.pop()
        bounds = list(pairwise([*starts, self.n]))
        if generator is None:
            self.parts = [slice(*pair) for pair in bounds[number::n_shares]]
            return
        self.parts = [slice(start + number, stop, n_shares) for start, stop in bounds]
        self.weights = [
            len(range(start + number, stop, n_shares)) * n_shares / (stop - start) for start, stop in bounds
        ]

    def __len__(self):
        return len(self.parts)

    def __iter__(self):
        order = torch.arange(self.n) if self.generator is None else torch.randperm(self.n, generator=self.generator)
        if self.resident is not None:
            X_flat, labels = self.resident
            order = order.to(self.device)
            for part in self.parts:
                chosen = order[part]  # index_select: CUDA does not index unsigned integers of 16 bits and more
                yield X_flat.index_select(0, chosen), labels.index_select(0, chosen), *self._masks(chosen)
            return
        parts = (order[part].numpy() for part in self.parts)
        for batch in read_ahead(self.X, self._read, parts):
            yield [tensor.pin_memory() for tensor in batch] if self.device.type == "cuda" else batch

    def _read(self, chosen):
        return *self._slice(chosen), *self._masks(torch.from_numpy(chosen))

    def _slice(self, chosen):
        """Rows and labels by their position in the data set."""
        if self.indices is not None:
            chosen = self.indices[chosen]
        labels = torch.zeros(len(chosen), dtype=torch.long) if self.y is None else torch.from_numpy(self.y[chosen])
        X_flat = torch.from_numpy(self.X[chosen])
        if self.device.type == "mps" and X_flat.dtype != torch.uint8:  # MPS has no float64, which scaling can need
            X_flat = X_flat.float()
        return X_flat, labels

    def _masks(self, chosen):
        """The masks of images by their position in the data set, as a tuple that is empty if there are no masks."""
        if self.masks is None:
            return ()
        n_rows, n_columns = self.masks.shape
        packed = self.packed[self.of_image[chosen]]
        bits = packed[:, :, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device) & 1
        return (bits.flatten(1)[:, : n_rows * n_columns].bool().view(-1, n_rows, n_columns),)

    def _upload(self):
        """All rows and labels on the device, copied in pieces, so that host memory never holds a second copy."""
        first = self._slice(np.arange(1))
        resident = [torch.empty(self.n, *one.shape[1:], dtype=one.dtype, device=self.device) for one in first]
        for part in gen_batches(self.n, max(1, UPLOAD // first[0].nbytes)):
            for whole, piece in zip(resident, self._slice(np.arange(part.start, part.stop)), strict=True):
                whole[part] = piece.to(self.device)
        return resident


def fits(n_bytes, device):
    """Whether `n_bytes` should be on the device during all of training; the CPU needs no copy.

    Memory that PyTorch's allocator keeps, from an earlier fit for example, counts as free: all except fragments is.
    """
    if device.type != "cuda":
        return False
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return n_bytes <= SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
