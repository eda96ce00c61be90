"""Which optimizer, learning rate, weight decay and batch size learn most in few epochs, on three sets of real images.

    python benchmarks/schedule.py cifar10.npz NEU-DET/train    # about 40 minutes on two cores

cifar10.npz holds X_train, y_train, X_test, y_test, uint8 images (n, 32, 32, 3) and labels; NEU-DET/train a folder for
each class of defects in steel. Digits are scikit-learn's. Of CIFAR-10 and NEU-DET only training images are used: a part
of them is held out and scored, so that the defaults have not seen the test images. Digits have no test images of their
own: the thirds held out here are those that the other benchmarks report. Writes benchmarks/results/schedule.md and
.json.
"""

import sys
import time
from pathlib import Path

from _common import cifar10, machine, origin, versions, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder
from skgcm.training.build import resolve_device, resolve_schedule

CANDIDATES = {
    "default": {},
    "weight_decay=5e-4": {"weight_decay": 5e-4},
    "lr=0.05": {"lr": 0.05},
    "lr=0.2, weight_decay=5e-4": {"lr": 0.2, "weight_decay": 5e-4},
    "batch_size=128": {"batch_size": 128},
    'optimizer="adamw", weight_decay=0.05': {"optimizer": "adamw", "weight_decay": 0.05},
    'lr=0.01, lr_schedule="constant"': {"lr": 0.01, "lr_schedule": "constant"},
}


def sets(cifar10_path, neu_det):
    """{name: (X, y, share held out, seeds, parameters of the fit)}."""
    X, y, _, _ = cifar10(cifar10_path)
    return {
        "digits, 30 epochs": (*load_digits(return_X_y=True), 1 / 3, range(4), {"max_epochs": 30}),
        "NEU-DET at 64 × 64, 20 epochs": (
            *load_image_folder(neu_det, size=64), 1 / 4, range(2), {"augment": "shift+flip", "max_epochs": 20},
        ),
        "CIFAR-10, 5 epochs": (X, y, 1 / 10, range(1), {"augment": "shift+flip", "max_epochs": 5}),
    }  # fmt: skip


def accuracy(X, y, held_out, seed, params):
    X_fit, X_held, y_fit, y_held = train_test_split(X, y, test_size=held_out, stratify=y, random_state=seed)
    return GCMClassifier(random_state=seed, **params).fit(X_fit, y_fit).score(X_held, y_held)


def main(cifar10_path, neu_det):
    start, found = time.perf_counter(), {}
    for name, (X, y, held_out, seeds, params) in sets(cifar10_path, neu_det).items():
        for candidate, changes in CANDIDATES.items():
            accuracies = [accuracy(X, y, held_out, seed, {**params, **changes}) for seed in seeds]
            found.setdefault(candidate, {})[name] = accuracies
            print(name, candidate, accuracies, f"{time.perf_counter() - start:.0f} s", flush=True)
    head = {
        "command": f"python benchmarks/schedule.py {Path(cifar10_path).name} NEU-DET/train",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "seconds": time.perf_counter() - start,
    }
    names, params = list(found["default"]), GCMClassifier().get_params()
    default = {**resolve_schedule(params, resolve_device("auto"), 1000), "weight_decay": params["weight_decay"]}
    del default["max_epochs"]
    lines = [
        "# Which schedule",
        "",
        f"{origin(head)} Accuracy on held-out training images, of the digits on the thirds that other benchmarks "
        "report; each seed (another split and another start). "
        "The default is SGD with Nesterov momentum 0.9, one cycle, "
        + ", ".join(f"{name}={value}" for name, value in default.items())
        + ".",
        "",
        "| parameters, else default | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for candidate, by_set in found.items():
        cells = [", ".join(f"{100 * a:.1f}" for a in by_set[name]) for name in names]
        lines.append(f"| `{candidate}` | " + " | ".join(cells) + " |")
    write("schedule", lines, {**head, "accuracies": found})
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
