"""
Features for another model
==========================

``transform`` returns the contribution maps as rows of features. In a ``Pipeline`` another model can use them: here
nearest neighbours, which show similar images for each prediction. Fit the second model on images that the classifier
was not fitted on: maps of its own training images already contain their labels.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=300, stratify=y, random_state=0)
X_maps, X_known, y_maps, y_known = train_test_split(X_train, y_train, test_size=1 / 2, stratify=y_train, random_state=0)

clf = GCMClassifier(polarity="bright", max_epochs=40, random_state=0).fit(X_maps, y_maps)

# %%
# ``FrozenEstimator`` keeps the fitted classifier as it is when the pipeline is fitted.
neighbours = make_pipeline(FrozenEstimator(clf), PCA(20, random_state=0), KNeighborsClassifier(4))
neighbours.fit(X_known, y_known)
print(f"features of an image: {clf.transform(X_test[:1]).shape[1]}, named like {clf.get_feature_names_out()[0]}")
print(f"accuracy of the classifier: {clf.score(X_test, y_test):.3f}")
print(f"accuracy of its maps and nearest neighbours: {neighbours.score(X_test, y_test):.3f}")

# %%
# The first image of each row is held out. The others are the known images with the most similar evidence, and their
# labels.
shown = [list(y_test).index(digit) for digit in (1, 3, 8, 9)]
_, nearest = neighbours[-1].kneighbors(neighbours[:-1].transform(X_test[shown]))

figure, axes = plt.subplots(len(shown), 5, figsize=(5, 4.4), layout="constrained")
for row, i, found in zip(axes, shown, nearest, strict=True):
    images, titles = [X_test[i], *X_known[found]], [f"held out: {y_test[i]}", *map(str, y_known[found])]
    for ax, image, title in zip(row, images, titles, strict=True):
        ax.imshow(np.reshape(image, (8, 8)), cmap="gray")
        ax.set_title(title, fontsize=8)
        ax.set(xticks=[], yticks=[])
