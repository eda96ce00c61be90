import errno
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score

from skgcm import GCMClassifier
from skgcm.files import safetensors_file
from skgcm.files.checkpoint import Checkpoint
from skgcm.training import build, net
from skgcm.utils import atomic

TINY = {"encoder_width": 4, "decoder_width": 4, "batch_size": 8, "max_epochs": 3, "lr": 0.05}
TINY |= {"device": "cpu", "random_state": 0}


def draw():
    X = np.random.default_rng(0).integers(0, 256, (36, 6, 7), dtype=np.uint8)
    y = np.arange(36) % 3
    X[y == 0, :3] //= 2
    X[y == 1, 3:] //= 2
    return X, y


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


def raising(function, at, error=KeyboardInterrupt, after=False):
    """The function, but its call number `at` raises, before or after it does its work."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        out = None if calls == at and not after else function(*args, **kwargs)
        if calls == at:
            raise error
        return out

    return wrapped


INTERRUPTIONS = {  # within an epoch, within the write after it, and after the write
    "train_step": lambda patch: patch.setattr(net.GCMNet, "train_step", raising(net.GCMNet.train_step, 3)),
    "write": lambda patch: patch.setattr(os, "replace", raising(os.replace, 1)),
    "save": lambda patch: patch.setattr(Checkpoint, "save", raising(Checkpoint.save, 1, after=True)),
}


def interrupt(how, params, path, monkeypatch):
    with monkeypatch.context() as patch:
        INTERRUPTIONS[how](patch)
        with pytest.raises(KeyboardInterrupt):
            GCMClassifier(**params, checkpoint=path).fit(*draw())


def interrupted_everywhere(params, path, monkeypatch):
    """A fit interrupted in the three ways in each of its epochs, and how often that was."""
    times = 0
    while True:
        for patched in INTERRUPTIONS.values():
            with monkeypatch.context() as patch:
                patched(patch)
                clf = GCMClassifier(**params, checkpoint=path)
                try:
                    return clf.fit(*draw()), times
                except KeyboardInterrupt:
                    assert not hasattr(clf, "net_")
                    times += 1


def order(tensor):
    """Strides of the axes that have more than one place: of others they mean nothing."""
    return [stride for stride, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


def assert_same(one, other):
    """Weights, statistics, what the optimizer remembers and history are the same to the bit."""
    states = [clf.net_.network.state_dict() for clf in (one, other)]
    assert list(states[0]) == list(states[1])
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    memories = [clf.net_.optimizer_.state_dict()["state"] for clf in (one, other)]
    parameters = [parameter for group in one.net_.optimizer_.param_groups for parameter in group["params"]]
    assert memories[0].keys() == memories[1].keys()
    for index, memory in memories[0].items():
        assert memory.keys() == memories[1][index].keys()
        for name, value in memory.items():
            again = memories[1][index][name]
            if isinstance(value, torch.Tensor):
                assert value.dtype == again.dtype
                assert torch.equal(value, again), (index, name)
                if one.net_.optimizer_.defaults.get("fused") and value.ndim:
                    assert order(value) == order(again) == order(parameters[index]), (index, name)
            else:
                assert (type(value), value) == (type(again), again)
    histories = [[{**epoch, "dur": None} for epoch in clf.history_] for clf in (one, other)]
    assert histories[0] == histories[1]
    assert list(histories[0][0]) == list(histories[1][0])
    np.testing.assert_array_equal(one.decision_function(draw()[0]), other.decision_function(draw()[0]))


STOPPING = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 40, "validation_fraction": 0.2, "lr": 0.3}
VARIANTS = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "early-stopping": STOPPING,
    "adamw-early-stopping": {**STOPPING, "optimizer": "adamw"},
    "early-stopping-at-the-last": {**STOPPING, "net_params": {"callbacks__early_stopping__load_best": False}},
    "mosaic-sparsity": {"mosaic": 0.5, "sparsity": 0.1, "erasing": 1},
    "augment": {"augment": "shift+flip"},
    "bright": {"polarity": "bright"},
    "encoder": {"encoder": "test_efficientnet", "encoder_weights": None, "max_epochs": 2},
    "encoder-frozen": {"encoder": "test_efficientnet", "encoder_weights": None, "encoder_lr": 0, "max_epochs": 2},
    "paper": {"architecture": "paper"},
    "auto": {"batch_size": "auto", "lr": "auto"},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "constant-rate": {"lr_schedule": "constant", "lr": 0.01},
    "class-weight": {"class_weight": {0: 5, 1: 1}},
    "net-params": {"net_params": {"criterion__label_smoothing": 0.1, "optimizer__momentum": 0.5}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fit_interrupted_at_every_step_ends_like_an_uninterrupted_fit(variant, path, monkeypatch):
    params = {**TINY, **VARIANTS[variant]}
    whole = GCMClassifier(**params).fit(*draw())
    parts, times = interrupted_everywhere(params, path, monkeypatch)
    assert_same(parts, whole)
    assert times == 3 * len(whole.history_)
    if "early_stopping" in params:  # and what it restored was not the last epoch
        losses = [epoch["valid_loss"] for epoch in whole.history_]
        assert np.argmin(losses) < len(losses) - 1 < 39
    assert list(path.parent.iterdir()) == [path]


OPTIMIZERS = ("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW")
OPTIMIZERS += ("ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_resumes(name, path, monkeypatch):
    params = {**TINY, "optimizer": getattr(torch.optim, name), "lr": 1e-3, "weight_decay": 0}
    interrupt("save", params, path, monkeypatch)
    assert_same(GCMClassifier(**params, checkpoint=path).fit(*draw()), GCMClassifier(**params).fit(*draw()))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_finished_fit_is_loaded_without_training(early_stopping, path, monkeypatch):
    params = {**TINY, **(STOPPING if early_stopping else {}), "checkpoint": str(path)}
    first = GCMClassifier(**params).fit(*draw())
    assert safetensors_file.read(path, "checkpoint")[1]["finished"]
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    content = path.read_bytes()
    again = GCMClassifier(**{**params, "verbose": 2, "transform_maps": "weights"}).fit(*draw())
    assert_same(again, first)
    assert again.history_ == first.history_
    assert path.read_bytes() == content


def test_numbers_of_numpy_are_the_same_parameters(path, monkeypatch):
    params = {**TINY, "max_epochs": np.int64(3), "lr": np.float64(0.05), "early_stopping": np.False_}
    first = GCMClassifier(**params, checkpoint=path).fit(*draw())
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    assert_same(GCMClassifier(**TINY, checkpoint=path).fit(*draw()), first)


def test_without_a_random_state_the_seed_is_that_of_the_file(path, monkeypatch):
    params = {**TINY, "random_state": None}
    parts, _ = interrupted_everywhere(params, path, monkeypatch)
    seed = safetensors_file.read(path, "checkpoint")[1]["random_state"]
    assert_same(parts, GCMClassifier(**{**TINY, "random_state": seed}).fit(*draw()))
    path.unlink()
    GCMClassifier(**params, checkpoint=path).fit(*draw())
    assert safetensors_file.read(path, "checkpoint")[1]["random_state"] != seed


def test_with_a_random_state_the_seed_is_not_that_of_the_file(path, monkeypatch):
    interrupt("save", TINY, path, monkeypatch)
    _with(random_state=77)(path)
    assert_same(GCMClassifier(**TINY, checkpoint=path).fit(*draw()), GCMClassifier(**TINY).fit(*draw()))


def test_ctrl_c_leaves_the_estimator_as_it_was_and_the_last_epoch_in_the_file(path, monkeypatch):
    clf = GCMClassifier(**TINY).fit(*draw())
    clf.set_params(checkpoint=path)
    before, scores = vars(clf).copy(), clf.decision_function(draw()[0])
    with monkeypatch.context() as patch:
        patch.setattr(net.GCMNet, "train_step", raising(net.GCMNet.train_step, 12))  # five an epoch
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*draw())
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.decision_function(draw()[0]), scores)
    tensors, metadata = safetensors_file.read(path, "checkpoint")
    assert tensors["history/epoch"].tolist() == [1, 2]
    assert not metadata["finished"]
    clf.partial_fit(*draw())  # which has nothing to do with it
    assert safetensors_file.read(path, "checkpoint")[1] == metadata


# ---- another fit -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run.ckpt"
    GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    return path


AUTO = build.resolve_precision("auto", torch.device("cpu"))
OTHER_PRECISION = "float32" if AUTO == "bfloat16" else "bfloat16"
OTHERS = {
    "lr": (0.1, r"lr=0\.1 was 0\.05"),
    "max_epochs": (4, "max_epochs=4 was 3"),
    "decoder_width": (8, "decoder_width=8 was 4"),
    "optimizer": (torch.optim.Adam, r"optimizer='torch\.optim\.adam\.Adam' was 'auto'"),
    "precision": (OTHER_PRECISION, f"precision='{OTHER_PRECISION}' was '"),
    "class_weight": ({0: 2, 2: 1.5}, r"class_weight=\[\[0, 2\], \[2, 1\.5\]\] was None"),
    "net_params": ({"criterion__label_smoothing": 0.1}, r"net_params=\[\['criterion__label_smoothing', 0\.1\]\] was N"),
    "image_shape": (np.array([6, 7]), r"image_shape=\[6, 7\] was None"),
    "random_state": (1, "random_state=1 was 0"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_are_named(name, finished):
    value, message = OTHERS[name]
    content = finished.read_bytes()
    clf = GCMClassifier(**{**TINY, name: value}, checkpoint=finished)
    with pytest.raises(ValueError, match=f"holds another fit: {message}.* delete"):
        clf.fit(*draw())
    assert finished.read_bytes() == content


def test_an_error_shortens_a_long_parameter(finished, tmp_path):
    weights = dict.fromkeys(range(9000), 1)
    clf = GCMClassifier(**TINY, class_weight=weights, checkpoint=finished)
    with pytest.raises(ValueError, match=r"class_weight=\[\[0, 1\], \[1, 1\], .*\.\.\.\] was None") as caught:
        clf.fit(*draw())
    assert len(str(caught.value)) < 600
    X, y = np.random.default_rng(0).random((60, 4, 4)), np.arange(60) % 30
    weights = dict.fromkeys(range(30), 1)
    path = tmp_path / "run.ckpt"
    GCMClassifier(**TINY, class_weight=weights, checkpoint=path).fit(X, y)
    for changed, message in ((9, "class_weight is not the same"), (1, r"class_weight=.*\[1, 2\].* was .*\[1, 1\]")):
        with pytest.raises(ValueError, match=message):
            GCMClassifier(**TINY, class_weight={**weights, changed: 2}, checkpoint=path).fit(X, y)


def _changed(X):
    X = X.copy()
    X[-1, -1, -1] += 1
    return X


@pytest.mark.parametrize(
    ("change", "which"),
    [
        (lambda X, y: (_changed(X), y), "X is not the same"),
        (lambda X, y: (X[::-1], y), "X is not the same"),
        (lambda X, y: (X.astype(np.int16), y), r"X\.dtype='int16' was 'uint8', X is not the same"),
        (lambda X, y: (X.transpose(0, 2, 1), y), r"X\.shape=\[36, 7, 6, 1\] was \[36, 6, 7, 1\], X is not the same"),
        (lambda X, y: (X.reshape(36, 3, 14), y), r"X\.shape=\[36, 3, 14, 1\] was \[36, 6, 7, 1\]"),
        (lambda X, y: (X, y[::-1]), "y is not the same"),
        (lambda X, y: (X, y + 1), "y is not the same"),
        (lambda X, y: (X, y.astype(str)), "y is not the same"),
        (lambda X, y: (X[:35], y[:35]), r"X\.shape=\[35, 6, 7, 1\] .*, X is not the same, y is not the same"),
    ],
    ids=["a-pixel", "order", "dtype", "transposed", "shape", "labels", "names", "strings", "fewer"],
)
def test_other_data_are_named(change, which, finished):
    with pytest.raises(ValueError, match=rf"holds another fit: {which}\. Fit"):
        GCMClassifier(**TINY, checkpoint=finished).fit(*change(*draw()))


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda X: X[..., None], lambda X: torch.from_numpy(X)])
def test_the_same_data_in_another_layout_are_the_same(layout, finished):
    X, y = draw()
    assert_same(GCMClassifier(**TINY, checkpoint=finished).fit(layout(X), y.tolist()), GCMClassifier(**TINY).fit(X, y))


def test_the_same_labels_in_another_dtype_are_the_same(path):
    X, y = draw()
    names = y.astype(str)
    GCMClassifier(**TINY, checkpoint=path).fit(X, names)
    for same in (names.astype(object), names.astype("<U9")):
        clf = GCMClassifier(**TINY, checkpoint=path).fit(X, same)
        assert clf.classes_.dtype == same.dtype


@pytest.mark.parametrize("package", ["skgcm", "torch", "scikit-learn", "skorch", "numpy"])
def test_another_version_is_a_warning_while_there_is_something_to_train(package, path, monkeypatch):
    params, other = {**TINY, "checkpoint": path}, safetensors_file.versions() | {package: "0.1"}
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "versions", lambda: other)
        interrupt("save", TINY, path, monkeypatch)
    with pytest.warns(UserWarning, match=rf"with {package} 0\.1 \(this is [^,]*\): training continues") as found:
        GCMClassifier(**params).fit(*draw())
    assert [warning.filename for warning in found] == [__file__]
    monkeypatch.setattr(safetensors_file, "versions", lambda: other)
    GCMClassifier(**params).fit(*draw())  # nothing to train


class Peculiar(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"augment": lambda images: images}, "augment=.* Use 'shift'"),
        ({"callbacks": [net.EpochTimer()]}, "callbacks=.* Fit without them"),
        ({"optimizer": Peculiar}, "optimizer=.* Use a class of torch.optim"),
        ({"random_state": np.random.RandomState(0)}, "random_state=.* Use an integer or None"),
        ({"warm_start": True}, "Use warm_start=False"),
        (
            {"net_params": {"criterion__weight": torch.ones(3)}},
            "cannot compare net_params=.*Tensor is not a plain",
        ),
        ({"net_params": {"optimizer__eps": np.inf}}, "cannot compare net_params=.*inf is not finite"),
    ],
    ids=["augment", "callbacks", "optimizer", "random-state", "warm-start", "tensor", "infinite"],
)
def test_what_cannot_be_restored_is_named_before_training(params, message, path, monkeypatch):
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    with pytest.raises(ValueError, match=f"{message}.*checkpoint=None"):
        GCMClassifier(**{**TINY, **params}, checkpoint=path).fit(*draw())
    assert not path.exists()


# ---- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/run.ckpt", r"folder '.*absent' does not exist\. Create it"),
        ("absent/", r"checkpoint='.*absent/': this folder does not exist\. Create it"),
    ],
    ids=["no-folder", "folder"],
)
def test_a_path_where_no_file_can_be_is_an_error_before_training(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    with pytest.raises(ValueError, match=message):
        GCMClassifier(**TINY, checkpoint=f"{tmp_path}/{name}").fit(*draw())


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def _without_module(path):
    tensors, metadata = safetensors_file.read(path, "checkpoint")
    safetensors_file.write(path, {k: v for k, v in tensors.items() if k[:6] != "module"}, metadata, "checkpoint")


def _with_another_momentum(path):
    tensors, metadata = safetensors_file.read(path, "checkpoint")
    tensors["optimizer/0/momentum_buffer"] = tensors["optimizer/0/momentum_buffer"][:1].clone()
    safetensors_file.write(path, tensors, metadata, "checkpoint")


def _with(**changes):
    def change(path):
        tensors, metadata = safetensors_file.read(path, "checkpoint")
        safetensors_file.write(path, tensors, metadata | changes, "checkpoint")

    return change


def _without_history(path):
    tensors, metadata = safetensors_file.read(path, "checkpoint")
    tensors = {key: value[:0] if key[:7] == "history" else value for key, value in tensors.items()}
    metadata["history"]["epochs"] = 0
    safetensors_file.write(path, tensors, metadata, "checkpoint")


def _renumbered(path):
    tensors, metadata = safetensors_file.read(path, "checkpoint")
    tensors["history/epoch"] += 1
    safetensors_file.write(path, tensors, metadata, "checkpoint")


def _of_negative_variance(part):
    def change(path):
        tensors, metadata = safetensors_file.read(path, "checkpoint")
        tensors[f"{part}/encoder.stages.0.0.1.running_var"][0] = -1
        safetensors_file.write(path, tensors, metadata, "checkpoint")

    return change


DAMAGES = {
    "bit": (_flipped, "checksum"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "cut off"),
    "model": (lambda path: safetensors_file.write(path, {}, {}, "model"), "kind 'model', not 'checkpoint'"),
    "no-metadata": (lambda path: safetensors_file.write(path, {}, {}, "checkpoint"), "parts do not belong together"),
    "momentum": (
        _with_another_momentum,
        r"momentum_buffer has shape \(1, \d, 3, 3\) for a parameter of \(4, \d, 3, 3\)",
    ),
    "seed-negative": (_with(random_state=-5), "its random_state is -5"),
    "seed-large": (_with(random_state=2**32), "its random_state is 4294967296"),
    "seed-text": (_with(random_state="1"), "its random_state is '1'"),
    "no-history": (_without_history, "it has 0 epochs of 3"),
    "renumbered": (_renumbered, "not numbered from 1"),
    "variance": (_of_negative_variance("module"), "running_var has negative values"),
    "best-variance": (_of_negative_variance("best"), "running_var has negative values"),
    "no-weights": (_without_module, "parts do not belong together.*Missing key"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_an_error_with_a_remedy(damage, path):
    stopping = {"early_stopping": True, "validation_fraction": 0.2} if damage == "best-variance" else {}
    clf = GCMClassifier(**TINY, **stopping, checkpoint=path).fit(*draw())
    before = vars(clf).copy()
    change, message = DAMAGES[damage]
    change(path)
    content = path.read_bytes()
    with pytest.raises(
        safetensors_file.ModelFileError, match=f"(?s){message}.* To train from the start, delete .*run.ckpt"
    ):
        clf.fit(*draw())
    assert vars(clf) == before
    assert path.read_bytes() == content


def test_a_full_disk_is_one_warning_and_the_last_good_file_stays(path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    fsync, calls = os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # the first epoch's file and folder
            raise full
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.warns(UserWarning, match=r"not be written after epoch 2: .*No space left.* Training continues") as f:
        clf = GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    assert [warning.filename for warning in f] == [__file__]
    assert_same(clf, GCMClassifier(**TINY).fit(*draw()))
    assert safetensors_file.read(path, "checkpoint")[0]["history/epoch"].tolist() == [1]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_missing_for_a_while_is_a_warning(tmp_path, monkeypatch):
    path, record = tmp_path / "folder" / "run.ckpt", net.GCMNet._record
    path.parent.mkdir()

    def recording(net, losses):
        record(net, losses)
        if len(net.history) == 1:
            shutil.rmtree(path.parent)
        if len(net.history) == 3:
            path.parent.mkdir()

    monkeypatch.setattr(net.GCMNet, "_record", recording)
    with pytest.warns(UserWarning, match="could not be written after epoch 1"):
        GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    assert safetensors_file.read(path, "checkpoint")[1]["finished"]


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = net.GCMNet._record
    monkeypatch.setattr(net.GCMNet, "_record", lambda net, losses: (record(net, losses), os.chdir("/")))
    GCMClassifier(**TINY, checkpoint="run.ckpt").fit(*draw())
    assert safetensors_file.read(tmp_path / "run.ckpt", "checkpoint")[1]["finished"]


CHILD = """
import os, sys, time
from test_checkpoint import TINY, draw
from skgcm import GCMClassifier

replace = os.replace
def slow(*paths):  # at the second write, stop where the new file is whole and not yet in the old one's place
    if os.path.exists(paths[1]):
        time.sleep(60)
    replace(*paths)

os.replace = slow
GCMClassifier(**TINY, checkpoint=sys.argv[1]).fit(*draw())
"""


def test_a_fit_killed_within_a_write_resumes_from_the_epoch_before(path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # another number rounds otherwise
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=environment)
    start = time.monotonic()
    try:
        while not (path.exists() and list(path.parent.glob(".*.tmp"))):
            assert child.poll() is None
            assert time.monotonic() - start < 300  # or it hangs
            time.sleep(0.001)
    finally:
        child.kill()
        child.wait()
    assert len(list(path.parent.iterdir())) == 3  # and the lock, which no longer holds
    assert safetensors_file.read(path, "checkpoint")[0]["history/epoch"].tolist() == [1]
    assert_same(GCMClassifier(**TINY, checkpoint=path).fit(*draw()), GCMClassifier(**TINY).fit(*draw()))
    assert list(path.parent.iterdir()) == [path]


def test_a_fit_with_a_checkpoint_prints_nothing(path, capfd):
    GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    assert capfd.readouterr() == ("", "")


# ---- several fits ------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from test_checkpoint import TINY, draw
from skgcm import GCMClassifier
from skgcm.training import net

step = net.GCMNet.train_step
def slow(self, *args, **kwargs):
    out = step(self, *args, **kwargs)
    if len(self.history) == 2:
        open(sys.argv[2], "x").close()
        time.sleep(60)
    return out

net.GCMNet.train_step = slow
GCMClassifier(**TINY, checkpoint=sys.argv[1]).fit(*draw())
"""


def test_a_file_in_use_is_an_error_until_the_process_that_uses_it_is_killed(path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    reached = path.parent / "reached"
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), str(reached)], env=environment)
    start = time.monotonic()
    try:
        while not reached.exists():
            assert child.poll() is None
            assert time.monotonic() - start < 300  # or it hangs
            time.sleep(0.001)
        content = path.read_bytes()
        with pytest.raises(ValueError, match=r"in use by another fit.* folds .* name a folder: checkpoint='"):
            GCMClassifier(**TINY, checkpoint=path).fit(*draw())
        assert path.read_bytes() == content
    finally:
        child.kill()
        child.wait()
    reached.unlink()
    assert_same(GCMClassifier(**TINY, checkpoint=path).fit(*draw()), GCMClassifier(**TINY).fit(*draw()))
    assert list(path.parent.iterdir()) == [path]


def test_a_thread_that_uses_a_file_keeps_others_from_it(path, monkeypatch):
    step, errors = net.GCMNet.train_step, []

    def stepping(net, *args, **kwargs):
        if not errors:
            with ThreadPoolExecutor(1) as executor:
                errors.append(executor.submit(GCMClassifier(**TINY, checkpoint=path).fit, *draw()).exception())
        return step(net, *args, **kwargs)

    monkeypatch.setattr(net.GCMNet, "train_step", stepping)
    GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    assert isinstance(errors[0], ValueError)
    assert list(path.parent.iterdir()) == [path]


def test_fits_run_without_a_lock_if_no_file_can_be_locked(path, monkeypatch):
    def refusing(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic, "_lock_descriptor", refusing)
    GCMClassifier(**TINY, checkpoint=path).fit(*draw())
    assert safetensors_file.read(path, "checkpoint")[1]["finished"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_fold_has_its_own_file_in_a_folder(n_jobs, tmp_path, monkeypatch):
    X, y = draw()
    params = {"cv": 3, "error_score": "raise"}
    expected = cross_val_score(GCMClassifier(**TINY), X, y, **params)
    clf = GCMClassifier(**TINY, checkpoint=tmp_path)
    np.testing.assert_array_equal(cross_val_score(clf, X, y, n_jobs=n_jobs, **params), expected)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}\.ckpt", name) for name in names)
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    np.testing.assert_array_equal(cross_val_score(clf, X, y, **params), expected)  # nothing is trained again


def test_an_interrupted_search_resumes_in_its_folder(tmp_path, monkeypatch):
    X, y = draw()
    grid = {"lr": [0.01, 0.1]}
    expected = GridSearchCV(GCMClassifier(**TINY), grid, cv=2).fit(X, y)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", raising(Checkpoint.save, 8, after=True))
        with pytest.raises(KeyboardInterrupt):
            GridSearchCV(GCMClassifier(**TINY, checkpoint=tmp_path), grid, cv=2).fit(X, y)
    calls = []
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda *args, **kwargs: (calls.append(1), save(*args, **kwargs)))
    found = GridSearchCV(GCMClassifier(**TINY, checkpoint=tmp_path), grid, cv=2).fit(X, y)
    assert len(calls) == 3 * 5 - 8
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert_same(found.best_estimator_, expected.best_estimator_)


def test_the_error_for_folds_in_one_file_suggests_a_folder(path):
    with pytest.raises(ValueError, match=r"holds another fit: .* name a folder, which has a file for each fit"):
        cross_val_score(GCMClassifier(**TINY, checkpoint=path), *draw(), cv=2, error_score="raise")
