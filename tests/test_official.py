"""The official files of CIFAR-10 and SVHN, made here in small with the checksums to match, and arrays in a file."""

import hashlib
import io
import pickle
import tarfile

import _official
import numpy as np
import pytest
from _official import load_cifar10, load_npz, load_svhn
from scipy.io import savemat


def _sums(folder, names):
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """The folder above cifar-10-batches-py, its images (60, 32, 32, 3) and labels."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 60)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate(_official.CIFAR10):
        part = slice(10 * i, 10 * i + 10)
        batch = {b"data": X[part].transpose(0, 3, 1, 2).reshape(10, -1), b"labels": y[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    monkeypatch.setattr(_official, "CIFAR10", _sums(folder, _official.CIFAR10))
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    return tmp_path, X, y


@pytest.mark.parametrize("path", [".", "cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_cifar10(cifar10, path):
    folder, X, y = cifar10
    X_train, y_train, X_test, y_test = load_cifar10(folder / path)
    np.testing.assert_array_equal(np.concatenate([X_train, X_test]), X)
    assert X_train.shape == (50, 32, 32, 3)
    assert X_train.flags.c_contiguous
    assert X_test.flags.c_contiguous
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert [*y_train, *y_test] == [names[label] for label in y]


class _Executes:
    def __reduce__(self):
        return pytest.fail, ("a file with a wrong checksum was opened",)


@pytest.mark.parametrize("path", [".", "cifar-10-python.tar.gz"])
def test_a_pickle_that_is_not_the_official_one_is_never_opened(cifar10, path):
    folder = cifar10[0]
    content = pickle.dumps(_Executes())
    (folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    with pytest.raises(ValueError, match=r"data_batch_3 has MD5 .* damaged or another file\. Get cifar-10-python"):
        load_cifar10(folder / path)


def test_missing_files_of_cifar10_are_named(cifar10, tmp_path):
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file test_batch\. Get cifar-10-python\.tar\.gz from https"):
        load_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"elsewhere' does not exist\. Get"):
        load_cifar10(tmp_path / "elsewhere")


@pytest.mark.parametrize("how", ["other", "cut", "without the files"])
def test_files_that_are_not_archives_are_an_error(cifar10, how):
    path = cifar10[0] / "cifar-10-python.tar.gz"
    if how == "other":
        path.write_bytes(b"no archive")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("other"), io.BytesIO())
    with pytest.raises(ValueError, match="is neither a folder nor the archive"):
        load_cifar10(path)


def test_an_archive_that_may_not_be_read_is_no_other_archive(cifar10, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError

    path = cifar10[0] / "cifar-10-python.tar.gz"
    monkeypatch.setattr(_official.tarfile, "open", refused)
    monkeypatch.setattr(_official.np, "load", refused)
    for load in (load_cifar10, load_npz):
        with pytest.raises(PermissionError):
            load(path)


def test_svhn(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sets = []
    for name, n in zip(_official.SVHN, (7, 4), strict=True):
        X, y = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(1, n + 1)[::-1] % 11
        sets += [X, y]
        y = np.where(y == 0, 10, y).astype(np.uint8)
        savemat(tmp_path / name, {"X": X.transpose(1, 2, 3, 0), "y": y[:, None]})
    monkeypatch.setattr(_official, "SVHN", _sums(tmp_path, _official.SVHN))
    for found, expected in zip(load_svhn(tmp_path), sets, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == (np.uint8 if found.ndim == 4 else np.int64)
    (tmp_path / "test_32x32.mat").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"test_32x32\.mat has MD5"):
        load_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file test_32x32\.mat\. Get .*housenumbers"):
        load_svhn(tmp_path)


def test_an_npz_without_the_four_arrays_is_an_error(tmp_path):
    one, X = tmp_path / "one.npz", np.zeros((2, 3, 3))
    with pytest.raises(FileNotFoundError, match=r"one\.npz' does not exist. Expected an \.npz"):
        load_npz(one)
    np.savez(one, X_train=X, y_test=X)
    with pytest.raises(ValueError, match="has no y_train, X_test"):
        load_npz(one)
    np.savez(one, X_train=X, y_train=np.array([{}, {}]), X_test=X, y_test=X)
    with pytest.raises(ValueError, match="cannot be read"):
        load_npz(one)
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ValueError, match=r"one\.npy' (has no|cannot be read)"):
        load_npz(tmp_path / "one.npy")
    for content in (b"nothing", b"PK\x03\x04 nothing", b""):
        one.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            load_npz(one)
