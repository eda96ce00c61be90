"""
Show it where to look
=====================

Spots and scratches were photographed on ground metal. In the training photos the direction of the grinding gives the
defect away: each defect comes from a machine of its own. On parts of other machines it says nothing. A classifier that
gets the photos alone reads the grinding, and its maps show this. Masks of the defect for a tenth of the photos move the
evidence onto the defect, on new parts too.

Where the evidence lies is one thing, whether the answer is right is another. Read both numbers before you trust a
classifier.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skgcm import GCMClassifier
from skgcm.metrics import evidence_report


def draw_photos(n, seed, one_machine_each):
    """Grey photos, uint8 (n, 32, 32), their classes, and masks of the defects."""
    rng, size = np.random.default_rng(seed), 32
    row, column = np.indices((size, size))
    X, masks, y = np.empty((n, size, size), np.uint8), np.empty((n, size, size), bool), np.arange(n) % 2
    for i, label in enumerate(y):
        grinding = label * np.pi / 2 + rng.normal(0, 0.1) if one_machine_each else rng.uniform(0, np.pi)
        marks = np.sin(1.6 * (row * np.cos(grinding) + column * np.sin(grinding)) + rng.uniform(0, 2 * np.pi))
        (r, c), angle = rng.integers(7, size - 7, 2), rng.uniform(0, np.pi)
        along = (column - c) * np.cos(angle) + (row - r) * np.sin(angle)
        across = (row - r) * np.cos(angle) - (column - c) * np.sin(angle)
        masks[i] = (abs(along) < 6) & (abs(across) < 1.3) if label else along**2 + across**2 < 9
        photo = 150 + 18 * marks + rng.normal(0, 6, (size, size)) - 60 * masks[i]
        X[i] = photo.clip(0, 255)
    return X, np.array(["spot", "scratch"])[y], masks


X, y, masks = draw_photos(240, 0, one_machine_each=True)
X_new, y_new, masks_new = draw_photos(200, 1, one_machine_each=False)

# The classifier warns that the new surfaces are unlike those of the training images. Here this is intended.
warnings.filterwarnings("ignore", message=".* unlike the training images")

# %%
# The first fit gets the photos alone.
plain = GCMClassifier(augment="shift", max_epochs=20, batch_size=16, random_state=0).fit(X, y)
print(f"Photos alone: accuracy {plain.score(X, y):.2f} on these photos, {plain.score(X_new, y_new):.2f} on new parts")
print(evidence_report(plain, X_new, y_new, masks_new))

# %%
# The second fit also gets masks for a tenth of the photos. An image that nobody has looked at has None.
some = [mask if i < len(X) // 10 else None for i, mask in enumerate(masks)]
shown = GCMClassifier(augment="shift", max_epochs=20, batch_size=16, random_state=0).fit(X, y, masks=some)
print(f"Masks for {len(X) // 10} photos: accuracy {shown.score(X, y):.2f} and {shown.score(X_new, y_new):.2f}")
print(evidence_report(shown, X_new, y_new, masks_new))

# %%
# The evidence for the true class now lies on the defect, and the accuracy on new parts is as poor as before. The
# picture shows why. Where the answer is wrong, there is blue on the grinding: it still speaks against a class, and in
# all training photos it is right to. Masks say where the evidence for a class should lie. They cannot replace photos of
# other machines.
#
# Photos of new parts, and the evidence for their true class: red raises its score, blue lowers it. The outline is the
# defect.
chosen = np.arange(6)
figure, axes = plt.subplots(3, len(chosen), figsize=(8, 4.4), layout="constrained")
for ax, image in zip(axes[0], X_new[chosen], strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
for row, (clf, name) in enumerate([(plain, "photos alone"), (shown, "masks for a tenth")], start=1):
    maps = clf.explain(X_new[chosen], y_new[chosen, None]).pixel_contributions[:, 0]
    limit = np.percentile(abs(maps), 99.5)
    predicted = clf.predict(X_new[chosen])
    for ax, one, label, true in zip(axes[row], maps, predicted, y_new[chosen], strict=True):
        ax.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_xlabel(label if label == true else f"{label} (wrong)", fontsize=8)
    axes[row, 0].set_ylabel(name, fontsize=8)
axes[0, 0].set_ylabel("photo", fontsize=8)
for column, (mask, label) in enumerate(zip(masks_new[chosen], y_new[chosen], strict=True)):
    axes[0, column].set_title(label, fontsize=8)
    for ax in axes[:, column]:
        ax.contour(mask, levels=[0.5], colors="#ffb000", linewidths=1)
        ax.set(xticks=[], yticks=[])
