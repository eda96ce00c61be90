"""The history of a net <-> a tensor for each column of numbers, and JSON for everything else."""

from numbers import Integral

import numpy as np
import torch
from skorch.history import History

from skgcm.files import json_values

PREFIX = "history/"  # of the tensors' names
DTYPES = {bool: torch.uint8, int: torch.int64, float: torch.float64}
# In memory an epoch is a dict, which takes as much as about 8 values. So epochs * (8 + values of each) may be at most
# this, and a history takes about 4 MiB: 10,833 epochs of 4 values.
MAX_VALUES = 130_000
TYPES = {dtype: kind for kind, dtype in DTYPES.items()}


def pack(epochs):
    """{"history/NAME": Tensor} and JSON of a history: numbers, text, bool and None; other values are left out."""
    columns = {}
    for i, epoch in enumerate(epochs):
        for name, value in epoch.items():
            if value is None or isinstance(value, bool | int | float | str | np.number | np.bool_):
                columns.setdefault(name, []).append([i, _plain(value)])
    tensors, others = {}, {}
    for name, column in columns.items():
        kinds = {type(value) for _, value in column}
        kind = kinds.pop()
        if kinds or len(column) < len(epochs) or kind not in DTYPES:
            others[name] = column
        else:
            tensors[PREFIX + name] = torch.tensor([value for _, value in column], dtype=DTYPES[kind])
    return tensors, {"epochs": len(epochs), "names": list(columns), "others": others}


def check_length(content):
    """Raise ValueError for the JSON of a history that would take more memory than SECURITY.md promises."""
    n, columns = content["epochs"], len(content["names"])
    most = MAX_VALUES // (8 + columns)
    if type(n) is not int or not 0 <= n <= most:
        raise ValueError(f"history_ has {n!r} epochs of {columns} values; there can be at most {most} in a model file.")


def unpack(tensors, content):
    """The History from the output of :func:`pack`, its tensors named NAME. Any error means an invalid file."""
    n, names, others = content["epochs"], content["names"], content["others"]
    if "batches" in names or sorted(names) != sorted([*tensors, *others]):
        raise ValueError(f"its history has other columns than {names!r}.")
    history = History({"batches": []} for _ in range(n))
    for name in names:
        if name in others:
            column = others[name]
        else:
            column = zip(range(n), map(TYPES[tensors[name].dtype], tensors[name].tolist()), strict=True)
        for i, value in column:
            if i < 0 or isinstance(value, dict | list):
                raise ValueError(f"its history has {name!r} of no epoch, or that is no number or text.")
            history[i][name] = value
    return history


def _plain(value):
    if isinstance(value, Integral) and not -(2**63) <= value < 2**63:
        return None
    try:
        return json_values.encode(value)
    except ValueError:  # not finite: measured by a callback, and nothing depends on it
        return None
