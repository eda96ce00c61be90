"""Erasing the pixels of least evidence from training images, which a decision should not need.

Related to Random Erasing (Zhong et al., AAAI 2020) and saliency-guided training (Ismail et al., NeurIPS 2021), but by
the contributions, and with the image's own label.
"""

import torch

START = 0.3  # share of a scheduled fit before the first erasing: earlier the evidence is unreliable
MAX_SHARE = 0.5  # of an image's pixels


@torch.no_grad()
def low_evidence_mask(network, images, labels, shares):
    """Where the least evidence for labels (B,) lies in images (B, C, H, W): (B, H, W), boolean.

    The mask covers the given share (B, 1), below 1, of an image's pixels. Evidence against the label is the least.
    Contributions are computed in evaluation mode; afterwards the network is in training mode again.
    """
    network.eval()
    ccm = network.contributions(images, labels[:, None]).mean(2)[:, 0]  # (B, H, W)
    network.train()
    ordered = ccm.flatten(1).sort(1).values
    first_kept = ordered.gather(1, (shares * ordered.shape[1]).long())  # (B, 1): pixels of equal evidence stay together
    return ccm < first_kept[:, :, None]


def erase_low_evidence(network, images, labels, generator):
    """The images, where up to half of the pixels of each, those of least evidence, have the batch's mean colour."""
    shares = MAX_SHARE * torch.rand(len(images), 1, generator=generator, device=images.device, dtype=torch.float32)
    mask = low_evidence_mask(network, images, labels, shares)[:, None]
    return torch.where(mask, images.mean((0, 2, 3), keepdim=True), images)
