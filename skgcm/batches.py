"""From a skorch data set to whole batches."""

from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Subset


class Batches:
    """Whole batches of a skorch data set: each is one slice of one array, never a list of samples.

    Yields ``(rows, labels)``, tensors (B, R * C * D) in the dtype of the data and int64 (B,). Shuffled when there is a
    generator. A last batch of one has no batch statistics and joins the batch before it.
    """

    def __init__(self, dataset, batch_size, generator=None):
        self.indices = None
        if isinstance(dataset, Subset):
            dataset, self.indices = dataset.dataset, np.asarray(dataset.indices)
        self.X, self.y = dataset.X, dataset.y
        self.n = len(self.X) if self.indices is None else len(self.indices)
        self.generator = generator
        starts = list(range(0, self.n, batch_size))
        if generator is not None and self.n > batch_size > 1 and self.n % batch_size == 1:
            starts.pop()
        self.bounds = [*starts, self.n]

    def __len__(self):
        return len(self.bounds) - 1

    def __iter__(self):
        order = np.arange(self.n)
        if self.generator is not None:
            order = torch.randperm(self.n, generator=self.generator).numpy()
        if self.indices is not None:
            order = self.indices[order]
        for start, stop in pairwise(self.bounds):
            chosen = order[start:stop]
            labels = torch.zeros(len(chosen), dtype=torch.long) if self.y is None else torch.from_numpy(self.y[chosen])
            yield torch.from_numpy(self.X[chosen]), labels
