"""
Evidence of handwritten digits
==============================

Train on scikit-learn's 8×8 digits, see how well that works on digits never seen, and look at what decided.
"""

from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import ContributionDisplay, GCMClassifier

X, y = load_digits(return_X_y=True)  # rows of 64 pixels, 0 to 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

clf = GCMClassifier(random_state=0, verbose=1).fit(X_train, y_train)
print(f"test accuracy: {clf.score(X_test, y_test):.4f}")

# %%
# One row a digit: its image, then the evidence for and against the three classes of highest score. The average of what
# is red and blue under a class is the number below it.
first = [list(y_test).index(digit) for digit in (0, 3, 6, 8)]
display = ContributionDisplay.from_estimator(clf, X_test[first], y_test[first], classes="top-3")

path = Path("digits.png").resolve()
display.figure_.savefig(path, dpi=150)
print(f"evidence maps: {path}")
