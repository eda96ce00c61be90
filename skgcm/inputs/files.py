"""Image files instead of arrays: only their names are kept, and a batch is decoded when it is needed."""

import math
import os
import stat
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import cpu_count
from sklearn.utils import gen_batches
from tqdm import tqdm

from skgcm.inputs import pillow

MAX_THREADS = 32
CHECKED_AT_ONCE = 100  # files whose headers one task checks
LOOKED_AT = 64  # files that are read to check the values of all
REMEDY = "Repair the file, or leave it out of X and y."


def find_paths(X):
    """The file names in a list, as a list of str, or None if it has other items."""
    kinds = set(map(type, X))
    paths = {kind for kind in kinds if issubclass(kind, str | os.PathLike)}
    if not paths:
        return None
    if kinds != paths:
        i = next(i for i, item in enumerate(X) if type(item) not in paths)
        raise ValueError(
            f"X has file names and other items: X[{i}] is a {type(X[i]).__name__}. Pass one kind: only file names, or "
            "read the files first, as skgcm.datasets.load_image_folder does."
        )
    X = [os.fspath(path) for path in X]
    if not all(isinstance(path, str) for path in X):
        raise ValueError("X holds paths of bytes. Pass text: os.fsdecode(path).")
    return X


class ImageFiles:
    """Image files as rows of pixels (n, R * C * D), uint8. Only indexed rows are in memory.

    They are read as :func:`skgcm.datasets.load_image_folder` reads them with this size; images of another size are
    stretched. ``files[index]``, with a slice or an array of integers, is an ndarray.

    Parameters
    ----------
    paths : list of str
    image_shape : tuple (R, C, D)
        D is 1, grey, or 3, colour.
    channels_first : bool
        The order of the numbers in a row.

    Raises
    ------
    ValueError
        For a file that is not an image, is a folder, does not exist, or has changed since it was checked.
    """

    dtype, ndim = np.dtype(np.uint8), 2

    def __init__(self, paths, image_shape, channels_first=False):
        if image_shape[2] not in (1, 3):
            raise ValueError(
                f"image_shape={image_shape} has {image_shape[2]} channels. Files are read in grey, with 1 channel, or "
                "in colour, with 3."
            )
        # absolute: the working directory may change before the last batch
        self.names = [os.path.abspath(os.path.expanduser(path)) for path in paths]
        self.image_shape, self.channels_first, self.resized = tuple(image_shape), channels_first, True
        self.shape = len(self.names), math.prod(image_shape)
        self.stamps = None

    def __len__(self):
        return len(self.names)

    def in_own_size(self):
        """The same files in the size of the first, which all must have. Nothing is resized."""
        _stamp(self.names[0])  # refuses a named pipe, whose reading may never end
        pixels = self._open(0, lambda image: pillow.read(image, self._mode))
        files = ImageFiles(self.names, pixels.shape, self.channels_first)
        files.resized = False
        return files

    def check(self):
        """Check the header of each file, and store its size and time.

        Raises ValueError if some are not readable. A progress bar appears on a terminal after a second.
        """
        stamps, failed = np.zeros((len(self), 2), np.int64), []

        def look(part):
            errors = []
            for i in range(part.start, part.stop):
                try:
                    stamps[i] = _stamp(self.names[i])
                    self._open(i, pillow.check)
                except ValueError as error:
                    errors.append((i, str(error)))
            return errors

        with (
            ThreadPoolExecutor(_threads(len(self))) as pool,
            tqdm(total=len(self), desc="Checking images", unit="image", disable=None, delay=1) as progress,
        ):
            for errors in pool.map(look, gen_batches(len(self), CHECKED_AT_ONCE)):
                failed += errors
                progress.update(min(CHECKED_AT_ONCE, len(self) - progress.n))
        if len(failed) == 1:
            raise ValueError(f"X[{failed[0][0]}]: {failed[0][1]}")
        if failed:
            numbers = ", ".join(str(i) for i, _ in failed[:10]) + (", ..." if len(failed) > 10 else "")
            raise ValueError(
                f"{len(failed)} of the {len(self)} files in X cannot be read, those at {numbers}. The first, "
                f"X[{failed[0][0]}]: {failed[0][1]}"
            )
        self.stamps = stamps

    def __getitem__(self, index):
        index = np.arange(len(self))[index]
        rows = np.empty((len(index), self.shape[1]), np.uint8)
        _, first, back = np.unique(index, return_index=True, return_inverse=True)

        def read(k):
            rows[k] = self._read(index[k])

        # a new pool for each call: the threads of a kept one do not exist after a fork
        with ThreadPoolExecutor(_threads(len(first))) as pool:
            deque(pool.map(read, first), maxlen=0)
        again = np.setdiff1d(np.arange(len(index)), first, assume_unique=True)
        rows[again] = rows[first[back[again]]]
        return rows

    def some(self):
        """Rows of a few files, evenly spaced."""
        return self[:: 1 + len(self) // LOOKED_AT]

    def fingerprint(self):
        """Bytes that identify these files by name, size and time of the last change."""
        return "\0".join(self.names).encode("utf-8", "surrogateescape") + self.stamps.tobytes()

    @property
    def _mode(self):
        return "L" if self.image_shape[2] == 1 else "RGB"

    def _open(self, i, read):
        return pillow.read_file(self.names[i], read, REMEDY)

    def _read(self, i):
        size = self.image_shape[:2] if self.resized else None
        pixels = self._open(i, lambda image: pillow.read(image, self._mode, size))
        if pixels.shape != self.image_shape:
            raise ValueError(
                f"With any_size=True all images must have one size: {self.names[0]!r} has {self.image_shape[0]} rows "
                f"and {self.image_shape[1]} columns, {self.names[i]!r} has {pixels.shape[0]} and {pixels.shape[1]}."
            )
        if self.stamps is not None and _stamp(self.names[i]) != tuple(self.stamps[i]):
            raise ValueError(
                f"The file {self.names[i]!r} has changed since its header was checked. Do not write to images that are "
                "in use; start again."
            )
        return pixels.transpose(2, 0, 1).ravel() if self.channels_first else pixels.ravel()


def read_ahead(X_flat, read, parts):
    """``map(read, parts)``; for files, a thread reads the next part while the current one is in use."""
    if not isinstance(X_flat, ImageFiles):
        yield from map(read, parts)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting = deque()
        for part in parts:
            waiting.append(thread.submit(read, part))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        if waiting:
            yield waiting.popleft().result()


def _threads(n):
    return max(1, min(n, cpu_count(), MAX_THREADS))


def _stamp(name):
    """Size and time of the last change of a file."""
    try:
        found = os.stat(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read {name!r} as an image: {error}. {REMEDY}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(
            f"{name!r} is a folder, not a file. skgcm.datasets.list_image_folder lists the images of a folder."
        )
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name!r} is not a regular file.")
    return found.st_size, found.st_mtime_ns
