"""What only a GPU can show. Skipped where there is none."""

import pickle

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset

from skgcm import GCMClassifier
from skgcm.training import batches
from skgcm.training.cuda_graph import GraphedForward

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).integers(0, 120, (96, 10, 12, 3), dtype=np.uint8)
    y = np.arange(96) % 3
    X[np.arange(96), ..., y] += 100
    return GCMClassifier(max_epochs=8, batch_size=32, device="auto", random_state=0).fit(X, y), X


def test_auto_takes_cuda_and_the_maps_add_up(fitted):
    clf, X = fitted
    assert next(clf.net_.network.parameters()).device.type == "cuda"
    evidence = clf.explain(X, "all")
    tolerance = 1e-5 * np.abs(evidence.scores).max()
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=tolerance)
    np.testing.assert_allclose(clf.decision_function(X), evidence.scores, atol=tolerance)


def test_the_processor_finds_the_same_scores(fitted):
    clf, X = fitted
    moved = pickle.loads(pickle.dumps(clf))
    moved.net_.module_.to("cpu")
    scores = clf.decision_function(X)
    np.testing.assert_allclose(moved.decision_function(X), scores, atol=1e-4 * np.abs(scores).max())


@pytest.mark.parametrize("options", [{}, {"mosaic": 0.5, "sparsity": 0.1, "erasing": 1}, {"architecture": "paper"}])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replayed_steps_learn_what_run_steps_learn(fitted, precision, masked, options, monkeypatch):
    _, X = fitted
    masks = [np.eye(*X.shape[1:3], dtype=bool) if i % 3 else None for i in range(96)] if masked else None
    captured, capture = [], torch.cuda.make_graphed_callables
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *args: captured.append(True) or capture(*args))
    params = {"max_epochs": 4, "batch_size": 20, "precision": precision, "augment": "shift+flip", "random_state": 0}
    params |= options
    run, replayed = (
        GCMClassifier(**params, net_params={"cuda_graph": graph}).fit(X, np.arange(96) % 3, masks)
        for graph in (False, True)
    )
    assert len(captured) == (2 if "mosaic" in options else 1)  # plain batches, and mosaics
    losses = [[epoch["train_loss"] for epoch in clf.history_] for clf in (run, replayed)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    state, other = run.net_.network.state_dict(), replayed.net_.network.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state if name.endswith("num_batches_tracked"))


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    def make_graphed_callables(module, args):
        torch.cuda.set_stream(torch.cuda.Stream())
        raise RuntimeError("why")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="cuda_graph"):
        GraphedForward(torch.nn.BatchNorm2d(2, device="cuda"), use_cuda_graph=True)(
            torch.rand(2, 2, 3, 3, device="cuda")
        )
    assert torch.cuda.current_stream() == before


def test_a_few_steps_are_not_captured(fitted, monkeypatch):
    _, X = fitted
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *args: pytest.fail("captured"))
    GCMClassifier(random_state=0).partial_fit(X, np.arange(96) % 3, classes=range(3))


def test_batches_lie_on_the_device_or_in_pinned_memory(monkeypatch):
    data = Dataset(np.arange(10, dtype=np.uint8)[:, None], np.arange(10))
    assert all(part.is_cuda for batch in batches.Batches(data, 5, device="cuda") for part in batch)
    monkeypatch.setattr(batches, "fits", lambda n_bytes, device: False)
    assert all(part.is_pinned() for batch in batches.Batches(data, 5, device="cuda") for part in batch)


def test_images_that_do_not_fit_on_the_device_are_learned_in_the_same_way(fitted, monkeypatch):
    _, X = fitted
    params = {"max_epochs": 1, "batch_size": 20, "precision": "float32", "random_state": 0}
    one = GCMClassifier(**params).fit(X, np.arange(96) % 3)
    monkeypatch.setattr(batches, "fits", lambda n_bytes, device: False)
    other = GCMClassifier(**params).fit(X, np.arange(96) % 3)
    assert other.history_[0]["train_loss"] == pytest.approx(one.history_[0]["train_loss"], rel=1e-3)


@pytest.mark.parametrize("dtype", [bool, np.uint16, np.int32, np.float64])
def test_every_dtype_is_sliced_on_the_device(fitted, dtype):
    _, X = fitted
    X = (X > 100) if dtype is bool else X.astype(dtype)
    clf = GCMClassifier(max_epochs=1, batch_size=32, augment="shift", random_state=0).fit(X, np.arange(96) % 3)
    assert np.isfinite(clf.decision_function(X)).all()


def test_a_model_file_moves_between_devices(fitted, tmp_path):
    clf, X = fitted
    clf.save(tmp_path / "model.gcm")
    loaded, moved = (GCMClassifier.load(tmp_path / "model.gcm", device=device) for device in (None, "cpu"))
    assert loaded.device == "auto"
    assert next(loaded.net_.network.parameters()).device.type == "cuda"
    scores = clf.decision_function(X)  # not to the bit: which kernel computes them depends on where weights lie
    np.testing.assert_allclose(loaded.decision_function(X), scores, atol=1e-5 * np.abs(scores).max())
    assert next(moved.net_.network.parameters()).device.type == "cpu"
    state, other = clf.net_.network.state_dict(), moved.net_.network.state_dict()
    assert all(torch.equal(state[name].cpu(), other[name]) for name in state)
