"""The command ``skgcm``: folders of images to models, predictions, reports and ONNX files.

Results go to stdout, all else to stderr. The exit code is 0; 1 after an error, or where an image could not be read; and
2 where the command itself is wrong.
"""

import argparse
import ast
import contextlib
import csv
import difflib
import json
import math
import os
import stat
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from sklearn.utils import gen_batches
from tqdm import tqdm

from skgcm._version import __version__
from skgcm.classifier import GCMClassifier
from skgcm.datasets import _listing, load_image_folder
from skgcm.inputs import pillow
from skgcm.typicality import DOUBTFUL, STRANGE
from skgcm.utils import atomic
from skgcm.utils.warnings import images_may_be_strange

ERRORS = ImportError, OSError, ValueError, ArithmeticError, MemoryError, RuntimeError  # for these the message is enough
BATCH = 256  # images in memory
COLUMNS = "path", "label", "probability", "margin", "typicality", "unlike"


class UsageError(Exception):
    """The command line is invalid."""


def main(arguments=None):
    """Run a command line, a list of texts; None: the process's. Returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning)
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            return args.run(args)
        except UsageError as error:
            parser.error(str(error))
        except BrokenPipeError:  # the reader of stdout, `head` for example, has stopped
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            _say("interrupted")
            return 130  # as in a shell
        except ERRORS as error:
            _say(f"error: {error}")
            return 1


def _parser():
    parser = argparse.ArgumentParser(
        prog="skgcm", description="Classify images, and see the evidence.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"skgcm {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, run, about, short=None):
        made = commands.add_parser(name, help=short or about, description=about, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    def model(made):
        made.add_argument("model", metavar="MODEL", help="a file that `skgcm fit` or GCMClassifier.save wrote")

    fit = command("fit", _fit, "Train a classifier on a folder that has a folder of images for each class.")
    fit.add_argument("folder", metavar="FOLDER", help="the folder that holds the class folders: FOLDER/CLASS/FILE")
    fit.add_argument("-o", "--output", metavar="MODEL", required=True, help="the model file to write")
    fit.add_argument(
        "--size", metavar="N|RxC", type=_size, help="resize all images to N x N pixels, or R rows and C columns"
    )
    fit.add_argument("--mode", choices=("L", "RGB"), help="grey or colour (default: grey if all files are grey)")
    fit.add_argument(
        "--hold-out",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the images that are not trained on, but predicted to measure the accuracy (default: 0.2)",
    )
    fit.add_argument(
        "--groups",
        metavar="REGEX",
        help="finds in a file's path what it shows, such as 'part(\\d+)': images of one group are all held out or none",
    )
    fit.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of GCMClassifier, such as max_epochs=100; can be repeated",
    )
    fit.add_argument("--report", metavar="HTML", help="also write a report of the held-out images")

    predict = command("predict", _predict, "Predict the classes of images, as a table (CSV).")
    model(predict)
    predict.add_argument("images", metavar="IMAGES", nargs="+", help="folders, with all that is in them, or files")
    predict.add_argument("-o", "--output", metavar="CSV", help="write the table to a file (default: to stdout)")

    report = command(
        "report",
        _report,
        "Write a report on images: one HTML file with the evidence. Use images that were not in the fit: on training "
        "images the report looks better than the model is.",
        "Write a report on images: one HTML file with the evidence.",
    )
    model(report)
    report.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="folders or files of images that were not in the fit; folders that have the names of classes, if all "
        "have, say the true classes",
    )
    report.add_argument("-o", "--output", metavar="HTML", required=True, help="the file to write")

    calibrate = command(
        "calibrate",
        _calibrate,
        "Calibrate probabilities to match the accuracy on images that were not in the fit, and write a new model file.",
    )
    model(calibrate)
    calibrate.add_argument(
        "images", metavar="IMAGES", nargs="+", help="folders or files; the name of a file's folder is its true class"
    )
    calibrate.add_argument("-o", "--output", metavar="MODEL", required=True, help="the model file to write")

    export = command("export", _export, "Write an ONNX file, which needs neither PyTorch nor skgcm.")
    model(export)
    export.add_argument("output", metavar="ONNX", help="the file to write")
    export.add_argument("--no-maps", action="store_true", help="scores and probabilities alone, which is faster")

    info = command("info", _info, "Say what a model file holds.")
    model(info)
    for made in (fit, predict, calibrate, info):
        made.add_argument("--json", action="store_true", help="write JSON to stdout; of predictions one object a line")
    return parser


def _say(text):
    """One line on stderr."""
    with tqdm.external_write_mode(sys.stderr):
        sys.stderr.write(f"skgcm: {' '.join(str(text).split())}\n")


def _check_output(path):
    """Raise OSError if a file cannot be written there, before the work for it is done."""
    path = atomic.expanded(path)
    if os.path.islink(path):
        path = os.path.realpath(path)
    folder = os.path.dirname(path) or os.curdir
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder. Name a file to write.")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"the folder {folder!r} does not exist. Make it first, or name another file.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder!r} is not writable. Change its permissions, or name another file.")


def _write_facts(facts, as_json):
    if as_json:
        sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            sys.stdout.write(f"{name.replace('_', ' '):{width}}  {shown}\n")


# ---- fit -------------------------------------------------------------------------------------------------------------


def _size(text):
    try:
        numbers = [int(number) for number in text.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: expected 64, or 48x64 for 48 rows and 64 columns")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _params(settings):
    """{name: value} of texts NAME=VALUE."""
    known, params = GCMClassifier().get_params(), {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected NAME=VALUE, for example --set max_epochs=100")
        if name not in known and not name.startswith("net_params__"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"the parameters are {', '.join(known)}"
            raise UsageError(f"--set {setting}: GCMClassifier has no parameter {name!r}; {hint}")
        try:
            params[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):  # a word without quotes is text
            params[name] = text
    return params


def _classifier(settings):
    """An estimator with these parameters, which are checked before images are read."""
    params = _params(settings)
    params.setdefault("random_state", 0)
    params.setdefault("verbose", int(sys.stderr.isatty()))
    clf = GCMClassifier().set_params(**params)
    try:
        clf._validate_params()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--set: {error}") from error
    return clf


def _split(y, groups, share):
    """Positions to train on, and positions to hold out: a share of each class, of whole groups if there are any."""
    everything = np.arange(len(y))
    if not share:
        return everything, everything[:0]
    if groups is None:
        return train_test_split(everything, test_size=share, stratify=y, random_state=0)
    splits = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=0)
    return next(splits.split(everything, y, groups))


def _fit(args):
    if not 0 <= args.hold_out < 1:
        raise UsageError(f"--hold-out {args.hold_out:g}: expected a share of the images, from 0 to less than 1")
    if args.report and not args.hold_out:
        raise UsageError("--report shows held-out images, and --hold-out 0 leaves none")
    clf = _classifier(args.set)
    _check_output(args.output)
    if args.report:
        _check_output(args.report)
        _report_class()
    X, y, paths, *groups = load_image_folder(
        args.folder, size=args.size, mode=args.mode, groups=args.groups, on_error="warn", return_paths=True
    )
    train, held_out = _split(y, groups[0] if groups else None, args.hold_out)
    clf.fit(X[train], y[train])
    clf.save(args.output)
    facts = {"model": args.output, "classes": clf.classes_.tolist(), "trained_on": len(train)}
    facts |= {"held_out": len(held_out), "accuracy": None, "balanced_accuracy": None}
    if len(held_out):
        true, predicted = y[held_out], clf.predict(X[held_out])
        facts["accuracy"] = round(accuracy_score(true, predicted), 4)
        facts["balanced_accuracy"] = round(balanced_accuracy_score(true, predicted), 4)
    if args.report:
        names = [os.path.relpath(path, Path(args.folder).expanduser()) for path in paths[held_out]]
        _report_class().from_estimator(clf, X[held_out], y[held_out], names=names).save(args.report)
        facts["report"] = args.report
    _write_facts(facts, args.json)
    return int(len(X) < _n_images(args.folder))  # a warning has named those that could not be read


def _n_images(folder):
    with warnings.catch_warnings(action="ignore"):
        return len(_listing.find_classes(Path(folder).expanduser())[0])


# ---- reading as the model was fitted ---------------------------------------------------------------------------------


def _load(path):
    """A model for image files. Raises ValueError if it was fitted on arrays of another kind."""
    clf = GCMClassifier.load(path)
    channels, values = clf.image_shape_[2], clf.value_range_
    if channels not in (1, 3) or tuple(values) != (0, 255):
        raise ValueError(
            f"{path} was fitted on images of {channels} channels and the value range ({values[0]:g}, {values[1]:g}). "
            "Files are read as 1 or 3 channels from 0 to 255. Use it in Python, on arrays like those of the fit."
        )
    return clf


def _files(images):
    """Files of folders and files, sorted within each folder."""
    for path in map(Path, images):
        path = path.expanduser()
        if path.is_dir():
            yield from (path.joinpath(*names) for names in _listing.find_images(path))
        else:
            # a misspelt name is an error, not a broken image; and reading a named pipe may never end
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ValueError(f"{str(path)!r} is not a regular file. Pass image files, or folders of them.")
            yield path


class _Reader:
    """Batches of images in the format of a model; a file that cannot be read is reported and left out."""

    def __init__(self, clf, images):
        rows, columns, channels = clf.image_shape_
        self.size, self.mode = (rows, columns), "L" if channels == 1 else "RGB"
        self.channels_first = clf.net_.image_format.channels_first
        self.files, self.broken = list(_files(images)), 0

    def __iter__(self):
        """Yields (images, paths)."""
        with tqdm(total=len(self.files), unit="image", disable=None) as progress:
            for part in gen_batches(len(self.files), BATCH):
                X, paths = [], []
                for file in self.files[part]:
                    progress.update()
                    try:
                        with warnings.catch_warnings():
                            warnings.filterwarnings("ignore", module=r"PIL\.")
                            X.append(pillow.read_file(file, self._read, ""))
                        paths.append(str(file))
                    except ValueError as error:
                        self.broken += 1
                        _say(f"left out: {file}: {pillow.why_not(error.__cause__)}")
                if X:
                    X = np.stack(X)
                    yield X.transpose(0, 3, 1, 2) if self.channels_first else X, paths

    def _read(self, image):
        return pillow.read(image, self.mode, self.size, "stretch")

    def end(self):
        """The exit code, after all is read."""
        if self.broken:
            _say(f"{self.broken} of {len(self.files)} images could not be read and are left out")
        return int(bool(self.broken))


# ---- the other commands ----------------------------------------------------------------------------------------------


def _predictions(clf, reader):
    """A row for each image, values by COLUMNS."""
    for X, paths in reader:
        scores, typicality = clf._scores_and_typicality(X)
        best = np.sort(scores, axis=1)[:, -2:]
        rows = (
            paths,
            clf.classes_[scores.argmax(axis=1)].tolist(),
            softmax(scores, axis=1).max(axis=1).tolist(),
            (best[:, 1] - best[:, 0]).tolist(),
            [None if math.isnan(value) else value for value in typicality.tolist()],
            map(_unlike, typicality.tolist()),
        )
        for row in zip(*rows, strict=True):
            yield {k: round(v, 6) if isinstance(v, float) else v for k, v in zip(COLUMNS, row, strict=True)}


def _unlike(typicality):
    """Whether an image is unlike the training images: "no", "doubtful", "yes", or None if the model cannot tell."""
    if math.isnan(typicality):
        return None
    return "yes" if typicality < STRANGE else "doubtful" if typicality < DOUBTFUL else "no"


def _predict(args):
    if args.output and (os.path.isdir(args.output) or not os.path.exists(args.output)):  # others: written in place
        _check_output(args.output)
    reader = _Reader(clf := _load(args.model), args.images)
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if args.output:
            out = stack.enter_context(open(args.output, "w", newline="", encoding="utf-8", errors="surrogateescape"))
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if not args.json:
            table.writeheader()
        strange = 0
        for row in _predictions(clf, reader):
            strange += row["unlike"] == "yes"
            if args.json:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                table.writerow(row)
        out.flush()
    if strange:
        images = f"{len(reader.files)} {'image' if len(reader.files) == 1 else 'images'}"
        are = "is" if strange == 1 else "are"
        _say(f"{strange} of {images} {are} unlike the training images: typicality below {STRANGE:g}")
    return reader.end()


def _report_class():
    try:
        from skgcm import Report
    except ImportError as error:
        raise ImportError("This version of skgcm writes no reports.") from error
    return Report


def _report(args):
    _check_output(args.output)
    report, clf = _report_class(), _load(args.model)
    reader = _Reader(clf, args.images)
    X, paths = _all(reader)
    report.from_estimator(clf, X, _true_classes(clf, paths), names=_names(paths)).save(args.output)
    return reader.end()


def _calibrate(args):
    _check_output(args.output)
    reader = _Reader(clf := _load(args.model), args.images)
    X, paths = _all(reader)
    y = _true_classes(clf, paths)
    if y is None:
        raise ValueError(
            "The images must be in folders that have the names of the model's classes, which are "
            f"{', '.join(map(str, clf.classes_))}: FOLDER/CLASS/FILE."
        )
    before = log_loss(y, clf.predict_proba(X), labels=clf.classes_)
    clf.calibrate(X, y).save(args.output)
    facts = {"model": args.output, "images": len(y), "temperature": round(clf.temperature_, 4)}
    facts["log_loss_before"] = round(before, 4)
    with images_may_be_strange():  # the first call has warned
        facts["log_loss_after"] = round(log_loss(y, clf.predict_proba(X), labels=clf.classes_), 4)
    _write_facts(facts, args.json)
    return reader.end()


def _all(reader):
    """All images and their paths. Raises ValueError if no image can be read."""
    batches = list(reader)
    if not batches:
        raise ValueError(f"None of {len(reader.files)} images can be read.")
    return np.concatenate([X for X, _ in batches]), [path for _, paths in batches for path in paths]


def _true_classes(clf, paths):
    """Labels from the names of the files' folders, or None unless all are names of classes."""
    classes = {str(label): label for label in clf.classes_.tolist()}
    found = [classes.get(Path(path).parent.name) for path in paths]
    return None if None in found else np.array(found, dtype=clf.classes_.dtype)


def _names(paths):
    """Paths without their common folders."""
    full = [os.path.abspath(path) for path in paths]
    start = os.path.commonpath([os.path.dirname(path) for path in full])
    return [os.path.relpath(path, start) for path in full]


def _export(args):
    _check_output(args.output)
    GCMClassifier.load(args.model, device="cpu").to_onnx(args.output, maps=None if args.no_maps else "contributions")
    return 0


def _info(args):
    clf = GCMClassifier.load(args.model, device="cpu")
    rows, columns, channels = clf.image_shape_
    default = GCMClassifier().get_params()
    params = {
        k: v for k, v in clf.get_params().items() if repr(v) != repr(default[k]) and k not in ("verbose", "device")
    }
    facts = {
        "classes": clf.classes_.tolist(),
        "image": f"{rows} rows x {columns} columns x {channels} channels",
        "value_range": [float(value) for value in clf.value_range_],
        "weights": sum(parameter.numel() for parameter in clf.net_.network.parameters()),
        "epochs": len(clf.history_),
        "temperature": clf.temperature_,
        "parameters": [f"{name}={value!r}" for name, value in params.items()],
        "bytes": os.path.getsize(args.model),
    }
    _write_facts(facts, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
