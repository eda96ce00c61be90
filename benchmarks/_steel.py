"""NEU-DET, defects of steel: the boxes around them, and a picture of the evidence."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from skgcm import ContributionDisplay

FILE_SIZE = 200  # rows and columns of the images that the boxes were drawn on


def read_boxes(folder, paths, size, split="test"):
    """For each image of a split the boxes (left, top, right, bottom) of its class, in pixels once resized.

    The file counts pixels from 1 and its last ones belong to the box; here they count from 0, and end just outside.
    Pixels that a box covers in part are in it.
    """
    boxes = defaultdict(list)
    with open(Path(folder) / "boxes.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split and row["box_class"] == row["class"]:
                left, top = ((int(row[name]) - 1) * size // FILE_SIZE for name in ("xmin", "ymin"))
                right, bottom = (-(-int(row[name]) * size // FILE_SIZE) for name in ("xmax", "ymax"))
                boxes[row["file"]].append((left, top, right, bottom))
    return [boxes[Path(path).name] for path in paths]


def draw(clf, X, y, boxes, path):
    """Write a figure: the first image of each class, the boxes a person has drawn, and the evidence for the class."""
    first = np.unique(y, return_index=True)[1]
    masks = [boxes[index] for index in first]
    display = ContributionDisplay.from_estimator(clf, X[first], y[first], classes=y[first, None], masks=masks)
    display.figure_.savefig(path, dpi=80)
