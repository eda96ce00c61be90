"""Guidance: contributions to an image's own class should lie where a mask says so.

Scores are means of contributions, so training where contributions lie trains the decision itself. Two terms are added
to the loss, for the contributions c of a region's pixels to its own class and the pixels M inside the mask:

- ``-log(sum over M of p)``, where p is the softmax over pixels of c divided by its mean magnitude: the largest
  contributions move into the mask. It has a gradient everywhere, also where nothing inside is positive yet.
- ``1 - share``, where share is that of the positive contributions that lie inside: the rest of the evidence moves too.
  Alone it would have no gradient inside if nothing there is positive, and a map without evidence would satisfy it.
"""

from dataclasses import dataclass

import torch


@dataclass
class Targets:
    """Where the evidence should lie, for some images with G regions each (1: the whole image).

    images : LongTensor (b,), positions in the batch
    classes : LongTensor (b, G), the own class of each region
    inside, regions : bool Tensor (b, G, H, W), the masks, and the regions that they are in; the latter may be (1, ...)
    """

    images: torch.Tensor
    classes: torch.Tensor
    inside: torch.Tensor
    regions: torch.Tensor


def targets(masks, labels, regions=None, all_images=False):
    """Targets from the masks (B, H, W) of a batch, all False for an image without one; None if no image has a mask.

    `labels` are those of the regions (B, G, H, W), image by image; without regions, those of the images. With
    `all_images`, images without a mask are included, so that shapes do not depend on the masks.
    """
    masks = masks[:, None]
    whole = regions is None
    regions = torch.ones_like(masks[:1]) if whole else regions > 0
    inside = masks & regions
    labels = labels.view(len(masks), -1)
    if all_images:
        chosen = torch.arange(len(masks), device=masks.device)
    else:
        chosen = inside.flatten(1).any(1).nonzero()[:, 0]
        if not len(chosen):
            return None
        inside, labels, regions = inside[chosen], labels[chosen], regions if whole else regions[chosen]
    return Targets(chosen, labels, inside, regions)


def penalty(contributions, found, n):
    """The sum over regions with a mask of both terms, divided by n, from contributions (b, G, H, W) to `classes`."""
    inside, regions = (mask.flatten(2) for mask in (found.inside, found.regions))
    annotated = inside.any(2, keepdim=True)
    inside = torch.where(annotated, inside, regions)  # without a mask, all pixels count as inside: both terms are 0
    values = contributions.flatten(2).masked_fill(~regions, 0)
    tiny = torch.finfo(values.dtype).tiny
    magnitude = values.detach().abs().sum(2, keepdim=True) / regions.sum(2, keepdim=True)
    logits = values / magnitude.clamp_min(tiny)
    overall, hit = (logits.masked_fill(~mask, -torch.inf).logsumexp(2) for mask in (regions, inside))
    positive = values.relu()
    outside = positive.masked_fill(inside, 0).sum(2) / positive.sum(2).clamp_min(tiny)
    return (overall - hit + outside).sum() / n
