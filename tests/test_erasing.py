import pytest
import torch

from skgcm.network import GCM
from skgcm.training import erasing


def make(n_classes, **params):
    generator = torch.Generator().manual_seed(0)
    network = GCM(n_classes, encoder_width=4, decoder_width=4, generator=generator, **params)
    with torch.no_grad():
        for parameter in network.head.parameters():  # contrast and biases are zero at first
            parameter.normal_(0, 0.5, generator=generator)
    return network


@pytest.mark.parametrize("params", [{"polarity": "bright"}, {"polarity": "both"}, {"architecture": "paper"}], ids=str)
def test_what_is_lost_is_the_least_evidence_and_at_most_half(params):
    network = make(3, **params)
    images, labels = torch.rand(6, 3, 9, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    network.train()(images)  # running statistics that are not those of a new network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    left = erasing.erase_low_evidence(network, images, labels, torch.Generator().manual_seed(0))
    assert network.training
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
    lost = (left != images).any(1)
    mean = images.mean((0, 2, 3))
    torch.testing.assert_close(left, torch.where(lost[:, None], mean[None, :, None, None], images), atol=0, rtol=0)
    network.eval()
    own, light = (torch.arange(6), labels), images.mean(1)
    ccm = network.weight_maps(images)[own] * light
    if network.polarity == "both":
        ccm += network.weight_maps(images, dark=True)[own] * (1 - light)
    shares = torch.rand(6, 1, generator=torch.Generator().manual_seed(0))[:, 0] * erasing.MAX_SHARE
    assert lost.sum((1, 2)).tolist() == (shares * 72).long().tolist()
    for image in range(6):
        assert ccm[image][lost[image]].max() < ccm[image][~lost[image]].min() + 1e-6


def test_pixels_of_equal_evidence_stay():
    network = make(2, in_channels=1, polarity="bright")
    images = torch.stack([torch.zeros(1, 8, 8), torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))])
    left = erasing.erase_low_evidence(network, images, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(left[0], images[0], atol=0, rtol=0)  # black pixels contribute 0, all of them
    assert (left[1] != images[1]).any()


def test_nothing_of_it_has_a_gradient():
    network = make(2, in_channels=1)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    left = erasing.erase_low_evidence(network, images, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert not left.requires_grad
