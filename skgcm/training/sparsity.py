"""The penalty on evidence that is spread out, or that has the wrong sign.

Three terms, for the contributions c of the pixels of an image, averaged over channels:

- ``mean(|c|)^2 / mean(c^2)`` of the contributions to the image's own class: 1 if all pixels contribute the same, 1/n
  if one of n pixels contributes everything. It does not depend on the size of the contributions, so the score stays
  as large as it is (the square of Hoyer's measure, Hurley and Rickard, IEEE Trans. Information Theory 2009).
- ``mean(max(c, 0))`` of the contributions to another class, drawn at random. What images of several classes have in
  common, such as a background, then is evidence for none of them.
- ``mean(max(-c, 0))`` of the contributions to the own class. Only differences of scores change a probability. Without
  this term all scores become negative, and a few pixels in a corner, which are against every class, are the smallest
  spread.
"""

import torch


def draw_other(labels, n_classes, generator):
    """For each label (B,) another class at random: its penalty estimates the mean over all other classes."""
    shifts = torch.randint(1, n_classes, (len(labels),), generator=generator, device=labels.device)
    return (labels + shifts) % n_classes


def penalty(own, other, regions=None):
    """The mean of the three terms over regions, from contributions (B, G, H, W) to their own and to another class.

    `regions` (B, G, H, W) are 1 inside and 0 outside. Without them the region is the whole image.
    """
    if regions is None:
        shares = own.new_full((1, 1, 1, 1), 1 / (own.shape[2] * own.shape[3]))
    else:
        shares = regions / regions.sum((2, 3), keepdim=True)
    wrong = (-own).relu() + other.relu()
    size, square, wrong = ((x * shares).sum((2, 3)) for x in (own.abs(), own.square(), wrong))
    return (size.square() / square.clamp_min(torch.finfo(own.dtype).tiny) + wrong).mean()
