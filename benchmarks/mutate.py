"""Thousands of damaged, malicious and foreign model files: each loads identically or is refused, fast and cheaply.

    python benchmarks/mutate.py --count 2100 --seed 0

The mutations are tests/mutator.py's, each kind in turn, of three models in turn: a small one, one of the default size
with dark maps, column names and a longer history, and a wide one. Takes about three minutes on one thread.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _common import machine, origin, versions, write

from skgcm import GCMClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import mutator

MIB = 2**20


def models():
    """name -> (fitted classifier, images to compare scores on)."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8), np.arange(48) % 3
    frame = pd.DataFrame(X.reshape(48, 64)).rename(columns="pixel {}".format)
    letters = np.array([*"abc"])[y]
    params = {"batch_size": 16, "device": "cpu", "random_state": 0}
    return {
        "small": (GCMClassifier(encoder_width=4, decoder_width=4, max_epochs=1, **params).fit(X, y), X[:4]),
        "default": (
            GCMClassifier(polarity="both", max_epochs=9, class_weight={"a": 2}, **params).fit(frame, letters),
            frame[:4],
        ),
        "wide": (GCMClassifier(encoder_width=64, decoder_width=64, max_epochs=1, **params).fit(X, y > 1), X[:4]),
    }


def run(count, seed, folder):
    """A result of mutator.examine for each mutation, with its number, kind, model and bytes; and the models' sizes."""
    path, canary, results, good = folder / "model.gcm", folder / "canary", [], {}
    for name, (clf, X) in models().items():
        clf.save(path)
        good[name] = path.read_bytes(), X, clf.decision_function(X)
        for _ in range(2):  # what is imported and allocated at a first load
            mutator.examine(path, GCMClassifier.load, lambda loaded: True)
    names = list(good)
    for i in range(count):
        model = names[i // len(mutator.MUTATIONS) % len(names)]
        content, X, scores = good[model]
        kind, mutated = mutator.mutation(content, seed, i, canary)
        path.write_bytes(mutated)
        result = mutator.examine(
            path,
            GCMClassifier.load,
            lambda loaded, X=X, scores=scores: np.array_equal(loaded.decision_function(X), scores),
        )
        if canary.exists():
            result["events"].append("code was executed")
            canary.unlink()
        results.append({"number": i, "kind": kind, "model": model, "bytes": len(mutated), **result})
    return results, {name: len(content) for name, (content, _, _) in good.items()}


def wrong(result):
    """The promises that a result breaks."""
    found = [] if result["outcome"] in ("identical", "refused") else [result["outcome"]]
    found += ["a second or more"] if result["seconds"] >= 1 else []
    found += ["memory"] if beside(result) > mutator.ALLOWANCE else []
    return found + result["events"]


def beside(result):
    """Bytes taken more than twice the file's size."""
    return result["memory"] - 2 * result["bytes"]


def summary(results):
    outcomes = [result["outcome"] for result in results]
    return {
        "files": len(results),
        "refused": outcomes.count("refused"),
        "identical": outcomes.count("identical"),
        "wrong": sum(bool(wrong(result)) for result in results),
        "most_seconds": max(result["seconds"] for result in results),
        "most_memory_per_byte": max(result["memory"] / max(result["bytes"], MIB) for result in results),
        "most_bytes_beyond_twice": max(0, *map(beside, results)),
    }


def row(title, found):
    *counts, seconds, times, beyond = found.values()
    return f"| {' | '.join([title, *map(str, counts)])} | {seconds:.3f} | {times:.2f} | {beyond / MIB:.2f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results, sizes = run(args.count, args.seed, Path(folder))
    failures = [result | {"wrong": wrong(result)} for result in results if wrong(result)]
    head = {
        "command": f"python benchmarks/mutate.py --count {args.count} --seed {args.seed}",
        "machine": machine(),
        "versions": versions("safetensors", "skorch", "scikit-learn"),
    }
    groups = {}
    for result in results:
        for group in (result["kind"], "**all**", f"all of {result['model']}"):
            groups.setdefault(group, []).append(result)
    table = {group: summary(groups[group]) for group in sorted(groups, key=lambda group: "all" in group)}
    lines = [
        "# Mutated model files",
        "",
        origin(head),
        "",
        f"Models: {', '.join(f'{name} ({size:,} bytes)' for name, size in sizes.items())}. A mutation may load with "
        "the same scores to the bit, or raise ModelFileError. Wrong is anything else, a second or more, an audited "
        "event (code found by pickle, compiled or executed, a process, an import, a file written), or more memory than "
        f"twice the mutated file and {mutator.ALLOWANCE // MIB} MiB. Memory is the peak of the process above what it "
        "held before: as a multiple of the file, or of 1 MiB where the file is smaller, and what it was beyond twice "
        "the file.",
        "",
        "| mutation | files | refused | identical | wrong | most seconds | most memory / file | MiB beyond twice |",
        "|---|---|---|---|---|---|---|---|",
        *(row(title, found) for title, found in table.items()),
    ]
    write("mutate", lines, {**head, "sizes": sizes, "table": table, "failures": failures})
    print("\n".join(lines))
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
