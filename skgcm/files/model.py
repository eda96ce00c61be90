"""A fitted classifier <-> a file. Opening the file executes nothing in it."""

import inspect
import json
import math
import reprlib

import numpy as np
import torch
from safetensors import SafetensorError
from sklearn.utils.validation import check_is_fitted

from skgcm import calibration, inference, typicality
from skgcm.files import history, json_values, safetensors_file
from skgcm.files.safetensors_file import ModelFileError
from skgcm.inputs import images
from skgcm.inputs.value_range import check_value_range
from skgcm.network import GCM
from skgcm.training import augmentation, build
from skgcm.utils import torch_state
from skgcm.utils.sklearn_compat import validate_parameter_constraints

# The net_params that a file may contain: numbers for the loss and the optimizer. Other parameters of skorch can name
# files and commands (a compiler in compile__options, for example), which a file must not choose.
NET_PARAMS = {"compile", "compile__mode", "compile__dynamic", "compile__fullgraph", "cuda_graph"}
NET_PREFIXES = ("criterion__", "optimizer__")
NOT_STORED = {"checkpoint"}  # it belongs to a run, and a file must not choose where a fit writes
FIELDS = {
    "classes",
    "image_shape",
    "channels_first",
    "value_range",
    "feature_names_in",
    "params",
    "network",
    "history",
    "versions",
    "temperature",
}
PREFIX = "typicality/"  # of the tensors of the typicality, if it is known
LATER = {"temperature": 1.0}  # fields that older files lack, and their values for such files
REMEDIES = {
    "feature_names_in": "Before saving, del clf.feature_names_in_, and predict on arrays, without names.",
    "encoder": "Register a model of your own with timm.models.register_model, and fit with its name.",
    "classes": "Fit with fewer or shorter labels, or with integers. Or use joblib.",
}


@torch_state.fork_safe
@torch_state.default_modes()
def save(classifier, path):
    """Write a fitted classifier to a file, see :meth:`skgcm.GCMClassifier.save`."""
    check_is_fitted(classifier)
    net, params = classifier.net_, classifier.get_params(deep=False)
    columns, epochs = history.pack(classifier.history_)
    try:
        history.check_length(epochs)
    except ValueError as error:
        raise ValueError(
            f"{error} Only the random numbers and the mosaics of further training depend on them. Before saving, "
            "keep the newest with del clf.history_[:-1000], or use joblib."
        ) from error
    metadata = {
        "classes": _encoded(
            "classes_", classifier.classes_, json_values.encode_array, "Fit with labels that are text."
        ),
        "image_shape": list(classifier.image_shape_),
        "channels_first": bool(net.image_format.channels_first),
        "value_range": list(classifier.value_range_),
        "feature_names_in": getattr(classifier, "feature_names_in_", np.array([])).tolist() or None,
        "params": {
            name: _encoded_param(classifier, name, value) for name, value in params.items() if name not in NOT_STORED
        },
        # the net's own values: the parameters may have been set after the fit
        "network": {
            name: _encoded(name, getattr(net, f"module__{name}"), json_values.encode, REMEDIES["encoder"])
            for name in build.NETWORK_PARAMS
        },
        "history": epochs,
        "versions": safetensors_file.versions(),
        "temperature": classifier.temperature_,
    }
    json_values.check_arrays([metadata["classes"], metadata["params"]])
    _check_params(classifier)
    tensors, usual = net.network.state_dict(), {}
    if classifier._typicality is not None:
        usual = {PREFIX + name: torch.from_numpy(array) for name, array in vars(classifier._typicality).items()}
    specs = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    difference = _difference(net, specs)
    if difference:
        raise ValueError(f"net_ cannot be stored, since its network was changed: {difference}")
    try:
        safetensors_file.write(path, tensors | columns | usual, metadata, "model")
    except safetensors_file.HeaderError as error:
        largest = max(metadata, key=lambda name: len(json.dumps(metadata[name])))
        raise ValueError(f"{error} Most of it is of {largest}. {REMEDIES.get(largest, 'Use joblib.')}") from error


@torch_state.fork_safe
@torch_state.default_modes()
def load(cls, path, device=None):
    """Read a classifier of a class from a file, see :meth:`skgcm.GCMClassifier.load`."""
    validate_parameter_constraints({"device": [str, torch.device, None]}, {"device": device}, "load")
    if device is not None:
        build.resolve_device(device)
    with safetensors_file.opened(path, "model") as file:
        try:
            specs = {name: spec for name, spec in file.specs.items() if not name.startswith((history.PREFIX, PREFIX))}
            classifier = _restore(cls, file.metadata, specs, device)
            network = classifier.net_.network
            columns, usual = _fill(network, file.tensors())
            if usual:
                n_numbers = inference.n_described(network, classifier.image_shape_[2])
                classifier._typicality = typicality.unpack(usual, len(classifier.classes_), n_numbers)
            classifier.history_ = classifier.net_.history = history.unpack(columns, file.metadata["history"])
        except (MemoryError, torch.OutOfMemoryError, OSError, ImportError, ModelFileError, SafetensorError):
            raise
        except Exception as error:  # skorch, an optimizer or a loss can raise anything at invalid content
            raise ModelFileError(f"{file.called} cannot be loaded as a {cls.__name__}: {str(error)[:500]}") from error
    return classifier


def _restore(cls, metadata, specs, device):
    """The classifier in a file, without its weights. Any error means an invalid file."""
    metadata = LATER | metadata
    if metadata.keys() != FIELDS:
        raise ValueError(f"its metadata has {sorted(metadata)}; expected {sorted(FIELDS)}.")
    json_values.check_arrays([metadata["classes"], metadata["params"]])
    history.check_length(metadata["history"])
    params, network = _decoded_params(cls, metadata["params"]), metadata["network"]
    if not isinstance(network, dict) or network.keys() != set(build.NETWORK_PARAMS):
        raise ValueError(f"its network has other parameters than {sorted(build.NETWORK_PARAMS)}.")
    if params.get("encoder_weights") not in (None, "pretrained"):
        raise ValueError("its encoder_weights name a file, which a fit would read. Expected 'pretrained' or None.")
    if device is not None:
        params["device"] = device
    classifier, built = cls(**params), cls(**{**params, **network})
    built._validate_params()
    _check_params(classifier)
    _check_sizes(network, specs)
    image_format = _set_attributes(classifier, metadata)
    params = built.get_params(deep=False)
    # a compiler is for training only, and a fit builds a new net; a file must not cause its import
    params["net_params"] = {
        name: value for name, value in (params["net_params"] or {}).items() if not name.startswith("compile")
    }
    params["encoder_weights"] = None  # the file has all weights: no other file is downloaded or read
    net = build.build_net(params, image_format, len(classifier.classes_), None)
    difference = _difference(net, specs)
    if difference:
        raise ValueError(difference)
    net.initialize()
    net.network.head.temperature = _checked_temperature(metadata["temperature"])
    classifier.net_ = net
    return classifier


def _set_attributes(classifier, metadata):
    """Set what a fit learns about the data, and return the ImageFormat."""
    classes, names = json_values.decode_array(metadata["classes"]), metadata["feature_names_in"]
    if not np.array_equal(np.unique(classes), classes) or len(classes) < 2:
        raise ValueError("its classes are not two or more different labels in order.")
    kinds = {"channels_first": bool, "image_shape": list, "value_range": list, "feature_names_in": list | None}
    for name, kind in kinds.items():
        if not isinstance(metadata[name], kind):
            raise TypeError(f"its {name} is a {type(metadata[name]).__name__}.")
    classifier.classes_ = classes
    classifier.image_shape_ = images.check_image_shape(metadata["image_shape"])
    classifier.value_range_ = check_value_range(metadata["value_range"])
    classifier.n_features_in_ = math.prod(classifier.image_shape_)
    if names is not None:
        if len(names) != classifier.n_features_in_ or not all(isinstance(item, str) for item in names):
            raise ValueError(f"it has other feature names than {classifier.n_features_in_} texts.")
        classifier.feature_names_in_ = np.array(names, dtype=object)
    return images.ImageFormat(classifier.image_shape_, metadata["channels_first"], classifier.value_range_)


def _checked_temperature(temperature):
    low, high = calibration.BOUNDS
    if not isinstance(temperature, float) or not low <= temperature <= high:
        raise ValueError(f"its temperature is no number from {low:g} to {high:g}.")
    return temperature


@torch.no_grad()
def _fill(network, tensors):
    """Copy (name, tensor) pairs into a network with the same names and shapes.

    Returns the other tensors: those of the history, {NAME: Tensor}, and of the typicality, {NAME: ndarray}.
    """
    own, columns, usual = network.state_dict(), {}, {}
    for name, tensor in tensors:
        if name in own:
            own[name].copy_(tensor)
        elif name.startswith(PREFIX):
            usual[name.removeprefix(PREFIX)] = tensor.clone().numpy()
        else:
            columns[name.removeprefix(history.PREFIX)] = tensor
    build.check_variances(network)
    return columns, usual


# ---- parameters ------------------------------------------------------------------------------------------------------


def _encoded(name, value, encode, remedy):
    try:
        return encode(value)
    except ValueError as error:
        raise ValueError(
            f"{name}={reprlib.repr(value)} cannot be stored in a model file, which holds no code. {error} {remedy} Or "
            "use joblib, whose files can hold code and execute it when they are loaded."
        ) from error


def _encoded_param(classifier, name, value):
    default = inspect.signature(type(classifier)).parameters[name].default
    remedy = f"Before saving, clf.set_params({name}={default!r}): it affects only training, predictions stay the same."
    encode = _encode_net_params if name == "net_params" else json_values.encode
    if name == "encoder":
        remedy = REMEDIES[name]
    elif name == "encoder_weights" and value != "pretrained":
        value = None  # a model file names no file that a fit would read
    return _encoded(name, value, encode, remedy)


def _encode_net_params(net_params):
    _check_net_params(net_params)
    return json_values.encode(net_params)


def _decoded_params(cls, encoded):
    known = cls._get_param_names()
    if not isinstance(encoded, dict):
        raise TypeError("its params are no JSON object.")
    unknown = sorted(encoded.keys() - set(known) | encoded.keys() & NOT_STORED)
    if unknown:
        raise ValueError(
            f"it has the parameters {unknown[:5]}, which {cls.__name__} of this version does not know. Load it with "
            "the class and version that wrote it."
        )
    return {name: json_values.decode(value) for name, value in encoded.items()}


def _check_params(classifier):
    """Raise ValueError for parameters that are invalid for all images."""
    classifier._validate_params()
    _check_net_params(classifier.net_params)
    if isinstance(classifier.augment, str) and classifier.augment != "auto":
        augmentation.parse(classifier.augment)
    if classifier.image_shape is not None:
        images.check_image_shape(classifier.image_shape)
    if classifier.value_range is not None:
        check_value_range(classifier.value_range)


def _check_net_params(net_params):
    refused = [name for name in net_params or () if name not in NET_PARAMS and not name.startswith(NET_PREFIXES)]
    if refused:
        raise ValueError(f"Of net_params, {refused} cannot be stored.")


# ---- network ---------------------------------------------------------------------------------------------------------


def _check_sizes(network, specs):
    """Raise ValueError for a network with more weights than the file, before memory for it is allocated."""
    total = sum(math.prod(shape) for _, shape in specs.values())
    stages, widths = network["n_stages"], (network["encoder_width"], network["decoder_width"])
    if stages > total.bit_length() or max(widths) > total:
        raise ValueError(f"{stages} stages of widths {widths} have more weights than its {total}.")


def _difference(net, specs):
    """How the tensors' names, types and shapes differ from those of a net's network; "" if they do not."""
    with torch.device("meta"):  # shapes without memory
        state = GCM(**net.get_params_for("module")).float().state_dict()
    expected = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}
    for title, names in (
        ("no tensor", sorted(expected.keys() - specs.keys())),
        ("an unknown tensor", sorted(specs.keys() - expected.keys())),
    ):
        if names:
            return f"there is {title} {names[0]!r} ({len(names)} such)."
    wrong = sorted(name for name in specs if specs[name] != expected[name])
    if wrong:
        return f"tensor {wrong[0]!r} is {specs[wrong[0]]}, not {expected[wrong[0]]} ({len(wrong)} such)."
    return ""
