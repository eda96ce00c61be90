"""Settings that were tried because GCM is below the CNN on CIFAR-10, and below the paper on SVHN.

    python benchmarks/paper_tried.py cifar10 cifar10.npz                 # all rows, one after the other
    python benchmarks/paper_tried.py svhn svhn.npz --only "GCM" "CNN"    # the other rows stay as they are

Short fits on all but the last 5,000 training images, one seed, scored on these: enough to choose what to train at
length (benchmarks/paper.py), not to report. In batches of 64, on a GPU of 512 and for more epochs. Writes
benchmarks/results/paper-tried-SET.md and .json, row by row.

--jobs 4    number of fits at once
"""

import argparse
import shlex
from pathlib import Path

import torch
from _cnn import CNN, CNNClassifier
from _common import cifar10, load, machine, origin, versions, write_row_by_row
from _official import load_svhn
from _shift import SmallShift
from joblib import Parallel, delayed
from paper import LONG, PLAIN, SMOOTH, sentences

from skgcm import GCMClassifier

CUDA = torch.cuda.is_available()
HELD_OUT, EPOCHS = 5000, {"cifar10": 30, "svhn": 20} if CUDA else {"cifar10": 20, "svhn": 15}
AUGMENT = {"cifar10": "shift+flip", "svhn": "shift"}
TRAINING = {**LONG, "lr": 0.4, "batch_size": 512} if CUDA else {**LONG, "batch_size": 64}


class Encoder(CNN):
    """The CNN with only the ten layers of GCM's encoder: GCM adds its decoder."""

    widths = CNN.widths[:-1]


class EncoderClassifier(CNNClassifier):
    network = Encoder


UNDECAYED = {"net_params": {"optimizer__param_groups": [(p, {"weight_decay": 0.0}) for p in ("*.1.weight", "*.bias")]}}
FAST_HEAD = {"net_params": {"optimizer__param_groups": [("head.*", {"lr": 4 * TRAINING["lr"]})]}}
RATES = {
    f"{name}, {word} the learning rate": (classifier, {"lr": factor * TRAINING["lr"]})
    for word, factor in (("half", 0.5), ("twice", 2))
    for name, classifier in (("GCM", GCMClassifier), ("CNN", CNNClassifier))
}
ALIKE = {
    "GCM": (GCMClassifier, {}),
    "CNN": (CNNClassifier, {}),
    "GCM, label smoothing 0.1": (GCMClassifier, {"net_params": SMOOTH}),
    "CNN, label smoothing 0.1": (CNNClassifier, {"net_params": SMOOTH}),
}
TRIALS = {
    "cifar10": {
        **ALIKE,
        **RATES,
        "GCM, layer 15 at 4 times the learning rate": (GCMClassifier, FAST_HEAD),
        "GCM, no weight decay on batch norm and biases": (GCMClassifier, UNDECAYED),
        "GCM, weight_decay=1e-3": (GCMClassifier, {"weight_decay": 1e-3}),
        "CNN of GCM's encoder": (EncoderClassifier, {}),
    },
    "svhn": {
        **ALIKE,
        **RATES,
        "GCM, shifts of up to 2 pixels, edges repeated": (GCMClassifier, {"augment": SmallShift(2)}),
        "CNN, shifts of up to 2 pixels, edges repeated": (CNNClassifier, {"augment": SmallShift(2)}),
        "GCM, label smoothing 0.1, shifts of up to 2 pixels, edges repeated": (
            GCMClassifier,
            {"net_params": SMOOTH, "augment": SmallShift(2)},
        ),
        "GCM, shifts of up to 4 pixels, edges repeated": (GCMClassifier, {"augment": SmallShift(4)}),
        "GCM, no shifts": (GCMClassifier, {"augment": None}),
    },
}


def row(classifier, params, X, y):
    clf = classifier(**params).fit(X[:-HELD_OUT], y[:-HELD_OUT])
    return {
        "parameters": sum(p.numel() for p in clf.net_.network.parameters()),
        "accuracy": clf.score(X[-HELD_OUT:], y[-HELD_OUT:]),
        "learnt": clf.score(X[:HELD_OUT], y[:HELD_OUT]),
    }


def attempt(*args):
    """The result of `row`, or why it failed: an error must not end the other fits."""
    try:
        return row(*args)
    except Exception as error:
        return error


def table(rows):
    lines = ["| | parameters | held out | 5,000 training images |", "|---|---|---|---|"]
    for name, found in rows.items():
        cells = [name, f"{found['parameters']:,}", f"{100 * found['accuracy']:.2f}", f"{100 * found['learnt']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=TRIALS)
    parser.add_argument("path")
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--about", metavar="TEXT", default="", help="what the images are, if not official")
    args = parser.parse_args()
    trials = TRIALS[args.set]
    if unknown := set(args.only or ()) - set(trials):
        parser.error(f"--only {sorted(unknown)} are no rows; {args.set} has {list(trials)}")
    X, y, _, _ = cifar10(args.path) if args.set == "cifar10" else load(args.path, load_svhn)
    epochs = EPOCHS[args.set]
    common = {**PLAIN, **TRAINING, "augment": AUGMENT[args.set], "max_epochs": epochs, "random_state": 0}
    command = ["python", "benchmarks/paper_tried.py", args.set, Path(args.path).name]
    command += ["--about", args.about] if args.about else []
    head = {
        "set": args.set,
        "command": shlex.join(command),
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "epochs": epochs,
    }
    settings = ", ".join(f"{name}={value}" for name, value in TRAINING.items())
    about = sentences(
        f"{epochs} epochs on {len(X) - HELD_OUT:,} training images, {AUGMENT[args.set]}, {settings}, seed 0; percent "
        f"of the last {HELD_OUT:,} training images. One seed of a short fit: half a point means little.",
        args.about,
    )

    found = Parallel(n_jobs=args.jobs, return_as="generator")(
        delayed(attempt)(classifier, {**common, **changes}, X, y)
        for classifier, changes in (trials[name] for name in args.only or trials)
    )

    def measured(_):
        result = next(found)
        if isinstance(result, Exception):
            raise result
        return result

    def lines(rows):
        few = [f"{len(rows)} of {len(trials)} rows.", ""] if len(rows) < len(trials) else []
        return [f"# What was tried: {args.set}", "", origin(head), "", about, "", *few, *table(rows)]

    write_row_by_row(f"paper-tried-{args.set}", args.only, trials, measured, lines, head)


if __name__ == "__main__":
    main()
