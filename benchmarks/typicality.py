"""Which images can `typicality` distinguish from those of the training set?

    python benchmarks/typicality.py cifar10.npz NEU-DET breastmnist.npz    # some minutes on one core

The files are those of benchmarks/calibration.py, and so are the fits. Writes benchmarks/results/typicality.md and
.json.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
from _common import machine, origin, versions, write
from _decision_sets import sets
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from skgcm import GCMClassifier
from skgcm.typicality import STRANGE

MOST = 400  # images of a kind


def resized(images, like):
    """Grey or colour uint8 images (n, ...) in the size and with the channels of others (m, R, C, D)."""
    _, rows, columns, channels = like.shape
    mode = "L" if channels == 1 else "RGB"
    pictures = [
        Image.fromarray(image).convert(mode).resize((columns, rows), Image.Resampling.BILINEAR) for image in images
    ]
    return np.stack([np.asarray(picture).reshape(rows, columns, channels) for picture in pictures])


def other_kinds(X, photos):
    """{name: images} made of held-out images (n, R, C, D), and of none of them."""
    rng = np.random.default_rng(0)
    digits = (load_digits().images[:MOST] / 16 * 255).astype(np.uint8)

    def exposed(factor):
        return (X * float(factor)).clip(0, 255).astype(np.uint8)

    return {
        "digits": resized(digits, X),
        "noise": rng.integers(0, 256, X.shape, dtype=np.uint8),
        "plain grey": np.full(X.shape, rng.integers(0, 256, (len(X), 1, 1, 1)), dtype=np.uint8),
        "other photos": resized(photos[:MOST], X),
        "exposure × 4": exposed(4),
        "exposure × 1/4": exposed(1 / 4),
        "exposure × 2": exposed(2),
        "exposure × 1/2": exposed(1 / 2),
        "blurred by 2 pixels": gaussian_filter(X.astype(float), (0, 2, 2, 0)).astype(np.uint8),
        "noise of 10 % added": (X + rng.normal(0, 25.5, X.shape)).clip(0, 255).astype(np.uint8),
        "upside down": X[:, ::-1],
    }


def measured(clf, X, photos):
    X = X if X.ndim == 4 else X[..., None]
    usual = clf.typicality(X)
    found = {"held out": {"n": len(X), "auroc": None, "strange": (usual < STRANGE).mean(), "median": np.median(usual)}}
    some = X[np.random.default_rng(0).permutation(len(X))[:MOST]]
    for kind, images in other_kinds(some, photos).items():
        other = clf.typicality(images)
        truth = np.r_[np.zeros(len(usual)), np.ones(len(other))]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            probability = clf.predict_proba(images).max(axis=1).mean()
        found[kind] = {
            "n": len(images),
            "auroc": roc_auc_score(truth, -np.r_[usual, other]),
            "strange": (other < STRANGE).mean(),
            "median": np.median(other),
            "warned": any("unlike the training images" in str(w.message) for w in caught),
            "probability": probability,
        }
    return found


def main(*paths):
    start, rows, chosen = time.perf_counter(), {}, sets(*paths)
    cifar = next(data for name, data in chosen.items() if name.startswith("CIFAR"))[2]
    breast = next(data for name, data in chosen.items() if name.startswith("Breast"))[0]
    for name, (X, y, X_test, y_test, params) in chosen.items():
        clf = GCMClassifier(random_state=0, **params).fit(X, y)
        rows[name] = measured(clf, X_test, breast if name.startswith("CIFAR") else cifar)
        rows[name]["held out"]["accuracy"] = (clf.predict(X_test) == y_test).mean()
        print(name, rows[name], flush=True)
    head = {
        "command": "python benchmarks/typicality.py " + " ".join(Path(path).name for path in paths),
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "seconds": time.perf_counter() - start,
    }
    lines = [
        "# Images of another kind",
        "",
        f"{origin(head)} One seed, else the default parameters. AUROC: how well `typicality` finds images of another "
        f"kind among held-out images (0.5: not at all, 1: always). Strange: share with a typicality below {STRANGE:g}; "
        "of the held-out images these are false alarms. Warned: whether `predict` warns about these images, up to "
        f"{MOST} in a call. Probability: mean of the highest one. Other photos: CIFAR-10, for CIFAR-10 BreastMNIST. "
        "Exposures are clipped at white. Blur and noise: standard deviation, noise as a share of the value range.",
    ]
    for name, found in rows.items():
        held = found["held out"]
        lines += [
            "",
            f"## {name}",
            "",
            f"Of {held['n']:,} held-out images {100 * held['strange']:.1f} % are called strange; median of their "
            f"typicality {held['median']:.2f}. Accuracy {100 * held['accuracy']:.1f} %.",
            "",
            "| images | AUROC | strange | median | warned | probability |",
            "|---|---|---|---|---|---|",
        ]
        for kind, m in found.items():
            if kind != "held out":
                lines.append(
                    f"| {kind} | {m['auroc']:.3f} | {100 * m['strange']:.0f} % | {m['median']:.3f} "
                    f"| {'yes' if m['warned'] else 'no'} | {m['probability']:.2f} |"
                )
    write("typicality", lines, {**head, "rows": rows})
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
