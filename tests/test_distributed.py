"""Several processes, started by torchrun, on the processor; and that nothing changes without."""

import os
import subprocess
import sys
import textwrap
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skorch.dataset import Dataset

from skgcm import GCMClassifier
from skgcm.network.backbone import Backbone
from skgcm.training import distributed
from skgcm.training.batches import Batches

PARAMS = {
    "image_shape": (8, 8, 1),
    "encoder_width": 4,
    "decoder_width": 4,
    "n_stages": 2,
    "max_epochs": 3,
    "sparsity": 0,  # the classes that it draws are not those of a single process
    "batch_size": 8,
    "augment": None,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
}
HEAD = f"""
import os, signal, sys, warnings
import numpy as np
import torch
from skgcm import GCMClassifier
from skgcm.training.net import GCMNet

rank, folder = os.environ["RANK"], sys.argv[1]
torch.set_num_threads(1)
PARAMS = {PARAMS!r}
rng = np.random.default_rng(0)
y = np.arange(29) % 3
X = (rng.integers(0, 100, (29, 8, 8)) + 50 * y[:, None, None]).astype(np.uint8)

def keep(clf, name):
    state = {{key: value.numpy() for key, value in clf.net_.network.state_dict().items()}}
    losses = [[epoch["train_loss"], epoch.get("valid_loss", 0)] for epoch in clf.history_]
    np.savez(f"{{folder}}/{{name}}-{{rank}}.npz", losses=losses, **state)
"""
FITS = """
held_out = X[25:], y[25:]
keep(GCMClassifier(**PARAMS).fit(X[:25], y[:25], validation_data=held_out), "arrays")

paths = [f"{folder}/{i}.png" for i in range(29)]
keep(GCMClassifier(**PARAMS).fit(paths[:25], y[:25], validation_data=(paths[25:], y[25:])), "paths")

others = {"augment": "shift+flip", "mosaic": 0.5, "sparsity": 0.1, "erasing": 0.5, "random_state": None}
others |= {"early_stopping": True, "n_iter_no_change": 1, "validation_fraction": 0.3, "max_epochs": 6, "batch_size": 7}
clf = GCMClassifier(**PARAMS | others).fit(X, y)
keep(clf, "options")
assert clf.predict(X).shape == y.shape

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.BatchNorm2d(4)
        self.unused, self.dropout = torch.nn.Linear(2, 2), torch.nn.Dropout2d()

    def forward(self, x):
        return [self.dropout(self.norm(self.first(x)).relu())]

torch.manual_seed(0)
keep(GCMClassifier(**PARAMS, encoder=Own).fit(X, y), "encoder")

whole = GCMNet._record
def record(net, losses):
    whole(net, losses)
    if rank == "1" and len(net.history) == 2:
        os.kill(os.getpid(), signal.SIGINT)
clf = GCMClassifier(**PARAMS, checkpoint=f"{folder}/fit.ckpt")
GCMNet._record = record
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf.fit(X[:25], y[:25], validation_data=held_out)
assert len(clf.history_) == 2, clf.history_
assert any("Ctrl-C ended" in str(warning.message) for warning in caught) == (rank == "1")
GCMNet._record = whole
keep(clf.fit(X[:25], y[:25], validation_data=held_out), "resumed")
keep(clf.partial_fit(X, y), "partial")

for different, message in ((X[int(rank):], "have different data, of [29, 28] images"), (X[:1], "cannot be shared")):
    try:
        GCMClassifier(**PARAMS).set_params(n_classes=3).fit(different, y[-len(different):])
    except ValueError as error:
        assert message in str(error), error
    else:
        raise SystemExit("no error")

open(f"{folder}/done-{rank}", "w").close()

class Fault:
    def __getattr__(self, name):
        return lambda *args, **kwargs: self
    def on_batch_begin(self, net, **kwargs):
        if rank == "1" and len(net.history) == 2:
            open(f"{folder}/raised", "w").close()
            raise RuntimeError("a fault")
GCMClassifier(**PARAMS, callbacks=[Fault()]).set_params(max_epochs=10**6).fit(X, y)
"""


def _torchrun(folder, script, *options, timeout=900):
    path = Path(folder, "train.py")
    path.write_text(HEAD + textwrap.dedent(script))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else restarted processes meet the addresses of dead ones
    command += [str(path), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def _data():
    rng = np.random.default_rng(0)
    y = np.arange(29) % 3
    return (rng.integers(0, 100, (29, 8, 8)) + 50 * y[:, None, None]).astype(np.uint8), y


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder, stderr, exit code and end of two processes that fit until one of them raises an error."""
    if sys.platform != "linux" or not torch.distributed.is_gloo_available():
        pytest.skip("torchrun is tested on Linux, with gloo")
    folder = tmp_path_factory.mktemp("fits")
    for i, image in enumerate(_data()[0]):
        Image.fromarray(image).save(folder / f"{i}.png")
    done = _torchrun(folder, FITS)
    return folder, done.stderr, done.returncode, time.time()


@pytest.fixture(scope="module")
def fitted(launched):
    """{(fit, process): {name: array}} of fits in two processes."""
    folder, stderr, _, _ = launched
    assert len(list(folder.glob("done-[01]"))) == 2, stderr
    assert "Grad strides" not in stderr
    return {(path.stem[:-2], int(path.stem[-1])): dict(np.load(path)) for path in folder.glob("*-[01].npz")}


@pytest.mark.parametrize("fit", ["arrays", "paths", "options", "encoder", "resumed", "partial"])
def test_all_processes_end_with_identical_weights_and_losses(fitted, fit):
    one, two = fitted[fit, 0], fitted[fit, 1]
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_two_processes_learn_what_one_learns(fitted):
    X, y = _data()
    clf = GCMClassifier(**PARAMS).fit(X[:25], y[:25], validation_data=(X[25:], y[25:]))
    together = fitted["arrays", 0]
    for name, tensor in clf.net_.network.state_dict().items():
        np.testing.assert_allclose(together[name], tensor.numpy(), atol=1e-4, rtol=1e-4, err_msg=name)
    losses = [[epoch["train_loss"], epoch["valid_loss"]] for epoch in clf.history_]
    np.testing.assert_allclose(together["losses"], losses, atol=1e-4)


@pytest.mark.parametrize("fit", ["paths", "resumed"])
def test_files_and_an_interruption_change_nothing(fitted, fit):
    for name, array in fitted["arrays", 0].items():
        np.testing.assert_array_equal(fitted[fit, 0][name], array, err_msg=name)


def test_a_kill_of_one_process_ends_all_and_the_fit_resumes(fitted, tmp_path):
    script = """
    import time
    before = GCMNet.on_batch_begin
    def end(self, net, **kwargs):
        if rank == "1" and len(net.history) == 2 and len(net.history[-1]["batches"]) == 1:
            open(f"{folder}/killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        before(self, net, **kwargs)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        GCMNet.on_batch_begin = end
    else:
        assert time.time() - os.stat(f"{folder}/killed").st_mtime < 60
        assert os.path.exists(f"{folder}/fit.ckpt")
    clf = GCMClassifier(**PARAMS, checkpoint=f"{folder}/fit.ckpt")
    keep(clf.fit(X[:25], y[:25], validation_data=(X[25:], y[25:])), "resumed")
    """
    done = _torchrun(tmp_path, script, "--max-restarts=1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    for rank in (0, 1):
        resumed = np.load(tmp_path / f"resumed-{rank}.npz")
        for name, array in fitted["arrays", rank].items():
            np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_an_exception_in_one_process_ends_all(launched):
    folder, stderr, code, end = launched
    assert code != 0
    assert "a fault" in stderr
    assert end - (folder / "raised").stat().st_mtime < 60


# Alone


def test_nothing_is_exchanged_without_torchrun(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (distributed.rank(), distributed.size(), distributed.own_gpu()) == (0, 1, "cuda")
    assert distributed.from_first("mine") == "mine"
    assert distributed.total([1, True]) == [1, True]
    assert distributed.mean([1.0, 4.0], [2, 1]) == 2.0
    distributed.check_same_labels(None)
    module = torch.nn.Linear(1, 1)
    with distributed.parallel(module) as same:
        assert same is module
    assert not torch.distributed.is_initialized()


def test_torchrun_is_known_by_its_environment_but_not_in_children(monkeypatch):
    environment = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.size(), distributed.own_gpu()) == (3, 4, "cuda:1")
    monkeypatch.setattr("multiprocessing.parent_process", object)
    assert (distributed.rank(), distributed.size()) == (0, 1)
    monkeypatch.undo()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.size() == 1


def test_batch_norm_that_processes_cannot_share_is_refused_unless_it_is_frozen(monkeypatch):
    monkeypatch.setattr(distributed, "is_launched", lambda: True)
    model = timm.create_model("test_efficientnet", features_only=True)
    encoder = Backbone(model, [1], [1], [0.0], [1.0])
    with pytest.raises(ValueError, match=r"has BatchNormAct2d, which.*encoder_lr=0.*one process"):
        distributed.parallel(encoder).__enter__()
    encoder.freeze()
    assert distributed._trained_norms(encoder) == []
    for option in ({"affine": False}, {"momentum": None}, {"track_running_stats": False}):
        with pytest.raises(ValueError, match="has batch norm without affine, momentum or running statistics"):
            distributed.parallel(torch.nn.BatchNorm2d(2, **option)).__enter__()


@pytest.mark.parametrize("n", [16, 17, 18, 19, 23])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_make_up_each_batch_and_none_is_empty(n, size):
    data = Dataset(np.arange(n, dtype=np.uint8)[:, None], np.arange(n))

    def batches(share, shuffled):
        return Batches(data, 8, torch.Generator().manual_seed(0) if shuffled else None, share=share)

    whole = [labels.tolist() for _, labels in batches((0, 1), True)]
    parts = [batches((number, size), True) for number in range(size)]
    labels = [[y.tolist() for _, y in part] for part in parts]
    assert all(min(map(len, of_one)) > 0 for of_one in labels)
    assert len({len(part) for part in parts}) == 1
    together = [sorted(chain.from_iterable(step)) for step in zip(*labels, strict=True)]
    if not 0 < n % 8 < size:
        assert together == [sorted(batch) for batch in whole]
    for step, counts in enumerate(together):
        for part, of_one in zip(parts, labels, strict=True):
            assert part.weights[step] * len(counts) == pytest.approx(size * len(of_one[step]))
    held_out = [[y.tolist() for _, y in batches((number, size), False)] for number in range(size)]
    assert sorted(chain.from_iterable(chain.from_iterable(held_out))) == list(range(n))
    assert batches((0, 1), True).weights == [1.0] * len(whole)
