"""What only a GPU can show. Skipped where there is none."""

import pickle

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset

from skgcm import GCMClassifier, batches
from skgcm.blocks import ConvBlock
from skgcm.graphs import Step

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


@pytest.mark.parametrize("options", [{}, {"mosaic": 3, "sparsity": 0.1, "second_look": 1, "polarity": "both"}])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fused", [False, True])
def test_replayed_steps_learn_what_run_steps_learn(fitted, fused, precision, options, monkeypatch):
    _, X = fitted
    captured, capture = [], torch.cuda.make_graphed_callables
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *args: captured.append(True) or capture(*args))
    params = {"max_epochs": 4, "batch_size": 20, "precision": precision, "augment": "shift+flip", "random_state": 0}
    params |= options
    run, replayed = (
        GCMClassifier(**params, net_params={"cuda_graph": graph, "fused_norm": fused}).fit(X, np.arange(96) % 3)
        for graph in (False, True)
    )
    assert len(captured) == (3 if options else 1)  # plain batches, and mosaics of two sides
    losses = [[epoch["train_loss"] for epoch in clf.history_] for clf in (run, replayed)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    state, other = run.net_.network.state_dict(), replayed.net_.network.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.0])
@pytest.mark.parametrize(
    "shape",  # with less than a block, one block, several of one program, and more programs than are added at once
    [
        (1, 1, 1, 2),
        (2, 24, 5, 5),
        (3, 16, 9, 7),
        (64, 16, 32, 32),
        (40, 64, 16, 16),
        (300, 64, 16, 16),
        (800, 16, 32, 32),
    ],
)
def test_fused_batch_norm_and_relu_are_those_of_pytorch(shape, dtype, momentum, channels_last):
    from skgcm.norm_relu import norm_relu

    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=generator).to("cuda", dtype) for _ in range(2))
    x = 2 * x + 30  # a mean far from 0
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = (
        _activated(activate, x.to(kind), dy.to(kind), momentum)
        for activate, kind in ((norm_relu, dtype), (lambda x, norm: norm.double()(x).relu(), torch.float64))
    )
    assert ours[0].dtype == ours[1].dtype == dtype
    # gradients: a value close to where ReLU bends may pass its own in one and not in the other
    tolerances = [1e-5, 5e-3, 5e-3, 5e-3, 1e-5, 1e-5, 0]
    if dtype == torch.bfloat16:
        tolerances[:4] = [0.02] * 4
    for one, other, tolerance in zip(ours, theirs, tolerances, strict=True):
        assert (one.double() - other.double()).norm() <= tolerance * (other.double().norm() + 0.01)


def _activated(activate, x, dy, momentum):
    """Output, gradients of input, weight and bias, running mean and variance, and their count."""
    norm = torch.nn.BatchNorm2d(x.shape[1], momentum=momentum, device=x.device)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, x.shape[1]))
        norm.bias.copy_(torch.linspace(-0.5, 0.5, x.shape[1]))
    x = x.clone().requires_grad_()
    y = activate(x, norm)
    y.backward(dy)
    return [y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]


def test_fused_batch_norm_and_relu_pass_on_what_is_not_a_number():
    from skgcm.norm_relu import norm_relu

    x = torch.ones(2, 16, 4, 4, device="cuda")
    x[0, 3, 1, 1] = float("nan")
    assert norm_relu(x, torch.nn.BatchNorm2d(16, device="cuda"))[:, 3].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_fused_norm_does_not_mind_the_default_dtype(fitted, dtype):
    _, X = fitted
    torch.set_default_dtype(dtype)
    try:
        clf = GCMClassifier(max_epochs=1, random_state=0, net_params={"fused_norm": True}).fit(X, np.arange(96) % 3)
        assert np.isfinite(clf.decision_function(X)).all()
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    def make_graphed_callables(module, args):
        torch.cuda.set_stream(torch.cuda.Stream())
        raise RuntimeError("why")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="cuda_graph"):
        Step(torch.nn.BatchNorm2d(2, device="cuda"), replay=True)(torch.rand(2, 2, 3, 3, device="cuda"))
    assert torch.cuda.current_stream() == before


def test_a_few_steps_are_not_captured(fitted, monkeypatch):
    _, X = fitted
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *args: pytest.fail("captured"))
    GCMClassifier(random_state=0).partial_fit(X, np.arange(96) % 3, classes=range(3))


def test_fused_norm_learns_alike_and_gives_an_ordinary_model(fitted, tmp_path):
    _, X = fitted
    params = {"max_epochs": 2, "batch_size": 32, "random_state": 0, "net_params": {"fused_norm": True}}
    clf = GCMClassifier(**params).fit(X, np.arange(96) % 3)
    assert all(block.fused for block in clf.net_.network.modules() if isinstance(block, ConvBlock))
    plain = GCMClassifier(**params | {"net_params": None}).fit(X, np.arange(96) % 3)
    losses = [[epoch["train_loss"] for epoch in each.history_] for each in (clf, plain)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    evidence = clf.explain(X, "all")
    tolerance = 1e-5 * np.abs(evidence.scores).max()
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=tolerance)
    clf.save(tmp_path / "model.gcm")
    scores = GCMClassifier.load(tmp_path / "model.gcm", device="cpu").decision_function(X)
    np.testing.assert_allclose(clf.decision_function(X), scores, atol=1e-4 * np.abs(scores).max())


def test_batches_lie_on_the_device_or_in_pinned_memory(monkeypatch):
    data = Dataset(np.arange(10, dtype=np.uint8)[:, None], np.arange(10))
    assert all(part.is_cuda for batch in batches.Batches(data, 5, device="cuda") for part in batch)
    monkeypatch.setattr(batches, "fits", lambda n_bytes, device: False)
    assert all(part.is_pinned() for batch in batches.Batches(data, 5, device="cuda") for part in batch)


def test_images_that_do_not_fit_on_the_device_are_learnt_alike(fitted, monkeypatch):
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
