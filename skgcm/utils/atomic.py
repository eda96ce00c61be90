"""Read and write files, which users give as a path or a file object. A path is written whole or not at all."""

import glob
import hashlib
import io
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress


def expanded(path):
    """A path, str or path-like, as a str in which ``~`` is the user's home folder."""
    return os.path.expanduser(os.fspath(path))


@contextmanager
def readable(source):
    """Context that gives a path to read and its name for errors, for a path or a binary file object.

    A file object is copied, from its position to its end, into a temporary file, so that callers can open a path.
    """
    if not hasattr(source, "read"):
        path = expanded(source)
        yield path, path
        return
    _check_binary(source, "rb")
    with tempfile.TemporaryDirectory(prefix="skgcm-") as folder:
        path = os.path.join(folder, "content")
        with open(path, "xb") as file:
            shutil.copyfileobj(source, file)
            size = file.tell()
        name = f"The file object {source!r}"
        yield path, name if size else f"{name}, at whose end it was read (seek(0) goes to its beginning),"


def write(target, content):
    """Write bytes to a path, as :func:`replace` does, or to a binary file object, at its position."""
    if not hasattr(target, "write"):
        replace(expanded(target), content)
        return
    _check_binary(target, "wb")
    rest = memoryview(content)
    while rest:  # a raw file may write fewer bytes than it is given
        written = target.write(rest)
        rest = rest[len(rest) if written is None else written :]


def _check_binary(file, mode):
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{file!r} is a text file, and the content is binary. Open it with mode {mode!r}.")


def replace(path, content):
    """Write bytes to a file, whole or not at all: an existing file is replaced in one step, after they are on the disk.

    A link stays a link, and a file keeps its mode. Raises OSError if it cannot be written.
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
        if isinstance(error, OSError) and error.filename == temporary:  # a name that the caller does not know
            raise OSError(error.errno, error.strerror, path) from error
        raise
    if os.name == "posix":  # other systems do not open folders
        with suppress(PermissionError):  # the folder may be writable but not readable; the file is written
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextmanager
def locked(path):
    """Context that only one process or thread can enter for the same path. Raises BlockingIOError for the others.

    It uses a lock of the operating system on an empty file next to `path`. The lock ends with the process that holds
    it, also if that process is killed. If the file cannot be created or locked (a folder without write access, some
    network file systems), nothing is locked.
    """
    path = os.path.realpath(path)
    name = os.path.join(os.path.dirname(path), f"{_prefix(path)}lock")
    descriptor = _lock(name)
    try:
        yield
    finally:
        if descriptor is not None:
            if os.name == "posix":  # other systems do not remove an open file
                with suppress(FileNotFoundError):
                    os.unlink(name)
            os.close(descriptor)


def _lock(name):
    """Descriptor of the file after locking it, or None if it cannot be locked."""
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            _lock_descriptor(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.stat(name)):
                return descriptor
        except FileNotFoundError:
            pass  # the holder of the lock removed the file after it was opened here: try again
        except (BlockingIOError, PermissionError) as error:
            os.close(descriptor)
            raise BlockingIOError(f"{name} is locked.") from error
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)


def _lock_descriptor(descriptor):
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # PermissionError where it is locked
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def discard_leftovers(path):
    """Remove temporary files next to this path, from processes that were killed within :func:`replace`."""
    path = os.path.realpath(path)
    pattern = glob.escape(os.path.join(os.path.dirname(path), _prefix(path))) + "[0-9a-f]" * 8 + ".tmp"
    for leftover in glob.glob(pattern):
        with suppress(FileNotFoundError):
            os.unlink(leftover)


def _prefix(path):
    """Prefix of temporary names for a path. It is short: the path's own name may have the maximum length already."""
    return f".skgcm-{hashlib.sha256(os.fsencode(os.path.basename(path))).hexdigest()[:16]}-"
