"""
A grid search and a table of many files on Dask
===============================================

`Dask <https://www.dask.org>`_ runs Python on many machines. scikit-learn's searches use it by joblib: each fit is a
task of some worker. Explanations of files are tasks too, and the model is sent once to each worker. What the model says
of each file is written as Parquet, one part a task, so that no process holds the whole table. Here the cluster is two
processes on this machine. For a real one, pass the address of its scheduler to ``Client``. All workers must see the
images, and the folder of the table, under the same names. Needs the extra ``dask``.
"""

import tempfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from dask import dataframe
from dask.distributed import Client, LocalCluster
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from skgcm import GCMClassifier

UPPER_HALF = 0, 0, 8, 4  # left, top, right, bottom


def save_images(folder, X):
    """Write digits (n, 64), values 0 to 16, as PNG files, and return their names."""
    paths = [str(Path(folder, f"{i}.png")) for i in range(len(X))]
    for path, row in zip(paths, X, strict=True):
        Image.fromarray((row.reshape(8, 8) * 15.9).astype(np.uint8)).save(path)
    return np.array(paths)


def describe(paths, clf):
    """What a classifier says of some files, one row for each: the margin between the two best classes, and its part."""
    evidence = clf.explain(paths, classes="top-2")
    first, second = evidence.scores.T
    of_first, of_second = evidence.region_scores(UPPER_HALF).T
    columns = {"label": evidence.classes[:, 0], "second": evidence.classes[:, 1]}
    return pd.DataFrame({"path": paths, **columns, "margin": first - second, "upper_half": of_first - of_second})


def main():
    X, y = load_digits(return_X_y=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
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
        one_row = describe(test[:1], search.best_estimator_)  # tells Dask the columns
        table = dataframe.from_map(describe, np.array_split(test, 4), clf=model, meta=one_row)
        table.to_parquet(Path(folder, "table"), write_index=False)
        table = pd.read_parquet(Path(folder, "table")).set_index("path").loc[test]

    right = (table["label"] == y_test).to_numpy()
    print(f"accuracy on {len(test)} held-out files: {np.mean(right):.3f}")

    # Left: mean accuracy of two folds by the width of the encoder, and the standard deviation
    results = search.cv_results_
    widths = np.asarray(results["param_encoder_width"], dtype=float)
    _, (left_ax, right_ax) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left_ax.errorbar(widths, results["mean_test_score"], results["std_test_score"], marker="o", capsize=3)
    left_ax.set_xscale("log", base=2)
    left_ax.set_xticks(widths, [f"{width:.0f}" for width in widths])
    left_ax.set(xlabel="encoder_width", ylabel="accuracy, mean ± s.d. of 2 folds")

    # Right: the table
    for some, style, name in ((right, "o", "right"), (~right, "X", "wrong")):
        right_ax.plot(table["margin"][some], table["upper_half"][some], style, label=f"{name} ({some.sum()})", ms=4)
    right_ax.axline((0, 0), slope=1, color="grey", lw=0.8, label="all of the margin")
    right_ax.set(xlabel="margin of the best class over the second", ylabel="part of it from the upper half")
    right_ax.legend(title="held-out files")


if __name__ == "__main__":  # each worker imports this file
    main()
