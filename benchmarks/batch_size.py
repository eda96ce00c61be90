"""The best batch size for few images: `batch_size="auto"`, the sizes from which it chooses, and fewer epochs.

    python benchmarks/batch_size.py cifar10.npz NEU-DET/train    # about 22 minutes on two cores

The data are those of schedule.py; of CIFAR-10 and NEU-DET only training images are used. Up to 2,000 of
those that are not in the fit are scored. Writes benchmarks/results/batch-size.md and .json.
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

SIZES = (16, 32, 64)
CANDIDATES = {str(size): {"batch_size": size} for size in SIZES} | {"`auto`, 30 epochs": {"max_epochs": 30}}
SEEDS = (0, 1)
SCORED = 2000


def sets(cifar10_path, neu_det):
    """{name: (X, y, numbers of images, parameters of the fit)}."""
    X, y, _, _ = cifar10(cifar10_path)
    return {
        "digits": (*load_digits(return_X_y=True), (100, 200, 400, 800), {}),
        "CIFAR-10": (X, y, (500,), {"augment": "shift+flip"}),
        "NEU-DET at 64 × 64": (*load_image_folder(neu_det, size=64), (360,), {"augment": "shift+flip"}),
    }


def fitted(X, y, n, seed, params):
    """Accuracy, and the seconds of the epochs."""
    X_fit, X_held, y_fit, y_held = train_test_split(X, y, train_size=n, stratify=y, random_state=seed)
    clf = GCMClassifier(random_state=seed, **params).fit(X_fit, y_fit)
    return clf.score(X_held[:SCORED], y_held[:SCORED]), sum(epoch["dur"] for epoch in clf.history_)


def main(cifar10_path, neu_det):
    start, found, device = time.perf_counter(), [], resolve_device("auto")
    for name, (X, y, numbers, params) in sets(cifar10_path, neu_det).items():
        for n in numbers:
            auto = resolve_schedule(GCMClassifier().get_params(), device, n)["batch_size"]
            row = {"set": name, "images": n, "auto": auto, "accuracies": {}, "seconds": {}}
            for title, changes in CANDIDATES.items():
                fits = [fitted(X, y, n, seed, {**params, **changes}) for seed in SEEDS]
                row["accuracies"][title], row["seconds"][title] = zip(*fits, strict=True)
            found.append(row)
            print(row, flush=True)
    head = {
        "command": f"python benchmarks/batch_size.py {Path(cifar10_path).name} NEU-DET/train",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "seconds": time.perf_counter() - start,
    }
    lines = [
        "# Batches of few images",
        "",
        f"{origin(head)} Accuracy on images held out, mean of two seeds (other images, another start) and the seeds, "
        "and the shorter fit, by batch size; else the default parameters, and flips but for the digits. "
        "In bold what `auto` takes.",
        "",
        "| | images | " + " | ".join(CANDIDATES) + " |",
        "|---|---|" + "---|" * len(CANDIDATES),
    ]
    for row in found:
        cells = []
        for title, accuracies in row["accuracies"].items():
            mean = f"{100 * sum(accuracies) / len(accuracies):.1f}"
            mean = f"**{mean}**" if title == str(row["auto"]) else mean
            each = ", ".join(f"{100 * a:.1f}" for a in accuracies)
            cells.append(f"{mean} ({each}), {min(row['seconds'][title]):.0f} s")
        lines.append(f"| {row['set']} | {row['images']} | " + " | ".join(cells) + " |")
    write("batch-size", lines, {**head, "found": found})
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
