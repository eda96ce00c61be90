"""Shifts for photos of digits: smaller than the library's, and edges are repeated."""

import torch


class SmallShift:
    """Moves uint8 images (B, D, R, C) by up to `reach` pixels, and repeats their edges.

    The distances are computed from the sum of a batch's pixels: there is no state, and the same fit has the same
    images. An epoch must have several batches, so that the next epoch has other batches.
    """

    def __init__(self, reach):
        self.reach = reach

    def __repr__(self):
        return f"SmallShift({self.reach})"

    def __call__(self, images):
        generator = torch.Generator().manual_seed(int(images.sum(dtype=torch.int64)))
        n, _, *sides = images.shape
        offsets = torch.randint(-self.reach, self.reach + 1, (2, n, 1), generator=generator)
        r, c = (
            (torch.arange(side) + offset).clamp(0, side - 1).to(images.device)
            for side, offset in zip(sides, offsets, strict=True)
        )
        chosen = torch.arange(n, device=images.device)[:, None, None]
        return images.permute(0, 2, 3, 1)[chosen, r[:, :, None], c[:, None, :]].permute(0, 3, 1, 2)
