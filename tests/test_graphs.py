"""When a step is captured and replayed; what capturing itself does is tested on CUDA, in test_cuda.py."""

import pytest
import torch
from torch import nn

from skgcm.graphs import Step


@pytest.fixture
def captures(monkeypatch):
    """Stand-in for PyTorch's capture: rehearses like it, counts, and replaces the forward method like it."""
    shapes = []

    def make_graphed_callables(module, args):
        shapes.append(args[0].shape)
        for _ in range(2):
            module(*args)
        forward, static = module.forward, module(*args).detach().clone()

        def replay(*args):  # + 1000 tells a replay from a run; every replay writes to the same place
            return static.copy_(forward(*args).detach() + 1000)

        module.forward = replay
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    return shapes


@pytest.fixture
def network():
    return nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1), nn.Flatten())


def _images(n):
    return torch.rand(n, 2, 3, 3, generator=torch.Generator().manual_seed(0))


def _replayed(scores):
    return bool((scores > 500).all())


def test_whole_batches_are_replayed_and_the_last_is_not(captures, network):
    replay = Step(network, replay=True)
    assert [_replayed(replay(_images(n))) for n in (4, 4, 3, 4)] == [True, True, False, True]
    assert captures == [(4, 2, 3, 3)]
    assert not _replayed(network(_images(4)))


def test_where_the_last_batch_came_first_a_whole_one_is_captured_anew(captures, network):
    replay = Step(network, replay=True)
    assert [_replayed(replay(_images(n))) for n in (3, 4, 3, 4)] == [True, True, False, True]
    assert captures == [(3, 2, 3, 3), (4, 2, 3, 3)]


def test_batch_norm_does_not_remember_the_rehearsals(captures, network):
    Step(network, replay=True)(_images(4))
    assert network[0].num_batches_tracked == 1
    torch.testing.assert_close(network[0].running_mean, 0.1 * _images(4).mean((0, 2, 3)))


def test_frozen_parameters_are_captured_anew(captures, network):
    replay = Step(network, replay=True)
    replay(_images(4))
    network[1].weight.requires_grad_(False)
    replay(_images(4))
    replay(_images(4))
    assert len(captures) == 2


def test_hooks_are_called(captures, network):
    replay, called = Step(network, replay=True), []
    replay(_images(4))
    handle = network[1].register_forward_hook(lambda *_: called.append(True))
    assert not _replayed(replay(_images(4)))
    assert called
    handle.remove()
    assert _replayed(replay(_images(4)))


def test_scores_that_a_callback_keeps_are_not_written_over(captures, network):
    replay = Step(network, replay=True)
    one = replay(_images(4))
    before = one.clone()
    replay(2 * _images(4) - 1)
    assert torch.equal(one, before)
