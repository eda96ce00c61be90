"""The classifiers of the benchmarks that GCM is compared with are trained by the same code, which must take them."""

import numpy as np
import pytest
import torch
from _cnn import CNNClassifier, StandardisedCNNClassifier

PARAMS = {"max_epochs": 2, "batch_size": 32, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    return rng.integers(0, 100, (64, 8, 8, 3), dtype=np.uint8) + (80 * y[:, None, None, None]).astype(np.uint8), y


@pytest.mark.parametrize("params", [{}, {"mosaic": 0.5}], ids=str)
@pytest.mark.parametrize("classifier", [CNNClassifier, StandardisedCNNClassifier])
def test_the_cnn_is_trained_like_gcm(images, classifier, params):
    X, y = images
    clf = classifier(**PARAMS, **params).fit(X, y)
    with torch.inference_mode():
        scores = clf.net_.network.eval()(torch.from_numpy(X).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(clf.decision_function(X), scores[:, 1] - scores[:, 0], atol=1e-4)


def test_a_pretrained_encoder_with_a_linear_layer_is_trained_like_gcm(images):
    pytest.importorskip("timm")
    linear = pytest.importorskip("_linear")
    X, y = images
    clf = linear.LinearClassifier(encoder="test_efficientnet", encoder_weights=None, **PARAMS).fit(X, y)
    network, scaled = clf.net_.network.eval(), torch.from_numpy(X).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        means = network.cam(scaled, torch.arange(2).expand(64, 2)).mean((2, 3)) + network.head.bias
        torch.testing.assert_close(means, network(scaled), atol=1e-4, rtol=1e-4)
