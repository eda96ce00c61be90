"""
An operating point
==================

A missed defect often costs more than a false alarm. Then the class with the highest probability is not the cheapest
answer. ``TunedThresholdClassifierCV`` of scikit-learn finds the threshold that costs least on held-out images.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split

from skgcm import GCMClassifier

X, digit = load_digits(return_X_y=True)
y = np.where(digit == 8, "defect", "good")  # a tenth of the images; an eight stands for a defect here
X_train, X_rest, y_train, y_rest = train_test_split(X, y, train_size=300, stratify=y, random_state=0)
X_valid, X_test, y_valid, y_test = train_test_split(X_rest, y_rest, train_size=0.5, stratify=y_rest, random_state=0)

# %%
# What do errors cost? State it in money, or as here in multiples of a false alarm.
MISSED, FALSE_ALARM = 20, 1


def cost(y_true, y_pred):
    """Mean cost of an image."""
    (_, missed), (false_alarms, _) = confusion_matrix(y_true, y_pred, labels=["defect", "good"])
    return (MISSED * missed + FALSE_ALARM * false_alarms) / len(y_true)


# %%
# The classifier is fitted once. ``cv="prefit"`` leaves it as it is, and the held-out images choose the threshold.
clf = GCMClassifier(max_epochs=20, random_state=0).fit(X_train, y_train)
scorer = make_scorer(cost, greater_is_better=False)
tuned = TunedThresholdClassifierCV(
    clf,
    scoring=scorer,
    response_method="decision_function",
    thresholds=200,
    cv="prefit",
    refit=False,
    store_cv_results=True,
)
tuned.fit(X_valid, y_valid)
print(f"good only where its score is higher by {tuned.best_threshold_:.2f}")

# %%
# On test images:
for name, model in (("highest probability", clf), ("tuned threshold", tuned)):
    predicted = model.predict(X_test)
    (found, missed), (false_alarms, _) = confusion_matrix(y_test, predicted, labels=["defect", "good"])
    print(
        f"{name}: {found} defects found, {missed} missed, {false_alarms} false alarms, "
        f"cost {cost(y_test, predicted):.3f} an image"
    )

# %%
# The curve shows how much depends on the exact threshold. Where it is flat, any value will do. With few defects
# among the held-out images it has steps, and its lowest point is uncertain.
thresholds, costs = tuned.cv_results_["thresholds"], -tuned.cv_results_["scores"]
difference = clf.decision_function(X_test)  # score of "good" minus score of "defect"
test_costs = [cost(y_test, np.where(difference >= threshold, "good", "defect")) for threshold in thresholds]
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.plot(thresholds, costs, label="held-out images, which chose")
ax.plot(thresholds, test_costs, label="test images")
ax.axvline(0, color="grey", linewidth=0.8, linestyle="--", label="highest probability")
ax.axvline(tuned.best_threshold_, color="black", linewidth=0.8, label=f"chosen, {tuned.best_threshold_:.2f}")
ax.set(xlabel="“good” if its score is higher by at least", ylabel="cost of an image, in false alarms", ylim=(0, 1.5))
ax.legend(fontsize=8)

# %%
# The maps know nothing of the threshold: they show the evidence for both classes, and the decision is made
# afterwards. With more than two classes, give the costs as a matrix and take the class of least expected cost:
# ``(clf.predict_proba(X) @ costs).argmin(axis=1)``, where ``costs[i, j]`` is the cost of answering ``j`` for ``i``.
# This needs calibrated probabilities: ``clf.calibrate(X_valid, y_valid)``.
