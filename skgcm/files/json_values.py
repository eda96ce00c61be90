"""Python values <-> JSON. The decoded value equals the original, including tuples and types of labels."""

import math
import re
from numbers import Integral, Real

import numpy as np
import torch

ARRAY_BYTES = 2**20  # limit for arrays: each item of fixed-width text takes the size of the longest
# kind of a dtype -> type of its items in JSON
ITEM_TYPES = {"b": bool, "i": int, "u": int, "f": (int, float), "U": str, "O": str}


def encode(value):
    """A value as JSON has it.

    Raises ValueError for anything but finite numbers, text, None, bool, torch.device, list, tuple, dict and array.
    """
    if value is None or isinstance(value, bool | np.bool_):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite.")
        return float(value)
    if type(value) is list:
        return [encode(item) for item in value]
    if type(value) is tuple:
        return {"tuple": [encode(item) for item in value]}
    if type(value) is dict:
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if type(value) is np.ndarray:
        return {"array": encode_array(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    raise ValueError(f"A {type(value).__name__} is not a plain value.")


def decode(value):
    """Inverse of :func:`encode`. Raises ValueError, TypeError or RuntimeError for invalid content."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"A value is marked as {sorted(value)[:3]}.")
    [(mark, content)] = value.items()
    if mark == "array":
        return decode_array(content)
    if mark == "device" and isinstance(content, str):
        return torch.device(content)
    if mark == "tuple" and isinstance(content, list):
        return tuple(decode(content))
    if mark == "dict" and isinstance(content, list):
        return {decode(key): decode(item) for key, item in content}
    raise ValueError(f"A value is marked as {mark!r}.")


def check_arrays(value):
    """Raise ValueError if all arrays in a JSON value together would take more than ARRAY_BYTES."""
    total = sum(_array_bytes(value))
    if total > ARRAY_BYTES:
        raise ValueError(f"Its arrays take {total} bytes together; there can be at most {ARRAY_BYTES}.")


def _array_bytes(value):
    if isinstance(value, dict) and isinstance(value.get("dtype"), str) and isinstance(value.get("items"), list):
        size = len(value["items"])
        _check_dtype(value["dtype"], size)
        yield np.dtype(value["dtype"]).itemsize * size
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _array_bytes(item)


def encode_array(array):
    """An array of numbers, bool or text, with its dtype. Raises ValueError for other dtypes."""
    items = array.ravel().tolist()
    _check_dtype(array.dtype.str, array.size)
    if array.dtype.kind == "O" and not all(isinstance(item, str) for item in items):
        raise ValueError("An array of Python objects can be stored where all are strings.")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "items": items}


def decode_array(content):
    """Inverse of :func:`encode_array`. Raises ValueError or TypeError for invalid content."""
    if not isinstance(content, dict) or content.keys() != {"dtype", "shape", "items"}:
        raise ValueError("An array lacks its dtype, shape or items.")
    dtype, shape, items = content["dtype"], content["shape"], content["items"]
    if not (isinstance(items, list) and isinstance(shape, list) and isinstance(dtype, str)):
        raise TypeError("An array has a dtype, shape or items of a wrong type.")
    expected = ITEM_TYPES[_check_dtype(dtype, len(items))]
    if not all(isinstance(item, expected) and (expected is bool or not isinstance(item, bool)) for item in items):
        raise TypeError(f"An array of dtype {dtype} has items of another type.")
    try:
        array = np.array(items, dtype=dtype)
    except OverflowError as error:
        raise ValueError(f"An array of dtype {dtype} has items that this cannot hold.") from error
    if array.tolist() != items:  # text that was cut off, a float64 in float32
        raise ValueError(f"An array of dtype {dtype} has items that this cannot hold.")
    array = array.reshape(shape)
    if list(array.shape) != shape:  # which may have had -1
        raise ValueError(f"An array has the shape {shape}.")
    return array


def _check_dtype(dtype, size):
    """The kind of a dtype, given by name. Raises ValueError if an array of `size` may not have it."""
    found = re.fullmatch(r"[<>|]([biufUO])(\d{0,7})", dtype)
    if found is None or (found[1] == "f" and int(found[2] or 0) > 8):
        raise ValueError(f"An array of dtype {dtype[:20]!r} cannot be stored; use text, integers or float64.")
    if np.dtype(dtype).itemsize * size > ARRAY_BYTES:
        raise ValueError(f"An array of dtype {dtype} takes more than {ARRAY_BYTES} bytes; use shorter texts.")
    return found[1]
