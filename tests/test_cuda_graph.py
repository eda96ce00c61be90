"""When a step is captured and replayed; what capturing itself does is tested on CUDA, in test_cuda.py."""

import gc
import weakref
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skgcm import GCMClassifier
from skgcm.network import GCM
from skgcm.training import net
from skgcm.training.cuda_graph import MAX_CHANGES, GraphedForward
from skgcm.training.mosaic import make_mosaics


@pytest.fixture
def captures(monkeypatch):
    """Stand-in for PyTorch's capture: rehearses like it, counts, and replaces the forward method like it."""
    shapes = []

    def make_graphed_callables(module, args):
        samples = args
        shapes.append([sample.shape for sample in samples])
        for _ in range(2):
            module(*args)
        forward, static = module.forward, [part.detach().clone() for part in _parts(module(*args))]

        def replay(*args):  # + 1000 tells a replay from a run; every replay reads and writes the same places
            for sample, arg in zip(samples, args, strict=True):
                sample.copy_(arg)
            out = forward(*samples)
            for place, part in zip(static, _parts(out), strict=True):
                place.copy_(part.detach() + 1000)
            return tuple(static) if isinstance(out, tuple) else static[0]

        module.forward = replay
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)  # where there is a GPU, of what ran before
    return shapes


def _parts(out):
    return out if isinstance(out, tuple) else (out,)


@pytest.fixture
def network():
    return nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1), nn.Flatten())


def _images(n, side=3):
    return torch.rand(n, 2, side, side, generator=torch.Generator().manual_seed(0))


def _replayed(scores):
    return bool((scores > 500).all())


def test_whole_batches_are_replayed_and_the_last_is_not(captures, network):
    replay = GraphedForward(network, use_cuda_graph=True)
    assert [_replayed(replay(_images(n))) for n in (4, 4, 3, 4)] == [True, True, False, True]
    assert captures == [[(4, 2, 3, 3)]]
    assert not _replayed(network(_images(4)))


def test_each_set_of_options_has_a_graph_and_all_outputs_are_kept(captures):
    network = GCM(12, 2, n_stages=1, encoder_width=4)
    replay, classes = GraphedForward(network, use_cuda_graph=True), torch.arange(8).reshape(2, 4)
    regions = torch.zeros(4, 4, 4)
    for part in range(4):
        regions[part, part] = 1
    regions = regions.expand(2, -1, -1, -1)  # as mosaics have them
    options = [{}, {"regions": regions}, {"regions": regions, "shown_classes": classes}] * 2
    images = _images(2, side=4)
    outs = [replay(images, **some) for some in options]
    shapes = [(2, 2, 4, 4), (2, 4, 4, 4), (2, 4)]
    assert captures == [shapes[:1], shapes[:2], shapes]
    assert [len(out) for out in outs] == [2, 8, 2] * 2
    before = [part.clone() for part in outs[2]]
    assert [part.shape for part in before] == [(8, 12), (2, 4, 4, 4)]
    replay(1 - images, **options[2])
    assert all(torch.equal(part, kept) and _replayed(part) for part, kept in zip(outs[2], before, strict=True))


def test_a_whole_batch_is_captured_again_if_the_last_batch_came_first(captures, network):
    replay = GraphedForward(network, use_cuda_graph=True)
    assert [_replayed(replay(_images(n))) for n in (3, 4, 3, 4)] == [True, True, False, True]
    assert captures == [[(3, 2, 3, 3)], [(4, 2, 3, 3)]]


def test_a_last_batch_that_is_larger_leaves_the_graph_to_the_others(captures, network):
    replay = GraphedForward(network, use_cuda_graph=True)
    assert [_replayed(replay(_images(n))) for n in (4, 4, 5, 4)] == [True, True, False, True]
    assert captures == [[(4, 2, 3, 3)]]


def test_warm_up_runs_do_not_change_batch_norm(captures, network):
    GraphedForward(network, use_cuda_graph=True)(_images(4))
    assert network[0].num_batches_tracked == 1
    torch.testing.assert_close(network[0].running_mean, 0.1 * _images(4).mean((0, 2, 3)))


def _freeze(network):
    network[1].weight.requires_grad_(False)


def _move_a_parameter(network):
    network[1].weight.data = network[1].weight.data.clone()


def _move_a_buffer(network):
    network[0].running_mean.data = network[0].running_mean.data.clone()


def _replace_a_buffer(network):
    network[0].running_mean = network[0].running_mean.clone()


def _keep_statistics(network):
    network[0].eval()


@pytest.mark.parametrize("change", [_freeze, _move_a_parameter, _move_a_buffer, _replace_a_buffer, _keep_statistics])
def test_a_change_that_a_graph_would_not_see_is_captured_again(captures, network, change):
    replay = GraphedForward(network, use_cuda_graph=True)
    replay(_images(4))
    change(network)
    assert _replayed(replay(_images(4)))
    assert _replayed(replay(_images(4)))
    assert len(captures) == 2


def test_a_network_that_changes_at_every_step_is_not_captured_for_ever(captures, network):
    replay = GraphedForward(network, use_cuda_graph=True)
    for _ in range(3 * MAX_CHANGES):
        _move_a_parameter(network)
        replay(_images(4))
    assert len(captures) == MAX_CHANGES


def test_mosaics_of_small_last_batches_are_not_captured_for_ever(captures):
    network, generator = GCM(2, 2, n_stages=1, encoder_width=4), torch.Generator().manual_seed(0)
    replay = GraphedForward(network, use_cuda_graph=True)
    for step in range(60):  # epochs of five steps, the last of which is smaller; each third step has mosaics
        images, options = _images(4 if step % 5 == 4 else 8, side=4), {}
        if step % 3 == 2:
            images, options["regions"], _ = make_mosaics(images, torch.zeros(len(images)), generator)
        replay(images, **options)
    assert len(captures) <= 4  # each of two kinds of step, at most once small and once whole


def test_no_graph_is_collected_while_another_is_captured(captures, network, monkeypatch):
    capture, graphs, alive = torch.cuda.make_graphed_callables, [], []

    def make_graphed_callables(module, args):
        alive.append([graph() is not None for graph in graphs])
        graphs.append(weakref.ref(module))
        return capture(module, args)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    replay = GraphedForward(network, use_cuda_graph=True)
    gc.disable()
    try:
        replay(_images(4))
        _freeze(network)  # which ends the first graph
        replay(_images(4))
        replay(_images(5))  # which outgrows the second
        assert alive == [[], [False], [False, True]]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_are_called(captures, network, kind):
    replay, called = GraphedForward(network, use_cuda_graph=True), []
    replay(_images(4))
    handle = getattr(network[1], f"register_{kind}")(lambda *_: called.append(True))
    scores = replay(_images(4))
    scores.sum().backward()
    assert not _replayed(scores)
    assert called
    handle.remove()
    assert _replayed(replay(_images(4)))


def test_a_network_on_another_gpu_than_the_first_runs(captures, network, monkeypatch):
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", SimpleNamespace(device=torch.device("cuda:1")))
    assert not _replayed(GraphedForward(network, use_cuda_graph=True)(_images(4)))
    assert captures == []


@pytest.mark.parametrize("error", [RuntimeError("why"), torch.OutOfMemoryError("why")])
def test_a_step_that_cannot_be_captured_says_what_helps(captures, monkeypatch, network, error):
    def make_graphed_callables(module, args):
        raise error

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    with pytest.raises(type(error), match=r"(?s)why.*'cuda_graph': False"):
        GraphedForward(network, use_cuda_graph=True)(_images(4))


def test_images_and_scores_that_a_callback_keeps_are_not_overwritten(captures, network):
    replay, images = GraphedForward(network, use_cuda_graph=True), _images(4)
    one = replay(images)
    before = one.clone()
    replay(2 * _images(4) - 1)
    assert torch.equal(one, before)
    assert torch.equal(images, _images(4))


@pytest.mark.parametrize("lr", [0.05, 1e30], ids=["done", "diverged"])
def test_captured_graphs_are_freed_after_the_fit(monkeypatch, lr):
    kept = []

    def make_graphed_callables(module, args):
        kept.append(weakref.ref(module))
        module.forward = partial(module.forward)  # refers to itself, as what PyTorch captures does
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)
    monkeypatch.setattr(
        net,
        "GraphedForward",
        lambda network, autocast_dtype, replay: GraphedForward(network, autocast_dtype, use_cuda_graph=True),
    )
    X, y = np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 2
    gc.disable()  # or it may come by chance
    try:
        clf = GCMClassifier(encoder_width=4, lr=lr, max_epochs=1, batch_size=4, device="cpu", random_state=0)
        with nullcontext() if lr < 1 else pytest.raises(FloatingPointError):
            clf.fit(X, y)
        assert [call() for call in kept] == [None, None]  # steps with the penalty of sparsity, and without
    finally:
        gc.enable()
