"""
A classifier without PyTorch
============================

Fit on scikit-learn's 8×8 digits, write an ONNX file, and let a second process read digits with it, which loads neither
PyTorch nor skgcm: ONNX Runtime and NumPy are enough for the scores and for the evidence. Needs the extra "onnx".
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# %%
# The machine that trains. The graph takes images, (n, rows, columns, channels), not rows of pixels as scikit-learn has
# them.


def export(folder):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from skgcm import GCMClassifier

    X, y = load_digits(return_X_y=True)  # rows of 64 pixels, 0 to 16
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)
    clf = GCMClassifier(random_state=0, verbose=1).fit(X_train, y_train)
    print(f"test accuracy: {clf.score(X_test, y_test):.4f}", flush=True)

    clf.to_onnx(folder / "digits.onnx")
    np.savez(folder / "test.npz", X=X_test.reshape(-1, *clf.image_shape_).astype(np.float32), y=y_test)


# %%
# The machine that uses it.


def use(folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # for images this small, more do not pay
    session = onnxruntime.InferenceSession(folder / "digits.onnx", options)
    metadata = session.get_modelmeta().custom_metadata_map
    classes = json.loads(metadata["classes"])
    print(f"labels: {classes}, values: {metadata['value_range']}, size of an image: {metadata['image_shape']}")

    with np.load(folder / "test.npz") as test:
        X, y = test["X"], test["y"]
    scores, probabilities, contributions = session.run(None, {"images": X})
    predicted = np.asarray(classes)[scores.argmax(axis=1)]
    print(f"test accuracy: {(predicted == y).mean():.4f}")
    print(f"the first is a {y[0]}, read as a {predicted[0]} with a probability of {probabilities[0].max():.4f}")

    means = contributions.mean(axis=(2, 3, 4))  # of (n, classes, rows, columns, channels)
    print(f"its scores:                {np.round(scores[0], 3)}")
    print(f"means of its contributions:{np.round(means[0], 3)}")
    print(f"largest difference of all: {np.abs(means - scores).max():.1e}")

    seconds = []
    for image in X[:500]:
        start = time.perf_counter()
        session.run(None, {"images": image[None]})
        seconds.append(time.perf_counter() - start)
    print(f"an image with its ten maps takes {1e3 * np.median(seconds):.2f} ms")
    print(f"PyTorch is loaded: {'torch' in sys.modules}; skgcm is loaded: {'skgcm' in sys.modules}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        use(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            export(Path(folder))
            subprocess.run([sys.executable, __file__, folder], check=True)
