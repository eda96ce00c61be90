"""Files that are written whole or not at all."""

import glob
import hashlib
import os
import secrets
import shutil
from contextlib import suppress


def replace(path, content):
    """Write bytes to a file, whole or not at all: what is there is replaced in one step, once they are on the disk.

    A link stays a link, and a file keeps its mode. Raises OSError where it cannot be written.
    """
    path = os.path.realpath(path)
    folder, _ = os.path.split(path)
    temporary = os.path.join(folder, f"{_prefix(path)}{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:  # a name that the caller never gave
            raise OSError(error.errno, error.strerror, path) from error
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and its entries are not ours to flush
        with suppress(PermissionError):  # of a folder that may be written to but not read: the file is there
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def discard_leftovers(path):
    """Remove what processes that were killed within :func:`replace` to this path have left beside it."""
    path = os.path.realpath(path)
    pattern = glob.escape(os.path.join(os.path.dirname(path), _prefix(path))) + "[0-9a-f]" * 8 + ".tmp"
    for leftover in glob.glob(pattern):
        with suppress(FileNotFoundError):
            os.unlink(leftover)


def _prefix(path):
    """How temporary names for a path begin: short, since its own name may be as long as the system allows."""
    return f".skgcm-{hashlib.sha256(os.fsencode(os.path.basename(path))).hexdigest()[:16]}-"
