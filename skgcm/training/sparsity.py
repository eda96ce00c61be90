"""The penalty on evidence for classes that an image does not show.

For an image and a class j that is not its own: the mean of the positive part of CCM_j, averaged over the channels of a
pixel first, which share its weights. What images of several classes have in common, as their background, would be
evidence for one class in images of the others. So it becomes evidence for none, and what remains lies on what only
images of a class have. The evidence for an image's own class is not penalised.
"""

import torch


def draw_other(labels, n_classes, generator):
    """For each label another class at random, (B, 1): its penalty stands for the mean over all other classes."""
    shifts = torch.randint(1, n_classes, (len(labels), 1), generator=generator, device=labels.device)
    return (labels[:, None] + shifts) % n_classes


def penalty(ccm, regions=None):
    """The mean of the positive part of contributions to the class drawn for each region; both are (B, G, H, W).

    Without regions there is one, the whole image.
    """
    positive = ccm.relu()
    if regions is None:
        return positive.mean()
    return ((positive * regions).sum((2, 3)) / regions.sum((2, 3))).mean()
