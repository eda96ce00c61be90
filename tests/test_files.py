"""File names as X: the same pixels, weights and answers as with arrays, and errors that name the file."""

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from skorch.dataset import Dataset

from skgcm import GCMClassifier
from skgcm.datasets import list_image_folder, load_image_folder
from skgcm.inputs import files
from skgcm.inputs.files import ImageFiles, find_paths, read_ahead
from skgcm.inputs.value_range import check_values_in_range, warn_if_dark
from skgcm.training.batches import Batches

SHAPE = (10, 12, 3)
PARAMS = {
    "image_shape": SHAPE,
    "encoder_width": 4,
    "decoder_width": 4,
    "n_stages": 2,
    "max_epochs": 2,
    "batch_size": 8,
    "device": "cpu",
    "random_state": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 images of two classes, in several sizes and modes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(24):
        name = ("dark", "light")[i % 2]
        (folder / name).mkdir(exist_ok=True)
        rows = 10 if i % 3 else 15
        pixels = rng.integers(100 * (i % 2), 156 + 100 * (i % 2), (rows, 12, 3), dtype=np.uint8)
        image = Image.fromarray(pixels if i % 5 else pixels[..., 0])
        image.save(folder / name / f"{i}.{'png' if i % 4 else 'jpg'}")
    return folder


@pytest.fixture(scope="module")
def listed(folder):
    return list_image_folder(folder)


@pytest.fixture(scope="module")
def loaded(folder):
    return load_image_folder(folder, size=SHAPE[:2], mode="RGB")


@pytest.fixture(scope="module")
def on_arrays(loaded):
    X, y = loaded
    return GCMClassifier(**PARAMS).fit(X[:16], y[:16], validation_data=(X[16:], y[16:]))


@pytest.fixture(scope="module")
def on_paths(listed):
    paths, y = listed
    return GCMClassifier(**PARAMS).fit(paths[:16], y[:16], validation_data=(list(paths[16:]), y[16:]))


@pytest.fixture
def three(tmp_path):
    """Three files, grey, of 4 x 6 pixels."""
    for i in range(3):
        Image.new("L", (6, 4), 50 * i + 50).save(tmp_path / f"{i}.png")
    return [str(tmp_path / f"{i}.png") for i in range(3)]


def _weights(clf):
    return list(clf.net_.network.state_dict().values())


def test_a_listed_folder_has_the_files_that_a_loaded_one_has(folder, listed):
    paths, y = listed
    _, labels, read = load_image_folder(folder, size=4, return_paths=True)
    np.testing.assert_array_equal(paths, read)
    np.testing.assert_array_equal(y, labels)
    some, _ = list_image_folder(folder, pattern="*.png")
    assert some.tolist() == [path for path in paths if path.endswith(".png")]


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_files_have_the_pixels_of_a_loaded_folder(folder, listed, mode, channels, channels_first):
    X, _ = load_image_folder(folder, size=SHAPE[:2], mode=mode)
    X = X.transpose(0, 3, 1, 2) if channels_first else X
    read = ImageFiles(listed[0], (*SHAPE[:2], channels), channels_first)
    assert read.shape == (len(X), X[0].size)
    np.testing.assert_array_equal(read[:], X.reshape(len(X), -1))
    np.testing.assert_array_equal(read[np.array([3, 0, 3, 3, 7])], X[[3, 0, 3, 3, 7]].reshape(5, -1))


def test_a_fit_on_paths_ends_in_the_weights_of_a_fit_on_arrays(on_arrays, on_paths):
    assert all(map(torch.equal, _weights(on_paths), _weights(on_arrays)))
    for name in ("train_loss", "valid_loss"):
        assert [epoch[name] for epoch in on_paths.history_] == [epoch[name] for epoch in on_arrays.history_]
    assert on_paths.n_features_in_ == 360
    assert on_paths.value_range_ == (0, 255)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"])
def test_each_method_takes_paths(on_paths, listed, loaded, method):
    paths, _ = listed
    X, _ = loaded
    ask = getattr(on_paths, method)
    np.testing.assert_array_equal(ask(paths), ask(X))
    np.testing.assert_array_equal(ask([Path(path) for path in paths[5:6]]), ask(X[5:6]))
    if method == "predict":
        for kind in (pd.Series(paths), pd.DataFrame({"path": paths})["path"].astype(object), paths[:, None]):
            np.testing.assert_array_equal(ask(kind), ask(X))


def test_paths_are_scored_and_explained(on_paths, listed, loaded):
    paths, y = listed
    X, _ = loaded
    assert on_paths.score(paths, y) == on_paths.score(X, y)
    evidence = on_paths.explain(paths, classes=y[:, None])
    np.testing.assert_array_equal(evidence.images, (X / np.float32(255)).astype(np.float32))
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=1e-6)
    parts = list(on_paths.explain_batches(paths, classes=y[:, None], batch_size=10))
    assert [len(part.images) for part in parts] == [10, 10, 4]
    np.testing.assert_array_equal(np.concatenate([part.cwm for part in parts]), evidence.cwm)


def test_partial_fit_takes_paths(listed, loaded):
    paths, y = listed
    X, _ = loaded
    ends = []
    for images in (paths, X):
        clf = GCMClassifier(**PARAMS).partial_fit(images, y, classes=["dark", "light"])
        ends.append(_weights(clf.partial_fit(images[::-1], y[::-1])))
    assert all(map(torch.equal, *ends))


def test_early_stopping_holds_out_paths(listed):
    paths, y = listed
    clf = GCMClassifier(**PARAMS, early_stopping=True, validation_fraction=0.25).fit(paths, y)
    assert "valid_loss" in clf.history_[-1]


def test_tools_of_scikit_learn_index_paths(listed):
    paths, y = listed
    clf = GCMClassifier(**PARAMS).set_params(max_epochs=1)
    train, test, y_train, y_test = train_test_split(list(paths), y, random_state=0)
    assert set(clf.fit(train, y_train).predict(test)) <= set(y_test) | set(y_train)
    assert len(cross_val_score(clf, paths, y, cv=2)) == 2
    assert GridSearchCV(clf, {"lr": [0.01, 0.1]}, cv=2).fit(list(paths), y).best_params_


def test_frames_of_any_size_come_from_files_of_one_size(on_paths, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 14, 3), dtype=np.uint8)
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    np.testing.assert_array_equal(on_paths.predict(paths, any_size=True), on_paths.predict(frames, any_size=True))
    assert on_paths.explain(paths, any_size=True).images.shape == frames.shape
    Image.new("RGB", (5, 20)).save(paths[1])
    with pytest.raises(ValueError, match=r"one size: '.*0\.png' has 20 rows and 14 columns, '.*1\.png' has 20 and 5"):
        on_paths.predict(paths, any_size=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_refused_before_it_is_opened_for_its_size(on_paths, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png' is not a regular file"):
        on_paths.predict([tmp_path / "pipe.png"], any_size=True)


def test_the_same_file_may_come_several_times(three):
    rows = ImageFiles([three[0], three[1], three[0]], (4, 6, 1))[:]
    assert rows[:, 0].tolist() == [50, 100, 50]


def test_names_begin_with_a_tilde_and_the_working_directory_may_change(three, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    read = ImageFiles(["~/0.png", "1.png"], (4, 6, 1))
    monkeypatch.chdir("/")
    assert read[:,][:, 0].tolist() == [50, 100]


def test_an_array_on_disk_is_not_copied(on_paths, loaded, tmp_path):
    np.save(tmp_path / "X.npy", loaded[0])
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    X_flat, _ = on_paths._validate_images(mapped)
    assert np.shares_memory(X_flat, mapped)
    np.testing.assert_array_equal(on_paths.predict(mapped), on_paths.predict(loaded[0]))


# Bad files


def _broken(three, tmp_path, kind):
    if kind == "absent":
        return str(tmp_path / "none.png"), "No such file"
    if kind == "folder":
        return str(tmp_path), r"is a folder, not a file.*list_image_folder"
    path = tmp_path / "bad.png"
    if kind == "text":
        path.write_text("no image")
        return path, r"bad\.png' as an image.*no image format"
    if kind == "float":
        path = tmp_path / "bad.tif"
        Image.fromarray(np.zeros((4, 6), np.float32)).save(path)
        return path, r"bad\.tif' as an image.*do not say what white is"
    os.mkfifo(path)
    return path, r"bad\.png' is not a regular file"


@pytest.mark.parametrize("kind", ["absent", "folder", "text", "float", "pipe"])
def test_one_file_that_is_no_image_is_named_before_training(three, tmp_path, kind):
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes on this system")
    path, message = _broken(three, tmp_path, kind)
    begun = []
    clf = GCMClassifier(**PARAMS, augment=begun.append)
    with pytest.raises(ValueError, match=rf"X\[299\]: .*{message}"):
        clf.fit([*(three * 100)[:299], path, *three], ["a", "b"] * 151 + ["a"])
    assert not begun
    assert not hasattr(clf, "classes_")


def test_several_files_that_are_no_images_are_counted(three, tmp_path):
    paths = [*three, tmp_path / "x", *three, tmp_path / "y"]
    with pytest.raises(ValueError, match=r"2 of the 8 files in X cannot be read, those at 3, 7\. The first, X\[3\]: "):
        GCMClassifier(**PARAMS).fit(paths, list("abababab"))


def test_files_of_held_out_images_are_checked_before_training(three, tmp_path):
    with pytest.raises(ValueError, match=r"validation_data: X\[1\]: .*none\.png"):
        GCMClassifier(**PARAMS).fit(three, list("aba"), validation_data=([three[0], tmp_path / "none.png"], ["a", "b"]))


@pytest.mark.parametrize("change", ["vanish", "rewrite", "touch", "break"])
def test_a_file_that_changes_during_a_fit_is_named(three, change):
    def augment(images):
        path = Path(three[1])
        if change == "vanish":
            path.unlink(missing_ok=True)
        elif change == "rewrite":
            Image.new("L", (6, 4), 7).save(path, format="bmp")
        elif change == "touch":
            os.utime(path, ns=(5, 5))
        else:
            path.write_bytes(path.read_bytes()[:40])
        return images

    message = {"vanish": "as an image.*No such file", "break": "as an image"}.get(change, "has changed since")
    clf = GCMClassifier(**PARAMS | {"image_shape": (4, 6)}, augment=augment)
    with pytest.raises(ValueError, match=rf"1\.png' {message}"):
        clf.fit(three * 4, list("ab" * 6))
    assert not hasattr(clf, "net_")


def test_files_are_read_in_one_or_three_channels(three):
    with pytest.raises(ValueError, match=r"image_shape=\(4, 6, 4\) has 4 channels\. Files are read in grey"):
        GCMClassifier(**PARAMS | {"image_shape": (4, 6, 4)}).fit(three, list("aba"))


def test_names_of_bytes_are_refused():
    class BytesPath:
        def __fspath__(self):
            return b"a.png"

    with pytest.raises(ValueError, match=r"os\.fsdecode"):
        find_paths([BytesPath()])


def test_as_many_labels_as_paths_are_expected(three):
    with pytest.raises(ValueError, match="X has 3 images and y has 2 labels"):
        GCMClassifier(**PARAMS).fit(three, ["a", "b"])


# Values


def test_values_of_some_files_are_compared_with_a_range_that_is_not_theirs(three):
    read = ImageFiles(three, (4, 6, 1))
    check_values_in_range(read, (0, 255))
    with pytest.raises(ValueError, match="far outside value_range"):
        check_values_in_range(read, (0, 1))


def test_dark_files_are_a_warning(three):
    with pytest.warns(UserWarning, match=r"99\.5 % of the values in X are 50 or less"):
        warn_if_dark(ImageFiles(three[:1], (4, 6, 1)), (0, 255))


# Checkpoints


def test_a_checkpoint_knows_files_by_name_size_and_time(listed, tmp_path, on_paths):
    paths, y = listed
    clf = GCMClassifier(**PARAMS, checkpoint=tmp_path / "fit.ckpt")
    clf.fit(paths[:16], y[:16], validation_data=(paths[16:], y[16:]))
    assert all(map(torch.equal, _weights(clf), _weights(on_paths)))
    clf.fit(list(paths[:16]), y[:16], validation_data=(paths[16:], y[16:]))  # finished: no training
    with pytest.raises(ValueError, match="X is not the same"):
        clf.fit(paths[15::-1], y[:16], validation_data=(paths[16:], y[16:]))
    touched = tmp_path / "touched.png"
    touched.write_bytes(Path(paths[16]).read_bytes())
    clf = GCMClassifier(**PARAMS, checkpoint=tmp_path / "other.ckpt").fit([touched, *paths[:15]], [y[16], *y[:15]])
    os.utime(touched, ns=(7, 7))
    with pytest.raises(ValueError, match="X is not the same"):
        clf.fit([touched, *paths[:15]], [y[16], *y[:15]])


# Reading ahead


def test_the_next_part_is_read_while_the_last_is_in_use(three):
    read = ImageFiles(three, (4, 6, 1))
    begun, main = [], threading.get_ident()
    second = threading.Event()

    def job(part):
        begun.append(threading.get_ident())
        if part == 1:
            second.set()
        return part

    parts = read_ahead(read, job, range(5))
    assert next(parts) == 0
    assert second.wait(10)
    assert len(begun) == 2  # and no further: memory is bounded
    assert list(parts) == [1, 2, 3, 4]
    assert main not in begun
    assert list(read_ahead(np.zeros(3), job, range(3))) == [0, 1, 2]
    assert begun[-3:] == [main] * 3
    assert list(read_ahead(read, job, [])) == []


def test_batches_of_files_are_those_of_their_array(three):
    read, y = ImageFiles(three, (4, 6, 1)), np.arange(3)
    of_files, of_array = (list(Batches(Dataset(X, y), 2, torch.Generator().manual_seed(0))) for X in (read, read[:]))
    for (X, labels), (X_expected, labels_expected) in zip(of_files, of_array, strict=True):
        assert torch.equal(X, X_expected)
        assert torch.equal(labels, labels_expected)


def test_rows_of_files_go_to_the_device_once_where_they_fit(three, monkeypatch):
    asked = []
    monkeypatch.setattr("skgcm.training.batches.fits", lambda n_bytes, device: asked.append(n_bytes) or True)
    batches = Batches(Dataset(ImageFiles(three, (4, 6, 1)), np.arange(3)), 3)
    assert asked == [72]
    monkeypatch.setattr(ImageFiles, "__getitem__", None)
    assert [X.shape for X, _ in batches] == [(3, 24)]


def test_a_fitted_classifier_keeps_no_names(on_paths, folder):
    assert str(folder).encode() not in pickle.dumps(on_paths)


def test_reading_uses_no_more_threads_than_there_is_work(monkeypatch):
    monkeypatch.setattr(files, "cpu_count", lambda: 64)
    assert [files._threads(n) for n in (0, 1, 5, 1000)] == [1, 1, 5, files.MAX_THREADS]
