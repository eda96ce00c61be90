"""Random changes of a batch of training images."""

import torch


def shift(images, generator, flip=False):
    """Move each image by up to an eighth of its side, at random; vacated pixels are 0. With flip, mirror half of them.

    images : Tensor (B, D, R, C), any dtype. Random numbers come from the CPU generator.
    """
    n, rows, columns = len(images), *images.shape[2:]

    def indices(size, reverse):
        reach = size // 8
        offset = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
        index = torch.arange(size) + offset  # (B, size)
        if reverse:
            index = torch.where(torch.rand(n, 1, generator=generator) < 0.5, index.flip(1), index)
        inside = (index >= 0) & (index < size)
        return index.clamp(0, size - 1).to(images.device), inside.to(images.device)

    (r, r_inside), (c, c_inside) = indices(rows, False), indices(columns, flip)
    pixels = images.permute(0, 2, 3, 1)  # (B, R, C, D): a pixel's channels lie together
    moved = pixels[torch.arange(n, device=images.device)[:, None, None], r[:, :, None], c[:, None, :]]
    moved *= (r_inside[:, :, None] & c_inside[:, None, :])[..., None]
    return moved.permute(0, 3, 1, 2)


def augmented(images, augment, generator):
    """Apply the estimator's `augment` to a batch of raw images (B, D, R, C)."""
    if augment is None:
        return images
    if callable(augment):
        return augment(images)
    return shift(images, generator, flip=augment == "shift+flip")
