"""
Show it where to look
=====================

Each class of these parts was photographed on a surface of its own, so that the surface gives the class away. In
production the surfaces are others. A classifier that was fitted on the photos alone reads the surface; its maps show
it, and it fails on new surfaces. Masks of the defect for a tenth of the photos are enough to mend both.
"""

import numpy as np


def draw_parts(n, seed, surface_of_class):
    """Photos, uint8 (n, 32, 32), of parts with a dark notch or a dark dent; classes; masks of the defects."""
    rng = np.random.default_rng(seed)
    size, names = 32, np.array(["dent", "notch"])
    row, column = np.indices((size, size))
    X, masks, y = np.empty((n, size, size), np.uint8), np.empty((n, size, size), bool), np.arange(n) % 2
    for i, label in enumerate(y):
        angle = (0 if label else np.pi / 2) if surface_of_class else rng.uniform(0, np.pi)  # of the grinding marks
        marks = np.sin(1.6 * (row * np.cos(angle) + column * np.sin(angle)) + rng.uniform(0, 6))
        r, c = rng.integers(6, size - 6, 2)
        masks[i] = (row - r) ** 2 + (column - c) ** 2 <= 9 if label == 0 else (abs(row - r) + abs(column - c) <= 4)
        if label:
            masks[i] = (abs(row - r) <= 1) & (abs(column - c) <= 4) | (abs(column - c) <= 1) & (abs(row - r) <= 4)
        photo = 150 + 18 * marks + rng.normal(0, 6, (size, size)) - 70 * masks[i]
        X[i] = photo.clip(0, 255)
    return X, names[y], masks


X, y, masks = draw_parts(240, 0, surface_of_class=True)
X_new, y_new, masks_new = draw_parts(200, 1, surface_of_class=False)
