"""The effect of `calibrate` on probabilities, on three sets of real images.

    python benchmarks/calibration.py cifar10.npz NEU-DET breastmnist.npz    # some minutes on one core

cifar10.npz holds X_train, y_train, X_test, y_test, uint8 images (n, 32, 32, 3) and labels; NEU-DET the folders train
and test with a folder for each class; breastmnist.npz is the file that MedMNIST publishes. One half of the test images,
drawn by class, calibrates, and the other half is measured. Writes benchmarks/results/calibration.md and .json.
"""

import sys
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
from _common import machine, origin, versions, write
from _decision_sets import sets
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier

BINS = 15


def expected_calibration_error(probabilities, right, bins=BINS):
    """ECE: the mean over images of the difference between confidence and accuracy in bins of equal width."""
    confidence = probabilities.max(axis=1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[index == b].sum() - right[index == b].sum()) for b in range(bins)]
    return sum(gaps) / len(right)


def measured(clf, X, y):
    probabilities, classes = clf.predict_proba(X).astype(np.float64), clf.classes_
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    right = classes[probabilities.argmax(axis=1)] == y
    return {
        "ece": expected_calibration_error(probabilities, right),
        "nll": log_loss(y, probabilities, labels=classes),
        "accuracy": right.mean(),
        "confidence": probabilities.max(axis=1).mean(),
    }


def main(*paths):
    start, rows = time.perf_counter(), {}
    for name, (X, y, X_test, y_test, params) in sets(*paths).items():
        clf = GCMClassifier(random_state=0, **params).fit(X, y)
        X_cal, X_held, y_cal, y_held = train_test_split(X_test, y_test, test_size=0.5, stratify=y_test, random_state=0)
        row = {"images": [len(X_cal), len(X_held)], "before": measured(clf, X_held, y_held)}
        isotonic = CalibratedClassifierCV(FrozenEstimator(deepcopy(clf)), method="isotonic").fit(X_cal, y_cal)
        row["after"] = measured(clf.calibrate(X_cal, y_cal), X_held, y_held)
        row["isotonic"], row["temperature"] = measured(isotonic, X_held, y_held), clf.temperature_
        row["seconds"] = time.perf_counter() - start
        rows[name] = row
        print(name, row, flush=True)
    head = {
        "command": "python benchmarks/calibration.py " + " ".join(Path(path).name for path in paths),
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "seconds": time.perf_counter() - start,
    }
    lines = [
        "# Probabilities before and after `calibrate`",
        "",
        f"{origin(head)} One seed, else the default parameters. One half of the test images calibrates, the other half "
        f"is measured. ECE: expected calibration error, {BINS} bins of equal width (0: probabilities are right on "
        "average). NLL: negative log-likelihood of the true class (smaller is better). Confidence: mean of the largest "
        "probability, which should equal the accuracy. Isotonic: scikit-learn's `CalibratedClassifierCV`, which does "
        "not change maps.",
        "",
        "| images | calibrating, measured | | temperature | ECE | NLL | confidence | accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = f"{name} | {row['images'][0]}, {row['images'][1]}"
        for stage, title, temperature in (
            ("before", "before", "1"),
            ("after", "**`calibrate`**", f"{row['temperature']:.2f}"),
            ("isotonic", "isotonic", ""),
        ):
            m = row[stage]
            percent = {key: f"{100 * m[key]:.1f} %" for key in ("ece", "confidence", "accuracy")}
            lines.append(
                f"| {cells} | {title} | {temperature} | {percent['ece']} | {m['nll']:.3f} | {percent['confidence']} "
                f"| {percent['accuracy']} |"
            )
            cells = " |"
    write("calibration", lines, {**head, "rows": rows})
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
