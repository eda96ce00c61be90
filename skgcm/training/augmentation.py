"""Random changes of a batch of training images, drawn for each image, on the device of the batch."""

import torch

NAMES = ("shift", "flip", "rotate", "brightness", "contrast", "cutout")
REACH = 8  # an image moves by up to 1 / REACH of its side
JITTER = 0.25  # largest change of brightness, as a share of the value range, and of contrast
CUTOUT = 0.5  # largest side of the rectangle that is cut out, as a part of the image's side


def resolve(augment, shape):
    """The `augment` of an estimator for images (H, W, C), without "auto"."""
    if augment != "auto":
        return augment
    return "shift" if min(shape[:2]) >= REACH else None


def parse(augment):
    """The set of names in a string like "shift+flip", empty for None; raises ValueError for unknown names."""
    names = [] if augment is None else augment.split("+")
    unknown = [name for name in names if name not in NAMES]
    if unknown or len(set(names)) < len(names):
        problem = f"has {unknown[0]!r}, which is unknown" if unknown else "has a name twice"
        raise ValueError(
            f"augment={augment!r} {problem}. Join names of {', '.join(NAMES)} by '+', like 'shift+flip', or pass "
            "'auto', None or a callable."
        )
    return set(names)


class _Draws:
    """Random numbers for the images of a batch, one each."""

    def __init__(self, n, generator, device):
        self.n, self.options = n, {"generator": generator, "device": device}

    def coins(self):
        return self.uniform(0, 1) < 0.5

    def uniform(self, low, high):
        return low + (high - low) * torch.rand(self.n, **self.options, dtype=torch.float32)

    def integers(self, low, high):
        """From low to high, both included."""
        return torch.randint(low, high + 1, (self.n,), **self.options)


def reflect(index, size):
    """Map indices outside 0 .. size - 1 to those of the mirrored image; its border is not repeated."""
    period = max(1, 2 * (size - 1))
    index = index.remainder(period)
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)


def _moved(images, names, draws):
    """Images after "shift", "flip" and "rotate". All three select pixels, so one indexing does them."""
    n_rows, n_columns = images.shape[2:]
    upside_down = mirrored = torch.zeros(draws.n, dtype=torch.bool, device=images.device)
    if "flip" in names:
        mirrored = draws.coins()
    if "rotate" in names:
        # a quarter turn is the transposed image upside down; a half turn upside down and mirrored
        if n_rows == n_columns:
            turns = draws.integers(0, 3)
            images = torch.where((turns % 2 == 1)[:, None, None, None], images.transpose(2, 3), images)
        else:
            turns = 2 * draws.integers(0, 1)
        upside_down, mirrored = (turns == 1) | (turns == 2), mirrored ^ (turns >= 2)

    def indices(size, reverse):
        index = torch.arange(size, device=images.device).expand(draws.n, -1)
        if "shift" in names:
            index = reflect(index + draws.integers(-(size // REACH), size // REACH)[:, None], size)
        return torch.where(reverse[:, None], size - 1 - index, index)

    rows, columns = indices(n_rows, upside_down), indices(n_columns, mirrored)
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, C): the channels of a pixel are adjacent in memory
    batch = torch.arange(draws.n, device=images.device)[:, None, None]
    return pixels[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images, draws):
    """Images in which a rectangle at a random place has the image's mean colour."""
    n_rows, n_columns = images.shape[2:]
    share = draws.uniform(0, CUTOUT)
    inside = []
    for size in (n_rows, n_columns):
        centre = draws.uniform(0, size)[:, None]
        distance = (torch.arange(size, device=images.device) + 0.5 - centre).abs()
        inside.append(distance < share[:, None] * size / 2)
    mask = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(mask, images.mean((2, 3), keepdim=True), images)


def augment_batch(images, names, generator, masks=None):
    """Images (B, C, H, W) in [0, 1] after the changes in `names`, a set; with masks (B, H, W), images and masks.

    Masks move with their images, and are False where pixels are cut out. Random numbers come from `generator`, which is
    on the device of the images.
    """
    draws = _Draws(len(images), generator, images.device)
    if names & {"shift", "flip", "rotate"}:
        images, masks = apart(_moved(together(images, masks), names, draws), masks)
    if "contrast" in names:
        factor = 1 + draws.uniform(-JITTER, JITTER)[:, None, None, None]
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + factor * (images - mean)
    if "brightness" in names:
        images = images + draws.uniform(-JITTER, JITTER)[:, None, None, None]
    if "cutout" in names:
        before, images = images, _cut_out(images, draws)
        masks = without_changes(masks, before, images)
    return images if masks is None else (images, masks)


def together(images, masks):
    """Images (B, C, H, W) with their masks (B, H, W), if any, as a last channel."""
    return images if masks is None else torch.cat([images, masks[:, None].to(images.dtype)], 1)


def apart(images, masks):
    """Inverse of :func:`together`: images and masks, or images and None."""
    return (images, None) if masks is None else (images[:, :-1], images[:, -1] > 0)


def without_changes(masks, before, after):
    """Masks without the pixels that have changed: there evidence cannot lie any more."""
    return None if masks is None else masks & (before == after).all(1)


def augmented(images, augment, generator, scale, masks=None):
    """A batch of raw images (B, C, H, W) after the estimator's `augment`, scaled to [0, 1] by `scale`.

    With masks (B, H, W), returns images and masks. A callable changes raw images, and does not get masks.
    """
    if augment is None:
        return scale(images) if masks is None else (scale(images), masks)
    if not callable(augment):
        return augment_batch(scale(images), parse(augment), generator, masks)
    changed = augment(images)
    if getattr(changed, "shape", None) != images.shape or getattr(changed, "dtype", None) != images.dtype:
        found = f"{tuple(changed.shape)} {changed.dtype}" if isinstance(changed, torch.Tensor) else repr(changed)
        raise ValueError(
            f"augment returned {found}; expected a tensor like the one it got, {tuple(images.shape)} {images.dtype}."
        )
    return scale(changed)
