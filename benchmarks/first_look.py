"""What the README shows: accuracy on handwritten digits with default parameters, and evidence on real colour images.

    python benchmarks/first_look.py cifar10.npz

cifar10.npz holds X_train, y_train, X_test, y_test, uint8 images (n, 32, 32, 3) and labels 0 to 9. Writes
benchmarks/results/first-look.md and .json, and docs/cifar10.png.

--keep FOLDER   checkpoints, as of benchmarks/evidence.py --epochs 12, whose fit is the same
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _common import cifar10, machine, origin, versions, write
from _fits import keeping
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import ContributionDisplay, GCMClassifier
from skgcm.metrics import additivity_error

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 12


def digits(seeds=(0, 1, 2)):
    X, y = load_digits(return_X_y=True)
    accuracies, seconds = [], []
    for seed in seeds:
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=seed)
        start = time.perf_counter()
        clf = GCMClassifier(random_state=seed).fit(X_train, y_train)
        seconds.append(time.perf_counter() - start)
        accuracies.append(clf.score(X_test, y_test))
    return {"accuracies": accuracies, "mean": np.mean(accuracies), "slowest_fit_s": max(seconds)}


def colour(X, y, X_test, y_test, fit):
    clf, seconds = fit("GCM", {"max_epochs": EPOCHS, "augment": "shift+flip", "random_state": 0}, X, y)
    evidence = clf.explain(X_test[:1000], "all")
    error = additivity_error(evidence.ccm, evidence.scores)
    shown = [int(np.flatnonzero(y_test == name)[0]) for name in ("ship", "frog", "horse", "airplane")]  # not selected
    display = ContributionDisplay.from_estimator(clf, X_test[shown], y_test[shown], classes="top-2")
    accuracy = clf.score(X_test, y_test)
    return {"accuracy": accuracy, "fit_s": seconds, "additivity_error": error}, display


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10")
    parser.add_argument("--keep")
    args = parser.parse_args()
    run, display = colour(*cifar10(args.cifar10), keeping(args.keep))
    display.figure_.savefig(ROOT / "docs" / "cifar10.png", dpi=100)
    result = {
        "command": "python benchmarks/first_look.py cifar10.npz",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "digits": digits(),
        "cifar10": run,
    }
    small = result["digits"]
    lines = [
        "# First look",
        "",
        origin(result),
        "",
        "| | |",
        "|---|---|",
        f"| digits, a third held out, default parameters: accuracy, mean of 3 seeds | {small['mean']:.4f} |",
        f"| the three | {', '.join(f'{a:.4f}' for a in small['accuracies'])} |",
        f"| slowest of the three fits, s | {small['slowest_fit_s']:.1f} |",
        f"| CIFAR-10, {EPOCHS} epochs, shifts and flips: accuracy on test images, one seed | {run['accuracy']:.4f} |",
        f"| its fit, s | {run['fit_s']:.0f} |",
        "| its largest difference of a map's mean from its score, as a part of the largest score; 1,000 images, "
        f"10 classes | {run['additivity_error']:.1e} |",
    ]
    write("first-look", lines, result)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
