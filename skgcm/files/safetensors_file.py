"""The file format of models and checkpoints: safetensors, with all other data as one JSON string in its header.

The safetensors library checks the tensors: offsets, shapes and types agree with each other and with the size of the
file, and nothing overlaps. This module adds limits that the library does not set, and reads and writes the JSON.
"""

import hashlib
import json
import math
import os
import platform
import reprlib
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from skgcm._version import __version__
from skgcm.utils import atomic

SCHEMA = 1  # version of the content; a reader accepts only its own
KINDS = {"model": "GCMClassifier.load", "checkpoint": "GCMClassifier(checkpoint=...)"}  # and how to read them
EXPECTED = {
    "model": "a model file, which GCMClassifier.save or `skgcm fit` writes",
    "checkpoint": "a checkpoint, which GCMClassifier(checkpoint=...) writes",
}
DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}
# A Python object can take 24 times the bytes of its JSON ("[],"), so a header takes less than 64 MiB of memory.
MAX_HEADER = 2**20  # bytes
PACKAGES = ("torch", "scikit-learn", "skorch", "numpy", "safetensors")


class ModelFileError(ValueError):
    """The file is not a complete, unchanged file of :meth:`skgcm.GCMClassifier.save` or a checkpoint.

    Raised for all invalid content. A file that is missing or may not be read raises OSError.
    """


class HeaderError(ValueError):
    """The content without the tensors is larger than a reader accepts."""


@dataclass(frozen=True)
class Opened:
    """A file whose header has been read and checked. Its tensors have not been read yet.

    Attributes
    ----------
    metadata : dict
    specs : dict of str to (torch.dtype, tuple)
        Type and shape of each tensor, as the header has them: their sizes add up to the file's.
    called : str
        Name of the file for errors.
    """

    metadata: dict
    specs: dict
    called: str
    _file: safe_open
    _headers: dict

    def tensors(self):
        """Yield (name, Tensor) of all tensors in the order of `specs`, one in memory at a time.

        Raises ModelFileError for a tensor that is not finite, and at the end for a checksum mismatch.
        """
        checksum = _checksum_of(self._headers)
        for name in self.specs:
            tensor = self._file.get_tensor(name)
            if not _is_finite(tensor):
                raise ModelFileError(f"{self.called}: tensor {name!r} has values that are not finite.")
            _add(checksum, name, tensor)
            yield name, tensor
        if checksum.hexdigest() != self._headers["sha256"]:
            raise ModelFileError(
                f"{self.called} was damaged or changed after it was written: checksum mismatch. Use a copy."
            )


@contextmanager
def opened(source, kind):
    """Open a file of one kind and check its header, for as long as the block runs.

    Parameters
    ----------
    source : str, path-like or binary file object
    kind : {"model", "checkpoint"}

    Yields
    ------
    Opened

    Raises
    ------
    ModelFileError
        If the content is invalid.
    OSError
        If there is no such file, or it may not be read.
    """
    with atomic.readable(source) as (path, called):
        _check_frame(path, called, kind)
        try:
            # pread copies the content: a memory map would change if the file is written to or truncated
            with safe_open(path, framework="pt", device="cpu", backend="pread") as file:
                headers = file.metadata() or {}
                metadata = _check_headers(called, headers, kind)
                specs = {}
                for name in sorted(file.keys()):
                    view = file.get_slice(name)
                    if view.get_dtype() not in DTYPES:
                        raise ModelFileError(
                            f"{called}: tensor {name!r} has type {view.get_dtype()}. Expected one of {sorted(DTYPES)}."
                        )
                    specs[name] = DTYPES[view.get_dtype()], tuple(view.get_shape())
                yield Opened(metadata, specs, called, file, headers)
        except SafetensorError as error:
            raise ModelFileError(f"{called} is damaged or is not a model file: {error}.") from error


def read(path, kind):
    """Tensors and metadata of a file.

    Parameters
    ----------
    path : str or path-like
    kind : {"model", "checkpoint"}

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU, copied from the file, which may be overwritten afterwards.
    metadata : dict

    Raises
    ------
    ModelFileError
        If the content is invalid.
    OSError
        If there is no such file, or it may not be read.
    """
    with opened(path, kind) as file:
        return dict(file.tensors()), file.metadata


def write(path, tensors, metadata, kind):
    """Write a file, whole or not at all.

    Parameters
    ----------
    path : str, path-like or binary file object
        An existing file at a path is replaced in one step, after the new content is on the disk.
    tensors : dict of str to Tensor
        float32, float64, int64 or uint8, finite, on any device.
    metadata : dict
        Values that JSON can hold: tuples become lists, and keys must be strings.
    kind : {"model", "checkpoint"}

    Raises
    ------
    OSError
        If the file cannot be written; an existing file stays unchanged.
    ValueError
        For content that :func:`read` would not accept.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    headers = {"format": "skgcm", "schema": str(SCHEMA), "kind": kind}
    headers["metadata"] = as_json(metadata)
    checksum = _checksum_of(headers)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES.values() or not _is_finite(tensor):
            raise ValueError(f"Tensor {name!r} of type {tensor.dtype} cannot be stored, or is not finite.")
        _add(checksum, name, tensor)
    content = save(tensors, {**headers, "sha256": checksum.hexdigest()})
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER:
        raise HeaderError(f"Everything but the tensors must fit into {MAX_HEADER} bytes as JSON, and does not.")
    atomic.write(path, content)


def versions():
    """Versions of the packages that a model depends on, by name; they are stored with the model."""
    return {"skgcm": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _check_frame(path, called, kind):
    """Raise unless this is a regular file that starts like safetensors, with a header that may be read."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{called} does not exist. Expected {EXPECTED[kind]}.") from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{called} is a folder. Expected {EXPECTED[kind]}.")
    if not stat.S_ISREG(mode):  # open() of a pipe would wait for a writer
        raise ModelFileError(f"{called} is not a regular file.")
    with open(path, "rb") as file:
        size, start = os.fstat(file.fileno()).st_size, file.read(8)
        header = int.from_bytes(start, "little")
    for magic, what in ((b"\x80", "a pickle (joblib's files are, too)"), (b"PK", "a zip archive, as torch.save's are")):
        if start.startswith(magic) and header > MAX_HEADER:
            raise ModelFileError(
                f"{called} looks like {what}. It is not opened: that could execute code. Models that may be loaded are "
                "written by GCMClassifier.save."
            )
    if len(start) < 8 or header > size - 8:
        raise ModelFileError(f"{called} is not a {kind} file of skgcm, or it is cut off. Expected {EXPECTED[kind]}.")
    if header > MAX_HEADER:
        raise ModelFileError(f"{called} has a header of {header} bytes; there can be at most {MAX_HEADER}.")


def _check_headers(called, headers, kind):
    """The metadata in the header's strings, checked for format, schema and kind."""
    if headers.get("format") != "skgcm" or headers.keys() != {"format", "schema", "kind", "metadata", "sha256"}:
        raise ModelFileError(
            f"{called} holds tensors, but was not written by skgcm, or was changed: its header has "
            f"{reprlib.repr(sorted(headers))}."
        )
    if headers["schema"] != str(SCHEMA):
        raise ModelFileError(
            f"{called} has schema {headers['schema'][:20]!r}, and this version of skgcm reads only {str(SCHEMA)!r}. "
            "Load it with the version that wrote it."
        )
    if headers["kind"] != kind:
        found = headers["kind"]
        remedy = f" Use {KINDS[found]}." if found in KINDS else ""
        raise ModelFileError(f"{called} is of kind {found[:20]!r}, not {kind!r}, one of {sorted(KINDS)}.{remedy}")
    try:
        metadata = parse(headers["metadata"])
    except ValueError as error:
        raise ModelFileError(f"{called}: its metadata cannot be read. {error}") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{called}: its metadata is no JSON object.")
    return metadata


def as_json(metadata):
    """The text that :func:`parse` reads. Raises ValueError for values that it would refuse."""
    text = json.dumps(metadata, allow_nan=False)
    parse(text)
    return text


def parse(text):
    """JSON of finite numbers. Raises ValueError if it is invalid or nested too deeply, or has a key twice."""
    try:
        return json.loads(text, parse_float=_number, parse_constant=_number, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("The JSON is nested too deeply.") from error


def _number(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"The number {text[:20]} is not finite.")
    return number


def _distinct(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("A key occurs twice in one JSON object.")
    return found


def _is_finite(tensor):
    if not tensor.dtype.is_floating_point or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # takes no memory, unlike isfinite; NaN is passed on
    return math.isfinite(low) and math.isfinite(high)


def _checksum_of(headers):
    """A SHA-256 of the header's strings, to be updated with the tensors. It detects accidents, not attacks."""
    parts = [headers[name] for name in ("format", "schema", "kind", "metadata")]
    return hashlib.sha256(json.dumps(parts).encode())


def _add(checksum, name, tensor):
    checksum.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    checksum.update(tensor.flatten().numpy())
