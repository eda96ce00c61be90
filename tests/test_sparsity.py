"""The penalty on evidence that is spread out, for classes that an image does not show, or against its own."""

import pytest
import torch
from sklearn.datasets import load_digits

from skgcm import GCMClassifier
from skgcm.training import sparsity


def test_the_class_drawn_is_any_but_the_own():
    labels, generator = torch.arange(30).repeat(100), torch.Generator().manual_seed(0)
    others = sparsity.draw_other(labels, 30, generator)
    assert others.shape == labels.shape
    assert not (others == labels).any()
    assert (torch.bincount((others - labels) % 30, minlength=30)[1:] / 3000 * 29).sub(1).abs().max() < 0.5
    assert sparsity.draw_other(torch.tensor([0, 1]), 2, generator).tolist() == [1, 0]


@pytest.mark.parametrize(("n_pixels", "spread"), [(24, 1), (6, 1 / 4), (1, 1 / 24)])
@pytest.mark.parametrize("size", [1e-3, 1, 1e3])
def test_spread_is_the_share_of_pixels_that_contribute_at_any_size(n_pixels, spread, size):
    own = torch.zeros(1, 1, 4, 6)
    own.view(-1)[:n_pixels] = size
    assert sparsity.penalty(own, -own.abs()).item() == pytest.approx(spread, rel=1e-5)


def test_evidence_for_another_class_is_penalised_where_it_is_positive():
    other = torch.randn(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    found = sparsity.penalty(torch.ones_like(other), other).item()
    assert found == pytest.approx(1 + other.clamp(min=0).mean().item(), rel=1e-5)


def test_evidence_against_the_own_class_is_penalised():
    own = torch.randn(5, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    against = own.clamp(max=0).mean().item()
    found = sparsity.penalty(own, -own.abs()) - sparsity.penalty(own.abs(), -own.abs())
    assert found.item() == pytest.approx(-against, rel=1e-4)


def test_the_evidence_for_the_true_class_is_positive_after_a_fit():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600].reshape(-1, 8, 8), y[:600]
    clf = GCMClassifier(encoder_width=4, decoder_width=4, sparsity=1, max_epochs=10, device="cpu", random_state=0)
    evidence = clf.fit(X, y).explain(X, y[:, None])
    contributions = evidence.pixel_contributions[:, 0]
    assert (evidence.scores > 0).mean() > 0.9
    assert (-contributions.clip(max=0)).sum() < 0.25 * abs(contributions).sum()


def test_each_region_has_equal_weight():
    own, other = torch.randn(2, 5, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    left = torch.zeros(5, 1, 4, 6)
    left[:, :, :, :2] = 1
    found = sparsity.penalty(own, other, torch.cat([left, 1 - left], 1))
    parts = [
        sparsity.penalty(own[:, i : i + 1, :, j], other[:, i : i + 1, :, j])
        for i, j in enumerate((slice(2), slice(2, 6)))
    ]
    assert found.item() == pytest.approx((parts[0] + parts[1]).item() / 2, rel=1e-5)


def test_no_evidence_at_all_has_a_gradient_of_zero():
    own = torch.zeros(1, 1, 2, 2, requires_grad=True)
    sparsity.penalty(own, own).backward()
    assert torch.equal(own.grad, torch.zeros(1, 1, 2, 2))
