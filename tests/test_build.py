import numpy as np
import pytest
import torch

from skgcm import GCMClassifier
from skgcm.network import DEFAULTS, GCM
from skgcm.training import build


def test_seeds():
    assert build.draw_seed(3) == build.draw_seed(3)
    assert build.draw_seed(None) != build.draw_seed(None)
    state = np.random.RandomState(0)
    assert build.draw_seed(state) != build.draw_seed(state)


def test_an_invalid_device_is_named():
    with pytest.raises(ValueError, match="device='tpu3' is not a device"):
        build.resolve_device("tpu3")


CPU, CUDA = torch.device("cpu"), torch.device("cuda")  # the object needs no GPU
AUTO = {"batch_size": "auto", "lr": "auto", "max_epochs": "auto", "optimizer": "auto"}
AUTO |= {"encoder": "gcm", "encoder_weights": "pretrained"}
NUMBERS = [1, 2, 100, 383, 384, 767, 768, 5000, 9999, 10_000, 60_000, 10**7]


@pytest.mark.parametrize(
    ("n", "on_cpu", "on_cuda"),
    [(1, 16, 16), (383, 16, 16), (384, 32, 32), (767, 32, 32), (768, 64, 64), (50_000, 64, 512), (None, 64, 64)],
)
def test_few_images_come_in_small_batches_and_many_in_large_ones_on_a_gpu(n, on_cpu, on_cuda):
    assert build.resolve_schedule(AUTO, CPU, n)["batch_size"] == on_cpu
    assert build.resolve_schedule(AUTO, CUDA, n)["batch_size"] == on_cuda


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_more_images_have_fewer_epochs_and_more_steps(device):
    found = [build.resolve_schedule(AUTO, device, n) for n in NUMBERS]
    epochs = [schedule["max_epochs"] for schedule in found]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (build.MAX_EPOCHS, build.MIN_EPOCHS)
    assert all(type(schedule["max_epochs"]) is int for schedule in found)
    steps = [n / schedule["batch_size"] * schedule["max_epochs"] for n, schedule in zip(NUMBERS, found, strict=True)]
    assert steps[0] < steps[4] < steps[7] < steps[-1]


def test_larger_batches_have_a_larger_learning_rate():
    rates = {n: build.resolve_schedule({**AUTO, "batch_size": n}, CPU, 1000)["lr"] for n in (1, 64, 128, 512)}
    assert rates[1] == rates[64] > 0
    assert rates[512] == 4 * rates[128] == 8 * rates[64]
    adamw = {build.resolve_schedule({**AUTO, "optimizer": "adamw", "batch_size": n}, CPU, 9)["lr"] for n in (8, 512)}
    assert len(adamw) == 1
    assert adamw.pop() < rates[64]
    # a class of torch.optim has its own default
    assert build.resolve_schedule({**AUTO, "optimizer": torch.optim.Adam}, CPU, 9)["lr"] == 0.001


def test_a_pretrained_encoder_has_adamw_and_fewer_epochs():
    for weights, fewer in (("pretrained", True), ("resnet18.pth", True), (None, False)):
        params = {**AUTO, "encoder": "resnet18", "encoder_weights": weights}
        assert build.resolve_optimizer(params) == "adamw"
        found, own = (build.resolve_schedule(which, CPU, 60) for which in (params, AUTO))
        assert found["lr"] < own["lr"]
        assert (found["max_epochs"] < own["max_epochs"]) == fewer
    assert build.resolve_optimizer(AUTO) == "sgd"
    assert build.resolve_optimizer({**params, "optimizer": "sgd"}) == "sgd"


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("n", [3, 20_000, None])
def test_what_is_given_is_not_changed(device, n):
    given = {"batch_size": 5, "lr": 0.3, "max_epochs": 7}
    assert build.resolve_schedule({**AUTO, **given, "optimizer": "adamw"}, device, n) == given
    for name, value in given.items():
        assert build.resolve_schedule({**AUTO, name: value}, device, n)[name] == value


PARAMS = {name: getattr(GCMClassifier(), name) for name in build.NETWORK_PARAMS}


def test_the_network_s_parameters_go_by_the_architecture():
    for architecture, defaults in DEFAULTS.items():
        found = build.resolve_network({**PARAMS, "architecture": architecture}, (32, 32, 3))
        assert found.items() >= defaults.items()
        assert "auto" not in found.values()
        GCM(3, **found)
    given = {**PARAMS, "architecture": "paper", "decoder_width": 5, "polarity": "both", "n_stages": 2}
    assert build.resolve_network(given, (300, 300, 1)) == given


def test_large_images_have_more_stages():
    def stages(*size, architecture="multiscale"):
        return build.resolve_network({**PARAMS, "architecture": architecture}, (*size, 3))["n_stages"]

    found = [stages(side, side) for side in (1, 28, 32, 95, 96, 255, 256, 2000)]
    assert found == sorted(found)
    assert found[0] == found[3] == 3
    assert found[-1] == 3 + len(build.LARGE_SIDES)
    assert stages(1, 10**6) == stages(1000, 1000)  # by the number of pixels
    assert stages(2000, 2000, architecture="paper") == 3


def test_a_classifier_keeps_auto_and_its_net_has_the_numbers(tmp_path):
    X, y = np.random.default_rng(0).random((12, 6, 6)), np.arange(12) % 2
    clf = GCMClassifier(encoder_width=2, device="cpu", random_state=0, max_epochs=1).fit(X, y)
    expected = build.resolve_schedule({**AUTO, "max_epochs": 1}, CPU, 12)
    assert {name: getattr(clf.net_, name) for name in expected} == expected
    assert (clf.lr, clf.batch_size, clf.n_stages, clf.decoder_width, clf.polarity) == ("auto",) * 5
    assert (clf.net_.module__n_stages, clf.net_.module__window) == (3, (6, 6))
    clf.save(tmp_path / "model.gcm")
    loaded = GCMClassifier.load(tmp_path / "model.gcm")
    assert loaded.get_params() == clf.get_params()
    assert loaded.net_.module__decoder_width == clf.net_.module__decoder_width
    assert loaded.net_.network.window == (6, 6)
    np.testing.assert_array_equal(loaded.decision_function(X), clf.decision_function(X))
    frame = np.tile(X[:1], (1, 3, 2))
    np.testing.assert_array_equal(loaded.explain(frame, any_size=True).cwm, clf.explain(frame, any_size=True).cwm)


@pytest.mark.parametrize(("architecture", "expected"), [("multiscale", 0.3), ("paper", 0)])
def test_the_penalty_on_spread_evidence_is_not_in_the_paper(architecture, expected):
    X, y = np.random.default_rng(0).random((8, 4, 4)), np.arange(8) % 2
    clf = GCMClassifier(architecture=architecture, encoder_width=2, max_epochs=1, device="cpu").fit(X, y)
    assert (clf.sparsity, clf.net_.sparsity) == ("auto", expected)


def test_a_stream_has_one_epoch_at_a_time_and_the_same_rate_however_many_images_come():
    X, y = np.random.default_rng(0).random((12, 6, 6)), np.arange(12) % 2
    clf = GCMClassifier(encoder_width=2, device="cpu", random_state=0)
    clf.partial_fit(X, y, classes=[0, 1])
    unknown = build.resolve_schedule(AUTO, CPU, None)
    for part in (X, X[:5]):
        clf.partial_fit(part, y[: len(part)])
        assert (clf.net_.lr, clf.net_.batch_size) == (unknown["lr"], unknown["batch_size"])
        assert clf.net_.max_epochs == 1
    assert len(clf.history_) == 3


def test_epochs_of_auto_are_trained():
    X, y = np.random.default_rng(0).random((4, 2, 2)), np.arange(4) % 2
    clf = GCMClassifier(encoder_width=1, decoder_width=1, n_stages=1, device="cpu", random_state=0).fit(X, y)
    assert len(clf.history_) == build.MAX_EPOCHS


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, "float32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "AMD EPYC"}, "float32"),
        ({}, "float32"),
    ],
    ids=["AMD", "Intel without AMX", "AMX", "no bfloat16", "another architecture"],
)
def test_bfloat16_where_it_is_faster(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert build.resolve_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize("device", ["mps", torch.device("mps"), "mps:0"])
def test_mps_is_a_device_where_pytorch_has_it(device, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device=.*mps.*, but PyTorch has no MPS here\. Use device='auto' or 'cpu'"):
        build.resolve_device(device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert build.resolve_device(device).type == "mps"
    assert build.resolve_precision("auto", torch.device("mps")) == "float32"
    assert build.resolve_device("auto").type != "mps"
