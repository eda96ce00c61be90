"""Random changes of a batch of training images."""

import torch


def shift(images, generator, flip=False):
    """Move each image by up to an eighth of its side, at random; vacated pixels get 0. With flip, mirror half.

    images : Tensor (B, D, R, C), any dtype. Random numbers come from `generator`, which is of the images' device.
    """
    n, rows, columns, device = len(images), *images.shape[2:], images.device

    def indices(size, reverse):
        reach = size // 8
        offset = torch.randint(-reach, reach + 1, (n, 1), generator=generator, device=device)
        index = torch.arange(size, device=device) + offset  # (B, size)
        if reverse:
            draws = torch.rand(n, 1, generator=generator, device=device, dtype=torch.float32)
            index = torch.where(draws < 0.5, index.flip(1), index)
        return index.clamp(0, size - 1), (index >= 0) & (index < size)

    (r, r_inside), (c, c_inside) = indices(rows, False), indices(columns, flip)
    pixels = images.permute(0, 2, 3, 1)  # (B, R, C, D): a pixel's channels lie together
    moved = pixels[torch.arange(n, device=device)[:, None, None], r[:, :, None], c[:, None, :]]
    inside = (r_inside[:, :, None] & c_inside[:, None, :])[..., None]
    return (moved * inside).permute(0, 3, 1, 2)


def augmented(images, augment, generator, scale):
    """A batch of raw images (B, D, R, C) after the estimator's `augment` and `scale`, which makes them [0, 1].

    A callable changes raw images; what is shifted is scaled first, so that vacated pixels are 0 in any dtype.
    """
    if not callable(augment):
        images = scale(images)
        return images if augment is None else shift(images, generator, flip=augment == "shift+flip")
    changed = augment(images)
    if getattr(changed, "shape", None) != images.shape or getattr(changed, "dtype", None) != images.dtype:
        found = f"{tuple(changed.shape)} {changed.dtype}" if isinstance(changed, torch.Tensor) else repr(changed)
        raise ValueError(
            f"augment returned {found}; expected a tensor like the one it got, {tuple(images.shape)} {images.dtype}."
        )
    return scale(changed)
