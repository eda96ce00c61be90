import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from skgcm import GCMClassifier
from skgcm.training import cuda_graph, erasing, mosaic, net, sparsity


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    factors = [net.learning_rate_factor(i / 1000) for i in range(1001)]
    assert factors[250] == 1
    assert (np.diff(factors[:251]) > 0).all()
    assert (np.diff(factors[250:]) < 0).all()
    assert factors[0] == 0
    assert factors[-1] == pytest.approx(0, abs=1e-12)


def test_a_pickle_holds_no_generator_and_no_graph_of_a_device():
    X, y = np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 2
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu", random_state=0).fit(X, y)
    clf.net_.step_ = threading.Lock()  # as in the midst of a fit: what no pickle can hold
    again = pickle.loads(pickle.dumps(clf))
    assert again.net_.shuffling_ is again.net_.augmenting_ is again.net_.step_ is None
    again.net_.partial_fit(X.reshape(8, -1).astype(np.float32), y)


@pytest.mark.parametrize("erasing", [0, 1])
@pytest.mark.parametrize("params", [{"polarity": "bright"}, {"polarity": "both"}, {"architecture": "paper"}], ids=str)
def test_a_fit_with_mosaics_and_sparsity_adds_up_and_repeats_itself(params, erasing):
    X = np.random.default_rng(0).integers(0, 256, (23, 7, 9, 3), dtype=np.uint8)  # no multiple of 4, odd sizes
    params = {"max_epochs": 2, "batch_size": 7, "mosaic": 0.5, "sparsity": 0.1, "random_state": 0, **params}
    params |= {"erasing": erasing, "device": "cpu"}
    one, other = (GCMClassifier(**params).fit(X, np.arange(23) % 12) for _ in range(2))
    evidence = one.explain(X, "all")
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=1e-5)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    assert (evidence.cwm_dark is None) == (one.net_.network.polarity == "bright")
    assert all(norm.momentum == 0.1 for norm in one.net_.network.modules() if isinstance(norm, torch.nn.BatchNorm2d))


@pytest.fixture
def steps(monkeypatch):
    """A list to which each step of training adds its options, a dict."""
    seen, train_step = [], net.GCMNet.train_step_single

    def watched(net, batch, **options):
        seen.append(options)
        return train_step(net, batch, **options)

    monkeypatch.setattr(net.GCMNet, "train_step_single", watched)
    return seen


def test_the_penalty_rises_over_a_fit_and_not_where_nothing_is_scheduled(steps):
    X, y = np.random.default_rng(0).random((16, 6, 6)), np.arange(16) % 2
    clf = GCMClassifier(**{**TINY, "max_epochs": 2}, sparsity=0.8).fit(X, y)
    assert [step["sparsity"] for step in steps] == pytest.approx([0.2, 0, 1.0, 0])  # in every other step twice
    clf.partial_fit(X, y)
    GCMClassifier(**{**TINY, "max_epochs": 1}, sparsity=0.8, lr_schedule="constant").fit(X, y)
    assert [step["sparsity"] for step in steps[4:]] == [1.6, 0] * 2


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25, 1 / 3, 0.5])
def test_half_of_the_mosaics_and_half_of_the_other_batches_have_the_penalty(share):
    X, y = np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 2
    net = GCMClassifier(**{**TINY, "max_epochs": 1}, mosaic=share).fit(X, y).net_
    net.history.new_epoch()
    options = [step for _, step in net._plan([], 0, 1, 600)]
    for kind in (True, False):
        penalised = [step["sparsity"] > 0 for step in options if step["mosaic"] == kind]
        assert abs(np.mean(penalised) - 0.5) < 0.02


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 1 / 3, np.float32(0.4), 0.5])
def test_mosaics_are_spread_evenly_over_the_batches_of_a_fit(steps, share):
    X, y = np.random.default_rng(0).random((16, 6, 6)), np.arange(16) % 2
    clf = GCMClassifier(**{**TINY, "max_epochs": 30}, mosaic=share).fit(X, y)  # two steps an epoch
    before = np.cumsum([0, *(step["mosaic"] for step in steps)])
    assert (np.abs(before - share * np.arange(61)) < 1).all()
    del steps[:]
    for _ in range(20):  # batch by batch, as from a stream
        clf.partial_fit(X[:8], y[:8])
    assert abs(sum(step["mosaic"] for step in steps) - 20 * share) <= 1


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_erasing_is_spread_among_the_mosaics_after_thirty_percent_of_a_fit(steps, share):
    X, y = np.random.default_rng(0).random((16, 6, 6)), np.arange(16) % 2
    clf = GCMClassifier(**{**TINY, "max_epochs": 40}, mosaic=1 / 3, erasing=share).fit(X, y)  # two steps an epoch
    assert not any(step["erase"] for step in steps[:24])
    assert all(step["mosaic"] for step in steps if step["erase"])
    late = [step["erase"] for step in steps[24:] if step["mosaic"]]
    assert (np.abs(np.cumsum(late) - share * np.arange(1, len(late) + 1)) <= 1).all()
    del steps[:]
    for _ in range(24):  # where nothing is scheduled, from the start
        clf.partial_fit(X[:8], y[:8])
    assert abs(sum(step["erase"] for step in steps) - 8 * share) <= 1


@pytest.mark.parametrize("n_classes", [3, 12])
@pytest.mark.parametrize("n_images", [13, 16])
@pytest.mark.parametrize("params", [{"polarity": "bright"}, {"polarity": "both"}, {"architecture": "paper"}], ids=str)
@pytest.mark.parametrize("erase", [False, True])
def test_a_step_with_mosaics_learns_each_part_by_its_own_label(params, n_images, n_classes, erase):
    X, y = np.random.default_rng(0).random((n_images, 6, 7, 3)), np.arange(n_images) % n_classes
    params = {**TINY, "max_epochs": 1, "batch_size": n_images, "augment": None, "precision": "float32", **params}
    net = GCMClassifier(n_classes, **params).fit(X, y).net_
    with torch.no_grad():
        for parameter in net.network.head.parameters():
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    net.augmenting_, net.shuffling_, net.step_ = (
        torch.Generator().manual_seed(5),
        torch.Generator().manual_seed(6),
        cuda_graph.GraphedForward(net.module_),
    )
    rows, labels = torch.tensor(X.reshape(n_images, -1), dtype=torch.float32), torch.tensor(y)
    buffers = {name: x.clone() for name, x in net.network.named_buffers() if "running" in name}
    net.network.zero_grad()
    found = net.train_step_single((rows, labels), mosaic=True, sparsity=0.5, erase=erase)
    assert all(torch.equal(x, buffers[name]) for name, x in net.network.named_buffers() if name in buffers)

    images = rows.reshape(n_images, 6, 7, 3).permute(0, 3, 1, 2)
    augmenting = torch.Generator().manual_seed(5)
    if erase:
        shares = erasing.MAX_SHARE * torch.rand(n_images, 1, generator=augmenting)
        lost = erasing.low_evidence_mask(net.network, images, labels, shares)[:, None]
        assert lost.any()
        images = torch.where(lost, images.mean((0, 2, 3), keepdim=True), images)
    made, regions, of_parts = mosaic.make_mosaics(images, labels, torch.Generator().manual_seed(6))
    n_parts = len(of_parts)
    features, size = net.network.features(made, regions), tuple(made.shape[2:])
    ccm = (net.network.head.weight_maps(features, size) * net.network.intensities(made)[:, :, None]).sum(1)
    other = sparsity.draw_other(of_parts, n_classes, augmenting)
    scores, penalties = [], []
    for part in range(n_parts):
        inside = regions[part // 4, part % 4].bool()
        of_part = ccm[part // 4][:, inside]  # (N, pixels)
        scores.append(of_part.mean(1))
        own, wrong = of_part[of_parts[part]], of_part[other[part]].relu().mean()
        penalties.append(own.abs().mean() ** 2 / own.square().mean() + (-own).relu().mean() + wrong)
    scores = torch.stack(scores)
    loss = torch.nn.functional.cross_entropy(scores, of_parts)
    parameters = [net.network.head.bias, net.network.head.kernels[0]]
    expected = torch.autograd.grad(loss + 0.5 * torch.stack(penalties).mean(), parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(found["y_pred"], scores[:n_images])  # in the order of the batch
    torch.testing.assert_close(found["loss"], loss)


def test_erasing_without_mosaics_is_refused(tmp_path):
    X, y = np.random.default_rng(0).random((16, 6, 6)), np.arange(16) % 2
    with pytest.raises(ValueError, match=r"erasing=0.5 is a share of the mosaics.*Set mosaic="):
        GCMClassifier(**TINY, erasing=0.5).fit(X, y)
    clf = GCMClassifier(**TINY, mosaic=0.5, erasing=0.5).fit(X, y).set_params(mosaic=0)
    with pytest.raises(ValueError, match=r"erasing=0.5"):
        clf.partial_fit(X, y)
    clf.save(path := tmp_path / "model.gcm")  # of a fit that had them
    assert GCMClassifier.load(path).get_params() == clf.get_params()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 1)], ids=str)
def test_images_of_a_pixel_and_of_a_row_take_all_options(shape):
    X, y = np.random.default_rng(0).random((13, *shape)), np.arange(13) % 2
    params = {**TINY, "mosaic": 0.5, "sparsity": 0.1, "erasing": 1, "augment": "shift+flip+rotate+cutout"}
    clf = GCMClassifier(**params, image_shape=shape).fit(X, y)
    assert np.isfinite(clf.decision_function(X)).all()


TINY = {"encoder_width": 4, "max_epochs": 3, "batch_size": 8, "device": "cpu", "random_state": 0}


@pytest.fixture
def spoilt(monkeypatch):
    """A function that makes training write a value into tensors, found in the net, after so many steps from now."""

    def spoil(find, value, after):
        train_step, steps = net.GCMNet.train_step, 0

        def spoiling(net, *args, **kwargs):
            nonlocal steps
            out, steps = train_step(net, *args, **kwargs), steps + 1
            if steps == after:
                find(net).fill_(value)
            return out

        monkeypatch.setattr(net.GCMNet, "train_step", spoiling)

    return spoil


def _weight(net):
    return net.network.head.kernels[0].detach()


def _statistic(net):
    return net.network.encoder.stages[0][0][1].running_var


def _momentum(net):
    return net.optimizer_.state[net.network.head.bias]["momentum_buffer"]


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(
    ("find", "value", "message"),
    [
        (_weight, np.nan, r"(head\.kernels\.0|valid_loss)"),
        (_statistic, np.inf, r"encoder\.stages\.0\.0\.1\.running_var"),
        (_momentum, -np.inf, "the optimizer's momentum_buffer"),
    ],
    ids=["weight", "statistic", "momentum"],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_divergence_in_the_last_step_is_an_error(spoilt, method, find, value, message, early_stopping):
    X, y = np.random.default_rng(0).random((32, 6, 6)), np.arange(32) % 2
    clf = GCMClassifier(**TINY, early_stopping=early_stopping, validation_fraction=0.25).fit(X, y)
    before, scores = vars(clf).copy(), clf.decision_function(X)
    steps = 4 if method == "partial_fit" else 9 if early_stopping else 12
    spoilt(find, value, after=steps)
    epoch = 4 if method == "partial_fit" else 3
    with pytest.raises(FloatingPointError, match=rf"{message} .* in epoch {epoch} at lr=[0-9.]+: .* a smaller lr"):
        getattr(clf, method)(X, y)
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.decision_function(X), scores)


def test_a_nan_loss_is_not_an_improvement(monkeypatch):
    losses, seen = iter([0.7, np.nan]), []
    monkeypatch.setattr(net.GCMNet, "_validate", lambda net, batches: next(losses))
    monkeypatch.setattr(net.EarlyStopping, "on_epoch_end", lambda self, net, **_: seen.append(net.history[-1]))
    X, y = np.random.default_rng(0).random((32, 6, 6)), np.arange(32) % 2
    with pytest.raises(FloatingPointError, match="valid_loss is nan in epoch 2"):
        GCMClassifier(**TINY, early_stopping=True).fit(X, y)
    assert [epoch["valid_loss"] for epoch in seen] == [0.7]


def test_ctrl_c_at_the_end_of_an_epoch_is_not_taken_for_early_stopping(monkeypatch):
    on_epoch_end = net.EarlyStopping.on_epoch_end

    def interrupted(self, net, **kwargs):
        on_epoch_end(self, net, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(net.EarlyStopping, "on_epoch_end", interrupted)
    X, y = np.random.default_rng(0).random((32, 6, 6)), np.arange(32) % 2
    clf = GCMClassifier(**TINY, early_stopping=True)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not hasattr(clf, "net_")


def test_a_step_is_forgotten_before_the_next():
    from skorch.callbacks import Callback

    class Watching(Callback):
        def on_batch_begin(self, net, **kwargs):
            alive.append(self.loss_() is not None if hasattr(self, "loss_") else False)

        def on_batch_end(self, net, loss, **kwargs):
            self.loss_ = weakref.ref(loss)

    X, y, alive = np.random.default_rng(0).random((12, 6, 6)), np.arange(12) % 2, []
    GCMClassifier(**{**TINY, "batch_size": 4}, callbacks=[Watching()]).fit(X, y)
    assert alive[:3] == [False] * 3


def test_a_callback_ends_training_with_a_keyboard_interrupt():
    from skorch.callbacks import Callback

    class Enough(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    X, y = np.random.default_rng(0).random((32, 6, 6)), np.arange(32) % 2
    assert len(GCMClassifier(**TINY, callbacks=[Enough()]).fit(X, y).history_) == 1


def test_what_a_callback_sets_to_evaluation_trains_again_in_the_next_epoch():
    class Freezes(Callback):
        def __init__(self):
            self.modes = []

        def on_epoch_end(self, net, **kwargs):
            self.modes.append(net.network.encoder.training)
            net.network.encoder.eval()

    X, y, freezes = np.random.default_rng(0).random((8, 6, 6)), np.arange(8) % 2, Freezes()
    GCMClassifier(encoder_width=4, max_epochs=3, random_state=0, device="cpu", callbacks=[freezes]).fit(X, y)
    assert freezes.modes == [True, True, True]
