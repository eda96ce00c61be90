"""
Deployed with ONNX Runtime
==========================

``to_onnx`` writes a file that needs neither PyTorch nor skgcm: ONNX Runtime and NumPy compute scores, probabilities and
contribution maps. Writing the file needs the extra ``onnx``: ``pip install ".[onnx]"``.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skgcm import GCMClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

# %%
# On the computer that trains:
clf = GCMClassifier(polarity="bright", max_epochs=40, random_state=0).fit(X_train, y_train)
print(f"accuracy of skgcm: {clf.score(X_test, y_test):.4f}")
with TemporaryDirectory() as folder:
    file = Path(folder) / "digits.onnx"
    clf.to_onnx(file)
    model = file.read_bytes()
print(f"the file has {len(model):,} bytes")

# %%
# On the computer that predicts. The graph takes images (n, rows, columns, channels) in the units of the training
# images. Labels, image size and value range are in the file's metadata.
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options)
metadata = session.get_modelmeta().custom_metadata_map
classes, shape = json.loads(metadata["classes"]), json.loads(metadata["image_shape"])
print(f"labels {classes}, image size {shape}, value range {metadata['value_range']}")

images = X_test.reshape(-1, *shape).astype(np.float32)
names = ["scores", "probabilities", "contributions", "typicality"]
scores, probabilities, contributions, typicality = session.run(names, {"images": images})
predicted = np.asarray(classes)[scores.argmax(axis=1)]
print(f"accuracy of ONNX Runtime: {(predicted == y_test).mean():.4f}")
print(f"images unlike the training images (typicality below 0.001): {(typicality < 0.001).sum()} of {len(images)}")

# %%
# The contributions (n, classes, rows, columns, channels) average to the scores, as in Python.
print(f"largest difference: {np.abs(contributions.mean(axis=(2, 3, 4)) - scores).max():.1e}")
seconds = []
for image in images[:200]:
    start = time.perf_counter()
    session.run(None, {"images": image[None]})
    seconds.append(time.perf_counter() - start)
print(f"one image with the maps of ten classes: {1e3 * np.median(seconds):.2f} ms")

# %%
# The first four images, and what each pixel contributes to the predicted class: red raises the score, blue lowers it.
figure, axes = plt.subplots(2, 4, figsize=(7, 3.8), layout="constrained")
maps = [contributions[i, scores[i].argmax()].mean(axis=-1) for i in range(4)]
limit = np.abs(maps).max()
for i, (upper, lower) in enumerate(axes.T):
    upper.imshow(images[i, :, :, 0], cmap="gray")
    upper.set_title(f"predicted: {predicted[i]}\nprobability {probabilities[i].max():.3f}", fontsize=8)
    drawn = lower.imshow(maps[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
    lower.set_title(f"score {scores[i].max():.2f}", fontsize=8)
    for ax in (upper, lower):
        ax.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes[1], label="contribution of a pixel")
