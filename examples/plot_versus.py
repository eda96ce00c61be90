"""
Which of two classes, and why
=============================

A contribution map shows what a pixel adds to the score of one class. It does not show whether the pixel adds the same
to another class. If it does, the pixel decides nothing. ``versus`` subtracts the evidence for one class from the
evidence for the others, so only the difference remains.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
clf = GCMClassifier(polarity="bright", max_epochs=40, random_state=0).fit(X_train, y_train)

# %%
# Take the held-out images with the smallest difference between their two best scores.
scores = np.sort(clf.decision_function(X_test))
doubtful = np.argsort(scores[:, -1] - scores[:, -2])[:3]
evidence = clf.explain(X_test[doubtful], classes="top-2")
display = evidence.plot(y=y_test[doubtful])

# %%
# For each of these images: the evidence for the best class minus the evidence for the second one. Red pixels speak for
# the best class and against the second, blue pixels the other way round. The number below is the difference of the two
# scores, and it is the mean of the map.
for one, label in zip(evidence, y_test[doubtful], strict=True):
    best, second = one.classes[0]
    difference = one.versus(second)
    print(f"{best} minus {second}: {difference.scores[0, 0]:.3f}, mean of the map {difference.ccm.mean():.3f}")
    difference.plot(y=[label])

# %%
# Each of these pictures has its own colour scale. ``versus()`` without a class subtracts the mean of all classes: why
# this class and not any other class?
