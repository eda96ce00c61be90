"""
Leave the doubtful to a person
==============================

A machine that decides only the images it is sure of makes fewer errors. The rest goes to a person. How sure is sure
enough? Held-out images answer that: take the lowest threshold at which at most 1 % of what the machine decides is
wrong.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=200, stratify=y, random_state=0)
X_valid, X_test, y_valid, y_test = train_test_split(X_rest, y_rest, train_size=0.5, stratify=y_rest, random_state=0)

# %%
# 200 images for training are few, so there are doubtful ones. ``calibrate`` makes the probabilities right on
# average. The threshold could be found without it too, since it hardly changes the order of the images.
clf = GCMClassifier(max_epochs=40, random_state=0).fit(X_train, y_train)
clf.calibrate(X_valid, y_valid)


def risk_coverage(X, y):
    """Probability of each answer, surest first, and the share of wrong ones among the answers so far."""
    probability = clf.predict_proba(X)
    confidence, wrong = probability.max(axis=1), clf.classes_[probability.argmax(axis=1)] != y
    order = np.argsort(-confidence)
    return confidence[order], wrong[order].cumsum() / np.arange(1, len(y) + 1)


# %%
# On the held-out images: the most that can be decided at an error of 1 %.
confidence, risk = risk_coverage(X_valid, y_valid)
allowed = np.flatnonzero(risk <= 0.01)
threshold = confidence[allowed[-1]] if len(allowed) else np.inf
print(f"decide where the probability is at least {threshold:.3f}")

# %%
# On test images, which had no part in this:
confidence_test, risk_test = risk_coverage(X_test, y_test)
decided = (confidence_test >= threshold).sum()
share = decided / len(y_test)
print(f"errors if the machine decides all: {risk_test[-1]:.1%} of {len(y_test)} images")
if decided:
    print(f"it decides {share:.1%} of them, and {risk_test[decided - 1]:.1%} of these are wrong")
print(f"left to a person: {len(y_test) - decided} images")

# %%
# The curve goes from the surest images on the left to all images on the right. A threshold that was found on a few
# hundred images is uncertain: a handful of errors decides. Choose a lower error than the one you need, or more
# images.
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, values in (("held-out images, which gave the threshold", risk), ("test images", risk_test)):
    ax.plot(100 * np.arange(1, len(values) + 1) / len(values), 100 * values, label=name)
ax.axhline(1, color="grey", linewidth=0.8, linestyle="--")
ax.axvline(100 * share, color="black", linewidth=0.8, label=f"threshold {threshold:.2f}")
ax.annotate("the machine decides ", (100 * share, 0.97), xycoords=("data", "axes fraction"), ha="right", va="top")
ax.annotate(" a person", (100 * share, 0.97), xycoords=("data", "axes fraction"), va="top")
ax.set(xlim=(0, 100), ylim=(0, None), xlabel="decided by the machine, % of the images", ylabel="of these wrong, %")
ax.legend(loc="center left", fontsize=8)

# %%
# A person who gets the doubtful images wants to know between which classes the doubt is, and where in the image.
# That is ``versus``, see :ref:`sphx_glr_gallery_plot_versus.py`. The package MAPIE makes sets of classes from the
# same probabilities instead of one class ("3 or 8"), such that a set has the true class with a probability of your
# choice (conformal prediction). It takes a fitted classifier as it is.
