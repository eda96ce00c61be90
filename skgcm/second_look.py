"""A second look: images without their pixels of least evidence, which a decision should not need.

As in saliency guided training (Ismail et al., NeurIPS 2021), but by the contributions, and with the image's own label.
"""

import torch

FROM = 0.3  # share of a scheduled fit before the first second look: until then there is little evidence to go by
MOST = 0.5  # of an image's pixels


def is_due(turn, place, sides, share):
    """Whether a mosaic is one of that share of all: each side has its share, spread evenly over its turns.

    Turns, and the places of the sides in a turn, count from 0. Sides begin at different phases, so that even few
    mosaics have about that share.
    """
    phase = 1 - (place + 1) / sides
    return int((turn + 1) * share + phase) > int(turn * share + phase)


@torch.no_grad()
def least(network, images, labels, shares):
    """Where the least evidence for labels (B,) lies in images (B, D, R, C): (B, R, C), boolean.

    It is that share (B, 1), below 1, of an image's pixels; what speaks against the label is the least. What pixels
    contribute is what the network in evaluation mode says; it is back in training mode after that.
    """
    network.eval()
    _, _, cwm, _ = network.evidence(images, labels[:, None])
    network.train()
    ccm = sum(maps[:, 0] * light for maps, light in zip(cwm, network.lights(images), strict=True))  # (B, R, C)
    ordered = ccm.flatten(1).sort(1).values
    first_kept = ordered.gather(1, (shares * ordered.shape[1]).long())  # (B, 1): pixels of equal evidence stay together
    return ccm < first_kept[:, :, None]


def without_the_least(network, images, labels, generator):
    """The images, where up to half of the pixels of each, those of least evidence, have the batch's mean colour."""
    shares = MOST * torch.rand(len(images), 1, generator=generator, device=images.device, dtype=torch.float32)
    lost = least(network, images, labels, shares)[:, None]
    return torch.where(lost, images.mean((0, 2, 3), keepdim=True), images)
