"""
Digits in a minute
==================

Train on scikit-learn's images of handwritten digits, measure the accuracy on held-out images, and draw the evidence.
``make demo`` runs this script.
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import ContributionDisplay, GCMClassifier

X, y = load_digits(return_X_y=True)  # 1,797 rows of 8 x 8 pixels, values 0 to 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

# The digits are bright on black. With polarity="bright" only bright pixels can be evidence. The default lets dark
# pixels be evidence too, which is right for photos.
print("training, about 20 seconds ...", flush=True)
clf = GCMClassifier(polarity="bright", max_epochs=40, random_state=0).fit(X_train, y_train)
print(f"accuracy on {len(X_test)} held-out images: {clf.score(X_test, y_test):.4f}")

# %%
# Do not read too much into the shape of the maps: a black pixel contributes nothing here, so a map always looks like
# the digit. What the classifier decided is which parts of the digit are red or blue, and how much.
#
# Each row of the picture has one image and its three classes of highest score. Red pixels raise the score of the class
# above them, blue pixels lower it, and white pixels do not change it. The mean over all pixels is the score below them.
# Below it is the probability. The predicted class is bold. The true class has a frame.
first = [list(y_test).index(digit) for digit in (0, 3, 6, 8)]
display = ContributionDisplay.from_estimator(clf, X_test[first], y_test[first], classes="top-3")

display.figure_.savefig("digits.png", dpi=150)
print("The picture is in digits.png.")
