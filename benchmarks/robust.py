"""Does GCM learn images for which its default parameters were not chosen?

    python benchmarks/robust.py --cifar10 cifar10.npz --svhn svhn.npz --neu NEU-DET --breast breastmnist.npz

The .npz files of CIFAR-10 and SVHN have X_train, y_train, X_test and y_test, breastmnist.npz is MedMNIST's file, and
NEU-DET is a folder with train/CLASS/FILE.jpg, test/CLASS/FILE.jpg and boxes.csv. Needs the extra `bench`.
Writes benchmarks/results/robust.md and .json.

--sets SET ...   some of the sets; the rows of the others stay as they are in the file
--rows ROW ...   some of the classifiers; the other rows stay too
--seeds N ...    each seed draws its own images and weights
--jobs N         number of fits at once, one thread each
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _cnn import StandardisedCNNClassifier
from _common import RESULTS, machine, origin, versions, write
from _robust_sets import (
    SIDE,
    arrays,
    boxes_as_masks,
    breast,
    digits_on_gradients,
    drawn_defects,
    faint,
    few,
)
from _steel import read_boxes
from joblib import Parallel, delayed
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder

CHOSEN_ON = ("digits on gradients", "NEU-DET, a fifth of its contrast", "NEU-DET, 25 a class", "CIFAR-10, 50 a class")
REPORTED = ("NEU-DET, 10 a class", "drawn defects", "BreastMNIST", "SVHN, 500 images")
SETS = CHOSEN_ON + REPORTED


def hog_features(X):
    """Histograms of oriented gradients, in cells of 8 x 8 pixels: (n, features)."""
    return np.stack([hog(image, 9, (8, 8), (2, 2), channel_axis=None if X.ndim == 3 else -1) for image in X])


def flat(X):
    return X.reshape(len(X), -1) / 255


CLASSIFIERS = {
    "GCM": lambda seed: GCMClassifier(random_state=seed),
    "GCM, the paper's network": lambda seed: GCMClassifier(architecture="paper", random_state=seed),
    "CNN": lambda seed: StandardisedCNNClassifier(random_state=seed),
    "HOG + SVM": lambda seed: make_pipeline(FunctionTransformer(hog_features), SVC(C=10)),
    "logistic regression": lambda seed: make_pipeline(
        FunctionTransformer(flat), StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)
    ),
}


def make(name, args, seed):
    """The images of a set."""
    rng = np.random.default_rng([seed, SETS.index(name)])
    if name == "digits on gradients":
        return digits_on_gradients(rng)
    if name == "BreastMNIST":
        return breast(args.breast)
    if name == "SVHN, 500 images":
        return few(*arrays(args.svhn), rng, per_class=50)
    if name == "CIFAR-10, 50 a class":
        return few(*arrays(args.cifar10), rng, per_class=50)
    if name == "drawn defects":
        (textures, _), (test_textures, _) = (
            load_image_folder(Path(args.neu) / part, mode="L") for part in ("train", "test")
        )
        return drawn_defects(textures, test_textures, rng)
    X, y = load_image_folder(Path(args.neu) / "train", size=SIDE, mode="L")
    X_test, y_test, paths = load_image_folder(Path(args.neu) / "test", size=SIDE, mode="L", return_paths=True)
    images = few(X, y, X_test, y_test, rng, per_class={SETS[1]: 60, SETS[2]: 25}.get(name, 10))
    images.masks = boxes_as_masks(read_boxes(args.neu, paths, SIDE), SIDE)
    return faint(images, rng) if name == SETS[1] else images


def measure(name, row, seed, args):
    """One fit: accuracy on training and held-out images, and of GCM the share of the evidence in the masks."""
    torch.set_num_threads(1)
    images, start = make(name, args, seed), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit near chance warns, and its row shows it too
        clf = CLASSIFIERS[row](seed).fit(images.X, images.y)
    found = {"seconds": time.perf_counter() - start, "n": len(images.X)}
    found |= {"train": clf.score(images.X, images.y), "test": clf.score(images.X_test, images.y_test)}
    if name == "BreastMNIST":
        found["auc"] = roc_auc_score(images.y_test, clf.decision_function(images.X_test))
    if images.masks is not None and row.startswith("GCM"):
        maps = clf.explain(images.X_test, images.y_test[:, None]).pixel_contributions[:, 0]
        found |= {"inside": share_inside(maps, images.masks), "chance": float(images.masks.mean())}
    return found


def share_inside(maps, masks):
    """Mean over the images of the part of the positive evidence that lies in the mask."""
    positive = maps.clip(0).astype(float)
    return float(((positive * masks).sum((1, 2)) / positive.sum((1, 2)).clip(1e-12)).mean())


def table(cells):
    """Lines of the table, from {(set, row): list of what was measured}."""
    heads = ["set", "classifier", "training images", "accuracy on them", "held-out accuracy (each seed)", "AUC"]
    heads += ["in masks (area)", "fit, s"]
    lines = [
        "Default parameters; the mean over the seeds, each with its own images. GCM's network reads each image "
        "standardised, and so does the CNN of the same size, which is trained by the same code. HOG: 9 orientations, "
        "cells of 8 x 8 pixels, an SVM with an RBF kernel and C=10. In masks: share of GCM's positive evidence for the "
        "true class that lies in the boxes or drawn defects of the held-out images, and the share of the area that "
        "these have.",
        "",
        f"The defaults were chosen on {', '.join(CHOSEN_ON)}. Nothing was chosen on the others.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for name in SETS:
        for row in CLASSIFIERS:
            runs = cells.get((name, row))
            if not runs:
                continue
            mean = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
            each = ", ".join(f"{run['test']:.3f}" for run in runs)
            auc = f"{mean['auc']:.3f}" if "auc" in mean else ""
            inside = f"{mean['inside']:.3f} ({mean['chance']:.3f})" if "inside" in mean else ""
            row_cells = [name, row, f"{mean['n']:.0f}", f"{mean['train']:.3f}", f"{mean['test']:.3f} ({each})", auc]
            lines.append(f"| {' | '.join([*row_cells, inside, format(mean['seconds'], '.0f')])} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar10", "svhn", "neu", "breast"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--rows", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    path, cells = RESULTS / "robust.json", {}
    if path.exists():
        cells = {tuple(cell["of"]): cell["runs"] for cell in json.loads(path.read_text())["cells"]}
    head = {
        "command": "python benchmarks/robust.py --cifar10 cifar10.npz --svhn svhn.npz --neu NEU-DET --breast "
        f"breastmnist.npz --seeds {' '.join(map(str, args.seeds))} --jobs {args.jobs}",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
    }
    wanted = [(name, row) for name in args.sets for row in args.rows]
    measured = Parallel(args.jobs, return_as="generator")(
        delayed(measure)(name, row, seed, args) for name, row in wanted for seed in args.seeds
    )
    for cell in wanted:  # written one by one: an interruption loses nothing
        cells[cell] = [next(measured) for _ in args.seeds]
        lines = ["# Images that nobody chose the defaults for", "", origin(head), "", *table(cells)]
        write("robust", lines, {**head, "cells": [{"of": of, "runs": runs} for of, runs in cells.items()]})
        print(cell, cells[cell], flush=True)


if __name__ == "__main__":
    main()
