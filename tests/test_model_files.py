"""save and load: the same classifier again, and nothing but that."""

import functools
import gzip
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import joblib
import mutator
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import LRScheduler

from skgcm import GCMClassifier, ModelFileError
from skgcm.files import safetensors_file

SMALL = {"encoder_width": 4, "decoder_width": 4, "batch_size": 16, "max_epochs": 2, "device": "cpu", "random_state": 0}
VARIANTS = {
    "default": {},
    "bright": {"polarity": "bright"},
    "paper": {"architecture": "paper"},
    "paper-both": {"architecture": "paper", "polarity": "both"},
    "unshared": {"shared_decoder": False},
    "clipped": {"clip_negative": True},
    "deconvolution": {"architecture": "paper", "upsampling": "deconvolution"},
    "one-stage": {"n_stages": 1, "shared_decoder": False},
    "four-stages": {"n_stages": 4},
    "encoder": {"encoder": "test_efficientnet", "encoder_weights": None},
    "weights": {"transform_maps": "weights"},
    "channels-first": {"channels_first": True},
    "early-stopping": {"early_stopping": True, "validation_fraction": 0.25},
}
WORDS = ["ant", "bee", "cicada"]
LABELS = {
    "int64": np.array([3, -7, 2**60]),
    "uint8": np.array([0, 5, 255], dtype=np.uint8),
    "big-endian": np.array([1, 2, 3], dtype=">i2"),
    "bool": np.array([True, False, True]),
    "float32": np.array([1, 2, 3], dtype=np.float32),
    "text": np.array(WORDS),
    "wide-text": np.array(WORDS, dtype="<U30"),
    "objects": np.array([*WORDS[:2], "ü\n\ud800"], dtype=object),
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 120, (48, 9, 7, 3), dtype=np.uint8)
    X[np.arange(48), ..., np.arange(48) % 3] += 100
    return X, np.array(WORDS)[np.arange(48) % 3]


@pytest.fixture(scope="module")
def clf(images):
    return GCMClassifier(**SMALL).fit(*images)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gcm"


def again(clf, path, **options):
    clf.save(path)
    return type(clf).load(path, **options)


def check_same(one, other, X):
    for name in ("predict", "predict_proba", "decision_function", "transform"):
        a, b = (getattr(clf, name)(X) for clf in (one, other))
        np.testing.assert_array_equal(a, b, err_msg=name, strict=True)
    for a, b in zip(*(vars(clf.explain(X, "all")).values() for clf in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.history_ == other.history_
    for name in ("classes_", "image_shape_", "value_range_", "n_features_in_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=name == "classes_")
        assert type(getattr(one, name)) is type(getattr(other, name))


def edit(path, change):
    """Change a file's metadata in place, with a checksum that is right."""
    header, data = mutator.split(path.read_bytes())
    metadata = json.loads(header["__metadata__"]["metadata"])
    change(metadata)
    header["__metadata__"]["metadata"] = json.dumps(metadata)
    path.write_bytes(mutator.sign(header, data))


# ---- the same again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loaded_classifier_is_the_saved_one_to_the_bit(images, path, variant):
    X, y = images
    X = X.transpose(0, 3, 1, 2) if variant == "channels-first" else X
    clf = GCMClassifier(**SMALL, **VARIANTS[variant]).fit(X, y)
    loaded = again(clf, path)
    check_same(clf, loaded, X)
    assert loaded.get_params() == clf.get_params()
    check_same(clf, again(loaded, path), X)  # over the file that it came from
    assert [file.name for file in path.parent.iterdir()] == ["model.gcm"]


@pytest.mark.parametrize("labels", LABELS)
def test_labels_keep_their_type(images, path, labels):
    X, y = images[0], LABELS[labels][np.arange(48) % 3]
    clf = GCMClassifier(**SMALL).fit(X, y)
    check_same(clf, again(clf, path), X)


@pytest.mark.parametrize("factor", [1 / 700, 1000, -3], ids=["unit", "large", "negative"])
def test_value_ranges_stay(images, path, factor):
    X = images[0][..., 0] * np.float32(factor)
    clf = GCMClassifier(**SMALL).fit(X, images[1])
    check_same(clf, again(clf, path), X)


def test_column_names_stay(images, path):
    X = pd.DataFrame(images[0][:, :3, :3, 0].reshape(48, 9)).rename(columns="pixel {}".format)
    clf = GCMClassifier(**SMALL).fit(X, images[1])
    loaded = again(clf, path)
    np.testing.assert_array_equal(loaded.feature_names_in_, clf.feature_names_in_, strict=True)
    check_same(clf, loaded, X)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X.rename(columns="column {}".format))


@pytest.mark.parametrize(
    "params",
    [
        {"image_shape": (9, 7, 3), "value_range": [0, 255]},
        {"image_shape": [9, 7, 3], "value_range": (0, np.float32(255.1))},
        {"lr": np.float64(0.1), "encoder_width": np.int64(3), "warm_start": np.True_, "random_state": 2**32 - 1},
        {"class_weight": {"ant": 2, "bee": 0.5}, "augment": "shift+flip", "optimizer": "adamw", "callbacks": []},
        {
            "class_weight": "balanced",
            "random_state": None,
            "device": torch.device("cpu"),
            "sparsity": 0.1,
            "mosaic": 0.5,
        },
        {"mosaic": 0.5, "erasing": 0.5, "polarity": "both", "augment": "shift+rotate"},
        {"net_params": {"criterion__label_smoothing": 0.1, "optimizer__betas": (0.8, 0.9)}, "optimizer": "adamw"},
    ],
    ids=lambda params: "-".join(params),
)
def test_parameters_are_equal_tuples_and_all(images, path, params):
    clf = GCMClassifier(**{**SMALL, **params}).fit(*images)
    loaded = again(clf, path)
    assert loaded.get_params() == clf.get_params()
    for name in ("image_shape", "value_range", "class_weight", "device"):
        assert type(getattr(loaded, name)) is type(getattr(clf, name))
    assert clone(loaded).get_params() == clf.get_params()
    check_same(clf, loaded, images[0])


def test_a_file_does_not_choose_what_a_fit_writes_to(images, path, tmp_path):
    clf = GCMClassifier(**SMALL, checkpoint=tmp_path / "run.ckpt").fit(*images)
    loaded = again(clf, path)
    assert loaded.checkpoint is None
    check_same(clf, loaded, images[0])
    with pytest.raises(ModelFileError, match="is of kind 'checkpoint', not 'model'"):
        GCMClassifier.load(clf.checkpoint)
    tensors, metadata = safetensors_file.read(path, "model")
    metadata["params"]["checkpoint"] = str(tmp_path / "other")
    safetensors_file.write(path, tensors, metadata, "model")
    with pytest.raises(ModelFileError, match=r"parameters \['checkpoint'\]"):
        GCMClassifier.load(path)


def test_an_array_as_parameter(images, path):
    clf = GCMClassifier(**SMALL, image_shape=np.array([9, 7, 3]), value_range=np.array([0.0, 255.0])).fit(*images)
    loaded = again(clf, path)
    np.testing.assert_array_equal(loaded.image_shape, clf.image_shape, strict=True)
    np.testing.assert_array_equal(loaded.value_range, clf.value_range, strict=True)


def test_parameters_set_after_the_fit_are_kept_next_to_those_of_the_network(images, clf, path):
    changed = pickle.loads(pickle.dumps(clf)).set_params(encoder_width=9, n_stages=2, clip_negative=True)
    loaded = again(changed, path)
    assert loaded.get_params() == changed.get_params()
    check_same(clf, loaded, images[0])


def test_a_compiled_network_is_stored_as_what_was_compiled_and_loaded_without_a_compiler(images, clf, path):
    compiled = pickle.loads(pickle.dumps(clf)).set_params(net_params={"compile": True, "compile__mode": "default"})
    loaded = again(compiled, path)
    assert loaded.net_params == compiled.net_params  # for the next fit
    assert loaded.net_.module_ is loaded.net_.network
    check_same(clf, loaded, images[0])
    check_same(clf, again(loaded, path), images[0])


def test_training_continues_after_loading(images, clf, path):
    X, y = images
    loaded = again(clf, path).set_params(warm_start=True)
    going_on = pickle.loads(pickle.dumps(clf)).set_params(warm_start=True)
    for one in (loaded, going_on):
        one.fit(X, y)
        assert len(one.history_) == 4
    np.testing.assert_array_equal(loaded.decision_function(X), going_on.decision_function(X))
    loaded.partial_fit(X, y)
    assert len(loaded.history_) == 5


def test_partial_fit_keeps_its_momentum_and_a_loaded_classifier_has_none(images, path):
    clf = GCMClassifier(**SMALL).partial_fit(*images, classes=WORDS)
    loaded = again(clf, path)
    assert not loaded.net_.network.training
    one, other = (each.partial_fit(*images).decision_function(images[0]) for each in (clf, loaded))
    assert not np.array_equal(one, other)
    for each in (clf, loaded):  # and when both have none, they are the same
        each.net_.optimizer_.state.clear()
    loaded.net_.network.load_state_dict(clf.net_.network.state_dict())
    one, other = (each.partial_fit(*images).decision_function(images[0]) for each in (clf, loaded))
    np.testing.assert_array_equal(one, other)


def test_a_loaded_classifier_can_be_pickled(images, clf, path, tmp_path):
    loaded = again(clf, path)
    check_same(clf, pickle.loads(pickle.dumps(loaded)), images[0])
    joblib.dump(loaded, tmp_path / "model.joblib")
    check_same(clf, joblib.load(tmp_path / "model.joblib"), images[0])


def test_a_subclass_loads_itself(images, path):
    class Mine(GCMClassifier):
        pass

    clf = Mine(**SMALL).fit(*images)
    loaded = again(clf, path)
    assert type(loaded) is Mine
    check_same(clf, loaded, images[0])


def test_loading_reads_no_global_random_state(clf, path):
    clf.save(path)
    before, np_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    GCMClassifier.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], np_before)  # noqa: NPY002


# ---- what cannot be stored -------------------------------------------------------------------------------------------


def test_an_unfitted_classifier_cannot_be_saved(path):
    with pytest.raises(NotFittedError):
        GCMClassifier().save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("param", "value", "default"),
    [
        ("augment", torch.flip, "'auto'"),
        ("callbacks", [LRScheduler()], "None"),
        ("optimizer", torch.optim.RMSprop, "'auto'"),
        ("random_state", np.random.RandomState(0), "None"),
        ("lr", np.inf, "'auto'"),
        ("net_params", {"criterion": torch.nn.CrossEntropyLoss}, "None"),
        ("net_params", {"criterion__weight": torch.ones(3)}, "None"),
        ("net_params", {"compile__options": {"cpp.cxx": "g++"}}, "None"),
        ("class_weight", {"ant": np.complex64(1)}, "None"),
    ],
)
def test_code_is_not_stored_and_the_error_says_what_to_do(clf, path, param, value, default):
    changed = pickle.loads(pickle.dumps(clf)).set_params(**{param: value})
    path.write_bytes(b"as it was")
    with pytest.raises(ValueError, match=rf"^{param}=.* cannot be stored.*set_params\({param}={default}\)"):
        changed.save(path)
    assert path.read_bytes() == b"as it was"
    changed.set_params(**{param: getattr(GCMClassifier(), param)}).save(path)


def test_labels_that_cannot_be_stored(images, path):
    y = np.array([2020, 2021], dtype=np.longdouble)[np.arange(48) % 2]
    with pytest.raises(ValueError, match=r"^classes_=.* cannot be stored.*f16"):
        GCMClassifier(**SMALL).fit(images[0], y).save(path)


def test_a_network_that_was_changed_by_hand(clf, path):
    changed = pickle.loads(pickle.dumps(clf))
    changed.net_.network.half()
    with pytest.raises(ValueError, match="net_ cannot be stored, since its network was changed"):
        changed.save(path)


def test_of_the_history_what_json_holds_is_stored(clf, path):
    changed = pickle.loads(pickle.dumps(clf))
    changed.history_[0] |= {"accuracy": np.float32(0.5), "best": True, "ratio": np.nan, "plot": object()}
    loaded = again(changed, path)
    assert loaded.history_[0] == clf.history_[0] | {"accuracy": 0.5, "best": True, "ratio": None}


def test_a_long_history_is_stored(clf, path):
    changed = pickle.loads(pickle.dumps(clf))
    changed.history_[:] = [{**clf.history_[0], "epoch": i + 1} for i in range(10_000)]
    changed.history_[7]["valid_loss"] = 0.5
    assert again(changed, path).history_ == changed.history_


def test_a_history_that_is_too_long_is_an_error_with_a_remedy(clf, path):
    changed = pickle.loads(pickle.dumps(clf))
    changed.history_ *= 10_000
    with pytest.raises(ValueError, match=r"history_ has 20000 epochs .*at most 10833 .*del clf\.history_\[:-1000\]"):
        changed.save(path)
    del changed.history_[:-1000]
    assert len(again(changed, path).history_) == 1000


def test_too_many_column_names_say_what_to_do(images, clf, path):
    changed = pickle.loads(pickle.dumps(clf))
    changed.feature_names_in_ = np.array([f"pixel number {i} of the image" for i in range(50_000)], dtype=object)
    with pytest.raises(ValueError, match=r"Most of it is of feature_names_in\. .*del clf\.feature_names_in_"):
        changed.save(path)
    del changed.feature_names_in_
    check_same(clf, again(changed, path), images[0])


# ---- what cannot be loaded -------------------------------------------------------------------------------------------


def test_a_model_of_a_gpu_loads_elsewhere_when_told(images, clf, path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    pickle.loads(pickle.dumps(clf)).set_params(device="cuda").save(path)
    with pytest.raises(ModelFileError, match="device='cuda', but PyTorch sees 0 CUDA devices"):
        GCMClassifier.load(path)
    loaded = GCMClassifier.load(path, device="cpu")
    assert loaded.device == "cpu"
    check_same(clf, loaded, images[0])


@pytest.mark.parametrize("device", ["gpu", "meta", 0, ["cpu"]])
def test_an_invalid_device_is_not_a_model_file_error(clf, path, device):
    clf.save(path)
    with pytest.raises((TypeError, ValueError), match="device") as caught:
        GCMClassifier.load(path, device=device)
    assert not isinstance(caught.value, ModelFileError)


def test_a_parameter_of_a_later_version_is_named_and_one_that_is_missing_has_its_default(images, clf, path):
    clf.save(path)
    edit(path, lambda metadata: metadata["params"].pop("mosaic"))
    check_same(clf, GCMClassifier.load(path), images[0])
    edit(path, lambda metadata: metadata["params"].update(attention=True))
    with pytest.raises(ModelFileError, match=r"parameters \['attention'\], which GCMClassifier of this version"):
        GCMClassifier.load(path)


@pytest.mark.parametrize(
    ("param", "value"),
    [("image_shape", [0, 7]), ("image_shape", ["x"]), ("value_range", [1, 0]), ("n_stages", 0), ("augment", "spin")],
)
def test_parameters_that_are_wrong_are_neither_saved_nor_loaded(clf, path, param, value):
    changed = pickle.loads(pickle.dumps(clf)).set_params(**{param: value})
    with pytest.raises(ValueError, match=param):
        changed.save(path)
    assert not path.exists()
    clf.save(path)
    edit(path, lambda metadata: metadata["params"].update({param: value}))
    with pytest.raises(ModelFileError, match=param):
        GCMClassifier.load(path)


@pytest.mark.parametrize("param", ["image_shape", "value_range"])
def test_arrays_that_are_large_together_are_refused_before_they_are_made(clf, path, param):
    clf.save(path)
    edit(path, lambda metadata: metadata["params"].update({param: [mutator.WIDE] * 300}))
    with pytest.raises(ModelFileError, match=r"arrays take 31457.* bytes together; there can be at most 1048576"):
        GCMClassifier.load(path)


@pytest.mark.parametrize("stages", [40, 10**18])
def test_a_network_larger_than_the_file_is_refused_before_it_is_built(clf, path, stages):
    clf.save(path)
    edit(path, lambda metadata: metadata["network"].update(n_stages=stages))
    with pytest.raises(ModelFileError, match=rf"{stages} stages of widths \(4, 4\) have more weights"):
        GCMClassifier.load(path)


@pytest.mark.parametrize("kind", ["pickle", "joblib", "torch", "torch-old", "numpy", "zip"])
def test_what_can_hold_code_is_never_opened(path, tmp_path, kind):
    canary, file = tmp_path / "canary", io.BytesIO()
    malice = mutator.Malice(canary)
    if kind == "pickle":
        pickle.dump(malice, file)
    elif kind == "joblib":
        joblib.dump(malice, file)
    elif kind == "numpy":
        np.save(file, np.array([malice], dtype=object), allow_pickle=True)
    elif kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data.pkl", pickle.dumps(malice))
    else:
        torch.save(malice, file, _use_new_zipfile_serialization=kind == "torch")
    path.write_bytes(file.getvalue())
    with pytest.raises(ModelFileError):
        GCMClassifier.load(path)
    assert not canary.exists()
    if kind in ("pickle", "joblib"):  # and it is malicious
        joblib.load(path).close()
        assert canary.exists()


# ---- mutations: a short run; benchmarks/mutate.py is the long one ----------------------------------------------------


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak of memory")
def test_mutations_load_identically_or_are_refused(images, clf, path, tmp_path):
    X = images[0][:2]
    clf.save(path)
    content, scores = path.read_bytes(), clf.decision_function(X)
    for _ in range(2):  # what is imported and allocated at a first load
        mutator.examine(path, GCMClassifier.load, lambda loaded: True)
    found = []
    for i in range(8 * len(mutator.MUTATIONS)):
        name, mutated = mutator.mutation(content, 0, i, tmp_path / "canary")
        path.write_bytes(mutated)
        result = mutator.examine(
            path, GCMClassifier.load, lambda loaded: np.array_equal(loaded.decision_function(X), scores)
        )
        assert result["outcome"] in ("identical", "refused"), (i, name, result)
        assert result["events"] == [], (i, name)
        assert result["seconds"] < 1, (i, name)
        assert result["memory"] <= 2 * len(mutated) + mutator.ALLOWANCE, (i, name)
        found.append(result["outcome"])
    assert not (tmp_path / "canary").exists()
    assert found.count("refused") > 0.8 * len(found)


# ---- file objects and home folders -----------------------------------------------------------------------------------


OPEN = {
    "buffered": open,
    "raw": functools.partial(open, buffering=0),
    "compressed": gzip.open,
    "within a stream": open,
}


@pytest.mark.parametrize("kind", OPEN)
def test_file_objects_hold_the_model_at_their_position(clf, images, tmp_path, kind):
    before = b"12345" if kind == "within a stream" else b""
    with OPEN[kind](tmp_path / "stream", mode="wb") as file:
        file.write(before)
        clf.save(file)
        assert not file.closed
    with OPEN[kind](tmp_path / "stream", mode="rb") as file:
        file.read(len(before))
        loaded = GCMClassifier.load(file)
        assert not file.closed
    np.testing.assert_array_equal(loaded.decision_function(images[0]), clf.decision_function(images[0]))


def test_a_raw_file_may_take_less_than_it_is_given(clf, images):
    class Slow(io.RawIOBase):
        def __init__(self):
            self.content = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.content += data[:1000]
            return min(len(data), 1000)

    file = Slow()
    clf.save(file)
    loaded = GCMClassifier.load(io.BytesIO(file.content))
    np.testing.assert_array_equal(loaded.decision_function(images[0]), clf.decision_function(images[0]))


def test_file_objects_of_text_or_at_their_end_are_refused(clf, tmp_path):
    with open(tmp_path / "text", "w+") as file:
        with pytest.raises(TypeError, match=r"is a text file, .* Open it with mode 'wb'"):
            clf.save(file)
        with pytest.raises(TypeError, match=r"is a text file, .* Open it with mode 'rb'"):
            GCMClassifier.load(file)
    memory = io.BytesIO()
    clf.save(memory)
    with pytest.raises(ModelFileError, match=r"seek\(0\)"):
        GCMClassifier.load(memory)
    with pytest.raises(ModelFileError, match=r"file object <.*BytesIO.*pickle"):
        GCMClassifier.load(io.BytesIO(pickle.dumps(clf)))


def test_a_tilde_is_the_home_folder(clf, images, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/model.gcm", Path("~/model.gcm")):
        clf.save(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.gcm"]
        GCMClassifier.load(path)
    (tmp_path / "model.gcm").unlink()
    GCMClassifier(**SMALL, checkpoint="~/run.ckpt").fit(*images)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.ckpt"]
