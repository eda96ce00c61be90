"""Kill a training process with SIGKILL again and again, restart it each time, and check the final model.

    python benchmarks/kill.py              # about ten minutes on two cores
    python benchmarks/kill.py --kills 5    # fewer kills, in shorter fits

Fits scikit-learn's digits with `checkpoint=` in its own process. Half of the kills come at a random moment of a random
epoch, half as soon as the new file of a checkpoint begins to be written (it is next to the old one until it is
complete); the moments are seeded. The final model is compared, bit by bit, with that of a fit that was never
interrupted. Also measures the cost of a checkpoint. Writes benchmarks/results/kill.md and .json.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import machine, origin, spread, versions, write
from sklearn.datasets import load_digits

from skgcm import GCMClassifier
from skgcm.files import safetensors_file
from skgcm.files.checkpoint import Checkpoint
from skgcm.training import net

KILLS = 30  # of the first fit
FITS = {"SGD": {}, "AdamW, early stopping": {"optimizer": "adamw", "lr": 0.003, "early_stopping": True}}
FIXED = {"device": "cpu", "random_state": 0}


def child(name, path, epochs):
    """Fit, and print each epoch that begins."""
    train_epoch = net.GCMNet._train_epoch

    def telling(net, *args):
        print(len(net.history), flush=True)
        return train_epoch(net, *args)

    net.GCMNet._train_epoch = telling
    GCMClassifier(**FITS[name], **FIXED, max_epochs=int(epochs), checkpoint=path).fit(*load_digits(return_X_y=True))


def begun(log):
    """Numbers of the epochs that a child has begun."""
    return [int(line) for line in log.read_text().splitlines()]


def unfinished(path):
    return list(path.parent.glob(".skgcm-*.tmp"))


def killed(command, path, log, epochs, delay):
    """Start a child and kill it, so many full epochs after its first began, after a delay or, without one, in a write.

    What happened, or None where it had ended before.
    """
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out)
    while process.poll() is None and len(begun(log)) <= epochs:
        time.sleep(0.001)
    if delay is None:
        while process.poll() is None and not unfinished(path):
            pass
    else:
        time.sleep(delay)
    process.kill()
    if process.wait() == 0:
        return None
    saved = 0
    if path.exists():
        tensors, metadata = safetensors_file.read(path, "checkpoint")
        if metadata["finished"]:
            return None
        saved = len(tensors["history/epoch"])
    left = [file.stat().st_size for file in unfinished(path)]
    return {"aimed": "epoch" if delay is not None else "write", "begun": begun(log), "saved": saved, "left": left}


def run(name, folder, rng, n_kills):
    params = {**FITS[name], "max_epochs": 10 + 3 * n_kills}  # a kill comes within four epochs
    X, y = load_digits(return_X_y=True)
    whole = GCMClassifier(**params, **FIXED).fit(X, y)
    duration = float(np.median([epoch["dur"] for epoch in whole.history_]))
    path, log, kills = folder / "run.ckpt", folder / "log", []
    command = [sys.executable, __file__, name, str(path), str(params["max_epochs"])]
    while len(kills) < n_kills:
        delay = rng.uniform(0, duration) if len(kills) % 2 else None
        kill = killed(command, path, log, int(rng.integers(1, 4)), delay)
        if kill is None:
            raise RuntimeError(f"{name}: the fit was over after {len(kills)} kills. Give it more epochs.")
        kills.append(kill)
        print(name, len(kills), kill, flush=True)
    with log.open("w") as out:  # now without a kill
        subprocess.run(command, stdout=out, check=True)
    last = begun(log)
    if not safetensors_file.read(path, "checkpoint")[1]["finished"]:
        raise RuntimeError(f"{name}: the file does not say that the fit is finished")
    for kill, following in zip(kills, [*kills[1:], {"begun": last}], strict=True):
        kill["repeated"] = len(set(kill["begun"]) & set(following["begun"]))
    parts = GCMClassifier(**params, **FIXED, checkpoint=path).fit(X, y)  # the finished model, without training
    same = all(
        torch.equal(tensor, parts.net_.network.state_dict()[key])
        for key, tensor in whole.net_.network.state_dict().items()
    )
    histories = [[{**epoch, "dur": 0} for epoch in clf.history_] for clf in (whole, parts)]
    return {
        "params": params,
        "epochs": len(whole.history_),
        "epoch_seconds": duration,
        "kills": kills,
        "left_behind": [file.name for file in folder.iterdir() if file not in (path, log)],
        "identical_weights": same,
        "identical_history": histories[0] == histories[1],
        "bytes": path.stat().st_size,
        "write_seconds": spread(write_times(parts, X, y, folder / "cost.ckpt")),
    }


def write_times(clf, X, y, path):
    params = {**clf.get_params(deep=False), "checkpoint": path}
    checkpoint, times = Checkpoint(params, clf.image_shape_, np.ascontiguousarray(X), clf.classes_, y), []
    for _ in range(30):
        start = time.perf_counter()
        checkpoint.save(clf.net_, finished=False)
        times.append(time.perf_counter() - start)
    return times


def fingerprint_seconds():
    X = np.random.default_rng(0).integers(0, 256, (50_000, 3072), dtype=np.uint8)
    y = np.arange(50_000) % 10
    params = {**GCMClassifier(**FIXED).get_params(deep=False), "checkpoint": "absent.ckpt"}
    times = []
    for _ in range(5):
        start = time.perf_counter()
        Checkpoint(params, (32, 32, 3), X, np.arange(10), y)
        times.append(time.perf_counter() - start)
    return spread(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS, help="of the first fit; the second has a third of them")
    args = parser.parse_args()
    rng, found = np.random.default_rng(0), {}
    for i, name in enumerate(FITS):
        with tempfile.TemporaryDirectory() as folder:
            found[name] = run(name, Path(folder), rng, max(1, args.kills // 3) if i else args.kills)
    head = {
        "command": "python benchmarks/kill.py" + (f" --kills {args.kills}" if args.kills != KILLS else ""),
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch", "safetensors"),
        "fingerprint_seconds": fingerprint_seconds(),
    }
    lines = [
        "# A training process that is killed",
        "",
        f"{origin(head)} scikit-learn's 1,797 digits, `checkpoint=`, killed with SIGKILL and restarted; compared "
        "with a fit that was never interrupted. A write lasts until the new file has taken the old one's place: an "
        "unfinished file of a whole file's size was written to its end, and not yet renamed.",
        "",
        "| | kills | within a write | most epochs repeated by a kill | epochs | weights | history | left behind |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, fit in found.items():
        kills = fit["kills"]
        lines.append(
            f"| {name} | {len(kills)} | {sum(bool(kill['left']) for kill in kills)} | "
            f"{max(kill['repeated'] for kill in kills)} | {fit['epochs']} | "
            f"{'identical to the bit' if fit['identical_weights'] else 'DIFFERENT'} | "
            f"{'identical' if fit['identical_history'] else 'DIFFERENT'} | {len(fit['left_behind'])} files |"
        )
    fit = found["SGD"]
    median, low, high = (1000 * seconds for seconds in fit["write_seconds"])
    lines += [
        "",
        f"A checkpoint of the default network, {fit['bytes'] / 2**20:.1f} MiB, takes {median:.0f} ms to write "
        f"({low:.0f} to {high:.0f}), an epoch here {1000 * fit['epoch_seconds']:.0f} ms. Before training, the "
        f"fingerprint of 50,000 images of 32 × 32 × 3, uint8, takes {head['fingerprint_seconds'][0]:.2f} s.",
    ]
    for name, fit in found.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| kill | aimed at | epoch begun last | epochs in the file then | unfinished new file, bytes | repeated |",
            "|---|---|---|---|---|---|",
        ]
        for i, kill in enumerate(fit["kills"], 1):
            left = ", ".join(f"{size:,}" for size in kill["left"]) or "–"
            lines.append(
                f"| {i} | {kill['aimed']} | {kill['begun'][-1]} | {kill['saved']} | {left} | {kill['repeated']} |"
            )
    print("\n".join(lines))
    write("kill", lines, {**head, "fits": found})


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the processes that are killed
    child(*sys.argv[1:]) if sys.argv[1:2] and sys.argv[1] in FITS else main()
