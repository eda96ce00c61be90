"""The tables and figures of the GCM paper, on our images. GCM is the paper's network throughout.

    python benchmarks/paper.py --cifar10 cifar10.npz --svhn svhn.npz                  # everything, 3 seeds
    python benchmarks/paper.py --cifar10 cifar10.npz --only accuracy --seeds 0 --epochs 30

Data: .npz files with X_train, y_train, X_test, y_test, or what `skgcm.datasets` reads: the official archive or folder
of CIFAR-10, the official folder of SVHN. Writes benchmarks/results/paper-PART.md and .json, and paper-figure-*.png.

--only accuracy | svhn | decline | figures    some parts; decline and figures use the fits of the first seed
--models GCM CNN      some rows of accuracy and svhn; where rows are missing, results are named by those there are
--long --epochs 100   with the learning rate and weight decay of long schedules; results are named paper-PART-100
--smooth              with label smoothing of 0.1; results are named paper-PART-smooth
--batch-size 512      for GPUs; results are named paper-PART-batch-512
--lr 0.4              in place of the schedule's; results are named paper-PART-lr-0.4
--validate            hold out and score the last 5,000 training images instead, and write nothing: for choices
--jobs 2              two fits at once
--keep FOLDER         checkpoints: finished fits of the same data and parameters are not repeated, interrupted ones
                      continue; empty it when the code or the machine changes. Of SVHN only whole fits are kept
"""

import argparse
import shlex
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from _cnn import for_captum
from _common import RESULTS, cifar10, load, machine, origin, versions, write
from _fits import keeping
from _official import load_svhn
from _shift import SmallShift
from joblib import Parallel, delayed
from matplotlib import colormaps

from skgcm import ContributionDisplay
from skgcm.metrics import decline_ratio
from skgcm.utils.torch_state import ieee_float32

PAPER = {"cifar10": {"GCM": 0.9043, "GCM, clipped": 0.8991}, "svhn": {"GCM": 0.9619}}
MODELS = {
    "GCM": ("GCM", {}),
    "GCM, clipped": ("GCM", {"clip_negative": True}),
    "CNN": ("CNN", {}),
}
AUGMENT = {"cifar10": "shift+flip", "svhn": SmallShift(2)}  # 2: chosen with GCM, by one short fit (paper_tried.py)
PLAIN = {"architecture": "paper"}  # no effect on the CNN
LONG = {"lr": 0.1, "weight_decay": 5e-4}  # those of wide ResNets; the defaults were chosen for short schedules
SMOOTH = {"criterion__label_smoothing": 0.1}
ROWS = {"accuracy": list(MODELS), "svhn": ["GCM", "CNN"]}  # for the clipped variant the paper has no result on digits
TRIED = "Other settings that were tried, in short fits: [paper-tried-{0}](paper-tried-{0}.md)."
WAYS = {"itself": "イ", "absolute": "ロ", "mixed with image": "ハ", "times image": "ニ"}


class Bench:
    """Data and fits, made when a part asks for them."""

    def __init__(self, args):
        self.args = args
        self.fit = keeping(args.keep)
        asked = {"batch_size": args.batch_size, "lr": args.lr, "net_params": SMOOTH if args.smooth else {}}
        self.training = (LONG if args.long else {}) | {name: value for name, value in asked.items() if value}
        words = [
            args.long and args.epochs,
            args.batch_size and f"batch-{args.batch_size}",
            args.lr and f"lr-{args.lr}",
            args.smooth and "smooth",
        ]
        self.suffix = "".join(f"-{word}" for word in words if word)  # of results' names
        self.data, self.fits = {}, {}

    def load(self, name):
        if name not in self.data:
            path = getattr(self.args, name)
            if path is None:
                raise SystemExit(f"This part needs --{name}.")
            X, y, X_test, y_test = cifar10(path) if name == "cifar10" else load(path, load_svhn)
            if self.args.validate:
                X, y, X_test, y_test = X[:-5000], y[:-5000], X[-5000:], y[-5000:]
            self.data[name] = X, y, X_test, y_test
        return self.data[name]

    def fitted(self, name, models, seeds):
        """For each model and seed, (classifier, its accuracy, the seconds of its epochs): {model: [...]}."""
        X, y, X_test, y_test = self.load(name)
        common = {**PLAIN, "max_epochs": self.args.epochs, "augment": AUGMENT[name], **self.training}
        missing = [(model, seed) for model in models for seed in seeds if (name, model, seed) not in self.fits]
        found = Parallel(n_jobs=self.args.jobs, return_as="generator")(
            delayed(self.fit)(MODELS[model][0], {**common, **MODELS[model][1], "random_state": seed}, X, y)
            for model, seed in missing
        )
        for (model, seed), (clf, seconds) in zip(missing, found, strict=True):
            accuracy = clf.score(X_test, y_test)
            print(f"{name}, {model}, seed {seed}: {accuracy:.4f} in {seconds:.0f} s", flush=True)
            self.fits[name, model, seed] = clf, accuracy, seconds
        return {model: [self.fits[name, model, seed] for seed in seeds] for model in models}

    def of_first_seed(self, name, *models):
        """A classifier of each model."""
        return [runs[0][0] for runs in self.fitted(name, models, self.args.seeds[:1]).values()]

    def rows(self, part):
        """The models of a part's table that were asked for."""
        return [model for model in ROWS.get(part, ()) if model in self.args.models]

    def accuracies(self, name, models):
        """{model: what its row of the table says}."""
        return {
            model: {
                "parameters": sum(p.numel() for p in runs[0][0].net_.network.parameters()),
                "seeds": self.args.seeds,
                "accuracies": [accuracy for _, accuracy, _ in runs],
                "mean": np.mean([accuracy for _, accuracy, _ in runs]),
                "fit_s": [seconds for *_, seconds in runs],
            }
            for model, runs in self.fitted(name, models, self.args.seeds).items()
        }

    def about(self):
        """What the fits have in common, in words."""
        words = [f"{self.args.epochs} epochs", *(f"{name}={value}" for name, value in self.training.items())]
        return ", ".join(words + [f"up to {self.args.jobs} fits side by side"] * (self.args.jobs != 1))


def accuracy_table(found, paper):
    lines = ["| | parameters | accuracy, mean | of each seed | the paper | epochs, s |", "|---|---|---|---|---|---|"]
    for name, run in found.items():
        each = ", ".join(f"{100 * a:.2f}" for a in run["accuracies"])
        theirs = f"{100 * paper[name]:.2f}" if name in paper else ""
        cells = [name, f"{run['parameters']:,}", f"{100 * run['mean']:.2f}", each, theirs, f"{max(run['fit_s']):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def difference(found):
    """Of the tables' two models that are equal in the paper, in words."""
    if not {"GCM", "CNN"} <= found.keys():
        return ""
    return f"GCM minus CNN: {100 * (found['GCM']['mean'] - found['CNN']['mean']):+.2f}."


def sentences(*given):
    """Those that are not empty, as one text."""
    return " ".join(filter(None, given))


def accuracy(bench):
    """Tables 6 and 7, and section 4.3."""
    found = bench.accuracies("cifar10", bench.rows("accuracy"))
    text = f"CIFAR-10, shifts and flips, {bench.about()}. Percent of the test images."
    args = bench.args
    if args.long and (args.batch_size, args.lr, args.smooth) == (512, 0.4, True):
        chosen = (
            "In short fits half this learning rate was worse and twice it within 0.1 points, for GCM and for the CNN. "
            "Label smoothing was taken for GCM, which in a short fit gained by it about what the CNN lost."
        )
    elif args.batch_size or args.lr:
        chosen = ""
    elif args.long:
        chosen = "Learning rate and weight decay are those usual for wide ResNets, and were tuned for no model here."
    else:
        chosen = "Learning rate and weight decay are GCM's defaults, and were tuned for no other model."
    about = sentences(text, difference(found), chosen, TRIED.format("cifar10"))
    return [about, "", *accuracy_table(found, PAPER["cifar10"])], found


def same_mistakes(bench):
    """What GCM and the CNN misread alike, in words: some of it by labels, or pictures, that nobody could read."""
    if bench.rows("svhn") != ROWS["svhn"]:
        return ""
    _, _, X, y = bench.load("svhn")
    gcm, cnn = (clf.predict(X) for clf in bench.of_first_seed("svhn", *ROWS["svhn"]))
    wrong, alike = gcm != y, gcm == cnn
    text = f"With seed {bench.args.seeds[0]} GCM misreads {wrong.sum():,} digits, "
    return f"{text}{(wrong & alike).sum():,} of which the CNN takes for the same wrong digit."


def svhn(bench):
    """SVHN, and Table 7's comparison on it."""
    found = bench.accuracies("svhn", bench.rows("svhn"))
    n, m = (len(bench.load("svhn")[i]) for i in (0, 2))
    shifts = f"shifts of up to {AUGMENT['svhn'].reach} pixels, edges repeated (chosen with GCM)"
    text = f"SVHN, {shifts}, {bench.about()}, {n:,} digits, percent of {m:,} digits held out."
    about = sentences(text, bench.args.about_svhn, difference(found), same_mistakes(bench), TRIED.format("svhn"))
    return [about, "", *accuracy_table(found, PAPER["svhn"])], found


# ---- Table 8 ---------------------------------------------------------------------------------------------------------


def enlarged(maps, size):
    """(B, N, 8, 8) to the size of the images, bicubic."""
    return torch.nn.functional.interpolate(maps, size=size, mode="bicubic", align_corners=False)


class Methods:
    """Maps of all classes, (B, N, R, C) or (B, N, R, C, D), by GCM and by the other methods on the CNN."""

    def __init__(self, gcm, cnn):
        from captum.attr import GuidedBackprop, LayerGradCam

        self.gcm, self.n_classes = gcm, len(gcm.classes_)
        self.cnn = for_captum(cnn.net_.network)
        self.device = next(self.cnn.parameters()).device
        self.guided, self.grad_cam = GuidedBackprop(self.cnn), LayerGradCam(self.cnn, self.cnn.encoder)

    def __call__(self, X):
        """{method: maps} of uint8 images, and GCM's explanation of them."""
        with ieee_float32[self.device.type], warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations")  # once a class
            return self._maps(X)

    def _maps(self, X):
        evidence = self.gcm.explain(X, "all")
        images = torch.from_numpy(evidence.images).to(self.device).permute(0, 3, 1, 2)
        size = images.shape[2:]
        with torch.no_grad():
            (features,) = self.cnn.features(images)
            cam = enlarged(torch.einsum("bkrc,nk->bnrc", features, self.cnn.head.weight), size)
        images.requires_grad_()
        guided, grad_cam = [], []
        for j in range(self.n_classes):
            guided.append(self.guided.attribute(images, target=j).detach().permute(0, 2, 3, 1))
            grad_cam.append(self.grad_cam.attribute(images, target=j, relu_attributions=True).detach())
        guided, grad_cam = torch.stack(guided, 1), enlarged(torch.cat(grad_cam, 1), size)
        maps = {
            "Guided Backpropagation": guided,
            "Guided Grad-CAM": guided * grad_cam[..., None],
            "CAM": cam,
            "Grad-CAM": grad_cam,
        }
        return {"GCM": evidence.cwm, **{name: found.cpu().numpy() for name, found in maps.items()}}, evidence


def coloured(maps, images):
    """CAM's picture: each map (B, N, R, C), least to greatest value, in jet, 0.7 of it on 0.2 of the image."""
    low, high = (bound(maps, axis=(2, 3), keepdims=True) for bound in (np.min, np.max))
    jet = colormaps["jet"]((maps - low) / np.maximum(high - low, 1e-12))[..., :3]
    return 0.7 * jet + 0.2 * images[:, None]


def sums(maps, images):
    """{way: (B, N)}: the sums of a method's maps made each way into what a person looks at."""
    flat = maps if maps.ndim == 4 else maps.mean(4)
    full = maps if maps.ndim == 5 else maps[..., None]
    made = {
        "itself": maps,
        "absolute": np.abs(maps),
        "mixed with image": coloured(flat, images),
        "times image": full * images[:, None],
    }
    return {way: m.reshape(*m.shape[:2], -1).sum(2, dtype=np.float64) for way, m in made.items()}


def decline(bench):
    """Table 8: how much accuracy is lost when the sums of maps decide."""
    gcm, cnn = bench.of_first_seed("cifar10", "GCM", "CNN")
    _, _, X, y = bench.load("cifar10")
    X, y = X[: bench.args.images], np.searchsorted(gcm.classes_, y[: bench.args.images])
    methods, found = Methods(gcm, cnn), {}
    for part in np.array_split(np.arange(len(X)), max(1, len(X) // 100)):
        maps, evidence = methods(X[part])
        for name, m in maps.items():
            for way, total in sums(m, evidence.images).items():
                found.setdefault(name, {}).setdefault(way, []).append(total)
    scores = {"GCM": gcm.decision_function(X), "CNN": cnn.decision_function(X)}
    ratios = {
        name: {
            way: decline_ratio(np.concatenate(t), scores["GCM" if name == "GCM" else "CNN"], y)
            for way, t in ways.items()
        }
        for name, ways in found.items()
    }
    lines = [
        f"CIFAR-10, {len(X):,} test images, seed {bench.args.seeds[0]}, {bench.about()}. (A − B) / A: A is "
        "the accuracy of the scores, B that of the class whose map has the largest sum. The other methods are Captum's "
        "(CAM ours) on the CNN. GCM's (イ) is its weight map; its (ニ) is 0 by construction, since that sum is its "
        "score. What each way does to a map is our reading of the paper's short names.",
        "",
        "| | " + " | ".join(f"({sign}) {way}" for way, sign in WAYS.items()) + " |",
        "|---|" + "---|" * len(WAYS),
    ]  # fmt: skip
    lines += [f"| {name} | " + " | ".join(f"{row[way]:.4f}" for way in WAYS) + " |" for name, row in ratios.items()]
    return lines, ratios


# ---- figures ---------------------------------------------------------------------------------------------------------


def save(bench, figure, number):
    name = f"paper-figure-{number}{bench.suffix}.png"
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / name, dpi=70)
    return f"![Figure {number}]({name})"


def one_of_each(y, chosen):
    """The first image of each class among the chosen."""
    index = np.flatnonzero(chosen)
    return index[np.unique(y[index], return_index=True)[1]]


def comparison(gcm, cnn, X, y):
    """Figure 10: rows of images, columns (a) to (i), for the true class."""
    from matplotlib import pyplot as plt

    maps, evidence = Methods(gcm, cnn)(X)
    images, chosen = evidence.images, (np.arange(len(X)), np.searchsorted(gcm.classes_, y))
    maps = {name: m[chosen] for name, m in maps.items()}
    ccm = maps["GCM"] * images.mean(3)
    grey = {name: m if m.ndim == 3 else m.mean(3) for name, m in maps.items()}
    mixed = {name: coloured(grey[name][:, None], images)[:, 0] for name in ("CAM", "Grad-CAM")}
    columns = {
        "(a) image": images,
        "(b) GCM: weights": maps["GCM"],
        "(c) GCM: contributions": ccm,
        "(d) Guided Backprop.": grey["Guided Backpropagation"],
        "(e) Guided Grad-CAM": grey["Guided Grad-CAM"],
        "(f) CAM": maps["CAM"],
        "(g) CAM on image": mixed["CAM"],
        "(h) Grad-CAM": maps["Grad-CAM"],
        "(i) Grad-CAM on image": mixed["Grad-CAM"],
    }
    shape, size = (len(X), len(columns)), (1.5 * len(columns), 1.55 * len(X))
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for j, (title, pictures) in enumerate(columns.items()):
        axes[0, j].set_title(title, fontsize=8)
        for i, picture in enumerate(pictures):
            limit = np.abs(picture).max() or 1
            colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if picture.ndim == 2 else {}
            axes[i, j].imshow(picture.clip(0, 1) if picture.ndim == 3 else picture, **colours)
            axes[i, j].set(xticks=[], yticks=[])
    for i, label in enumerate(y):
        axes[i, 0].set_ylabel(label)
    return figure


def figures(bench):
    """Figures 6 to 10, on our images."""
    gcm, clipped, cnn = bench.of_first_seed("cifar10", *MODELS)
    _, _, X, y = bench.load("cifar10")
    X, y = X[:2000], y[:2000]
    right = gcm.predict(X) == y
    rows, wrong = one_of_each(y, right)[:5], one_of_each(y, ~right)[:5]
    draw = ContributionDisplay.from_estimator
    lines = [
        "The first test image that is classified correctly, or wrongly, of each of the first five classes; in "
        "figure 8 the first of each digit, however it is read. Red raises the score of the class, blue lowers it; in "
        "figures 6 to 9 true classes are framed. "
        "The paper's own figures were not available: their subjects, and the columns of figure 10, are our choice.",
        "",
        save(bench, draw(gcm, X[rows], y[rows], classes="top-2").figure_, 6),
        "Contributions to the two best classes. CIFAR-10, GCM.",
        "",
        save(bench, draw(clipped, X[rows], y[rows], classes="top-2").figure_, 7),
        "The same images by the clipped variant, whose weights are never negative.",
        "",
    ]
    if bench.args.svhn is not None:
        [digits] = bench.of_first_seed("svhn", "GCM")
        _, _, X_digits, y_digits = bench.load("svhn")
        some = one_of_each(y_digits, np.arange(len(y_digits)) < 500)[:5]
        display = draw(digits, X_digits[some], y_digits[some], classes="top-2")
        lines += [save(bench, display.figure_, 8), "SVHN.", ""]
    lines += [
        save(bench, draw(gcm, X[wrong], y[wrong], classes="top-2").figure_, 9),
        "Images that are classified wrongly.",
        "",
        save(bench, comparison(gcm, cnn, X[rows], y[rows]), 10),
        "The true class by each method. Each map has its own scale, white is 0.",
    ]
    return lines, {"seed": bench.args.seeds[0], "images": rows.tolist(), "wrong": wrong.tolist()}


PARTS = {"accuracy": accuracy, "svhn": svhn, "decline": decline, "figures": figures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", metavar="PATH")
    parser.add_argument("--svhn", metavar="PATH")
    parser.add_argument("--about-svhn", metavar="TEXT", default="", help="what its images are, if not official")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--images", type=int, default=10_000, help="test images of Table 8 (default: 10,000)")
    parser.add_argument("--smooth", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", metavar="FOLDER")
    args = parser.parse_args()
    if args.validate and "figures" in args.only:
        parser.error("--validate writes nothing: say --only and leave out figures")
    bench = Bench(args)
    if empty := [part for part in args.only if part in ROWS and not bench.rows(part)]:
        parser.error(f"--models {args.models} are no rows of {empty}: {ROWS}")
    given = [("--" + name, Path(path).name) for name in ("cifar10", "svhn") if (path := getattr(args, name))]
    head = {
        "machine": machine(),
        "versions": versions("scikit-learn", "skorch", "captum"),
        "epochs": args.epochs,
        "seeds": args.seeds,
    }
    for part in args.only:
        command = ["python", "benchmarks/paper.py", *chain(*given), "--only", part, "--seeds", *map(str, args.seeds)]
        command += ["--epochs", str(args.epochs)]
        for flag in ("long", "smooth"):
            command += [f"--{flag}"] * getattr(args, flag)
        for option in ("batch_size", "lr"):
            if (value := getattr(args, option)) is not None:
                command += [f"--{option.replace('_', '-')}", str(value)]
        if args.jobs != 1:
            command += ["--jobs", str(args.jobs)]
        name = part + bench.suffix
        if (rows := bench.rows(part)) != ROWS.get(part, []):
            command += ["--models", *rows]
            name += "".join(f"-{model.replace(', ', '-')}" for model in rows)
        if part == "decline":
            command += ["--images", str(args.images)]
        if part == "svhn" and args.about_svhn:
            command += ["--about-svhn", args.about_svhn]
        head["command"] = shlex.join(command)
        lines, found = PARTS[part](bench)
        lines = [f"# The paper's experiments: {name}", "", origin(head), "", *lines]
        print("\n".join(lines))
        if not args.validate:
            write(f"paper-{name}", lines, {**head, "found": found})


if __name__ == "__main__":
    main()
