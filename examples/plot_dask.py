"""
A grid search and many predictions on Dask
==========================================

`Dask <https://www.dask.org>`_ runs Python on many machines. scikit-learn's searches use it by joblib: each fit is a
task of some worker. Predictions of files are tasks too, and the model is sent once to each worker. Here the cluster is
two processes on this machine. For a real one, pass the address of its scheduler to ``Client``; images that are read by
name must be where all workers see them. Needs the extra ``dask``.
"""

import tempfile
from pathlib import Path

import joblib
import numpy as np
from dask.distributed import Client, LocalCluster
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from skgcm import GCMClassifier


def save_images(folder, X):
    """Write digits (n, 64), values 0 to 16, as PNG files, and return their names."""
    paths = [str(Path(folder, f"{i}.png")) for i in range(len(X))]
    for path, row in zip(paths, X, strict=True):
        Image.fromarray((row.reshape(8, 8) * 15.9).astype(np.uint8)).save(path)
    return np.array(paths)


def main():
    X, y = load_digits(return_X_y=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        paths = save_images(folder, X[:900])
        train, test, y_train, y_test = train_test_split(paths, y[:900], stratify=y[:900], random_state=0)

        # One thread a worker: fits share neither the memory of a process nor its Ctrl-C
        clf = GCMClassifier(image_shape=(8, 8, 1), max_epochs=10, device="cpu", random_state=0)
        search = GridSearchCV(clf, {"encoder_width": [4, 8, 16]}, cv=2)
        with joblib.parallel_config(backend="dask"):
            search.fit(train, y_train)
        print(f"best: {search.best_params_}, accuracy in cross-validation {search.best_score_:.3f}")

        model = client.scatter(search.best_estimator_, broadcast=True)
        tasks = [client.submit(GCMClassifier.predict, model, part) for part in np.array_split(test, 4)]
        predicted = np.concatenate(client.gather(tasks))
        print(f"accuracy on {len(test)} held-out files: {np.mean(predicted == y_test):.3f}")

    # Mean accuracy of two folds by the width of the encoder, and the standard deviation
    results = search.cv_results_
    widths = np.asarray(results["param_encoder_width"], dtype=float)
    _, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
    ax.errorbar(widths, results["mean_test_score"], results["std_test_score"], marker="o", capsize=3)
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [f"{width:.0f}" for width in widths])
    ax.set(xlabel="encoder_width", ylabel="accuracy, 2 folds")


if __name__ == "__main__":  # each worker imports this file
    main()
