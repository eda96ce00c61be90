"""What is the process's or a thread's and not a model's: the same answers everywhere, and nothing left changed."""

import contextlib
import multiprocessing
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_predict

from skgcm import GCMClassifier
from skgcm.utils.torch_state import ieee_float32

TIMEOUT = 120  # seconds; a test that hangs has to fail instead
SMALL = {"encoder_width": 2, "decoder_width": 2, "n_stages": 2, "max_epochs": 1, "batch_size": 16}
SMALL |= {"augment": None, "device": "cpu", "precision": "float32", "random_state": 0}
# random numbers of every kind, and a validation step
EVERYTHING = {
    **SMALL,
    "augment": "shift+flip",
    "mosaic": 0.5,
    "erasing": 1,
    "early_stopping": True,
    "validation_fraction": 0.2,
}
FLAGS = (
    torch.backends.cudnn.conv,
    torch.backends.cuda.matmul,
    torch.backends.mkldnn.conv,
    torch.backends.mkldnn.matmul,
)
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks with threads about")


@pytest.fixture(scope="module")
def images():
    X = np.random.default_rng(0).integers(0, 256, (36, 20, 20, 3), dtype=np.uint8)
    return X, np.arange(36) % 3


@pytest.fixture(scope="module")
def clf(images):
    return GCMClassifier(**SMALL).fit(*images)


@pytest.fixture
def two_threads():
    found = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(found)


@pytest.fixture
def kept_flags():
    found = [backend.fp32_precision for backend in FLAGS]
    yield
    for backend, precision in zip(FLAGS, found, strict=True):
        backend.fp32_precision = "none"
        if backend.fp32_precision != precision:
            backend.fp32_precision = precision


def answers(clf, X):
    """All that is asked of a fitted classifier, as a list of arrays."""
    evidence = clf.explain(X, "top-2")
    return [clf.decision_function(X), clf.transform(X), evidence.cwm, evidence.scores, evidence.classes]


def assert_identical(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- threads -----------------------------------------------------------------------------------------------------


def test_threads_get_the_same_results_to_the_bit(clf, images, two_threads):
    parts = [images[0][i : i + 9] for i in range(0, 36, 9)]
    expected = [answers(clf, part) for part in parts]
    with ThreadPoolExecutor(4) as executor:
        for found, alone in zip(executor.map(answers, [clf] * 12, parts * 3), expected * 3, strict=True):
            assert_identical(found, alone)


def test_concurrent_fits_and_predictions_do_not_interfere(clf, images, two_threads):
    X, y = images
    expected, fitted = answers(clf, X), GCMClassifier(**EVERYTHING).fit(X, y).decision_function(X)
    before = settings()
    with ThreadPoolExecutor(4) as executor:
        fits = [executor.submit(GCMClassifier(**EVERYTHING).fit, X, y) for _ in range(2)]
        asked = [executor.submit(answers, clf, X) for _ in range(6)]
        for task in asked:
            assert_identical(task.result(), expected)
        for task in fits:
            np.testing.assert_array_equal(task.result().decision_function(X), fitted)
    assert settings() == before


def test_a_new_thread_uses_the_last_number_of_threads_set(clf, images, two_threads):
    seen, expected = [], answers(clf, images[0])
    thread = threading.Thread(target=lambda: seen.append((answers(clf, images[0]), torch.get_num_threads())))
    thread.start()
    thread.join()
    assert seen[0][1] == torch.get_num_threads() == 2
    assert_identical(seen[0][0], expected)


# ---- flags and modes are as the user left them -------------------------------------------------------------------


def settings():
    """What a user may have set for the process or for this thread."""
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "fp32_precision": [backend.fp32_precision for backend in (torch.backends, *FLAGS)],
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")
        ],
        "autocast cache": torch.is_autocast_cache_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "benchmark": torch.backends.cudnn.benchmark,
        "defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "torch's generator": torch.get_rng_state().tolist(),
        "NumPy's generator": str(np.random.get_state()),  # noqa: NPY002
        "NumPy's errors": np.geterr(),
        "Python's generator": random.getstate(),
    }


@contextlib.contextmanager
def switched(switch, value, back):
    switch(value)
    try:
        yield
    finally:
        switch(back)


MODES = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: switched(torch.set_default_dtype, torch.float16, torch.float32),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "other device": lambda: switched(torch.set_default_device, "meta", None),
    "device context": lambda: torch.device("meta"),
    "two threads": lambda: switched(torch.set_num_threads, 2, 1),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_torch_changes_nothing_and_is_not_changed(images, mode, tmp_path):
    X, y = images[0][:, :8, :8], images[1]  # so small that the number of threads does not matter to the bit
    clf = GCMClassifier(**EVERYTHING).fit(X, y)
    expected = answers(clf, X)
    with MODES[mode]():
        before = settings()
        same = GCMClassifier(**EVERYTHING).fit(X, y)
        assert settings() == before
        again = answers(clf, X)
        assert settings() == before
        GCMClassifier(3, **EVERYTHING).partial_fit(X, y).partial_fit(X, y)
        assert settings() == before
        clf.save(tmp_path / "model.gcm")
        loaded = GCMClassifier.load(tmp_path / "model.gcm")
        assert settings() == before
    assert_identical(again, expected)
    assert_identical(answers(loaded, X), expected)
    loaded.partial_fit(X, y)  # is not bound to the mode it was loaded in
    if mode != "two threads":  # sums over a batch are made of two parts there
        assert_identical(answers(same, X), expected)


class _StopError(Exception):
    pass


def _raising(images):
    raise _StopError


@pytest.mark.parametrize("mode", MODES)
def test_an_error_restores_modes_and_flags(images, mode, monkeypatch):
    X, y = images[0][:, :8, :8], images[1]
    clf = GCMClassifier(**SMALL).fit(X, y)
    with MODES[mode]():
        before = settings()
        with pytest.raises(_StopError):
            GCMClassifier(**{**SMALL, "augment": _raising}).fit(X, y)
        with pytest.raises(ValueError, match="y has the label 7"):
            clf.partial_fit(X, y + 7)
        for call in (clf.predict, clf.explain, clf.transform):
            with pytest.raises(ValueError, match="Input X contains NaN"):
                call(np.where(X > 250, np.nan, X))
            with monkeypatch.context() as patch:
                patch.setattr("skgcm.inputs.images.ImageFormat.scale", lambda *args: _raising(X))  # within the context
                with pytest.raises(_StopError):
                    call(X)
        assert settings() == before


@pytest.mark.usefixtures("kept_flags")
class TestIEEEFloat32:
    backend, inside = torch.backends.mkldnn.conv, ieee_float32["cpu"]

    def test_a_flag_that_followed_the_global_one_still_does(self):
        with self.inside, _global("tf32"):
            assert self.backend.fp32_precision == "ieee"
        for precision in ("tf32", "bf16"):
            with _global(precision):
                with self.inside:
                    assert self.backend.fp32_precision == "ieee"
                assert self.backend.fp32_precision == precision

    def test_a_flag_that_was_ieee_stays_so(self):
        self.backend.fp32_precision = "ieee"
        with self.inside:
            pass
        with _global("tf32"):
            assert self.backend.fp32_precision == "ieee"

    def test_the_first_of_two_threads_may_leave_first(self):
        self.backend.fp32_precision = "bf16"
        first, second = threading.Event(), threading.Event()

        def hold():
            with self.inside:
                first.set()
                second.wait(TIMEOUT)

        thread = threading.Thread(target=hold)
        thread.start()
        first.wait(TIMEOUT)
        with self.inside:
            second.set()
            thread.join()
            assert self.backend.fp32_precision == "ieee"
        assert self.backend.fp32_precision == "bf16"

    def test_what_the_user_sets_meanwhile_is_kept_and_does_not_reach_the_next(self):
        self.backend.fp32_precision = "bf16"
        with self.inside:
            self.backend.fp32_precision = "tf32"
            with self.inside:
                assert self.backend.fp32_precision == "ieee"
        assert self.backend.fp32_precision == "tf32"
        with self.inside:
            self.backend.fp32_precision = "bf16"
        assert self.backend.fp32_precision == "bf16"

    def test_the_processor_leaves_the_flags_of_cuda_alone(self):
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        with self.inside:
            assert torch.backends.cudnn.conv.fp32_precision == "tf32"

    def test_many_threads_that_come_and_go_leave_what_they_found(self):
        self.backend.fp32_precision = "bf16"
        seen = []

        def enter(_):
            with contextlib.suppress(_StopError), self.inside:
                seen.append(self.backend.fp32_precision)
                raise _StopError

        with ThreadPoolExecutor(8) as executor:
            list(executor.map(enter, range(2000)))
        assert set(seen) == {"ieee"}
        assert self.backend.fp32_precision == "bf16"


def _global(precision):
    return switched(lambda p: setattr(torch.backends, "fp32_precision", p), precision, torch.backends.fp32_precision)


# ---- processes ---------------------------------------------------------------------------------------------------


def in_fork(function):
    """What the function returns in the child of a fork; fails where it takes too long."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function()))
    child.start()
    sender.close()  # so that a child that ends without an answer is not waited for
    try:
        assert receiver.poll(TIMEOUT), "the child hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # PyTorch's workers, from Python 3.12
class TestFork:
    def test_a_child_gives_the_same_answers_to_the_bit(self, clf, images, two_threads):
        expected = answers(clf, images[0])  # the parent has computed with two threads, which do not come along
        found, threads = in_fork(lambda: (answers(clf, images[0]), torch.get_num_threads()))
        assert_identical(found, expected)
        assert threads == 2

    def test_a_grandchild_does_not_wait_either(self, clf, images, two_threads):
        expected = answers(clf, images[0])

        def child():
            answers(clf, images[0])
            return in_fork(lambda: answers(clf, images[0]))

        assert_identical(in_fork(child), expected)

    def test_a_child_raises_what_the_parent_raises(self, clf, images, two_threads):
        clf.predict(images[0])

        def child():
            with pytest.raises(ValueError, match="Input X contains NaN"):
                clf.predict(np.where(images[0] > 250, np.nan, images[0]))
            return True

        assert in_fork(child)

    def test_a_child_can_fit(self, clf, images, two_threads):
        clf.predict(images[0])

        def child():
            seen = []

            def augment(batch):
                seen.append(torch.get_num_threads())
                return batch

            fitted = GCMClassifier(**{**SMALL, "augment": augment}).fit(*images)
            return fitted.decision_function(images[0]), set(seen), torch.get_num_threads()

        scores, within, after = in_fork(child)
        np.testing.assert_allclose(scores, clf.decision_function(images[0]), atol=1e-3)
        assert (within, after) == ({1}, 2)

    @pytest.mark.parametrize("way", ["load", "save", "to_onnx"])
    def test_a_child_can_keep_a_network_of_the_default_size(self, images, two_threads, tmp_path, way):
        # beyond PyTorch's grain of 32,768 numbers copies and random weights are made by several threads
        architecture = "paper" if way == "to_onnx" else "multiscale"  # which takes longer to export
        clf = GCMClassifier(architecture=architecture, max_epochs=1, device="cpu", random_state=0).fit(*images)
        path, written = tmp_path / "model.gcm", tmp_path / "written"
        clf.save(path)
        expected = clf.decision_function(images[0])

        def child():
            if way == "load":
                return GCMClassifier.load(path).decision_function(images[0])
            return getattr(clf, way)(written)

        if way == "to_onnx":
            pytest.importorskip("onnxscript")
            pytest.importorskip("onnxruntime")
        found = in_fork(child)
        if way == "load":
            np.testing.assert_array_equal(found, expected)
        elif way == "save":
            np.testing.assert_array_equal(GCMClassifier.load(written).decision_function(images[0]), expected)
        else:
            assert written.stat().st_size > 100_000

    def test_a_child_has_the_flags_that_the_user_set_though_another_thread_was_predicting(self, clf, images):
        backend, entered, leave = torch.backends.mkldnn.conv, threading.Event(), threading.Event()
        found = backend.fp32_precision

        def hold():
            with ieee_float32["cpu"]:
                entered.set()
                leave.wait(TIMEOUT)

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait(TIMEOUT)
        try:
            flag, scores, after = in_fork(
                lambda: (backend.fp32_precision, clf.decision_function(images[0]), backend.fp32_precision)
            )
            assert backend.fp32_precision == "ieee"
        finally:
            leave.set()
            thread.join()
        assert flag == after == backend.fp32_precision == found
        np.testing.assert_array_equal(scores, clf.decision_function(images[0]))

    def test_joblib_s_multiprocessing_backend(self, clf, images, two_threads):
        expected = [clf.decision_function(part) for part in np.array_split(images[0], 3)]
        tasks = [joblib.delayed(clf.decision_function)(part) for part in np.array_split(images[0], 3)]
        with joblib.parallel_config("multiprocessing"):
            found = joblib.Parallel(n_jobs=2, timeout=TIMEOUT)(tasks)
        assert_identical(found, expected)


def test_a_spawned_process_unpickles_and_gives_the_same_answers(clf, images):
    expected = clf.explain(images[0], "all").cwm
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply_async(clf.explain, (images[0], "all")).get(TIMEOUT)
    np.testing.assert_allclose(found.cwm, expected, atol=1e-6)  # it may have another number of threads


def test_workers_of_loky_give_the_same_answers(clf, images):
    X, y = images
    parts = np.array_split(X, 4)
    found = joblib.Parallel(n_jobs=2, timeout=TIMEOUT)(joblib.delayed(clf.explain)(part) for part in parts)
    for one, part in zip(found, parts, strict=True):
        np.testing.assert_allclose(one.cwm, clf.explain(part).cwm, atol=1e-6)
    predicted = [cross_val_predict(GCMClassifier(**SMALL), X, y, cv=2, n_jobs=n_jobs) for n_jobs in (1, 2)]
    np.testing.assert_array_equal(*predicted)
    search = GridSearchCV(GCMClassifier(**SMALL), {"decoder_width": [2, 3]}, scoring="neg_log_loss", cv=2)
    one, two = (search.set_params(n_jobs=n_jobs).fit(X, y).cv_results_["mean_test_score"] for n_jobs in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)
