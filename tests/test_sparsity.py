"""The penalty on evidence for classes that an image does not show."""

import pytest
import torch

from skgcm.training import sparsity


def test_the_class_drawn_is_any_but_the_own():
    labels, generator = torch.arange(30).repeat(100), torch.Generator().manual_seed(0)
    others = sparsity.draw_other(labels, 30, generator)
    assert others.shape == (3000, 1)
    assert not (others == labels[:, None]).any()
    assert (torch.bincount((others[:, 0] - labels) % 30, minlength=30)[1:] / 3000 * 29).sub(1).abs().max() < 0.5
    assert sparsity.draw_other(torch.tensor([0, 1]), 2, generator).tolist() == [[1], [0]]


def test_the_penalty_is_the_mean_of_what_is_positive_in_each_region():
    ccm = torch.randn(5, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert sparsity.penalty(ccm[:, :1]).item() == pytest.approx(ccm[:, :1].clamp(min=0).mean().item(), rel=1e-5)
    left = torch.zeros(5, 1, 4, 6)
    left[:, :, :, :2] = 1
    found = sparsity.penalty(ccm, torch.cat([left, 1 - left], 1))
    expected = (ccm[:, 0, :, :2].clamp(min=0).mean() + ccm[:, 1, :, 2:].clamp(min=0).mean()) / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
