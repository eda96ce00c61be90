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

from skgcm.inputs import labels
from skgcm.network import DEFAULTS, GCM
from skgcm.training import augmentation, distributed
from skgcm.training.net import GCMNet

NETWORK_PARAMS = (
    "architecture",
    "encoder",
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
INSTEAD = {  # what to use instead of entries of net_params that are refused
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


MIN_EPOCHS, MAX_EPOCHS = 30, 200  # of "auto": the first for 5,000 images and more
SPARSITY = {"multiscale": 0.3, "paper": 0.0}  # of "auto"
LARGE = 10_000  # images: from this number on, a GPU gets batches of 512
LARGE_SIDES = (96, 256)  # pixels: from each of these sizes on, the network gets one stage more


def resolve_device(device):
    """The torch.device of "auto" (CUDA where there is one, else CPU) or of a device's name."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) == "cuda":
        device = distributed.own_gpu()
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
        with torch.cuda.device(device):  # the query is about the current device
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    found = torch.cpu.get_capabilities()
    if found.get("amx_bf16", False):
        return True
    # Intel's AVX-512 issues half as many bfloat16 products as float32 products, so training is slower with it
    # (benchmarks/results/precision.md). A virtual machine may hide that the processor has AMX.
    return found.get("avx512_bf16", False) and not found.get("cpu_name", "").startswith("Intel")


def has_own_encoder(params):
    """Whether the encoder is GCM's own, and not timm's or the user's."""
    return isinstance(params["encoder"], str) and params["encoder"] == "gcm"


def resolve_optimizer(params):
    """What "auto" means: "sgd", or "adamw" for an encoder that is not GCM's own."""
    if isinstance(params["optimizer"], str) and params["optimizer"] == "auto":
        return "sgd" if has_own_encoder(params) else "adamw"
    return params["optimizer"]


def resolve_schedule(params, device, n_images):
    """`batch_size`, `lr` and `max_epochs`; "auto" depends on the number of training images, None if it is unknown.

    Fewer images need smaller batches for enough steps, and more epochs. A GPU is efficient with large batches, which
    need a larger learning rate. A pretrained encoder needs fewer epochs.
    """
    n = 5000 if n_images is None else n_images
    batch_size, lr, max_epochs = params["batch_size"], params["lr"], params["max_epochs"]
    if batch_size == "auto":
        large = device.type == "cuda" and n >= LARGE
        batch_size = 512 if large else 64 if n >= 12 * 64 else 32 if n >= 12 * 32 else 16
    if lr == "auto":
        lr = _default_lr(resolve_optimizer(params), batch_size)
    if max_epochs == "auto":
        max_epochs = int(min(MAX_EPOCHS, max(MIN_EPOCHS, round(MIN_EPOCHS * (5000 / n) ** 0.5))))
        if not has_own_encoder(params) and params["encoder_weights"] is not None:
            max_epochs = MIN_EPOCHS
    return {"batch_size": batch_size, "lr": lr, "max_epochs": max_epochs}


def _default_lr(optimizer, batch_size):
    if optimizer == "adamw":
        return 0.002
    if optimizer != "sgd":
        default = getattr(inspect.signature(optimizer).parameters.get("lr"), "default", None)
        if isinstance(default, float):
            return default
    return 0.1 * max(1, batch_size / 64)


def resolve_network(params, shape):
    """The network's parameters for images (H, W, C); "auto" depends on the architecture and the size of the images."""
    network = {name: params[name] for name in NETWORK_PARAMS}
    for name, value in DEFAULTS[network["architecture"]].items():
        if network[name] == "auto":
            network[name] = value
    if network["n_stages"] == "auto":
        side = (shape[0] * shape[1]) ** 0.5
        large = 0 if network["architecture"] == "paper" else sum(side >= size for size in LARGE_SIDES)
        network["n_stages"] = 3 + large
    return network


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
        present = np.unique(y)  # a class without images has no part in the loss
        weights[present] = compute_class_weight("balanced", classes=present, y=y)
        return weights
    position = {label: j for j, label in enumerate(classes.tolist())}
    if not position.keys() <= class_weight.keys():  # then an unknown label may be misspelt
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
    """The net for an estimator's parameters, a dict, and class weights.

    `n_images` is the number of training images, or None if it is unknown. With early stopping and `hold_out` the net
    holds out some of them. Raises ValueError if `net_params` names something that the estimator sets.
    """
    # NumPy's narrow integers would overflow
    params = {k: int(v) if isinstance(v, Integral) and not isinstance(v, bool) else v for k, v in params.items()}
    if has_own_encoder(params) and params["encoder_weights"] not in (None, "pretrained"):
        raise ValueError(
            f"encoder_weights={str(params['encoder_weights'])!r} with encoder='gcm', which takes no weights of a file. "
            "Set encoder to the name of the model that the weights are of, as in encoder='resnet18.a1_in1k', or leave "
            "encoder_weights at its default."
        )
    device, seed = resolve_device(params["device"]), distributed.from_first(draw_seed(params["random_state"]))
    optimizer, optimizer_params = resolve_optimizer(params), {}
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
        # threshold=0: with skorch's default, an epoch that is better by less than 0.01 % does not become the best
        stop = EarlyStopping(patience=params["n_iter_no_change"], threshold=0, load_best=True, sink=noop)
        callbacks.append(("early_stopping", stop))
    own = {
        "module": GCM,
        "module__n_classes": n_classes,
        "module__in_channels": image_format.shape[2],
        "module__window": image_format.shape[:2],
        "classes": np.arange(n_classes),
        "image_format": image_format,
        "optimizer": optimizer,
        "optimizer__weight_decay": params["weight_decay"],
        "precision": resolve_precision(params["precision"], device),
        "train_split": split,
        "callbacks": callbacks,
        "device": str(device),
        "seed": seed,
    }
    own |= {f"module__{name}": value for name, value in resolve_network(params, image_format.shape).items()}
    own |= resolve_schedule(params, device, n_images)
    if not has_own_encoder(params):
        encoder_lr = params["encoder_lr"]
        own |= {"encoder_weights": params["encoder_weights"], "encoder_lr": encoder_lr}
        # torch.compile adds a prefix to the names
        own["optimizer__param_groups"] = [("*encoder.*", {"lr": own["lr"] * encoder_lr})]
    own |= {name: params[name] for name in ("mosaic", "sparsity", "erasing", "guidance", "lr_schedule", "verbose")}
    if own["sparsity"] == "auto":
        own["sparsity"] = SPARSITY[params["architecture"]]
    if distributed.rank():
        own["verbose"] = 0
    own["augment"] = augmentation.resolve(params["augment"], image_format.shape)
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
    if not params["weight_decay"]:
        del own["optimizer__weight_decay"]
    return GCMNet(**{"criterion": torch.nn.CrossEntropyLoss, **optimizer_params, **own, **further})


def check_variances(network):
    """Raise ValueError if the batch norm of a network from a file has negative variances."""
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) and not (module.running_var >= 0).all():
            raise ValueError(f"{name}.running_var has negative values, but it is a variance.")
