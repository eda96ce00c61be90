"""From an estimator's parameters to the skorch net that trains: device, seed, class weights, optimizer, network."""

import inspect
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from skorch.callbacks import EarlyStopping
from skorch.dataset import ValidSplit
from skorch.utils import noop

from skgcm import labels
from skgcm.network import GCM
from skgcm.training import GCMNet

NETWORK_PARAMS = (
    "encoder_width",
    "decoder_width",
    "n_stages",
    "shared_decoder",
    "clip_negative",
    "polarity",
    "upsampling",
)
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.99), "fused": True}),
}

DEVICES = "'auto', 'cpu', 'cuda' or 'mps'"
INSTEAD = {  # of net_params that are refused and are no parameters of the estimator by that name
    "train_split": "fit(X, y, validation_data=(X_valid, y_valid)), or early_stopping=True with validation_fraction",
    "optimizer__lr": "lr",
    "optimizer__weight_decay": "weight_decay",
    "criterion__weight": "class_weight",
    "criterion__reduction": "class_weight",
    "classes": "n_classes",
    "seed": "random_state",
    "iterator_train__batch_size": "batch_size",
    "iterator_valid__batch_size": "batch_size",
}


def resolve_device(device):
    """The torch.device of "auto" (CUDA where there is one, else CPU) or of a device's name."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a device of PyTorch. Use {DEVICES}.") from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={device!r} is not supported. Use {DEVICES}.")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r}, but PyTorch has no MPS here. Use device='auto' or 'cpu'.")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices. Use device='auto' or 'cpu'."
        )
    return resolved


def resolve_precision(precision, device):
    """What "auto" means: "bfloat16" where the processor computes faster in it, else "float32"."""
    if precision == "auto":
        return "bfloat16" if _bfloat16_is_fast(device) else "float32"
    return precision


def _bfloat16_is_fast(device):
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    found = torch.cpu.get_capabilities()
    if found.get("amx_bf16", False):
        return True
    # Intel's AVX-512 issues half as many bfloat16 products as float32 ones, and training is slower for it
    # (benchmarks/results/precision.md); where it has AMX, a virtual machine may hide that
    return found.get("avx512_bf16", False) and not found.get("cpu_name", "").startswith("Intel")


def resolve_batch_size(batch_size, n_images):
    """The number of images of "auto": few, of which 64 at a time would be too few steps an epoch, come in less."""
    if batch_size != "auto":
        return batch_size
    return 64 if n_images is None or n_images >= 12 * 64 else 32 if n_images >= 12 * 32 else 16


def draw_seed(random_state):
    """An integer from scikit-learn's `random_state`; None means fresh entropy, not NumPy's global generator."""
    if random_state is None:
        return np.random.SeedSequence().entropy % 2**31
    return int(check_random_state(random_state).randint(2**31))


def class_weights(class_weight, classes, y):
    """float32 (N,) of a parameter `class_weight`, or None; y (n,) are positions in `classes` (N,)."""
    if class_weight is None:
        return None
    weights = np.ones(len(classes), np.float32)
    if class_weight == "balanced":
        present = np.unique(y)  # a class without images has no say in the loss
        weights[present] = compute_class_weight("balanced", classes=present, y=y)
        return weights
    position = {label: j for j, label in enumerate(classes.tolist())}
    if not position.keys() <= class_weight.keys():  # then a label that is none of these may be misspelt
        keys = np.fromiter(class_weight, object, len(class_weight))
        labels.indices(keys, classes, "class_weight", "Name labels as y has them.")
    try:
        with np.errstate(over="ignore"):
            for label in class_weight.keys() & position.keys():
                weights[position[label]] = class_weight[label]
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"class_weight={class_weight!r} must have numbers as weights.") from error
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"class_weight={class_weight!r} must have finite weights, 0 or more.")
    return weights


def build_net(params, image_format, n_classes, weights, n_images=None, hold_out=True):
    """The net for an estimator's parameters, a dict, class weights and so many training images; None: nobody knows.

    With early stopping and `hold_out` it holds out some of them.

    Raises ValueError where `net_params` names what is a parameter of the estimator.
    """
    # NumPy's narrow integers would overflow
    params = {k: int(v) if isinstance(v, Integral) and not isinstance(v, bool) else v for k, v in params.items()}
    device, seed = resolve_device(params["device"]), draw_seed(params["random_state"])
    optimizer, optimizer_params = params["optimizer"], {}
    if optimizer in OPTIMIZERS:
        optimizer, defaults = OPTIMIZERS[optimizer]
        optimizer_params = {f"optimizer__{name}": value for name, value in defaults.items()}
    elif not issubclass(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer={optimizer!r} must be one of {sorted(OPTIMIZERS)} or a class of torch.optim.")
    takes = inspect.signature(optimizer).parameters.values()
    if params["weight_decay"] and not any(p.name == "weight_decay" or p.kind == p.VAR_KEYWORD for p in takes):
        raise ValueError(
            f"optimizer={optimizer.__name__} has no weight_decay, and weight_decay={params['weight_decay']!r}. Set "
            "weight_decay=0."
        )
    callbacks, split = list(params["callbacks"] or []), None
    if params["early_stopping"]:
        if hold_out:
            split = ValidSplit(float(params["validation_fraction"]), stratified=True, random_state=seed)
        # threshold=0: by skorch's own, an epoch that is better by less than 0.01 % is not kept as the best
        stop = EarlyStopping(patience=params["n_iter_no_change"], threshold=0, load_best=True, sink=noop)
        callbacks.append(("early_stopping", stop))
    own = {
        "module": GCM,
        "module__n_classes": n_classes,
        "module__in_channels": image_format.shape[2],
        "classes": np.arange(n_classes),
        "image_format": image_format,
        "optimizer": optimizer,
        "optimizer__weight_decay": params["weight_decay"],
        "precision": resolve_precision(params["precision"], device),
        "batch_size": resolve_batch_size(params["batch_size"], n_images),
        "train_split": split,
        "callbacks": callbacks,
        "device": str(device),
        "seed": seed,
    }
    own |= {f"module__{name}": params[name] for name in NETWORK_PARAMS}
    own |= {name: params[name] for name in ("augment", "mosaic", "sparsity", "second_look", "lr", "lr_schedule")}
    own |= {name: params[name] for name in ("max_epochs", "verbose")}
    if weights is not None:
        own |= {"criterion__weight": torch.from_numpy(weights), "criterion__reduction": "none"}
    further = params["net_params"] or {}
    taken = {"optimizer__lr", *own, *params} & further.keys() | {
        name for name in further if name.startswith("iterator")
    }
    if taken:
        remedies = [f"for {name}, {INSTEAD[name]}" for name in sorted(taken & INSTEAD.keys())]
        raise ValueError(
            f"net_params has {sorted(taken)}, which GCMClassifier sets itself: use its own parameters"
            f"{''.join(f'; {remedy}' for remedy in remedies)}."
        )
    if further.get("compile") and further.get("fused_norm"):
        raise ValueError(
            "net_params has compile and fused_norm, which both replace batch norm's kernels: fit with one of them."
        )
    if not params["weight_decay"]:
        del own["optimizer__weight_decay"]
    return GCMNet(**{"criterion": torch.nn.CrossEntropyLoss, **optimizer_params, **own, **further})


def check_variances(network):
    """Raise ValueError for a network out of a file whose batch norm has negative variances."""
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) and not (module.running_var >= 0).all():
            raise ValueError(f"{name}.running_var has negative values, and is a variance.")
