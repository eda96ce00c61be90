"""How do masks for a part of the training images change the accuracy and where the evidence lies?

    python benchmarks/guidance.py --neu NEU-DET

NEU-DET is a folder with train/CLASS/FILE.jpg, test/CLASS/FILE.jpg and boxes.csv. Needs the extra `bench`.
Writes benchmarks/results/guidance.md and .json; other rows in the files stay.

--sets SET ...       some of the sets
--shares SHARE ...   some of the shares of training images with masks, in percent
--seeds N ...        each seed draws weights and which images have masks, and of the drawn defects the images
--jobs N             number of fits at once, one thread each
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, machine, origin, versions, write
from _robust_sets import SIDE, Images, boxes_as_masks, drawn_defects
from _steel import read_boxes
from joblib import Parallel, delayed

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder
from skgcm.metrics import additivity_error, evidence_report


@dataclass
class Task:
    """A set, in which shares (percent) of the training images get masks, and how it is learned."""

    shares: tuple
    params: dict


TASKS = {
    "NEU-DET": Task((0, 5, 20, 100), {"augment": "flip+rotate", "max_epochs": 12, "batch_size": 16}),
    "textures": Task((0, 10, 100), {"augment": "shift+flip+rotate", "max_epochs": 40, "batch_size": 16}),
}
CELLS = [(name, share) for name, task in TASKS.items() for share in task.shares]


def make(name, folder, seed):
    """The images of a set and all masks."""
    if name == "textures":
        (textures, _), (test_textures, _) = (load_image_folder(folder / part, mode="L") for part in ("train", "test"))
        return drawn_defects(textures, test_textures, np.random.default_rng([seed, 5]))
    parts = []
    for split in ("train", "test"):
        X, y, paths = load_image_folder(folder / split, size=SIDE, mode="L", return_paths=True)
        parts.append((X, y, boxes_as_masks(read_boxes(folder, paths, SIDE, split), SIDE)))
    (X, y, training_masks), (X_test, y_test, masks) = parts
    return Images(X, y, X_test, y_test, masks, training_masks)


def some(masks, y, share, rng):
    """Masks of that share (percent) of the images of each class, and None for the others."""
    chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        of_class = rng.permutation(np.flatnonzero(y == label))
        chosen[of_class[: round(share / 100 * len(of_class))]] = True
    return [mask if given else None for mask, given in zip(masks, chosen, strict=True)]


def measure(name, share, seed, folder):
    """One fit with masks for that share (percent) of the images."""
    torch.set_num_threads(1)
    images = make(name, folder, seed)
    masks = some(images.training_masks, images.y, share, np.random.default_rng([seed, 7])) if share else None
    clf = GCMClassifier(device="cpu", random_state=seed, **TASKS[name].params)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit near chance warns, and its row shows it too
        clf.fit(images.X, images.y, masks=masks)
    seconds = time.process_time() - start
    found = evidence_report(clf, images.X_test, images.y_test, images.masks).overall
    evidence = clf.explain(images.X_test[:100])
    return {
        "seconds": seconds,
        "train": clf.score(images.X, images.y),
        "test": clf.score(images.X_test, images.y_test),
        "additivity": additivity_error(evidence.ccm, evidence.scores),
        **found,
    }


def table(cells):
    """Lines of the table, from {(set, share): {seed: what was measured}}."""
    heads = ["set", "with masks, %", "held-out accuracy (each seed)", "on training images", "evidence in masks (area)"]
    heads += ["largest evidence in one", "right if inside", "right if not", "additivity error", "CPU time of the fit"]
    lines = [
        "`guidance` as by default. NEU-DET: 1,440 photos at 64 x 64, boxes as masks, 12 epochs in batches of 16, flips "
        "and quarter turns. Textures: the drawn defects of robust.md, whose class and texture go together in the 240 "
        "training images alone, masks of 1 % of the area, 40 epochs in batches of 16, shifts, flips and quarter turns. "
        "Of the held-out images: share of the positive evidence for the true class that lies in the masks, and whether "
        "the largest does; accuracy where that share is above the mask's share of the area, and where it is not. Times "
        "are CPU seconds of one thread, and what they are of the fit without masks.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for name, share in CELLS:
        runs = [run for _, run in sorted(cells.get((name, share), {}).items())]
        if not runs:
            continue
        mean = {key: np.nanmean([run[key] for run in runs]) for key in runs[0]}
        plain = [run["seconds"] for run in cells.get((name, 0), {}).values()]
        times = f" ({mean['seconds'] / np.mean(plain):.2f})" if plain and share else ""
        each = ", ".join(f"{run['test']:.3f}" for run in runs)
        row = [name, str(share), f"{mean['test']:.3f} ({each})", f"{mean['train']:.3f}"]
        row += [f"{mean['share']:.3f} ({mean['chance']:.3f})", f"{mean['pointing']:.3f}"]
        row += [f"{mean['accuracy_inside']:.3f}", f"{mean['accuracy_outside']:.3f}"]
        row += [f"{max(run['additivity'] for run in runs):.0e}", f"{mean['seconds']:.0f}{times}"]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neu", required=True, type=Path)
    parser.add_argument("--sets", nargs="+", choices=TASKS, default=list(TASKS), metavar="SET")
    parser.add_argument("--shares", nargs="+", type=int, default=[0, 5, 10, 20, 100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    path, cells = RESULTS / "guidance.json", {}
    if path.exists():
        for cell in json.loads(path.read_text())["cells"]:
            cells[tuple(cell["of"])] = {int(seed): run for seed, run in cell["runs"].items()}
    head = {
        "command": "python benchmarks/guidance.py --neu NEU-DET",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
    }
    wanted = [(*cell, seed) for seed in args.seeds for cell in CELLS if cell[0] in args.sets and cell[1] in args.shares]
    measured = Parallel(args.jobs, return_as="generator")(delayed(measure)(*one, args.neu) for one in wanted)
    for (name, share, seed), found in zip(wanted, measured, strict=True):  # written one by one: no result is lost
        cells.setdefault((name, share), {})[seed] = found
        lines = ["# Masks for a part of the training images", "", origin(head), "", *table(cells)]
        write("guidance", lines, {**head, "cells": [{"of": of, "runs": runs} for of, runs in cells.items()]})
        print(name, share, seed, found, flush=True)


if __name__ == "__main__":
    main()
