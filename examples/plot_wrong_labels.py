"""
Find wrong labels
=================

Some labels of a real data set are wrong. A classifier that has not seen an image, and finds its label much less
likely than another, points to such labels. ``versus`` shows why. A person decides.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_validate

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X, y = X[:900], y[:900]

# %%
# For this example, 27 labels are made wrong. In your data set you do not know which.
rng = np.random.default_rng(0)
wrong = rng.choice(len(y), 27, replace=False)
given = y.copy()
given[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10

# %%
# Each image gets its scores from a classifier that was fitted without it. ``cross_val_predict`` does the same, but
# does not keep the classifiers, which are asked for their evidence below. If your images have groups (several photos
# of one part), use a splitter for groups.
cv = StratifiedKFold(3, shuffle=True, random_state=0)
clf = GCMClassifier(polarity="bright", max_epochs=25, random_state=0)
folds = cross_validate(clf, X, given, cv=cv, return_estimator=True, return_indices=True)
scores = np.empty((len(X), 10))
for fitted, test in zip(folds["estimator"], folds["indices"]["test"], strict=True):
    scores[test] = fitted.decision_function(X[test])

# %%
# The margin of the given label: its score minus the best other score. The lowest margins are the suspects.
rows = np.arange(len(X))
others = scores.copy()
others[rows, given] = -np.inf
margin = scores[rows, given] - others.max(axis=1)
suspects = np.argsort(margin)
for n in (10, 27, 50):
    print(f"of the {n} lowest margins, {np.isin(suspects[:n], wrong).sum()} have a wrong label (27 in all)")

# %%
# Why does the classifier not believe the label? For the four lowest margins: the evidence for the best class minus
# the evidence for the given label. Red pixels speak for the best class and against the label.
for i in suspects[:4]:
    (fold,) = (k for k, test in enumerate(folds["indices"]["test"]) if i in test)
    evidence = folds["estimator"][fold].explain(X[i : i + 1], [others[i].argmax(), given[i]])
    rather = evidence.versus(given[i])
    print(f"image {i}: labelled {given[i]}, looks like {others[i].argmax()}, margin {margin[i]:.1f}; it is a {y[i]}")
    rather.plot()

# %%
# Low margins are no proof. Rare and badly photographed images have them too, and correcting only the labels that the
# classifier doubts makes the next measurement of its accuracy too good. Correct what a person confirms, and test on
# images whose labels were checked without the classifier.
