"""
Inspecting surfaces
===================

From a folder of images to a picture that an inspector can check: fit, choose, measure, find the images that a person
should look at, and ask what part of a decision lies inside a box.

    .venv/bin/python examples/plot_inspection.py steel    # steel/scratches/1.jpg, steel/patches/2.jpg, ...

Without a folder it draws sheets of its own: clean ones, and ones with a dark scratch or a bright spot.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from sklearn.base import clone
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder


def drawn_sheets(n=400, size=64):
    """Grey sheets with a rough surface, uint8 (n, size, size), and what is on them."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(120, 12, (n, size, size)), rng.choice(["clean", "scratch", "spot"], n)
    row, column = np.indices((size, size))
    for sheet, name in zip(X, y, strict=True):
        (r, c), angle = rng.uniform(12, size - 12, 2), rng.uniform(0, np.pi)
        along, across = (column - c) * np.cos(angle) + (row - r) * np.sin(angle), (row - r) * np.cos(angle)
        across -= (column - c) * np.sin(angle)
        if name == "scratch":
            sheet[(abs(along) < 10) & (abs(across) < 1.5)] -= 60
        elif name == "spot":
            sheet[along**2 + across**2 < 12] += 40
    return X.clip(0, 255).astype(np.uint8), y


if len(sys.argv) > 1:
    X, y, names = load_image_folder(sys.argv[1], size=64, return_paths=True)
else:
    X, y = drawn_sheets()
    names = np.array([f"sheet {i}" for i in range(len(X))])
# A fifth of the images measures the classifier in the end and is not looked at before; another fifth is to choose by.
X, X_test, y, y_test, _, names = train_test_split(X, y, names, test_size=1 / 5, stratify=y, random_state=0)
X_train, X_choose, y_train, y_choose = train_test_split(X, y, test_size=1 / 4, stratify=y, random_state=0)

# %%
# Defects may be darker or brighter than what they are on: with polarity="both", dark pixels can be evidence as well.
# Few images teach more in more epochs; where the classes are of unequal size, add class_weight="balanced".
epochs = 100 if len(X_train) < 500 else 30
plain = GCMClassifier(polarity="both", max_epochs=epochs, augment="shift+flip", random_state=0, verbose=1).fit(
    X_train, y_train
)

# %%
# Mosaics and sparsity put the evidence on the defect and not on what happens to be around it, and a second look without
# what is the least evidence trains the decision not to need it. That may cost accuracy: what follows uses them where
# it is at most a point.
clf = clone(plain).set_params(mosaic=4, sparsity=0.1, second_look=0.1).fit(X_train, y_train)
accuracies = [model.score(X_choose, y_choose) for model in (plain, clf)]
print("accuracy without and with mosaics and sparsity: {:.1%}, {:.1%}".format(*accuracies))
if accuracies[1] < accuracies[0] - 0.01:
    print("The evidence is that of the first: mosaics and sparsity cost too much here.")
    clf = plain
print(classification_report(y_test, clf.predict(X_test), zero_division=0))

# %%
# Which images should a person look at? Those whose two best classes have nearly the same score.
evidence = clf.explain(X_test, classes="top-2")
margin = evidence.scores[:, 0] - evidence.scores[:, 1]
close = np.argsort(margin)[:3]
print("Look at these by hand, the second class is closest:")
for i in close:
    print(f"  {names[i]}: {evidence.classes[i, 0]} before {evidence.classes[i, 1]} by {margin[i]:.2f}")

# %%
# What decided? Beside each image the evidence for its two best classes; red raises a score, blue lowers it. The three
# doubtful images, and the three that the classifier is surest of.
shown = np.concatenate([close, np.argsort(-margin)[:3]])
display = evidence[shown].plot(y=y_test[shown])

# %%
# What part of a decision lies inside a box? Contributions add up, so this is exact: the box's part of the difference of
# the two scores. More than 100 % means that what lies outside speaks for the second class. Here the box is put around
# the largest difference of the surest image; draw your own.
first, second = evidence.classes[shown[3]]
decision = evidence[shown[3]].versus(second)  # the evidence for the first class minus that for the second
difference = decision.pixel_contributions[0, 0]  # (R, C)
row, column = np.unravel_index(difference.argmax(), difference.shape)
n_rows, n_columns = difference.shape
left, right = max(0, column - 12), min(n_columns, column + 12)
top, bottom = max(0, row - 12), min(n_rows, row + 12)
box = left, top, right, bottom
share = decision.region_scores(box)[0, 0] / decision.scores[0, 0]
where = tuple(map(int, box))
print(f"{names[shown[3]]}: {share:.0%} of what speaks for {first} rather than {second} lies inside the box {where}")
ax, colour = display.image_axes_[3], "#ffb000"
ax.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color=colour, linewidth=1.5))
text = f"{share:.0%} of\nthe decision"
ax.text((left + right) / 2, top + 1, text, color=colour, fontsize=7, ha="center", va="top", weight="bold")

path = Path("inspection.png").resolve()
display.figure_.savefig(path, dpi=150)
print(f"evidence maps: {path}")

# %%
# Keep the classifier: GCMClassifier.load("inspection.gcm") is the same one, and runs nothing that is in the file.
path = Path("inspection.gcm").resolve()
clf.save(path)
print(f"the classifier: {path}")
