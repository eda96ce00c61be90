"""Encoders other than GCM's own: a model of timm, or a module of the user."""

import copy
import difflib
import os
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from skgcm.network.blocks import LeakyConvBlock
from skgcm.network.multiscale import Decoder

SUFFIXES = (".safetensors", ".pth", ".pt")  # extensions of weight files
WIDENED = 640  # minimum channels of the coarsest features: the coarsest head then learns as fast as a linear layer
MOST = 8  # width of the widest decoder stage, as a multiple of the finest
DRY = 64  # rows and columns of the image that tests a user's module


def import_timm():
    """The package timm. Raises ImportError with the remedy if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            'An encoder that is the name of a model needs the package timm: pip install "skgcm[encoders]"'
        ) from error
    return timm


class Backbone(nn.Module):
    """A module that returns a list of features, fine to coarse, and before them the image itself.

    The module gets images minus the mean and divided by the standard deviation of its training. Images smaller than its
    stride are padded by their last row and column, and the features are cropped again.

    Parameters
    ----------
    model : Module
    widths, strides : list of int
        Channels of the features, and their strides in rows and columns of the image.
    mean, std : list of float, one for each channel of the image
    channels_last : bool
        True: the features are (B, h, w, K).
    """

    def __init__(self, model, widths, strides, mean, std, channels_last=False):
        super().__init__()
        self.model, self.channels_last = model, channels_last
        self.widths, self.strides = [len(mean), *widths], [1, *strides]
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.frozen = False

    @property
    def floats_per_pixel(self):
        """Approximate numbers in the widest layer for each pixel of the image: blocks are wider than their output."""
        return max(-(-6 * width // stride**2) for width, stride in zip(self.widths, self.strides, strict=True))

    def forward(self, images):
        """Features of each stage, fine to coarse; the first are the normalised images."""
        images = (images - self.mean) / self.std
        size = images.shape[2:]
        missing = [max(0, self.strides[-1] - side) for side in size]
        if not any(missing):
            return [images, *self._features(images, size)]
        padded = F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
        features = [images]
        for feature in self._features(padded, size):
            rows, columns = (
                -(-side * n // whole) for side, n, whole in zip(size, feature.shape[2:], padded.shape[2:], strict=True)
            )
            features.append(feature[:, :, :rows, :columns])
        return features

    def _features(self, images, size):
        try:
            features = self.model(images)
        except AssertionError as error:  # timm's, of models that take images of one size
            raise _wrong_size(size, error) from error
        return [feature.permute(0, 3, 1, 2) for feature in features] if self.channels_last else features

    @torch.no_grad()
    def check_takes(self, size):
        """Raise ValueError if the model does not accept images of a size (H, W): some transformers need one size."""
        training = self.training
        self.eval()
        try:
            self(self.mean.new_zeros(1, self.widths[0], *size))
        except RuntimeError as error:
            raise _wrong_size(size, error) from error
        self.train(training)

    def freeze(self):
        """Stop the training of the weights and of batch norm's statistics."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode=True):
        return super().train(mode and not self.frozen)

    def detached(self):
        """A copy that shares the parameters' memory and needs no gradient.

        A deep one, since the modules of other people may refer to each other in ways that nobody here knows of.
        """
        memo = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self.parameters()}
        return copy.deepcopy(self, memo)


def _wrong_size(size, error):
    return ValueError(
        f"The encoder does not take images of {size[0]} x {size[1]} pixels: {str(error).rstrip('.')}. Use a "
        "convolutional model, which takes any size. Or use images of the size that the encoder takes, the same in "
        "fit, predict and explain, and mosaic=0: a mosaic has twice the rows and columns of an image."
    )


class BackboneDecoder(Decoder):
    """The decoder of :mod:`skgcm.network.multiscale`, wider, and with the coarsest features widened first."""

    def __init__(self, encoder_widths, width, groups):
        widths = [width * min(2**i, MOST) for i in range(len(encoder_widths) - 1)]
        super().__init__([*encoder_widths[:-1], WIDENED], widths, groups)
        self.widen = LeakyConvBlock(encoder_widths[-1], WIDENED, kernel=1)

    def forward(self, stages):
        return super().forward([*stages[:-1], self.widen(stages[-1])])


# ---- building --------------------------------------------------------------------------------------------------------


def build(encoder, in_channels, generator=None):
    """The :class:`Backbone` of a timm model's name or of a callable, with random weights.

    The weights of a timm model are drawn from `generator`. The module that a callable returns is copied and keeps its
    weights.
    """
    if not isinstance(encoder, str):
        model = _from_callable(encoder)
        return Backbone(model, *_dry_run(model, in_channels), [0.0] * in_channels, [1.0] * in_channels)
    return _from_timm(encoder, in_channels, generator)


def _from_timm(name, in_channels, generator):
    timm = import_timm()
    check_name(name)
    remedy = "Use a convolutional or hierarchical model, like 'resnet18.a1_in1k'."
    try:
        with _drawing_from(generator):
            model = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"encoder={name!r} has no features_only in timm: {error} {remedy}") from error
    info, found = model.feature_info, model.pretrained_cfg
    if len(set(info.reduction())) < 2:
        raise ValueError(f"encoder={name!r} has features at one resolution, of stride {info.reduction()[0]}. {remedy}")
    last = str(getattr(model, "output_fmt", "")).endswith("NHWC")
    statistics = _statistics(found["mean"], found["std"], in_channels)
    return Backbone(model, info.channels(), info.reduction(), *statistics, last)


def _statistics(mean, std, in_channels):
    """Statistics for `in_channels`. For grey images timm adds up the first layer's weights, so use the average."""
    if in_channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return tuple([float(x[i % len(x)]) for i in range(in_channels)] for x in (mean, std))


def check_name(name):
    """Raise ValueError unless timm has a model of this name. Nothing is built or downloaded."""
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"encoder={name!r} is neither 'gcm' nor a model of timm {timm.__version__}.{hint} timm.list_models() has "
            "all names."
        )
    tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(f"encoder={name!r}: timm {timm.__version__} knows {architecture!r} with the tags {tags}.")


def _from_callable(encoder):
    if isinstance(encoder, nn.Module):
        raise TypeError(
            f"encoder is a module, a {type(encoder).__name__}. Pass a function that returns it: encoder=lambda: module"
        )
    model = encoder()
    if not isinstance(model, nn.Module):
        raise TypeError(f"encoder={encoder!r} returned a {type(model).__name__}, but must return a torch.nn.Module.")
    return copy.deepcopy(model)  # each fit trains its own copy


@torch.no_grad()
def _dry_run(model, in_channels):
    """Channels and strides of the features from a user's module."""
    training = model.training
    problem, cause = "", None
    try:
        features = list(model.eval()(torch.zeros(1, in_channels, DRY, DRY)))
    except Exception as error:  # the user's code can raise anything
        problem, cause = f"cannot be computed: {error}", error
    else:
        if not features or not all(isinstance(x, torch.Tensor) and x.ndim == 4 and len(x) == 1 for x in features):
            problem = f"are {[tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__ for x in features]}"
        elif [x.shape[2] for x in features] != sorted((x.shape[2] for x in features), reverse=True):
            problem = f"have {[x.shape[2] for x in features]} rows"
    if problem:
        raise ValueError(
            f"The features that the encoder returns for an image (1, {in_channels}, {DRY}, {DRY}) {problem}. Expected "
            "a list of tensors (1, channels, rows, columns), fine to coarse."
        ) from cause
    model.train(training)
    return [x.shape[1] for x in features], [max(1, DRY // min(x.shape[2:])) for x in features]


@contextmanager
def _drawing_from(generator):
    """Context in which modules draw their initial weights from a generator, and PyTorch's global one does not change.

    With None they draw from the global one.
    """
    if generator is None:
        yield
        return
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
    try:
        yield
    finally:
        torch.set_rng_state(state)


# ---- weights ---------------------------------------------------------------------------------------------------------


def load_weights(backbone, encoder, weights):
    """Load trained weights into a backbone.

    Parameters
    ----------
    backbone : Backbone
    encoder : str or callable
        The parameter from which it was built.
    weights : "pretrained" or path
        "pretrained": timm downloads them, or uses an earlier download; the module of a callable keeps its weights. Else
        a file of the model's weights in PyTorch's names.

    Raises
    ------
    ValueError
        For a file without such weights, or with those of another model; and if timm has no weights for it.
    OSError
        If a file cannot be read, or a download fails.
    """
    if weights == "pretrained":
        if isinstance(encoder, str):
            backbone.model.load_state_dict(_downloaded(encoder, len(backbone.mean[0])))
        return
    path = Path(os.path.expanduser(weights))
    _copy(backbone, _read(path), f"encoder_weights={str(path)!r}", encoder)


def _downloaded(name, in_channels):
    timm = import_timm()
    if not timm.list_models(name if "." in name else f"{name}.*", pretrained=True):
        raise ValueError(
            f"encoder_weights='pretrained', but timm {timm.__version__} has no weights for encoder={name!r}. Use "
            "encoder_weights=None, or a file of your own."
        )
    try:
        with _drawing_from(torch.Generator()):
            model = timm.create_model(name, pretrained=True, features_only=True, in_chans=in_channels)
    except Exception as error:  # each way to download a file has its own errors
        raise OSError(
            f"encoder_weights='pretrained' could not be downloaded for encoder={name!r}: {str(error)[:300]} Without a "
            "network, fetch the model's file (.safetensors or .pth) elsewhere and pass encoder_weights='FILE'. "
            "encoder_weights=None trains from random weights."
        ) from error
    return model.state_dict()


def _read(path):
    """{name: Tensor} of a file."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"encoder_weights={str(path)!r} must be 'pretrained', None, or the path of a file whose name ends in "
            f"{', '.join(SUFFIXES)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"encoder_weights={str(path)!r}: there is no such file.")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError ...
        raise ValueError(
            f"encoder_weights={str(path)!r} is damaged, or is not a file of weights only: {str(error)[:300]}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(x, torch.Tensor) for x in found.values()):
        names = list(found)[:5] if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"encoder_weights={str(path)!r} holds {names}. Expected names and tensors alone, as state_dict() has them."
        )
    return found


def _plain(name):
    """A tensor's name without the changes that timm makes for features_only models."""
    return name.replace(".", "_")


@torch.no_grad()
def _copy(backbone, found, called, encoder):
    """Copy tensors by name, from those of the whole model or of its features. Other tensors are ignored."""
    found = {_plain(name): tensor for name, tensor in found.items()}
    own = backbone.model.state_dict()
    chosen = {}
    for name in own:
        # prefixes that timm's wrappers of a model add
        for prefix in ("", "model.", "body."):
            if name.startswith(prefix) and _plain(name.removeprefix(prefix)) in found:
                chosen[name] = found[_plain(name.removeprefix(prefix))]
                break
    # files of old PyTorch versions have no count of batches, and nothing depends on it
    missing = [name for name in own if name not in chosen and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"{called} has not the weights of encoder={encoder!r}: {len(missing)} of {len(own)} tensors are missing, "
            f"for example {missing[0]!r}; it has {list(found)[:3]}. Pass the file of this model."
        )
    wrong = []
    for name, tensor in chosen.items():
        tensor = _for_channels(backbone, name, tensor)
        if tensor.shape != own[name].shape:
            wrong.append(f"{name!r} is {tuple(tensor.shape)} and should be {tuple(own[name].shape)}")
        elif not tensor.isfinite().all():
            wrong.append(f"{name!r} has values that are not finite")
        else:
            own[name].copy_(tensor)
    if wrong:
        raise ValueError(
            f"{called} has not the weights of encoder={encoder!r}: {wrong[0]} ({len(wrong)} such). Pass the file of "
            "this model."
        )


def _for_channels(backbone, name, tensor):
    """The first layer's weights, from colour images, converted to the number of channels here."""
    own = backbone.model.get_parameter(name) if name in dict(backbone.model.named_parameters()) else None
    firsts = getattr(backbone.model, "pretrained_cfg", {}).get("first_conv") or ()
    firsts = (firsts,) if isinstance(firsts, str) else firsts
    is_first = any(_plain(name).endswith(_plain(f"{first}.weight")) for first in firsts)
    if own is None or not is_first or tensor.ndim != 4 or tensor.shape == own.shape:
        return tensor
    from timm.models import adapt_input_conv

    return adapt_input_conv(len(backbone.mean[0]), tensor)
