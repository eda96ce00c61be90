"""What only a GPU can show. Skipped where there is none."""

import pickle

import numpy as np
import pytest
import torch

from skgcm import GCMClassifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).integers(0, 120, (96, 10, 12, 3), dtype=np.uint8)
    y = np.arange(96) % 3
    X[np.arange(96), ..., y] += 100
    return GCMClassifier(max_epochs=8, batch_size=32, device="auto", random_state=0).fit(X, y), X


def test_auto_takes_cuda_and_the_maps_add_up(fitted):
    clf, X = fitted
    assert next(clf.net_.network.parameters()).device.type == "cuda"
    evidence = clf.explain(X, "all")
    tolerance = 1e-5 * np.abs(evidence.scores).max()
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=tolerance)
    np.testing.assert_allclose(clf.decision_function(X), evidence.scores, atol=tolerance)


def test_the_processor_finds_the_same_scores(fitted):
    clf, X = fitted
    moved = pickle.loads(pickle.dumps(clf))
    moved.net_.module_.to("cpu")
    scores = clf.decision_function(X)
    np.testing.assert_allclose(moved.decision_function(X), scores, atol=1e-4 * np.abs(scores).max())
