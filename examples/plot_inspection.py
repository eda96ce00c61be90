"""
Surfaces of your own folder
===========================

From a folder of photos to a picture that an inspector can check: split by groups, fit, measure, find the photos that a
person must look at, and compute how much of a decision lies inside a box. To run it on your photos, give the folder
and, where several photos show the same part, a regular expression that finds the part in a file name::

    python examples/plot_inspection.py parts "part(\\d+)"    # parts/good/part17_left.png, parts/scratch/part3_top.png

Without a folder the script draws photos of metal sheets: clean ones, ones with a dark scratch and ones with a bright
spot. Each sheet is photographed four times.
"""

import sys

import numpy as np
from sklearn.metrics import classification_report
from sklearn.model_selection import StratifiedGroupKFold

from skgcm import GCMClassifier
from skgcm.datasets import load_image_folder


def draw_photos(n_sheets=72, size=40):
    """Grey photos, uint8 (n, size, size), their classes and the number of the sheet that each photo shows."""
    rng, X, y = np.random.default_rng(0), [], []
    row, column = np.indices((size + 8, size + 8))
    for sheet in range(n_sheets):
        surface = rng.normal(120, 10, row.shape)
        (r, c), angle = rng.uniform(14, size - 6, 2), rng.uniform(0, np.pi)
        along = (column - c) * np.cos(angle) + (row - r) * np.sin(angle)
        across = (row - r) * np.cos(angle) - (column - c) * np.sin(angle)
        name = ("clean", "scratch", "spot")[sheet % 3]
        if name == "scratch":
            surface[(abs(along) < 8) & (abs(across) < 1.5)] -= 60
        elif name == "spot":
            surface[along**2 + across**2 < 10] += 45
        for top, left in rng.integers(0, 9, (4, 2)):  # the camera is never at exactly the same place
            photo = surface[top : top + size, left : left + size] * rng.uniform(0.85, 1.15) + rng.normal(
                0, 4, (size, size)
            )
            X.append(photo.clip(0, 255).astype(np.uint8))
            y.append(name)
    return np.array(X), np.array(y), np.repeat(np.arange(n_sheets), 4)


if len(sys.argv) > 2:
    X, y, names, groups = load_image_folder(sys.argv[1], size=64, return_paths=True, groups=sys.argv[2])
elif len(sys.argv) > 1:
    X, y, names = load_image_folder(sys.argv[1], size=64, return_paths=True)
    groups = np.arange(len(X))  # each photo shows another part
else:
    X, y, groups = draw_photos()
    names = np.array([f"sheet {group}, photo {i % 4}" for i, group in enumerate(groups)])
print(f"{len(X)} photos of {len(set(groups))} parts")

# %%
# All photos of one part must be on the same side of the split. Otherwise the classifier recognises the part and not the
# defect, and the accuracy on held-out photos is too high.
train, test = next(StratifiedGroupKFold(n_splits=4, shuffle=True, random_state=0).split(X, y, groups))
X_test, y_test, names = X[test], y[test], names[test]

# %%
# "flip" and "rotate" are right for surfaces, which have no up and down. Where a class has few images, add
# ``class_weight="balanced"``. For your own photos leave out ``max_epochs``: the default depends on the number of
# images.
clf = GCMClassifier(augment="shift+flip+rotate", max_epochs=40, random_state=0)
clf.fit(X[train], y[train])
print(classification_report(y_test, clf.predict(X_test), zero_division=0))

# %%
# A person must look at the photos whose two best classes have nearly the same score.
evidence = clf.explain(X_test, classes="top-2")
margin = evidence.scores[:, 0] - evidence.scores[:, 1]
doubtful = np.argsort(margin)[:2]
print("Look at these photos. The scores of their two best classes are closest:")
for i in doubtful:
    print(f"  {names[i]}: {evidence.classes[i, 0]} before {evidence.classes[i, 1]} by {margin[i]:.2f}")

# %%
# How much of a decision lies inside a box? Contributions add up, so the answer is exact. ``versus`` is the evidence for
# the best class minus the evidence for the second one. More than 100 % means that the pixels outside the box speak for
# the second class. Here the smallest boxes that hold half of the positive evidence are computed, and the first of them
# is used. You can pass a box of your own: (left, top, right, bottom) in pixels. The photos are those two and, of each
# class, the one with the largest difference; the box is in the last one.
certain = [np.flatnonzero(evidence.classes[:, 0] == name) for name in clf.classes_]
shown = np.array([*doubtful, *(found[margin[found].argmax()] for found in certain if len(found))])
last = shown[-1]
best, second = evidence.classes[last]
decision = evidence[last].versus(second)
box = decision.boxes(0.5)[0][0][0]
share = decision.region_scores(box)[0, 0] / decision.scores[0, 0]
print(f"{names[last]}: {share:.0%} of the difference between {best} and {second} is inside the box {box.tolist()}")

# %%
# The picture shows the photos and their two best classes. Red raises the score of a class, blue lowers it. The evidence
# is at the defect and around it, because each weight depends on the pixels around it. For a clean sheet it is
# everywhere: no single place shows that a sheet is clean.
boxes = [*[None] * (len(shown) - 1), box]
display = evidence[shown].plot(y=y_test[shown], masks=boxes)
display.image_axes_[-1].set_title(f"{share:.0%} of {best} minus\n{second} in the box", fontsize=7)
display.figure_.savefig("inspection.png", dpi=150)
print("The picture is in inspection.png.")

# %%
# Save the classifier. ``GCMClassifier.load("inspection.gcm")`` makes the same predictions and executes nothing that is
# in the file.
clf.save("inspection.gcm")
