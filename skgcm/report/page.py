"""From a report's arrays to HTML: the content and the templates."""

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from skgcm._version import __version__
from skgcm.plotting.colours import BLUES, REDS, SIGNED, common_scale, picture
from skgcm.report import maps
from skgcm.report.measures import RISKS
from skgcm.report.text import plain, shorten, to_json

HERE = Path(__file__).parent
LARGEST_TABLE = 30  # classes: of more, the report lists the most frequent confusions in place of a matrix
PREVIEW = 4, 3  # images and classes of each that a notebook shows
PREVIEW_SIZE = 256  # pixels, of a side
NINTHS = [
    ["at the upper left", "at the top", "at the upper right"],
    ["at the left", "in the centre", "at the right"],
    ["at the lower left", "at the bottom", "at the lower right"],
]
THIRDS_DOWN = "in the upper third", "in the middle third from top to bottom", "in the lower third"
THIRDS_ACROSS = "in the left third", "in the middle third from left to right", "in the right third"


def render(report):
    """The whole file of a :class:`skgcm.Report`, str."""
    evidence, names = report.explanation, [plain(label) for label in report._labels]
    packed, records, leading, error = [], [], [], 0.0
    for i, one in enumerate(evidence):
        contributions = one.pixel_contributions[0]
        integers, steps = maps.quantise(contributions)
        packed.append(maps.pack(integers))
        records.append(_record(report, i, steps.tolist()))
        error = max(error, 2 * steps.max() / contributions[0].size)
        a, b = leading_pair(records[-1])
        leading.append(contributions[a] - (0 if b is None else contributions[b]))
    pictures, exact = maps.pictures(evidence.images)
    largest = max(float(np.abs(evidence.scores).max()), np.finfo(np.float32).tiny)
    against = None if evidence.against is None else plain(evidence.against)
    data = {
        "classes": names,
        "rows": evidence.images.shape[1],
        "columns": evidence.images.shape[2],
        "scale": common_scale(np.stack(leading)),
        "error": error,
        "decimals": int(np.clip(2 - np.floor(np.log10(largest)), 2, 8)),  # three digits of the largest score
        "weights": evidence.cwm_dark is None,
        "colours": {"signed": SIGNED, "for": REDS[2], "against": BLUES[2]},
        "measured": report._log_proba is not None,
        "images": records,
    }
    script, style = _read("script.js"), _read("style.css")
    return _template("report.html").render(
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
        version=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        data=to_json(data),
        classes=names,
        error=error,
        relative_error=error / largest,
        exact=exact,
        k=evidence.classes.shape[1],
        n_shown=len(evidence),
        has_true=report._true is not None,
        strange_shown=int(report._strange.sum()),
        against=against,
        reasons={reason: report.reasons.count(reason) for reason in ("wrong", "doubtful", "sample")},
        quality=report.quality,
        risks=RISKS,
        largest_table=LARGEST_TABLE,
        overview=report._survey and _overview(report, names),
        packed=packed,
        pictures=pictures,
    )


def _record(report, i, steps):
    """The record of image i for the page: positions of classes, -1 if unknown."""
    scores = report.explanation.scores[i].astype(float)
    record = {
        "name": plain(report.names[i]),
        "number": int(report.shown[i]),
        "why": report.reasons[i],
        "classes": report._classes[i].tolist(),
        "scores": scores.tolist(),
        "steps": steps,
        "true": -1 if report._true is None else int(report._true[i]),
        "predicted": -1,
        "strange": bool(report._strange[i]),
    }
    order = np.argsort(-scores, kind="stable")
    record["margin"] = float(scores[order[0]] - (scores[order[1]] if len(order) > 1 else 0))
    if report._log_proba is not None:
        logarithms = report._log_proba[i].astype(float)
        order = np.argsort(-logarithms, kind="stable")
        record["predicted"] = int(order[0])
        record["margin"] = float(logarithms[order[0]] - logarithms[order[1]])
        record["probabilities"] = np.exp(logarithms[record["classes"]]).round(6).tolist()
    return record


def leading_pair(record):
    """Positions among an image's classes of the class that the page shows first, and of the one it compares with.

    The predicted class against the true one where it is wrong, else against the next in score. The script does the
    same.
    """
    order = sorted(range(len(record["scores"])), key=lambda j: -record["scores"][j])
    first = record["classes"].index(record["predicted"]) if record["predicted"] >= 0 else order[0]
    rest = [j for j in order if j != first]
    if record["true"] in record["classes"] and record["true"] != record["classes"][first]:
        return first, record["classes"].index(record["true"])
    return first, (rest[0] if rest else None)


def _overview(report, names):
    about, quality = report._survey, report.quality
    mean_maps = about["mean_maps"]
    array = np.stack(list(mean_maps.values()))
    scale = common_scale(array)
    drawn = picture(array[None], np.zeros((1, *array.shape[1:])), "map", scale)[0, ..., :3]
    means = [
        {
            "label": names[j],
            "n": int(about["counts"][j]),
            "uri": maps.png(pixels, PREVIEW_SIZE),
            "where": whereabouts(mean_maps[j]),
        }
        for j, pixels in zip(mean_maps, drawn, strict=True)
    ]
    confused = []
    if quality is not None and len(names) > LARGEST_TABLE:
        errors = quality.confusion * (1 - np.eye(len(names), dtype=np.int64))
        most = np.argsort(-errors, axis=None, kind="stable")[:LARGEST_TABLE]
        confused = [(*divmod(at, len(names)), int(errors.flat[at])) for at in most.tolist() if errors.flat[at]]
    return {**about, "means": means, "mean_scale": scale, "confused": confused}


def preview(explanation, names=None):
    """A few images of an explanation, small, as HTML without a script: for notebooks."""
    n_images, n_classes = PREVIEW
    some = explanation[:n_images]
    against = None if explanation.against is None else plain(explanation.against)
    rows = []
    if explanation.classes.size:
        scale = common_scale(some.pixel_contributions)
        for i, one in enumerate(some):
            best = np.argsort(-one.scores[0], kind="stable")[:n_classes]
            drawn = one.to_images("map", scale=scale)[0][best, ..., :3]
            cells = [
                {
                    "label": plain(one.classes[0, j]),
                    "score": float(one.scores[0, j]),
                    "uri": maps.png(pixels, PREVIEW_SIZE),
                }
                for j, pixels in zip(best.tolist(), drawn, strict=True)
            ]
            name = str(i) if names is None else plain(names[i])
            uri = maps.png(maps.visible(one.images)[0], PREVIEW_SIZE)
            rows.append({"name": name, "uri": uri, "cells": cells})
    return _template("preview.html").render(
        title=repr(explanation), rows=rows, more=len(explanation) - len(some), against=against
    )


def whereabouts(mean_map):
    """Text about where most of a map's positive evidence lies: a ninth, a third, or at least where it is densest."""
    positive = np.maximum(mean_map, 0)
    if not positive.any():
        return "nothing speaks for it"
    thirds = {}
    for axis, names in enumerate((THIRDS_DOWN, THIRDS_ACROSS)):
        thirds |= zip(names, np.array_split(positive, 3, axis=axis), strict=True)
    ninths = {
        name: part
        for band, names in zip(np.array_split(positive, 3, axis=0), NINTHS, strict=True)
        for name, part in zip(names, np.array_split(band, 3, axis=1), strict=True)
    }
    third, ninth = (max(parts, key=lambda name: parts[name].sum()) for parts in (thirds, ninths))
    in_third, in_ninth = thirds[third].sum() / positive.sum(), ninths[ninth].sum() / positive.sum()
    if in_third >= 0.5 and in_ninth < 0.4 * in_third:  # a stripe: a third of it lies in each ninth
        return f"{in_third:.0%} of what speaks for it is {third}"
    if in_ninth >= 0.2:  # a ninth is 11 %
        return f"{in_ninth:.0%} of what speaks for it is {ninth}"
    rows, columns = (max(side // 10, 1) for side in positive.shape)
    edges = {
        "at the upper edge": positive[:rows],
        "at the lower edge": positive[-rows:],
        "at the left edge": positive[:, :columns],
        "at the right edge": positive[:, -columns:],
    }
    density = {name: part.mean() / positive.mean() for name, part in (thirds | edges | ninths).items() if part.size}
    densest = max(density, key=density.get)
    if density[densest] < 1.2:
        return "spread over the image"
    return f"spread over the image, strongest {densest}"


def _read(name):
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text):
    """The hash by which a Content-Security-Policy allows this inlined text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _template(name):
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shorten": shorten, "percent": _percent}
    return environment.get_template(name)


def _percent(share, decimals=1):
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"
