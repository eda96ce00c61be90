"""What was tried where we fall short of the paper: GCM is below the CNN on CIFAR-10, and below the paper on SVHN.

    python benchmarks/paper_tried.py cifar10 cifar10.npz                 # all rows, one after the other
    python benchmarks/paper_tried.py svhn svhn.npz --only "GCM" "CNN"    # the other rows stay as they are

Short fits on all but the last 5,000 training images, one seed, scored on these: enough to choose what to train at
length (benchmarks/paper.py), not to report. Writes benchmarks/results/paper-tried-SET.md and .json, row by row.
"""

import argparse
import shlex
from itertools import pairwise
from pathlib import Path

from _cnn import CNN, CNNClassifier
from _common import cifar10, load, machine, origin, versions, write_row_by_row
from _shift import SmallShift
from paper import LONG, PLAIN, SMOOTH, sentences
from torch import nn

from skgcm import GCMClassifier
from skgcm.blocks import ConvBlock
from skgcm.datasets import load_svhn

HELD_OUT, EPOCHS, AUGMENT = 5000, {"cifar10": 20, "svhn": 15}, {"cifar10": "shift+flip", "svhn": "shift"}


class Encoder(CNN):
    """The CNN with the ten layers of GCM's encoder and no more: what GCM has beyond it is its decoder."""

    def __init__(self, n_classes, in_channels=3, *, generator=None, **gcm_params):
        super().__init__(n_classes, in_channels, generator=generator)
        widths = [in_channels, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        blocks = [ConvBlock(*pair, stride=1 + (i in (3, 6))) for i, pair in enumerate(pairwise(widths))]
        self.layers = nn.Sequential(*blocks, ConvBlock(64, 64, kernel=1))
        self.reset_parameters(generator)


class EncoderClassifier(CNNClassifier):
    def _build_net(self, *args, **other_params):
        return super()._build_net(*args, **other_params).set_params(module=Encoder)


UNDECAYED = {"net_params": {"optimizer__param_groups": [(p, {"weight_decay": 0.0}) for p in ("*.1.weight", "*.bias")]}}
FAST_HEAD = {"net_params": {"optimizer__param_groups": [("head.*", {"lr": 4 * LONG["lr"]})]}}
ALIKE = {
    "GCM": (GCMClassifier, {}),
    "CNN": (CNNClassifier, {}),
    "GCM, label smoothing 0.1": (GCMClassifier, SMOOTH),
    "CNN, label smoothing 0.1": (CNNClassifier, SMOOTH),
}
TRIALS = {
    "cifar10": {
        **ALIKE,
        "GCM, layer 15 at 4 times the learning rate": (GCMClassifier, FAST_HEAD),
        "GCM, no weight decay on batch norm and biases": (GCMClassifier, UNDECAYED),
        "GCM, weight_decay=1e-3": (GCMClassifier, {"weight_decay": 1e-3}),
        "CNN of GCM's encoder": (EncoderClassifier, {}),
    },
    "svhn": {
        **ALIKE,
        "GCM, shifts of up to 2 pixels, edges repeated": (GCMClassifier, {"augment": SmallShift(2)}),
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


def table(rows):
    lines = ["| | parameters | held out | of 5,000 learnt from |", "|---|---|---|---|"]
    for name, found in rows.items():
        cells = [name, f"{found['parameters']:,}", f"{100 * found['accuracy']:.2f}", f"{100 * found['learnt']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=TRIALS)
    parser.add_argument("path")
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument("--about", metavar="TEXT", default="", help="what the images are, if not official")
    args = parser.parse_args()
    trials = TRIALS[args.set]
    if unknown := set(args.only or ()) - set(trials):
        parser.error(f"--only {sorted(unknown)} are no rows; {args.set} has {list(trials)}")
    X, y, _, _ = cifar10(args.path) if args.set == "cifar10" else load(args.path, load_svhn)
    epochs = EPOCHS[args.set]
    common = {**PLAIN, **LONG, "augment": AUGMENT[args.set], "max_epochs": epochs, "batch_size": 64, "random_state": 0}
    command = ["python", "benchmarks/paper_tried.py", args.set, Path(args.path).name]
    command += ["--about", args.about] if args.about else []
    head = {
        "set": args.set,
        "command": shlex.join(command),
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
        "epochs": epochs,
    }
    settings = ", ".join(f"{name}={value}" for name, value in {**LONG, "batch_size": 64}.items())
    about = sentences(
        f"{epochs} epochs on {len(X) - HELD_OUT:,} training images, {AUGMENT[args.set]}, {settings}, seed 0; percent "
        f"of the last {HELD_OUT:,} training images. One seed of a short fit: half a point means little.",
        args.about,
    )

    def measured(name):
        classifier, changes = trials[name]
        return row(classifier, {**common, **changes}, X, y)

    title = [f"# What was tried: {args.set}", "", origin(head), "", about, ""]
    write_row_by_row(f"paper-tried-{args.set}", args.only, trials, measured, lambda rows: title + table(rows), head)


if __name__ == "__main__":
    main()
