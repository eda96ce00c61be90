"""The penalty on all contributions, sum over classes of mean |CCM_j|: those that decide nothing are dropped.

CCM_j is averaged over the channels of a pixel first, which share its weights.
"""

import torch

N_OTHERS = 9  # classes beside an image's own that a step looks at: with ten classes these are all


def chosen(labels, n_classes, generator):
    """Classes whose maps a step builds, (B, 1 + N_OTHERS): the own one, then random others. None: all, in order."""
    if n_classes - 1 <= N_OTHERS:
        return None
    others = torch.randint(1, n_classes, (len(labels), N_OTHERS), generator=generator, device=labels.device)
    return torch.cat([labels[:, None], (labels[:, None] + others) % n_classes], 1)


def penalty(mean_abs, n_classes):
    """Mean over images of the sum over all classes, from the mean_abs (B, k) of all or of the chosen.

    The chosen others stand for all others, so that the expected penalty is the same.
    """
    scale = (n_classes - 1) / (mean_abs.shape[1] - 1)
    return (mean_abs[:, 0] + scale * mean_abs[:, 1:].sum(1)).mean()
