import pickle

import numpy as np
import pytest
import torch

from skgcm import GCMClassifier, training


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    factors = [training.learning_rate_factor(i / 1000) for i in range(1001)]
    assert factors[250] == 1
    assert (np.diff(factors[:251]) > 0).all()
    assert (np.diff(factors[250:]) < 0).all()
    assert factors[0] == 0
    assert factors[-1] == pytest.approx(0, abs=1e-12)


def test_a_pickle_holds_no_generator_of_a_device():
    X, y = np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 2
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu", random_state=0).fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    assert again.net_.shuffling_ is again.net_.augmenting_ is again.net_.step_ is None
    again.net_.partial_fit(X.reshape(8, -1).astype(np.float32), y)


@pytest.mark.parametrize("polarity", ["bright", "both"])
def test_a_fit_with_mosaics_and_sparsity_adds_up_and_repeats_itself(polarity):
    X = np.random.default_rng(0).integers(0, 256, (23, 7, 9, 3), dtype=np.uint8)  # no multiple of 9, odd sizes
    params = {"max_epochs": 2, "batch_size": 7, "mosaic": 3, "sparsity": 0.1, "polarity": polarity, "random_state": 0}
    one, other = (GCMClassifier(**params).fit(X, np.arange(23) % 12) for _ in range(2))  # 12: some classes are drawn
    evidence = one.explain(X, "all")
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=1e-5)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    assert (evidence.cwm_dark is None) == (polarity == "bright")
    assert all(norm.momentum == 0.1 for norm in one.net_.network.modules() if isinstance(norm, torch.nn.BatchNorm2d))
