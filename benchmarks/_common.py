"""Shared by the benchmarks: data, description of the machine, result files."""

import json
import platform
import statistics
import traceback
from importlib.metadata import version
from pathlib import Path

import torch
from _official import CIFAR10_CLASSES, load_cifar10, load_npz

RESULTS = Path(__file__).parent / "results"


def machine():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processor = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"{torch.get_num_threads()} threads, {processor}, no GPU"


def versions(*packages):
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", *packages)}}


def origin(head):
    """The line under a table's title: command, machine and versions."""
    return f"`{head['command']}` on {head['machine']}; {', '.join(f'{k} {v}' for k, v in head['versions'].items())}."


def write(name, lines, result):
    """Write results/NAME.md and, the same as data, .json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, default=float) + "\n")


def write_row_by_row(name, wanted, known, measured, lines, head):
    """Write results/NAME after each wanted row (None: all known), measured by `measured(row)`; the others stay.

    `lines({row: what was measured})` is the table. A row that fails says why, and fails the script at its end.
    """
    path, rows, failed = RESULTS / f"{name}.json", {}, []
    if wanted and path.exists():
        found = json.loads(path.read_text())
        if found["machine"] != head["machine"]:
            raise SystemExit(f"{path} is from another machine ({found['machine']}): measure all rows, or move it away.")
        rows = found["rows"]
    for row in wanted or known:
        try:
            rows[row] = measured(row)
        except Exception:  # an error in one row must not lose the others, which may have taken long
            traceback.print_exc()
            failed.append(row)
            continue
        rows = {row: rows[row] for row in known if row in rows}
        write(name, lines(rows), {**head, "rows": rows})
        print("\n".join(lines(rows)), flush=True)
    if failed:
        raise SystemExit(f"Not measured: {', '.join(failed)}.")


def load(path, official):
    """X_train, y_train, X_test, y_test of an .npz file, or of the official files by their loader."""
    return load_npz(path) if str(path).endswith(".npz") else official(path)


def cifar10(path):
    """The same of CIFAR-10, labels as words."""
    X, y, X_test, y_test = load(path, load_cifar10)
    if y.dtype.kind in "iu":
        y, y_test = CIFAR10_CLASSES[y], CIFAR10_CLASSES[y_test]
    return X, y, X_test, y_test


def spread(values):
    """Median, smallest and largest."""
    return [statistics.median(values), min(values), max(values)]
