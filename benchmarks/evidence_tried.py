"""What was tried so that evidence lies on the object, and so that the decision depends on little else.

    python benchmarks/evidence_tried.py --cifar10 cifar10.npz                # all rows, one after the other
    python benchmarks/evidence_tried.py --cifar10 cifar10.npz --only plain   # the other rows stay as they are

Short fits on 45,000 of CIFAR-10's training images, one seed, measured on the other 5,000: enough to choose what to
train at length (benchmarks/evidence.py), not to report. Writes benchmarks/results/evidence-tried.md and .json.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from _attribution import contrasts, contributions
from _common import cifar10, machine, origin, versions, write_row_by_row
from torch import nn

from skgcm import GCMClassifier, building, mosaics, second_look, sparsity, training
from skgcm.metrics import deletion_curve, grid_pointing_game
from skgcm.network import GCM
from skgcm.second_look import without_the_least

EPOCHS, HELD_OUT, GRIDS, IMAGES = 5, 5000, 60, 1000
EVERY = 2  # of so many batches one is a mosaic; the library has fewer since


class Trial(training.GCMNet):
    """GCMNet with what it does not offer, or in other ways."""

    ramp = 1.0  # share of the fit in which the penalty rises
    looks = 0.0  # share of the plain batches in which images lose up to half of their pixels, of least evidence
    in_mosaics = False  # True: images lose them in that share of the mosaics, and in no plain batch
    look_from = 0.0  # share of the fit before the first second look
    sides = (3,)  # of mosaics, in turn
    statistics = True  # whether batches of a second look count in batch norm's running statistics

    def _plan(self, peaks, epoch, epochs, steps):
        for step, (rates, options) in enumerate(super()._plan(peaks, epoch, epochs, steps)):
            position = (epoch + (step + 0.5) / steps) / epochs
            self.looking = position >= self.look_from
            if options["grid"] > 1:
                options["grid"] = self.sides[step // EVERY % len(self.sides)]
            yield rates, {**options, "sparsity": self.sparsity * min(1.0, position / self.ramp)}

    def _learn(self, images, labels, grid, penalised):
        context = nullcontext()
        here = self.looks and self.looking and self.in_mosaics == (grid > 1)
        if here and torch.rand(1, generator=self.augmenting_, device=images.device) < self.looks:
            images = second_look.without_the_least(self.network, images, labels, self.augmenting_)
            context = nullcontext() if self.statistics else mosaics.statistics_kept(self.network)
        with context:
            return super()._learn(images, labels, grid, penalised)


class Others(Trial):
    """The penalty leaves an image's own class out (of up to ten, which are all looked at)."""

    def _learn(self, images, labels, grid, penalised):
        penalty = sparsity.penalty

        def of_others(magnitudes, n_classes):
            return penalty(magnitudes, n_classes) - magnitudes.gather(1, labels[:, None]).mean()

        with patch.object(sparsity, "penalty", of_others):
            return super()._learn(images, labels, grid, penalised)


class Cancelling(GCM):
    """The penalty is on what cancels within a map, mean |CCM| - |mean CCM|, and not on evidence as such."""

    def forward(self, *args, **options):
        out = super().forward(*args, **options)
        return (out[0], out[1] - out[0].abs()) if isinstance(out, tuple) else out


class Tempered(GCM):
    """A learnt temperature: a factor for all scores, which the penalty does not see."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.log_factor = nn.Parameter(torch.zeros(()))

    def forward(self, *args, **options):
        out = super().forward(*args, **options)
        factor = self.log_factor.exp()
        return (out[0] * factor, out[1]) if isinstance(out, tuple) else out * factor


def by_noise(network, images, labels, generator):
    """As without_the_least, but lost pixels become those of random places in random images of the batch."""
    lost = _lost(network, images, labels, generator)
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2)  # (B R C, D)
    noise = pixels[torch.randint(len(pixels), lost.shape, generator=generator)].permute(0, 3, 1, 2)
    return torch.where(lost[:, None], noise, images)


def by_background(network, images, labels, generator):
    """As without_the_least, but lost pixels become another image's, where these are its half of least evidence."""
    lost, mean = _lost(network, images, labels, generator), images.mean((0, 2, 3), keepdim=True)
    background = second_look.least(network, images, labels, torch.full((len(images), 1), 0.5))
    others = torch.where(background[:, None], images, mean).roll(1, 0)
    return torch.where(lost[:, None], others, images)


def _lost(network, images, labels, generator):
    return (without_the_least(network, images, labels, generator) != images).any(1)


class Row(NamedTuple):
    sparsity: float = 0.0  # with mosaics unless 0
    trial: dict = {}  # attributes of Trial
    params: dict = {}  # of GCMClassifier, beyond those
    network: type = GCM
    net: type = Trial
    replaced: Callable = without_the_least


BOTH = {"polarity": "both"}
ALL = {**BOTH, "second_look": 0.25}
SMALL_FIELD = {"n_stages": 2, "encoder_width": 36}  # 23 pixels instead of 53, 163k parameters as well
SECOND_SEED = {"random_state": 1}
MIXED = {"sides": (2, 3, 4)}
EARLY = {"ramp": 0.3}
PLAIN_LOOK = {"looks": 0.5, "statistics": False}
MOSAIC_LOOK = {"looks": 0.5, "in_mosaics": True, "look_from": 0.3}
TRIED = {
    "plain": Row(),
    "mosaic, sparsity rising to 0.04 in 30 % of the fit": Row(0.04, EARLY),
    "mosaic, penalty on cancelling alone, rising to 0.06 in 30 %": Row(0.06, EARLY, network=Cancelling),
    "mosaic, sparsity to 0.04 in 30 %, second look in all plain batches": Row(0.04, {**EARLY, "looks": 1.0}),
    "mosaic, sparsity to 0.04 in 30 %, second look in half of the plain batches": Row(0.04, {**EARLY, **PLAIN_LOOK}),
    "mosaic, sparsity rising to 0.06": Row(0.06),
    "mosaic, sparsity rising to 0.12": Row(0.12),
    "mosaic, penalty on the classes an image does not have, rising to 0.06": Row(0.06, net=Others),
    "mosaic, penalty on the classes an image does not have, rising to 0.12": Row(0.12, net=Others),
    "mosaic, sparsity rising to 0.06, second look in half of the plain batches": Row(0.06, PLAIN_LOOK),
    "mosaic, sparsity rising to 0.06, second look in half of the mosaics": Row(0.06, MOSAIC_LOOK),
    "mosaic, sparsity rising to 0.06, polarity both": Row(0.06, params=BOTH),
    "mosaic, sparsity rising to 0.06, polarity both, second look in half of the mosaics": Row(0.06, MOSAIC_LOOK, BOTH),
    "all options, sparsity rising to 0.07": Row(0.07, params=ALL),
    "all options, sparsity rising to 0.09": Row(0.09, params=ALL),
    "all options, pixels at random instead of the mean colour": Row(0.09, params=ALL, replaced=by_noise),
    "all options, another image's background instead of the mean colour": Row(0.09, params=ALL, replaced=by_background),
    "all options, a learnt temperature": Row(0.09, params=ALL, network=Tempered),
    "all options, mosaics of 2 × 2": Row(0.09, {"sides": (2,)}, ALL),
    "all options, mosaics of 2 × 2, 3 × 3 and 4 × 4 in turn": Row(0.09, MIXED, ALL),
    "all options, mosaics of 2 × 2, 3 × 3 and 4 × 4 in turn, sparsity rising to 0.12": Row(0.12, MIXED, ALL),
    "all options, seed 1": Row(0.09, params={**ALL, **SECOND_SEED}),
    "all options, mosaics of 2 × 2, 3 × 3 and 4 × 4 in turn, seed 1": Row(0.09, MIXED, {**ALL, **SECOND_SEED}),
    "all options, a small receptive field": Row(0.09, params={**ALL, **SMALL_FIELD}),
}


def fitted(name, X, y):
    row = TRIED[name]
    params = {"max_epochs": EPOCHS, "augment": "shift+flip", "precision": "float32", "random_state": 0}
    params |= {"mosaic": 2 if row.sparsity else 0, "sparsity": row.sparsity, **row.params}  # Trial has the sides
    with (
        patch.object(building, "GCMNet", type("Trial", (row.net,), row.trial)),
        patch.object(building, "GCM", row.network),
        patch.object(mosaics, "EVERY", EVERY),
        patch.object(second_look, "without_the_least", row.replaced),
    ):
        return GCMClassifier(**params).fit(X, y)


def measured(name, data):
    X, y, X_held, y_held = data
    start = time.perf_counter()
    clf = fitted(name, X, y)
    found = {"fit_s": time.perf_counter() - start, "accuracy": clf.score(X_held, y_held)}
    proba = clf.predict_proba(X_held)
    for key, explain in (("pointing", contributions(clf)), ("contrast", contrasts(clf))):
        game = grid_pointing_game(explain, X_held, y_held, proba, n_grids=GRIDS)
        found[key] = game.mean, game.percentiles[50]
    images, labels = X_held[:IMAGES], y_held[:IMAGES]
    maps = contributions(clf)(images, labels[:, None])[:, 0]
    curve = deletion_curve(
        clf.predict_proba, images, maps, np.searchsorted(clf.classes_, labels), order="least", n_steps=4
    )
    before, after = curve.probabilities[:2]
    return {**found, "before": before, "kept": after / before}


def table(rows):
    text = (
        f"CIFAR-10, {EPOCHS} epochs, shifts and flips, seed 0 unless a row says otherwise, 45,000 of the training "
        f"images; measured on the other {HELD_OUT:,}. One seed of a short fit: differences in accuracy of less than a"
        " point mean little. Grid pointing 3 × 3: share of the positive evidence that lies on its own image, mean / "
        f"median over the cells of {GRIDS} grids; contrast: of the contributions less their mean over the classes. "
        "Kept: probability of the true class after the 25 % of pixels with least evidence became the mean colour, "
        f"over the same before (in brackets), {IMAGES:,} images. Sparsity rises over the whole fit, and mosaics "
        "are every second batch and 3 × 3, unless a row says otherwise. Cancelling: mean |CCM| - |mean CCM|. Second "
        "look: images are trained with up to half of their pixels, those that by then are the least evidence for "
        "their class, replaced by the batch's mean colour; in all plain batches, or in half of them, which do not "
        "count in batch norm's running statistics, or in half of the mosaics after 30 % of the fit. All options: "
        "mosaics, polarity both, second_look=0.25, which is in a quarter of the mosaics after 30 % of the fit, and "
        "sparsity rising to 0.09 unless a row says otherwise. Small receptive field: a weight depends on 23 × 23 "
        "pixels instead of 53 × 53, with as many parameters, at twice the arithmetic."
    )
    lines = [text, "", "| | accuracy | grid pointing | of the contrast | kept | fit, s |", "|---" * 6 + "|"]
    for name, row in rows.items():
        games = (" / ".join(f"{value:.3f}" for value in row[key]) for key in ("pointing", "contrast"))
        cells = [name, f"{100 * row['accuracy']:.2f}", *games, f"{row['kept']:.3f} ({row['before']:.3f})"]
        lines.append(f"| {' | '.join(cells)} | {row['fit_s']:.0f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--only", nargs="+", choices=TRIED, metavar="ROW")
    args = parser.parse_args()
    X, y, _, _ = cifar10(args.cifar10)
    data = X[:-HELD_OUT], y[:-HELD_OUT], X[-HELD_OUT:], y[-HELD_OUT:]
    head = {
        "command": "python benchmarks/evidence_tried.py --cifar10 cifar10.npz",
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch"),
    }
    title = ["# Where the evidence lies: what was tried", "", origin(head), ""]
    write_row_by_row(
        "evidence-tried", args.only, TRIED, lambda row: measured(row, data), lambda rows: title + table(rows), head
    )


if __name__ == "__main__":
    main()
