"""
Choosing the width by grid search
=================================

``GCMClassifier`` is a scikit-learn estimator, so ``GridSearchCV`` can choose its parameters. Two of them set the number
of channels: ``encoder_width`` and ``decoder_width``. Time grows with both. Take the smallest network whose accuracy is
as good as that of the largest.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

# %%
# Three folds of each width. Where several images show one object, use ``StratifiedGroupKFold`` and pass ``groups`` to
# ``search.fit``. For long searches set ``checkpoint`` to a folder: a search that was killed continues when it is
# started again.
search = GridSearchCV(
    GCMClassifier(max_epochs=10, random_state=0),
    {"encoder_width": [4, 8, 16], "decoder_width": [4, 8]},
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
)
search.fit(X_train, y_train)
print(f"best: {search.best_params_}, accuracy in cross-validation {search.best_score_:.3f}")
print(f"accuracy on held-out images, which took no part in the search: {search.score(X_test, y_test):.3f}")

# %%
# The points are the mean accuracy of three folds, and the bars one standard deviation of them. Differences smaller than
# the bars are no reason to prefer a width.
results = search.cv_results_
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for offset, width in ((0.97, 4), (1.03, 8)):
    chosen = np.asarray(results["param_decoder_width"] == width)
    widths = np.asarray(results["param_encoder_width"][chosen], dtype=float)
    mean, deviation = results["mean_test_score"][chosen], results["std_test_score"][chosen]
    ax.errorbar(widths * offset, mean, deviation, marker="o", capsize=3, label=f"decoder_width={width}")
ax.set_xscale("log", base=2)
ax.set_xticks([4, 8, 16], ["4", "8", "16"])
ax.set(xlabel="encoder_width", ylabel="accuracy, 3 folds")
ax.legend()
