"""Training that can be interrupted: after each epoch, the state of the fit is written to a file.

Learning rates, order of the images and augmentation follow from the seed and the number of the epoch, so they are not
in the file.
"""

import hashlib
import os
import reprlib
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from skgcm.files import history, json_values, safetensors_file
from skgcm.inputs.files import ImageFiles
from skgcm.training import distributed
from skgcm.training.build import check_variances, draw_seed, resolve_device, resolve_precision
from skgcm.utils import atomic
from skgcm.utils.warnings import warn

KIND = "checkpoint"
IGNORED_PARAMS = {"checkpoint", "transform_maps", "verbose"}  # parameters that a fit's result does not depend on
VERSIONS = ("skgcm", "torch", "scikit-learn", "skorch", "numpy")  # that training depends on
# state of skorch's EarlyStopping, in addition to weights
STOPPING = {"misses_": int, "dynamic_threshold_": float, "best_epoch_": int}
_brief = reprlib.Repr()  # an error shows only the beginning of a parameter with thousands of labels
_brief.maxlist, _brief.maxstring = 20, 100


class Checkpoint:
    """The file of one fit. If it exists, it is read and compared with the fit that starts now.

    A context manager: within the context no other fit can use the file.

    Parameters
    ----------
    params : dict
        The estimator's parameters with `checkpoint`, each validated. If `checkpoint` is a folder, the file is in it,
        and its name is a fingerprint of all inputs of the fit.
    image_shape : tuple (R, C, D)
    X_flat : ndarray (n, R * C * D) or ImageFiles
    classes : ndarray (N,)
    y : int64 ndarray (n,)
        Positions in `classes`.
    validation : tuple of two such arrays, default=None
        Rows and labels that are held out and are not a part of X_flat and y.
    masks : skgcm.inputs.masks.Masks, default=None
        Where the evidence should lie.

    Attributes
    ----------
    random_state : int
        The fit's seed is drawn from it: the parameter or, if that is None, the value in the file.

    Raises
    ------
    ValueError
        If no file can be written at the path, if a checkpoint cannot restore a parameter, and, when the context is
        entered, for a file of another fit or one that another fit is using.
    ModelFileError
        When the context is entered, for a file that is damaged or is not a checkpoint.
    """

    def __init__(self, params, image_shape, X_flat, classes, y, validation=None, masks=None):
        path = _checked_path(params["checkpoint"])
        _check_restorable(params)
        self.config, self.versions = _described(params), safetensors_file.versions()
        self.config |= {"X.dtype": X_flat.dtype.name, "X.shape": [len(X_flat), *image_shape], "X": _fingerprint(X_flat)}
        self.config["y"] = _fingerprint(y, classes.tolist())  # independent of the labels' dtype
        self.config["validation_data"] = None
        if validation is not None:
            held_out, labels = validation
            about = _fingerprint(labels, classes.tolist()), held_out.dtype.name, held_out.shape
            self.config["validation_data"] = _fingerprint(held_out, about)
        self.config["masks"] = None if masks is None else _fingerprint(masks.packed, masks.index.tolist())
        self.path = path / f"{self._name()}.ckpt" if path.is_dir() else path
        self.random_state, self.tensors, self.metadata = params["random_state"], None, None
        self.warned = False

    def _name(self):
        return hashlib.sha256(safetensors_file.as_json(self.config).encode()).hexdigest()[:16]

    def __enter__(self):
        self._unlock = None
        if distributed.rank() == 0:  # only the first of several processes reads and writes
            self._lock_and_read()
        found = self.random_state, self.tensors, self.metadata
        self.random_state, self.tensors, self.metadata = distributed.from_first(found)
        return self

    def _lock_and_read(self):
        with ExitStack() as stack:
            try:
                stack.enter_context(atomic.locked(self.path))
            except BlockingIOError as error:
                raise ValueError(
                    f"checkpoint={str(self.path)!r} is in use by another fit, which runs now. A file serves one fit. "
                    "For the folds of a cross-validation, or several fits at once, name a folder: "
                    f"checkpoint={str(self.path.parent)!r}. In a folder, fits that differ in parameters, random_state "
                    "or data have different files."
                ) from error
            self._read()
            self._unlock = stack.pop_all().close

    def __exit__(self, *exception):
        if self._unlock is not None:
            self._unlock()

    def _read(self):
        atomic.discard_leftovers(self.path)
        try:
            self.tensors, self.metadata = safetensors_file.read(self.path, KIND)
        except FileNotFoundError:
            if self.random_state is None:
                self.random_state = draw_seed(None)
        except safetensors_file.ModelFileError as error:
            raise safetensors_file.ModelFileError(
                f"{error} To train from the start, delete {self.path} if it is a checkpoint, or name another file."
            ) from error
        else:
            with self._parsing():
                found, seed = dict(self.metadata["config"]), self.metadata["random_state"]
                if type(seed) is not int or not 0 <= seed < 2**32:
                    raise ValueError(f"its random_state is {seed!r}")
            self._check_same(found)
            if self.random_state is None:
                self.random_state = seed

    @property
    def _restart(self):
        return f"To train from the start, delete {self.path}."

    @contextmanager
    def _parsing(self):
        try:
            yield
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise safetensors_file.ModelFileError(
                f"{self.path} is a checkpoint whose parts do not belong together: {error!r}. {self._restart}"
            ) from error

    def _check_same(self, found):
        absent, differences = object(), []
        for name in [*self.config, *(found.keys() - self.config.keys())]:
            now, then = self.config.get(name, absent), found.get(name, absent)
            if now == then:
                continue
            text, other = _brief.repr(now), _brief.repr(then)
            if name in ("X", "y", "validation_data", "masks") or text == other:
                differences.append(f"{name} is not the same")
            elif now is absent or then is absent:
                differences.append(f"{name} is a parameter in one version of skgcm only")
            else:
                differences.append(f"{name}={text} was {other}")
        if differences:
            raise ValueError(
                f"checkpoint={str(self.path)!r} holds another fit: {', '.join(differences)}. Fit with the "
                f"parameters and data of that fit, or name another file. For several fits, such as the folds of a "
                f"cross-validation, name a folder, which has a file for each fit. {self._restart}"
            )

    def restore(self, net):
        """Set a new net to the state in the file. Returns how many of its epochs are done."""
        if self.tensors is None:
            return 0
        with self._parsing():
            parts = {"module": {}, "criterion": {}, "best": {}, "optimizer": {}, "history": {}}
            for key, tensor in self.tensors.items():
                part, name = key.split("/", 1)
                parts[part][name] = tensor
            stopping = _early_stopping(net)
            keeps_best = stopping is not None and stopping.load_best
            for weights in (parts["best"], parts["module"]) if keeps_best else (parts["module"],):  # the last one stays
                net.module_.load_state_dict(weights)
                check_variances(net.network)
            net.criterion_.load_state_dict(parts["criterion"])
            _restore_optimizer(net.optimizer_, parts["optimizer"], self.metadata["optimizer"])
            net.history = _restored_history(parts["history"], self.metadata["history"], net.max_epochs)
            if stopping is not None:
                for name, kind in STOPPING.items():
                    setattr(stopping, name, kind(self.metadata["early_stopping"][name]))
                stopping.best_model_weights_ = parts["best"] or None
            finished, then, now = self.metadata["finished"], self.metadata["versions"], self.versions
            others = [f"{name} {then[name]} (this is {now[name]})" for name in VERSIONS if then[name] != now[name]]
        if not finished and others:
            warn(
                f"{self.path} was written with {', '.join(others)}: training continues, but may end in slightly other "
                "weights than without the interruption."
            )
        self.tensors = None
        return net.max_epochs if finished else len(net.history)

    def save(self, net, finished):
        """Write the state of a net after an epoch. If that fails, keep the last file, and warn the first time."""
        if distributed.rank():
            return
        tensors, epochs = history.pack(net.history)
        tensors |= {f"module/{name}": tensor for name, tensor in net.module_.state_dict().items()}
        tensors |= {f"criterion/{name}": tensor for name, tensor in net.criterion_.state_dict().items()}
        optimizer_tensors, optimizer = _optimizer_state(net.optimizer_)
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors.items()}
        stopping, early_stopping = _early_stopping(net), {}
        if stopping is not None:
            early_stopping = {name: getattr(stopping, name) for name in STOPPING}
            tensors |= {f"best/{name}": tensor for name, tensor in (stopping.best_model_weights_ or {}).items()}
        metadata = {
            "config": self.config,
            "random_state": int(self.random_state),
            "finished": bool(finished),
            "history": epochs,
            "optimizer": optimizer,
            "early_stopping": early_stopping,
            "versions": self.versions,
        }
        try:
            safetensors_file.write(self.path, tensors, metadata, KIND)
        except OSError as error:
            if not self.warned:
                warn(
                    f"checkpoint={str(self.path)!r} could not be written after epoch {len(net.history)}: {error}. "
                    "Training continues, and each epoch tries again; until then the last good file stays."
                )
            self.warned = True


def _checked_path(checkpoint):
    name = atomic.expanded(checkpoint)
    path = Path(name).absolute()  # the working directory may change before the last epoch
    if not path.is_dir() and name.endswith(("/", os.sep)):
        raise ValueError(f"checkpoint={str(checkpoint)!r}: this folder does not exist. Create it.")
    if not path.parent.is_dir():
        raise ValueError(f"checkpoint={str(checkpoint)!r}: the folder {str(path.parent)!r} does not exist. Create it.")
    return path


def _check_restorable(params):
    """Raise ValueError for parameters with a state that a checkpoint does not contain."""
    augment, optimizer, random_state = params["augment"], params["optimizer"], params["random_state"]
    problem = None
    if callable(augment):
        problem = f"augment={augment!r}, which may change between fits. Use 'shift' or 'shift+flip'"
    elif callable(params["encoder"]):
        problem = f"encoder={params['encoder']!r}, which may change between fits. Use the name of a model of timm"
    elif params["callbacks"]:
        problem = f"callbacks={params['callbacks']!r}, which may have a state. Fit without them"
    elif isinstance(optimizer, type) and not optimizer.__module__.startswith("torch.optim"):
        problem = f"optimizer={optimizer!r}, which may have more state than PyTorch's own. Use a class of torch.optim"
    elif isinstance(random_state, np.random.RandomState):
        problem = f"random_state={random_state!r}, which gives each fit another seed. Use an integer or None"
    elif params["warm_start"]:
        problem = "warm_start=True, which starts from weights that are not in it. Use warm_start=False"
    if problem:
        raise ValueError(f"A checkpoint cannot restore a fit with {problem}, or checkpoint=None.")


def _described(params):
    """The parameters that a fit's result depends on, as JSON values; device and precision are resolved."""
    device = resolve_device(params["device"])
    params = {**params, "device": device.type, "precision": resolve_precision(params["precision"], device)}
    found = {}
    for name, value in params.items():
        if name not in IGNORED_PARAMS:
            try:
                found[name] = _plain(value)
                safetensors_file.as_json(found[name])
            except ValueError as error:
                raise ValueError(
                    f"A checkpoint cannot compare {name}={value!r} with that of another fit: {error} Use finite "
                    "numbers, strings, classes and collections of these, or checkpoint=None."
                ) from error
    return found


def _plain(value):
    """A value as JSON has it, for comparison: collections of different types with the same items are equal."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return sorted(([_plain(key), _plain(item)] for key, item in value.items()), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return json_values.encode(value)


def _fingerprint(array, about=()):
    digest = hashlib.sha256(repr(about).encode())
    digest.update(array.fingerprint() if isinstance(array, ImageFiles) else array)
    return digest.hexdigest()


def _restored_history(columns, content, max_epochs):
    n = content["epochs"]
    if not 1 <= n <= max_epochs:
        raise ValueError(f"it has {n} epochs of {max_epochs}")
    if columns["epoch"].tolist() != list(range(1, n + 1)):
        raise ValueError("its epochs are not numbered from 1")
    return history.unpack(columns, content)


def _early_stopping(net):
    return dict(net.callbacks_).get("early_stopping")


def _optimizer_state(optimizer):
    """{"INDEX/NAME": Tensor} and {INDEX: {NAME: number}}, INDEX being a parameter's."""
    tensors, numbers = {}, {}
    for index, memory in optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, numbers


def _restore_optimizer(optimizer, tensors, numbers):
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {int(index): dict(memory) for index, memory in numbers.items()}
    for key, tensor in tensors.items():
        index, name = key.split("/", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # fused steps read parameter and state in memory order, so both need the same memory format
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        elif optimizer.defaults.get("fused") and (name, tensor.shape) != ("step", ()):  # fused steps do not check sizes
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} for a parameter of {tuple(parameter.shape)}")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
