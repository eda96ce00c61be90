"""GCM on a pretrained encoder against the same encoder with pooling and a linear layer.

    python benchmarks/encoders.py --neu NEU-DET --breast breastmnist.npz

NEU-DET is a folder as for benchmarks/robust.py, breastmnist.npz is MedMNIST's file. The encoder is EfficientNet-Lite0,
trained on ImageNet, which comes in a package. Needs the extra `bench`. Writes benchmarks/results/encoders.md and .json.

--sets SET ...   neu, breast
--sizes N ...    training images a class of NEU-DET, or "all"
--rows ROW ...   some of the classifiers; the other cells stay as they are in the file
--seeds N ...    each seed draws its own images and weights, the same images for all rows
--size N         rows and columns of the images of NEU-DET (BreastMNIST: 64)
--epochs N       of all rows but GCM from scratch, which has its default; default: GCM's own with an encoder
--jobs N         number of fits at once, one thread each
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, machine, origin, versions, write
from _linear import LITE0, LinearClassifier, lite0_weights
from _robust_sets import Images, boxes_as_masks, breast, few, resized
from _steel import read_boxes
from joblib import Parallel, delayed
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from robust import hog_features
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder
from skgcm.metrics import additivity_error, energy_in_boxes, pointing_game

OPTIONS = {"mosaic": 0.15, "sparsity": 1.0, "erasing": 0.1}
SCRATCH, ENCODER, EVIDENCE = "GCM from scratch", "GCM on the encoder", "GCM on the encoder, evidence options"
LINEAR, HOG = "linear layer on the encoder", "HOG + SVM"
ROWS = (SCRATCH, ENCODER, EVIDENCE, LINEAR, HOG)
MAPPED = 120  # held-out images whose maps are measured
BREAST_SIDE = 64


def make(name, size, side, seed, args):
    """The images of a set, and the boxes of those held-out images that maps are made of, with their indices."""
    rng = np.random.default_rng(seed)
    if name == "breast":
        images = breast(args.breast)
        images.X, images.X_test = (np.stack([resized(image, side) for image in x]) for x in (images.X, images.X_test))
        return images, None
    X, y = load_image_folder(Path(args.neu) / "train", size=side, mode="L")
    X_test, y_test, paths = load_image_folder(Path(args.neu) / "test", size=side, mode="L", return_paths=True)
    boxes = read_boxes(args.neu, paths, side)
    images = Images(X, y, X_test, y_test) if size == "all" else few(X, y, X_test, y_test, rng, per_class=int(size))
    return images, boxes


def build(row, seed, weights, epochs):
    shared = {"augment": "shift+flip", "random_state": seed, "device": "cpu"}
    if row == HOG:
        return make_pipeline(FunctionTransformer(hog_features), SVC(C=10))
    if row == SCRATCH:
        return GCMClassifier(**shared)
    shared |= {"encoder": LITE0, "encoder_weights": weights, "max_epochs": epochs}
    return {ENCODER: GCMClassifier, EVIDENCE: GCMClassifier, LINEAR: LinearClassifier}[row](
        **shared, **(OPTIONS if row == EVIDENCE else {})
    )


def linear_maps(clf, X, y):
    """{method: maps of the true classes (n, H, W)}, and how far the mean of CAM's is from the score."""
    network = clf.net_.network.eval()
    images = clf.net_.image_format.scale(torch.from_numpy(X).reshape(len(X), 1, *X.shape[1:3]))
    targets = np.searchsorted(clf.classes_, y)
    last = network.encoder.model.blocks[-1]
    found = {}
    for name, method in (("Grad-CAM", GradCAM), ("HiResCAM", HiResCAM)):
        with method(model=network, target_layers=[last]) as attribute:
            found[name] = np.concatenate(
                [
                    attribute(
                        input_tensor=images[i : i + 20], targets=list(map(ClassifierOutputTarget, targets[i : i + 20]))
                    )
                    for i in range(0, len(images), 20)
                ]
            )
    with torch.no_grad():
        classes = torch.from_numpy(targets)[:, None]
        found["CAM"] = network.cam(images, classes)[:, 0].numpy()
        coarse = torch.einsum("bchw,bc->bhw", network.encoder(images)[-1], network.head.weight[classes[:, 0]])
        scores = network(images).gather(1, classes)[:, 0] - network.head.bias[classes[:, 0]]
    return found, additivity_error(coarse[:, None].numpy(), scores[:, None].numpy())


def measure(name, size, row, side, seed, weights, args):
    """One fit: its accuracy and, for each method that explains it, where the evidence lies."""
    torch.set_num_threads(1)
    images, boxes = make(name, size, side, seed, args)
    epochs = "auto" if args.epochs is None else args.epochs
    wall, start = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit near chance warns, and its row shows it too
        clf = build(row, seed, weights, epochs).fit(images.X, images.y)
    found = {"cpu": time.process_time() - start, "seconds": time.perf_counter() - wall, "n": len(images.X)}
    predicted = clf.predict(images.X_test)
    found["accuracy"] = float((predicted == images.y_test).mean())
    found["balanced"] = balanced_accuracy_score(images.y_test, predicted)
    found["methods"] = {}
    if row == HOG:
        return found
    chosen = np.arange(0, len(images.X_test), max(1, len(images.X_test) // MAPPED))
    X, y = images.X_test[chosen], images.y_test[chosen]
    if row == LINEAR:
        maps, error = linear_maps(clf, X, y)
    else:
        evidence = clf.explain(X, "all")
        error = additivity_error(evidence.ccm, evidence.scores)
        own = evidence.pixel_contributions[np.arange(len(X)), np.searchsorted(clf.classes_, y)]
        maps = {"contributions": own}
    for method, of_method in maps.items():
        part = {"error": error} if method in ("CAM", "contributions") else {}
        if boxes is not None:
            of_images = [boxes[i] for i in chosen]
            part["inside"] = float(np.nanmean(energy_in_boxes(of_method.clip(0), of_images)))
            part["pointing"] = float(np.nanmean(pointing_game(of_method, of_images)))
            part["chance"] = float(boxes_as_masks(of_images, side).mean())
        found["methods"][method] = part
    return found


def table(cells):
    """Lines of the table, from {(set, images a class, side, epochs, row): {seed: what was measured}}."""
    heads = ["set", "images a class", "side, epochs", "classifier", "accuracy (each draw)", "balanced", "fit, CPU s"]
    heads += ["maps", "evidence in boxes (area)", "pointing", "additivity error"]
    lines = [
        "The mean over the draws, each with its own training images and weights; all official test images of NEU-DET. "
        "The encoder is EfficientNet-Lite0, trained on ImageNet. GCM and the linear layer are fine-tuned alike: flips "
        "and shifts, AdamW, a tenth of the learning rate for the encoder. Evidence options: mosaic=0.15, sparsity=1, "
        f"erasing=0.1. Maps are those of the true class, of {MAPPED} test images; what is positive counts. HOG: 9 "
        "orientations, cells of 8 x 8 pixels, an SVM with an RBF kernel and C=10.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    order = sorted(
        cells, key=lambda of: (of[0], of[1] == "all", int(of[1]) if of[1] != "all" else 0, ROWS.index(of[4]))
    )
    for of in order:
        name, size, side, epochs, row = of
        runs = list(cells[of].values())
        each = ", ".join(f"{run['accuracy']:.3f}" for run in runs)
        mean = {key: np.mean([run[key] for run in runs]) for key in ("accuracy", "balanced", "cpu")}
        start = [
            name,
            size,
            f"{side}, {epochs}" if epochs else str(side),
            row,
            f"{mean['accuracy']:.3f} ({each})",
            f"{mean['balanced']:.3f}",
        ]
        start.append(f"{mean['cpu']:.0f}")
        for method in runs[0]["methods"] or {"": {}}:
            parts = [run["methods"].get(method, {}) for run in runs]
            shown = {key: np.mean([part[key] for part in parts]) for key in parts[0]}
            inside = f"{shown['inside']:.3f} ({shown['chance']:.3f})" if "inside" in shown else ""
            pointing = f"{shown['pointing']:.3f}" if "pointing" in shown else ""
            error = f"{max(part['error'] for part in parts):.0e}" if "error" in shown else ""
            lines.append(f"| {' | '.join([*start, method, inside, pointing, error])} |")
            start = [""] * len(start)
    return lines


def known_cells():
    path = RESULTS / "encoders.json"
    found = json.loads(path.read_text())["cells"] if path.exists() else []
    return {tuple(cell["of"]): cell["runs"] for cell in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neu", required=True)
    parser.add_argument("--breast")
    parser.add_argument("--sets", nargs="+", choices=("neu", "breast"), default=["neu"])
    parser.add_argument("--sizes", nargs="+", default=["5", "10", "25", "all"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    shown = shlex.join(["encoders.py", *sys.argv[1:]]).replace(args.neu, "NEU-DET")
    head = {
        "command": f"python benchmarks/{shown.replace(args.breast or 'breastmnist.npz', 'breastmnist.npz')}",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch", "timm"),
    }
    wanted = [
        (name, size, args.size if name == "neu" else BREAST_SIDE, row, seed)
        for name in args.sets
        for size in (args.sizes if name == "neu" else ["all"])
        for seed in args.seeds
        for row in args.rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        weights = lite0_weights(Path(folder) / "lite0.pth")
        measured = Parallel(args.jobs, return_as="generator")(
            delayed(measure)(name, size, row, side, seed, weights, args) for name, size, side, row, seed in wanted
        )
        for (name, size, side, row, seed), run in zip(wanted, measured, strict=True):  # so no result is lost
            epochs = "" if row == HOG else args.epochs if args.epochs and row != SCRATCH else "auto"
            cells = known_cells()  # read each time: several processes may fill the table
            cells.setdefault((name, size, side, epochs, row), {})[str(seed)] = run
            lines = ["# Pretrained encoders", "", origin(head), "", *table(cells)]
            write("encoders", lines, {**head, "cells": [{"of": of, "runs": runs} for of, runs in cells.items()]})
            print(name, size, row, seed, run, flush=True)


if __name__ == "__main__":
    main()
