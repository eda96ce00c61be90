"""The one file format of models and checkpoints: safetensors, with everything else as one JSON string in its header.

What holds tensors is the safetensors library's work: that offsets, shapes and types agree with each other and with the
file's size, that nothing overlaps. Here are the limits that it does not set, and the JSON, which is not its concern.
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

SCHEMA = 1  # what metadata and tensors mean; a reader knows its own and no other
KINDS = {"model": "GCMClassifier.load", "checkpoint": "GCMClassifier(checkpoint=...)"}  # and what reads them
DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}
# A Python object may take 24 times the bytes of its JSON ("[],"), so that a header costs less than 64 MiB.
MAX_HEADER = 2**20  # bytes
PACKAGES = ("torch", "scikit-learn", "skorch", "numpy", "safetensors")


class ModelFileError(ValueError):
    """A file is not what :meth:`skgcm.GCMClassifier.save` or a checkpoint wrote, whole and unchanged.

    Raised for anything wrong with the content; a file that is missing or may not be read is an OSError as everywhere.
    """


class HeaderError(ValueError):
    """Beside tensors, there is more to write than a reader would read."""


@dataclass(frozen=True)
class Opened:
    """A file whose header was read and checked, and whose tensors were not read yet.

    Attributes
    ----------
    metadata : dict
    specs : dict of str to (torch.dtype, tuple)
        Type and shape of each tensor, as the header has them: their sizes add up to the file's.
    called : str
        What to call the file in errors.
    """

    metadata: dict
    specs: dict
    called: str
    _file: safe_open
    _headers: dict

    def tensors(self):
        """Yield (name, Tensor) of all tensors in the order of `specs`, one in memory at a time.

        Raises ModelFileError for one that is not finite, and at the end where the checksum is not the file's.
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
                f"{self.called} was damaged or changed since it was written: its checksum is another. Take a copy."
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
        For whatever is wrong with the content.
    OSError
        Where there is no such file, or it may not be read.
    """
    with atomic.readable(source) as (path, called):
        _check_frame(path, called)
        try:
            # pread: memory of our own, not a map of a file that somebody may write to or cut off
            with safe_open(path, framework="pt", device="cpu", backend="pread") as file:
                headers = file.metadata() or {}
                metadata = _check_headers(called, headers, kind)
                specs = {}
                for name in sorted(file.keys()):
                    view = file.get_slice(name)
                    if view.get_dtype() not in DTYPES:
                        raise ModelFileError(
                            f"{called}: tensor {name!r} has type {view.get_dtype()}, which is none of {sorted(DTYPES)}."
                        )
                    specs[name] = DTYPES[view.get_dtype()], tuple(view.get_shape())
                yield Opened(metadata, specs, called, file, headers)
        except SafetensorError as error:
            raise ModelFileError(f"{called} is damaged or no model file at all: {error}.") from error


def read(path, kind):
    """Tensors and metadata of a file.

    Parameters
    ----------
    path : str or path-like
    kind : {"model", "checkpoint"}

    Returns
    -------
    tensors : dict of str to Tensor
        On the processor, their memory their own: the file may be written over.
    metadata : dict

    Raises
    ------
    ModelFileError
        For whatever is wrong with the content.
    OSError
        Where there is no such file, or it may not be read.
    """
    with opened(path, kind) as file:
        return dict(file.tensors()), file.metadata


def write(path, tensors, metadata, kind):
    """Write a file, whole or not at all.

    Parameters
    ----------
    path : str, path-like or binary file object
        Whatever is at a path is replaced in one step, once the new content is on the disk.
    tensors : dict of str to Tensor
        float32, float64, int64 or uint8, finite, on any device.
    metadata : dict
        What JSON can hold: tuples become lists, and keys must be strings.
    kind : {"model", "checkpoint"}

    Raises
    ------
    OSError
        Where the file cannot be written; what was there before is unharmed.
    ValueError
        For what :func:`read` would not accept.
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
    """Versions of all that a model depends on, by name, to be written beside it."""
    return {"skgcm": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _check_frame(path, called):
    """Raise unless this is a regular file that starts like safetensors, with a header that may be read."""
    # a pipe would make open() wait for its other end
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
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
        raise ModelFileError(f"{called} is cut off, or no model file: {size} bytes, and a header that would be longer.")
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
            f"{called} has schema {headers['schema'][:20]!r}, and this version of skgcm knows {str(SCHEMA)!r} alone. "
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
    """The text that :func:`parse` reads. Raises ValueError for what it would refuse."""
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
    """A SHA-256 that has seen the header's strings; it guards against accidents, not against who can compute one."""
    parts = [headers[name] for name in ("format", "schema", "kind", "metadata")]
    return hashlib.sha256(json.dumps(parts).encode())


def _add(checksum, name, tensor):
    checksum.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    checksum.update(tensor.flatten().numpy())
