"""The files in which CIFAR-10 and SVHN are published, and arrays in a file."""

import hashlib
import io
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy.io import loadmat

CIFAR10 = {  # MD5 of the files inside cifar-10-python.tar.gz
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_CLASSES = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
CIFAR10_FOLDER, CIFAR10_ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
CIFAR10_SOURCE = f"Get {CIFAR10_ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html."

SVHN = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
SVHN_SOURCE = "Get train_32x32.mat and test_32x32.mat (format 2) from http://ufldl.stanford.edu/housenumbers/."

NAMES = ("X_train", "y_train", "X_test", "y_test")


def _existing(path, source):
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist. {source}")
    return path


def _verified(content, name, checksum, source):
    """The bytes of an official file, if it is that file: only then is it safe to decode."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise ValueError(f"{name} has MD5 {found}, the official file {checksum}: damaged or another file. {source}")
    return content


def _read(folder, name, source):
    if not (folder / name).is_file():
        raise FileNotFoundError(f"path={str(folder)!r} has no file {name}. {source}")
    return (folder / name).read_bytes()


def _cifar10_files(path):
    """(name, content) of the six batches, of the archive or of the folder that it unpacks to."""
    if path.is_dir():
        folder = path / CIFAR10_FOLDER
        for name in CIFAR10:
            yield name, _read(folder if folder.is_dir() else path, name, CIFAR10_SOURCE)
        return
    try:
        with tarfile.open(path) as archive:
            for name in CIFAR10:
                yield name, archive.extractfile(f"{CIFAR10_FOLDER}/{name}").read()
    except PermissionError:
        raise
    except (tarfile.TarError, EOFError, KeyError, AttributeError, OSError, zlib.error) as error:
        raise ValueError(
            f"path={str(path)!r} is neither a folder nor the archive {CIFAR10_ARCHIVE} ({error}). {CIFAR10_SOURCE}"
        ) from error


def load_cifar10(path):
    """Load CIFAR-10 from its official files, "python version".

    Parameters
    ----------
    path : str or path-like
        ``cifar-10-python.tar.gz``, or the folder ``cifar-10-batches-py`` that it unpacks to, or the folder above that.
        A leading ``~`` is the home folder.

    Returns
    -------
    X_train : ndarray (50000, 32, 32, 3) uint8
        Images, values 0 to 255.
    y_train : ndarray (50000,) str
        Their classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship or truck.
    X_test : ndarray (10000, 32, 32, 3) uint8
    y_test : ndarray (10000,) str

    Raises
    ------
    FileNotFoundError
        If `path` or a file in it does not exist.
    ValueError
        If a file is not the official one by its MD5 checksum. The files are pickles, which execute code when opened;
        none is opened before its checksum is verified.
    PermissionError
        If a file may not be read.

    References
    ----------
    A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
    https://www.cs.toronto.edu/~kriz/cifar.html
    """
    X, y = [], []
    for name, content in _cifar10_files(_existing(path, CIFAR10_SOURCE)):
        batch = pickle.loads(_verified(content, name, CIFAR10[name], CIFAR10_SOURCE), encoding="bytes")
        X.append(np.ascontiguousarray(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)))  # stored (D, R, C)
        y.append(CIFAR10_CLASSES[batch[b"labels"]])
    return np.concatenate(X[:-1]), np.concatenate(y[:-1]), X[-1], y[-1]


def load_svhn(path):
    """Load SVHN (Street View House Numbers) from its official files, "format 2": cropped digits.

    Parameters
    ----------
    path : str or path-like
        The folder with ``train_32x32.mat`` and ``test_32x32.mat``. A leading ``~`` is the home folder.

    Returns
    -------
    X_train : ndarray (73257, 32, 32, 3) uint8
        Images, values 0 to 255.
    y_train : ndarray (73257,) int64
        The digits, 0 to 9. (The files call the digit 0 "10".)
    X_test : ndarray (26032, 32, 32, 3) uint8
    y_test : ndarray (26032,) int64

    Raises
    ------
    FileNotFoundError
        If `path` or a file in it does not exist.
    ValueError
        If a file is not the official one by its MD5 checksum.

    References
    ----------
    Y. Netzer et al.: Reading Digits in Natural Images with Unsupervised Feature Learning, NIPS Workshop 2011.
    http://ufldl.stanford.edu/housenumbers/
    """
    folder, arrays = _existing(path, SVHN_SOURCE), []
    for name, checksum in SVHN.items():
        content = loadmat(io.BytesIO(_verified(_read(folder, name, SVHN_SOURCE), name, checksum, SVHN_SOURCE)))
        arrays.append(np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2)))  # stored (R, C, D, n)
        arrays.append(content["y"][:, 0].astype(np.int64) % 10)
    return tuple(arrays)


def load_npz(path):
    """Load a data set that was saved with ``numpy.savez(path, X_train=..., y_train=..., X_test=..., y_test=...)``.

    Parameters
    ----------
    path : str or path-like
        The .npz file. A leading ``~`` is the home folder.

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        As they were saved. Arrays of Python objects are not loaded: they would be pickles.

    Raises
    ------
    FileNotFoundError
        If `path` does not exist.
    ValueError
        If it is no .npz file, or one without these names.
    PermissionError
        If it may not be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from _official import load_npz
    >>> X, y = np.zeros((4, 8, 8), np.uint8), np.array(["good", "good", "bad", "bad"])
    >>> with TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "parts.npz"), X_train=X[::2], y_train=y[::2], X_test=X[1::2], y_test=y[1::2])
    ...     X_train, y_train, X_test, y_test = load_npz(Path(folder, "parts.npz"))
    >>> X_train.shape, y_test.tolist()
    ((2, 8, 8), ['good', 'bad'])
    """
    expected = f"Expected an .npz file with arrays {', '.join(NAMES)}, as numpy.savez writes it."
    path = _existing(path, expected)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in NAMES if name not in arrays]
            if not missing:
                return tuple(arrays[name] for name in NAMES)
    except PermissionError:
        raise
    except (OSError, ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"path={str(path)!r} cannot be read ({error}). {expected}") from error
    raise ValueError(f"path={str(path)!r} has no {', '.join(missing)}. {expected}")
