"""What a fit hears and says: held-out images, callbacks, losses, lines of text, Ctrl-C."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import callbacks

from skgcm import GCMClassifier
from skgcm.training import net

TINY = {"encoder_width": 4, "decoder_width": 4, "batch_size": 8, "max_epochs": 3, "device": "cpu", "random_state": 0}


# ---- held-out images -------------------------------------------------------------------------------------------------


def draw_two(n=40, seed=0):
    X = np.random.default_rng(seed).integers(0, 200, (n, 6, 7), dtype=np.uint8)
    y = np.arange(n) % 2
    X[y == 0, :3] //= 4
    return X, y


def test_validation_data_are_held_out_instead_of_a_part_of_the_images():
    (X, y), held_out = draw_two(), draw_two(10, seed=1)
    plain = GCMClassifier(**TINY).fit(X, y)
    watched = GCMClassifier(**TINY).fit(X, y, validation_data=held_out)
    np.testing.assert_array_equal(watched.decision_function(X), plain.decision_function(X))  # all of X was trained on
    log_proba = watched.predict_log_proba(held_out[0])
    expected = -log_proba[np.arange(10), held_out[1]].mean()
    np.testing.assert_allclose(watched.history_[-1]["valid_loss"], expected, rtol=1e-4)
    assert "valid_loss" not in plain.history_[-1]
    assert not [value for value in vars(watched.net_).values() if isinstance(value, np.ndarray) and value.size > 2]


def test_early_stopping_watches_validation_data(monkeypatch):
    X, y = draw_two()
    params = {**TINY, "max_epochs": 30, "early_stopping": True, "n_iter_no_change": 2, "lr": 0.2}
    clf = GCMClassifier(**params).fit(X, y, validation_data=(X[:9], 1 - y[:9]))  # which gets worse with training
    losses = [epoch["valid_loss"] for epoch in clf.history_]
    assert len(losses) == np.argmin(losses) + 3 < 30
    log_proba = clf.predict_log_proba(X[:9])
    np.testing.assert_allclose(min(losses), -log_proba[np.arange(9), 1 - y[:9]].mean(), rtol=1e-4)
    few = np.arange(3) % 2  # too few to hold out of, which nobody does
    GCMClassifier(**{**params, "max_epochs": 1}).fit(X[:3], few, validation_data=(X, y))


def test_validation_data_come_in_all_forms():
    X, y = draw_two()
    names = np.array(["bad", "good"])[y]
    expected = GCMClassifier(**TINY).fit(X, names, validation_data=(X[:4], names[:4])).history_[-1]["valid_loss"]
    for form in (lambda a: a.tolist(), torch.tensor, lambda a: a[..., None]):
        held_out = [form(X[:4]), list(names[:4])]
        clf = GCMClassifier(**TINY).fit(X, names, validation_data=held_out)
        assert clf.history_[-1]["valid_loss"] == expected
    first = GCMClassifier(**TINY, channels_first=True)
    assert first.fit(X[:, None], names, validation_data=(X[:4, None], names[:4])).history_[-1]["valid_loss"] == expected
    warm = GCMClassifier(**TINY, warm_start=True).fit(X, names, validation_data=(X[:4], names[:4]))
    warm.fit(X, names, validation_data=(X[:4], names[:4]))
    assert len(warm.history_) == 2 * TINY["max_epochs"]
    features = GCMClassifier(**TINY).fit_transform(X, names, validation_data=(X[:4], names[:4]))
    assert features.shape == (40, 2 * 42)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: X, r"validation_data is a ndarray\. Expected a tuple \(X, y\)"),
        (lambda X, y: (X, y, y), r"Expected a tuple \(X, y\)"),
        (lambda X, y: (X[:, :3], y), r"validation_data: X of shape \(40, 3, 7\) does not hold images of shape"),
        (lambda X, y: (X, y[:3]), "validation_data: X has 40 images and y has 3 labels"),
        (lambda X, y: (X, y + 1), r"validation_data: y has the label 2, but .* \[0, 1\]\. Expected labels that the y"),
        (lambda X, y: (X.astype(float) * 1e3, y), "validation_data: X has values from"),
        (lambda X, y: (np.full(X.shape, np.nan), y), "validation_data: .*X contains NaN"),
        (lambda X, y: (X[:0], y[:0]), "validation_data: "),
    ],
    ids=["array", "three", "size", "lengths", "label", "range", "nan", "empty"],
)
def test_validation_data_that_do_not_fit_are_named(change, message):
    X, y = draw_two()
    clf = GCMClassifier(**TINY)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        clf.fit(X, y, validation_data=change(X, y))
    assert not hasattr(clf, "classes_")


def test_a_checkpoint_detects_other_validation_data(tmp_path):
    X, y = draw_two()
    clf = GCMClassifier(**TINY, checkpoint=tmp_path / "run.ckpt").fit(X, y, validation_data=(X[:9], y[:9]))
    again = clone(clf).fit(X, y, validation_data=(X[:9], y[:9]))
    assert again.history_ == clf.history_
    for other in (None, (X[:8], y[:8]), (X[:9], 1 - y[:9]), (X[:9].astype(float), y[:9])):
        with pytest.raises(ValueError, match="holds another fit: validation_data is not the same"):
            clone(clf).fit(X, y, validation_data=other)


def test_validation_data_can_be_requested_by_metadata_routing():
    X, y = draw_two()
    with config_context(enable_metadata_routing=True):
        clf = GCMClassifier(**TINY, early_stopping=True).set_fit_request(validation_data=True)
        pipeline = make_pipeline(FunctionTransformer(), clf).fit(X, y, validation_data=(X[:4], y[:4]))
    assert "valid_loss" in pipeline[-1].history_[-1]
    pipeline = make_pipeline(GCMClassifier(**TINY)).fit(X, y, gcmclassifier__validation_data=(X[:4], y[:4]))
    assert "valid_loss" in pipeline[-1].history_[-1]


# ---- callbacks and losses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "callback",
    [
        callbacks.EarlyStopping(),
        callbacks.Checkpoint(),
        callbacks.LRScheduler("ReduceLROnPlateau", monitor="valid_loss"),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callbacks_that_watch_held_out_images_need_some(callback, tmp_path, monkeypatch):
    X, y = draw_two()
    monkeypatch.chdir(tmp_path)  # where Checkpoint writes
    clf = GCMClassifier(**TINY, lr_schedule="constant", callbacks=[callback])
    with monkeypatch.context() as patch:
        patch.setattr(net.GCMNet, "train_step", None)
        with pytest.raises(ValueError, match=r"has monitor='valid_loss.* early_stopping=True, or fit\(X, y, va"):
            clf.fit(X, y)
    clf.fit(X, y, validation_data=(X, y))
    clf.set_params(early_stopping=True, callbacks=[callback]).fit(X, y)


SCORING = callbacks.EpochScoring("accuracy", name="valid_acc")


@pytest.mark.parametrize("scoring", [[], [SCORING]], ids=["none", "of held-out images"])
def test_callbacks_that_watch_what_nobody_records_are_named(scoring):
    X, y = draw_two()
    watching = callbacks.EarlyStopping(monitor="valid_acc")
    with pytest.raises(ValueError, match="EarlyStopping has monitor='valid_acc', which is not recorded"):
        GCMClassifier(**TINY, callbacks=[*scoring, watching]).fit(X, y)
    if scoring:
        GCMClassifier(**TINY, callbacks=[*scoring, watching]).fit(X, y, validation_data=(X, y))


@pytest.mark.parametrize("loss", ["NLLLoss", "GaussianNLLLoss", "MSELoss", "BCEWithLogitsLoss", "KLDivLoss", "CTCLoss"])
def test_losses_that_do_not_take_scores_and_indices_are_named(loss, monkeypatch):
    monkeypatch.setattr(net.GCMNet, "train_step", None)
    clf = GCMClassifier(**TINY, net_params={"criterion": getattr(torch.nn, loss)})
    with pytest.raises(ValueError, match=f"criterion {loss} .*scores \\(B, N\\).* torch.nn.CrossEntropyLoss") as caught:
        clf.fit(*draw_two())
    assert ("expects log-probabilities" in str(caught.value)) == (loss == "NLLLoss")


class WithLogarithm(torch.nn.Module):
    """A user's own, of log-probabilities."""

    def forward(self, log_proba, labels):
        return -log_proba.gather(1, labels[:, None]).mean()


def test_a_users_loss_of_log_probabilities_is_named():
    with pytest.raises(ValueError, match=r"criterion WithLogarithm falls without limit .* expects log-probabilities"):
        GCMClassifier(**TINY, net_params={"criterion": WithLogarithm}).fit(*draw_two())


def test_losses_that_take_scores_and_indices_train():
    X, y = draw_two()
    for params in ({"criterion": torch.nn.MultiMarginLoss}, {"criterion__label_smoothing": 0.1}):
        GCMClassifier(**TINY, class_weight="balanced", net_params=params).fit(X, y)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("train_split", None, r"fit\(X, y, validation_data=\(X_valid, y_valid\)\), or early_stopping=True"),
        ("optimizer__lr", 1, "for optimizer__lr, lr"),
        ("seed", 1, "for seed, random_state"),
        ("classes", [0, 1], "for classes, n_classes"),
        ("iterator_train__batch_size", 4, "for iterator_train__batch_size, batch_size"),
    ],
)
def test_net_params_that_are_refused_have_a_remedy(name, value, remedy):
    with pytest.raises(ValueError, match=rf"net_params has \['{name}'\], .*{remedy}"):
        GCMClassifier(**TINY, net_params={name: value}).fit(*draw_two())


# ---- what is written, and Ctrl-C -------------------------------------------------------------------------------------


def test_a_line_an_epoch_has_colours_on_terminals_alone(capsys, monkeypatch):
    X, y = draw_two()
    GCMClassifier(**TINY, verbose=2).fit(X, y)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert len(plain.splitlines()) == 2 + TINY["max_epochs"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    GCMClassifier(**TINY, verbose=2).fit(X, y)
    assert "\x1b[36m" in capsys.readouterr().out


class Interrupt(callbacks.Callback):
    """Sends SIGINT in an epoch: within its training, or after it."""

    def __init__(self, *, epoch, times=1):
        self.epoch, self.times = epoch, times

    def on_batch_end(self, net, training, **kwargs):
        if len(net.history) == self.epoch:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.times = 0


@pytest.fixture
def ctrl_c():
    """Python's own handler of Ctrl-C, which a process in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_fit_with_its_epoch_and_keeps_the_model():
    X, y = draw_two()
    params = {**TINY, "max_epochs": 5, "lr_schedule": "constant"}
    with pytest.warns(UserWarning, match="Ctrl-C ended the training after 2 of 5 epochs") as caught:
        clf = GCMClassifier(**params, callbacks=[Interrupt(epoch=2)]).fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    expected = GCMClassifier(**{**params, "max_epochs": 2}).fit(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), expected.decision_function(X))
    assert len(clf.history_) == 2


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_twice_leaves_the_estimator_as_it_was():
    X, y = draw_two()
    clf = GCMClassifier(**TINY).fit(X, y)
    before = clf.decision_function(X)
    clf.set_params(callbacks=[Interrupt(epoch=2, times=2)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    np.testing.assert_array_equal(clf.decision_function(X), before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_last_epoch_and_in_partial_fit():
    X, y = draw_two()
    GCMClassifier(**TINY, callbacks=[Interrupt(epoch=TINY["max_epochs"])]).fit(X, y)  # no warning: nothing is missing
    with pytest.raises(KeyboardInterrupt):  # one epoch only: a loop around it must end
        GCMClassifier(**TINY, callbacks=[Interrupt(epoch=1)]).partial_fit(X, y, [0, 1])


def test_a_users_own_handler_stays():
    X, y = draw_two()
    heard = []
    before = signal.signal(signal.SIGINT, lambda *args: heard.append(args))
    try:
        clf = GCMClassifier(**TINY, callbacks=[Interrupt(epoch=1)]).fit(X, y)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 1
    assert len(clf.history_) == TINY["max_epochs"]


def test_other_threads_do_not_touch_the_handler(monkeypatch):
    monkeypatch.setattr(signal, "signal", None)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(GCMClassifier(**TINY).fit, *draw_two()).result()


@pytest.mark.usefixtures("ctrl_c")
def test_a_fit_that_ctrl_c_ended_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    X, y = draw_two()
    step = net.GCMNet.train_step

    def stepping(self, *args, **kwargs):
        if len(self.history) == 2:
            monkeypatch.setattr(net.GCMNet, "train_step", step)
            signal.raise_signal(signal.SIGINT)
        return step(self, *args, **kwargs)

    params = {**TINY, "max_epochs": 4}
    monkeypatch.setattr(net.GCMNet, "train_step", stepping)
    with pytest.warns(UserWarning, match="Ctrl-C"):
        clf = GCMClassifier(**params, checkpoint=tmp_path / "run.ckpt").fit(X, y)
    assert len(clf.history_) == 2
    np.testing.assert_array_equal(
        clf.fit(X, y).decision_function(X), GCMClassifier(**params).fit(X, y).decision_function(X)
    )
