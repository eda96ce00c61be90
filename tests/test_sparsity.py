"""The penalty on contributions."""

import pytest
import torch

from skgcm.training import sparsity


def test_of_few_classes_all_are_looked_at():
    labels = torch.tensor([2, 0])
    assert sparsity.chosen(labels, 10, torch.Generator()) is None
    assert sparsity.penalty(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]), 3) == 4


def test_of_many_the_own_and_random_others():
    labels, generator = torch.arange(30).repeat(100), torch.Generator().manual_seed(0)
    classes = sparsity.chosen(labels, 30, generator)
    own, others = classes[:, 0], classes[:, 1:]
    assert torch.equal(own, labels)
    assert others.shape == (3000, 9)
    assert not (others == labels[:, None]).any()
    assert (torch.bincount(others.flatten(), minlength=30) / others.numel() * 30).sub(1).abs().max() < 0.15


def test_the_chosen_stand_for_all():
    labels, generator = torch.arange(30).repeat(1000), torch.Generator().manual_seed(0)
    magnitudes = torch.rand(30, 30, generator=generator)[labels]  # (image, class)
    classes = sparsity.chosen(labels, 30, generator)
    drawn = sparsity.penalty(magnitudes.gather(1, classes), 30)
    assert drawn.item() == pytest.approx(magnitudes.sum(1).mean().item(), rel=0.01)
