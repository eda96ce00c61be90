"""Does the evidence lie on the object, and does the decision depend on it?

    python benchmarks/evidence.py --cifar10 cifar10.npz --neu NEU-DET              # all tables, seeds 0 and 1
    python benchmarks/evidence.py --cifar10 cifar10.npz --only cifar10 --epochs 30

cifar10.npz as for benchmarks/paper.py; NEU-DET is a folder with train/CLASS/FILE.jpg, test/CLASS/FILE.jpg and boxes.csv
(split, class, file, box_class, xmin, ymin, xmax, ymax in pixels). Writes benchmarks/results/evidence-PART.md and .json,
of cifar10 with the epochs, of neu with the side of the images, epochs and batch size in the name.

--only cifar10 | neu | digits    some of the tables
--rows ROW ...   some of the classifiers, by their names in OPTIONS; the tables then have these alone
--jobs N         N seeds at once, which share the processor's cores
--keep FOLDER    checkpoints: finished fits of the same data and parameters are not repeated, interrupted ones
                 continue; empty it when the code or the machine changes
"""

import argparse
import shlex
from collections import defaultdict
from pathlib import Path

import numpy as np
from _attribution import METHODS, STEPS, PostHoc, contrasts, contributions
from _common import RESULTS, cifar10, machine, origin, versions, write
from _fits import keeping
from _steel import draw, read_boxes
from joblib import Parallel, delayed
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm.datasets import load_image_folder
from skgcm.metrics import deletion_curve, energy_in_boxes, grid_pointing_game, pointing_game

NONE, MOSAIC, SPARSITY = {"sparsity": 0.0}, {"mosaic": 0.15}, {"sparsity": 1.0}
ALL = {**MOSAIC, **SPARSITY, "erasing": 0.1}
SETTINGS = (
    "GCM has the default, sparsity=0.3. Where a row says so: "
    f"mosaic={MOSAIC['mosaic']}, sparsity={SPARSITY['sparsity']}. All options: mosaic={ALL['mosaic']}, "
    f"sparsity={ALL['sparsity']}, erasing={ALL['erasing']}."
)
OPTIONS = {
    "GCM": {},
    "GCM, no penalty": NONE,
    "GCM, mosaic": MOSAIC,
    "GCM, more sparsity": SPARSITY,
    "GCM, all options": ALL,
    "GCM, the paper's network": {"architecture": "paper"},
    "CNN": {},
    "CNN, mosaic": MOSAIC,
}
# which of them a table has, in its order
CIFAR10 = list(OPTIONS)
DIGITS = [name for name in OPTIONS if name.startswith("GCM")]
NEU = ["GCM", "GCM, no penalty", "GCM, more sparsity", "GCM, all options", "GCM, the paper's network", "CNN"]
SHOWN = "GCM, all options"  # in the picture of steel
FEW = 50  # grids for Integrated Gradients, which takes STEPS times as long as the others
UNIFORM = "a map that is the same everywhere"
SHARE = 0.25  # share of the pixels, those of least evidence, that the decision should not need


def explainers(name, clf):
    """{row of the table: explain}, callables (X, labels) -> maps (n, k, R, C)."""
    if name.startswith("CNN"):
        return {f"{method} on the {name}": PostHoc(clf, method) for method in METHODS}
    return {name: contributions(clf), f"{name}: contrast": contrasts(clf)}


def each(runs, key, form):
    """Mean over the seeds (and each one), as text; empty without values."""
    values = [run[key] for run in runs if key in run]
    return f"{format(np.mean(values), form)} ({', '.join(format(value, form) for value in values)})" if values else ""


def true_class(explain, X, y):
    """The map of each image's own class, (n, R, C)."""
    parts = np.array_split(np.arange(len(X)), max(1, len(X) // 50))
    return np.concatenate([explain(X[part], y[part, None])[:, 0] for part in parts])


# ---- CIFAR-10 --------------------------------------------------------------------------------------------------------


def unaligned(explain, X, labels, indices, seed=42):
    """The grid pointing game on grids unlike those of training: cells of 24 to 40 pixels, off the lattice.

    Around them is the mean colour of their images, which are the regular game's, `indices` (m, 9). Returns the shares
    (m, 9).
    """
    rng, canvas, shares = np.random.default_rng(seed), 104, []
    for cells in indices:
        image, boxes = np.full((1, canvas, canvas, 3), X[cells].mean((0, 1, 2)).round(), X.dtype), []
        offset = rng.integers(0, canvas - 96 + 1, 2)
        heights, widths = (rng.permutation([24, 32, 40]) for _ in range(2))
        tops, lefts = (o + np.cumsum([0, *sizes[:2]]) for o, sizes in zip(offset, (heights, widths), strict=True))
        for cell, index in enumerate(cells):
            i, j = divmod(cell, 3)
            left, top, right, bottom = lefts[j], tops[i], lefts[j] + widths[j], tops[i] + heights[i]
            resized = Image.fromarray(X[index]).resize((int(widths[j]), int(heights[i])), Image.Resampling.BILINEAR)
            image[0, top:bottom, left:right] = np.asarray(resized)
            boxes.append([(left, top, right, bottom)])
        shares.append(energy_in_boxes(explain(image, labels[cells][None])[0], boxes))
    return np.array(shares)


def located(explain, X, y, proba, n_grids, everything=True):
    """{game: (mean, median)}, and of the first game the percentiles and the number of grids."""
    regular = grid_pointing_game(explain, X, y, proba, n_grids=n_grids, random_state=42)
    found = {"3 × 3": (regular.mean, regular.percentiles[50])}
    if everything:
        small = grid_pointing_game(explain, X, y, proba, side=2, n_grids=n_grids, random_state=42)
        shares = unaligned(explain, X, y, regular.indices)
        found |= {"2 × 2": (small.mean, small.percentiles[50]), "unaligned": (shares.mean(), np.median(shares))}
    return {"games": found, "percentiles": regular.percentiles, "grids": len(regular.indices)}


def dependence(clf, explain, X, y):
    """The effect of deleting and inserting pixels on the probability of the true class."""
    arguments = clf.predict_proba, X, true_class(explain, X, y), y
    least = deletion_curve(*arguments, classes=clf.classes_, order="least")
    most = deletion_curve(*arguments, classes=clf.classes_)
    black = deletion_curve(*arguments, classes=clf.classes_, order="least", fill="black", n_steps=round(1 / SHARE))
    at = int(np.flatnonzero(np.isclose(least.shares, SHARE))[0])
    before, after = least.probabilities[[0, at]]
    # inserting the most important first is deleting the least important first, read backwards
    kept = {"kept": after / before, "kept in black": black.probabilities[1] / before}
    return {"before": before, **kept, "deletion": most.area, "insertion": least.area}


def cifar10_rows(names, args, fit, seed):
    X, y, X_test, y_test = cifar10(args.cifar10)
    rows = {}
    for name in names:
        params = {"max_epochs": args.epochs, "augment": "shift+flip", **OPTIONS[name], "random_state": seed}
        clf, seconds = fit(name[:3], params, X, y)
        proba, accuracy = clf.predict_proba(X_test), clf.score(X_test, y_test)
        few = X_test[: args.images], y_test[: args.images]
        for row, explain in explainers(name, clf).items():
            slow = row.startswith("Integrated")
            n_grids = min(FEW, args.grids) if slow else args.grids
            found = {"mosaics": params.get("mosaic", 0) > 0, "accuracy": accuracy, "fit_s": seconds}
            found |= located(explain, X_test, y_test, proba, n_grids, everything=not slow)
            rows[row] = {**found, **dependence(clf, explain, *few)}
            print(row, seed, rows[row], flush=True)
    return rows


def cifar10_table(rows, args):
    text = (
        f"CIFAR-10, {args.epochs} epochs, shifts and flips, seeds {args.seeds}; means over the seeds, of the test "
        f"images. {SETTINGS} Accuracy, and seconds of a fit, {args.jobs} side by side: mean (each seed). "
        f"Grid pointing: share of the positive evidence that lies on its own image, mean / median, in up "
        f"to {args.grids} grids of the protocol, which takes the most confident images first ({FEW} for Integrated "
        f"Gradients, which has {STEPS} steps); unaligned: cells of 24 to 40 pixels at random places. "
        "Kept: probability of the true class after the 25 % of pixels with the least evidence became the mean colour, "
        "over the same before (in brackets), and the same with black: it is the mean colour that all options erase "
        "with in training. Deletion (most "
        f"evidence first, less is better) and insertion (more is better): area under the curve, {args.images:,} "
        "images. Contrast: GCM's map less the mean map of all classes; the post-hoc methods explain a CNN of the same "
        "size, trained alike."
    )  # fmt: skip
    heads = ["maps", "saw mosaics", "accuracy", "3 × 3", "2 × 2", "unaligned"]
    heads += ["kept", "kept in black", "deletion", "insertion", "fit, s"]
    lines = [text, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, runs in rows.items():
        keys = "before", "kept", "kept in black", "deletion", "insertion"
        mean = {key: np.mean([run[key] for run in runs]) for key in keys}
        cells = [row, "yes" if runs[0]["mosaics"] else "no", each(runs, "accuracy", ".2%")]
        for game in ("3 × 3", "2 × 2", "unaligned"):
            both = [run["games"][game] for run in runs if game in run["games"]]
            cells.append(" / ".join(f"{value:.3f}" for value in np.mean(both, axis=0)) if both else "")
        cells.append(f"{mean['kept']:.3f} ({mean['before']:.3f})")
        cells += [f"{mean[key]:.3f}" for key in ("kept in black", "deletion", "insertion")]
        cells.append(each(runs, "fit_s", ".0f"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# ---- NEU-DET ---------------------------------------------------------------------------------------------------------


def neu_name(args):
    return f"evidence-neu-{args.size}-{args.neu_epochs}-{args.neu_batch}"


def neu_rows(names, args, fit, seed):
    folder, size = Path(args.neu), args.size
    X, y = load_image_folder(folder / "train", size=size)
    X_test, y_test, paths = load_image_folder(folder / "test", size=size, return_paths=True)
    boxes = read_boxes(folder, paths, size)
    rows = {}
    for name in names:
        params = {"max_epochs": args.neu_epochs, "batch_size": args.neu_batch, "augment": "shift+flip"}
        clf, seconds = fit(name[:3], {**params, **OPTIONS[name], "random_state": seed}, X, y)
        if name == SHOWN and seed == args.seeds[0]:
            draw(clf, X_test, y_test, boxes, RESULTS / f"{neu_name(args)}.png")
        found = {"accuracy": clf.score(X_test, y_test), "fit_s": seconds}
        for row, explain in explainers(name, clf).items():
            maps = true_class(explain, X_test, y_test)
            rows[row] = {**found, **in_boxes(maps, boxes, y_test), "pointing": pointing_game(maps, boxes).mean()}
            print(row, seed, rows[row], flush=True)
    rows[UNIFORM] = in_boxes(np.ones(X_test.shape[:3]), boxes, y_test)
    return rows


def in_boxes(maps, boxes, y):
    """Mean share of the evidence in the boxes: of all images, and of each class."""
    energy = energy_in_boxes(maps, boxes)
    return {"energy": energy.mean(), "energy_of": {label: energy[y == label].mean() for label in np.unique(y)}}


def neu_table(rows, args):
    text = (
        f"NEU-DET at {args.size} × {args.size}, {args.neu_epochs} epochs in batches of {args.neu_batch}, shifts and "
        f"flips, seeds {args.seeds}; means over the seeds (and each), of the test images. {SETTINGS} "
        f"Fit: with {args.jobs} side by side. Energy: share of the positive evidence for the true class inside the "
        "boxes of its class; pointing: share of the images whose largest evidence lies in one. The post-hoc methods "
        f"explain a CNN of the same size, trained alike. The picture: {SHOWN}, first seed, the first test image of "
        "each class, with its boxes."
    )
    labels = list(rows[UNIFORM][0]["energy_of"])
    heads = ["maps", "accuracy", "energy in boxes", "pointing", *(f"energy: {label}" for label in labels), "fit, s"]
    lines = [text, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row, runs in rows.items():
        cells = [row, each(runs, "accuracy", ".2%"), each(runs, "energy", ".3f"), each(runs, "pointing", ".3f")]
        cells += [f"{np.mean([run['energy_of'][label] for run in runs]):.3f}" for label in labels]
        cells.append(each(runs, "fit_s", ".0f"))
        lines.append(f"| {' | '.join(cells)} |")
    picture = ["", f"![Evidence on six surfaces]({neu_name(args)}.png)"]
    return lines + (picture if SHOWN in rows else [])


# ---- digits ----------------------------------------------------------------------------------------------------------


def digits_rows(names, args, fit, seed):
    X, y = load_digits(return_X_y=True)
    X_fit, X_test, y_fit, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=seed)
    rows = {}
    for name in names:
        clf, seconds = fit("GCM", {**OPTIONS[name], "random_state": seed}, X_fit, y_fit)
        rows[name] = {"accuracy": clf.score(X_test, y_test), "fit_s": seconds}
    return rows


def digits_table(rows, args):
    text = "scikit-learn's digits, 8 × 8, a third held out, default parameters: what the options cost in accuracy. "
    text += f"Means over the seeds (and each), {args.jobs} of which were fitted side by side."
    lines = [f"{text} {SETTINGS}", ""]
    lines += ["| | accuracy | fit, s |", "|---|---|---|"]
    for name, runs in rows.items():
        lines.append(f"| {name} | {each(runs, 'accuracy', '.2%')} | {each(runs, 'fit_s', '.0f')} |")
    return lines


# ---- all -------------------------------------------------------------------------------------------------------------

PARTS = {
    "cifar10": (cifar10_rows, cifar10_table, CIFAR10),
    "neu": (neu_rows, neu_table, NEU),
    "digits": (digits_rows, digits_table, DIGITS),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10")
    parser.add_argument("--neu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", nargs="+", choices=OPTIONS, metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=15, help="on CIFAR-10")
    parser.add_argument("--neu-epochs", type=int, default=40)
    parser.add_argument("--neu-batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="side of the NEU-DET images; the files have 200")
    parser.add_argument("--grids", type=int, default=500)
    parser.add_argument("--images", type=int, default=1000, help="for deletion and insertion")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep")
    args = parser.parse_args()
    chosen = {part: [name for name in PARTS[part][2] if args.rows is None or name in args.rows] for part in args.only}
    for part, names in chosen.items():
        if getattr(args, part, part) is None:
            parser.error(f"--only {part} needs --{part}")
        if not names:
            parser.error(f"--only {part} has none of these rows: it has {'; '.join(PARTS[part][2])}.")
    fit = keeping(args.keep)
    for part, names in chosen.items():
        make, table, _ = PARTS[part]
        rows = defaultdict(list)
        of_seeds = Parallel(n_jobs=args.jobs)(delayed(make)(names, args, fit, seed) for seed in args.seeds)
        for seed, of_seed in zip(args.seeds, of_seeds, strict=True):
            for row, found in of_seed.items():
                rows[row].append({"seed": seed, **found})
        options = {
            "cifar10": f" --cifar10 cifar10.npz --epochs {args.epochs} --grids {args.grids} --images {args.images}",
            "neu": f" --neu NEU-DET --neu-epochs {args.neu_epochs} --neu-batch {args.neu_batch} --size {args.size}",
            "digits": "",
        }[part] + (f" --jobs {args.jobs}" if args.jobs > 1 else "")
        options += f" --rows {shlex.join(args.rows)}" if args.rows else ""
        head = {
            "command": f"python benchmarks/evidence.py --only {part} --seeds {' '.join(map(str, args.seeds))}{options}",
            "machine": machine(),
            "versions": versions("scikit-learn", "skorch", "captum"),
        }
        lines = [f"# Where the evidence lies: {part}", "", origin(head), "", *table(rows, args)]
        name = {"cifar10": f"evidence-cifar10-{args.epochs}", "neu": neu_name(args), "digits": "evidence-digits"}[part]
        write(name, lines, {**head, "rows": rows})
        print("\n".join(lines))


if __name__ == "__main__":
    main()
