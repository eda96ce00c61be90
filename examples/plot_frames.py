"""
Evidence in whole frames
========================

Train on small crops, then classify and explain frames of any size with ``any_size=True``. A frame must have the scale
of the crops: an object that is 10 pixels long in a crop must be 10 pixels long in the frame. Do not resize frames.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from skgcm import GCMClassifier

rng = np.random.default_rng(0)


def surface(n_rows, n_columns):
    return rng.normal(128, 12, (n_rows, n_columns))


def draw_defect(image, name, row, column):
    rows, columns = np.indices(image.shape)
    if name == "scratch":
        image[(abs(rows - row - (columns - column)) < 2) & (abs(columns - column) < 6)] -= 60
    elif name == "spot":
        image[(rows - row) ** 2 + (columns - column) ** 2 < 12] += 50


# %%
# 300 crops of 32 x 32 pixels in three classes.
names = np.array(["clean", "scratch", "spot"])
y = np.repeat(names, 100)
X = np.array([surface(32, 32) for _ in y])
for image, name in zip(X, y, strict=True):
    draw_defect(image, name, *rng.uniform(8, 24, 2))
X = X.clip(0, 255).astype(np.uint8)
clf = GCMClassifier(augment="shift+flip+rotate", max_epochs=40, random_state=0).fit(X, y)

# %%
# A frame of 96 x 160 pixels with one scratch and one spot.
frame = surface(96, 160)
draw_defect(frame, "scratch", 30, 40)
draw_defect(frame, "spot", 66, 118)
frame = frame.clip(0, 255).astype(np.uint8)

# %%
# Ask for the classes that you look for, not for the predicted one. The score is the mean over the whole frame, so a
# small defect changes it little. The map shows where the defect is. ``boxes`` finds the smallest boxes that hold a
# share of the positive evidence: here of the evidence for the defect minus that for "clean".
#
# Red speaks for the defect and blue for "clean". Grey areas near a defect speak for neither. A red area is larger than
# the defect, because each weight depends on the pixels around it: take it as a place to look at, not as the outline.
evidence = clf.explain(frame[None], classes=["clean", "scratch", "spot"], any_size=True).versus("clean")
pictures, boxes = evidence.to_images()[0], evidence.boxes(0.3)[0]

figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(frame, cmap="gray", vmin=0, vmax=255)
axes[0].set_title("frame", fontsize=10)
for ax, name, picture, found in zip(axes[1:], evidence.classes[0], pictures, boxes, strict=True):
    ax.imshow(picture)
    ax.set_title(f"red: {name} rather than clean", fontsize=10)
    for left, top, right, bottom in found[:1].tolist():  # no box where nothing speaks for the defect
        corner, size = (left - 1, top - 1), (right - left + 1, bottom - top + 1)
        ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black"))
        print(f"{name}: the box with most evidence is {(left, top, right, bottom)}")
for ax in axes:
    ax.set(xticks=[], yticks=[])
