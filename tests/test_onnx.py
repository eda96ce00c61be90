import functools
import io
import json
import math
import os
import pickle
import random
import sys
import threading

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skgcm import GCMClassifier, __version__
from skgcm.files import onnx as onnx_file

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

SMALL = {"encoder_width": 4, "decoder_width": 4, "batch_size": 20, "max_epochs": 2, "device": "cpu", "random_state": 0}
PAPER = {"architecture": "paper", "n_stages": 2}
INTEGERS, STRINGS, BOOLEANS = [3, 5, 9], ["crack", "scratch", "öl"], [False, True]
BYTES, UNIT, DIGITS, SIGNED = (np.uint8, 0, 256), (np.float32, 0, 1), (np.float32, 0, 16), (np.float32, -3, 5)


class Halves(nn.Module):
    """An encoder that is quick to export: features at a half and at a quarter of the image's size."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        first = self.first(x).relu()
        return [first, self.second(first).relu()]


# parameters, size of an image, its values, labels, maps; an export takes seconds, so not each with each, and two stages
# wherever more have no other layers
CASES = {
    "default": ({}, (16, 12, 3), BYTES, STRINGS, "contributions"),
    "odd-size": ({"n_stages": 2}, (13, 9, 3), SIGNED, INTEGERS, "weights"),
    "bright": ({"n_stages": 2, "polarity": "bright"}, (13, 9, 1), BYTES, BOOLEANS, "contributions"),
    "paper-both": ({**PAPER, "polarity": "both"}, (13, 9, 1), BYTES, BOOLEANS, "contributions"),
    "unshared": ({"n_stages": 2, "shared_decoder": False}, (7, 8, 1), DIGITS, STRINGS, "contributions"),
    "unshared-deconvolution": (
        {**PAPER, "shared_decoder": False, "upsampling": "deconvolution"},
        (1, 11, 1),
        UNIT,
        BOOLEANS,
        "weights",
    ),
    "clipped": ({"n_stages": 2, "clip_negative": True}, (9, 12, 3), BYTES, INTEGERS, "contributions"),
    "clipped-unshared": (
        {"n_stages": 2, "clip_negative": True, "shared_decoder": False},
        (6, 7, 3),
        UNIT,
        STRINGS,
        "contributions",
    ),
    "deconvolution": ({**PAPER, "n_stages": 3, "upsampling": "deconvolution"}, (13, 9, 1), SIGNED, STRINGS, "weights"),
    "one-stage": ({"n_stages": 1}, (5, 7, 4), BYTES, BOOLEANS, "contributions"),
    "four-stages": ({"n_stages": 4}, (9, 17, 3), BYTES, INTEGERS, "weights"),
    "encoder": ({"encoder": "test_efficientnet", "encoder_weights": None}, (37, 33, 3), BYTES, INTEGERS, "weights"),
    "encoder-small-images": ({"encoder": Halves}, (3, 2, 1), UNIT, STRINGS, "contributions"),
    "no-maps": ({"n_stages": 2}, (16, 16, 3), BYTES, list(range(20)), None),
    "paper-no-maps": (PAPER, (16, 16, 3), BYTES, list(range(20)), None),
}
# The others have the default. 17 is rewritten here, so that it is tried with all layers that there are.
OPSETS = dict.fromkeys(["encoder", "bright", "unshared", "clipped", "deconvolution", "no-maps"], 17)
OPSETS |= {"odd-size": 18, "unshared-deconvolution": 21, "clipped-unshared": 19, "one-stage": 23}


def draw(n, shape, values, seed=0):
    dtype, low, high = values
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(low, high, (n, *shape), dtype=dtype)
    return rng.uniform(low, high, (n, *shape)).astype(dtype)


def fit(params, shape, values, labels):
    X = draw(40, shape, values)
    return GCMClassifier(**{**SMALL, **params}).fit(X, np.resize(labels, 40))


def start(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session, images):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def check_no_maps(path):
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    sizes = {
        value.name: math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    assert {name for node in graph.node for name in node.output} <= sizes.keys()
    assert max(sizes.values()) < 20 * 16 * 16


@pytest.fixture(scope="module")
def quick():
    """A classifier of few layers."""
    return fit({**PAPER, "n_stages": 1}, (4, 6, 1), DIGITS, INTEGERS)


@pytest.fixture(scope="module")
def exported(quick, tmp_path_factory):
    """Its file."""
    path = tmp_path_factory.mktemp("quick") / "model.onnx"
    quick.to_onnx(path)
    return path


def test_a_flat_image_has_the_scores_of_predict(quick, exported):
    """The exporter takes a constant as small as 1e-8 for zero: the deviation of a flat image would be zero."""
    flat = np.tile(np.float32([0, 7, 16])[:, None, None, None], (1, 4, 6, 1))
    found = run(start(exported), flat)
    np.testing.assert_allclose(found["probabilities"], quick.predict_proba(flat), atol=1e-5)
    np.testing.assert_allclose(found["contributions"].mean(axis=(2, 3, 4)), found["scores"], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_graph_has_the_results_of_explain(case, tmp_path):
    params, shape, values, labels, maps = CASES[case]
    clf, path = fit(params, shape, values, labels), tmp_path / "model.onnx"
    opset = OPSETS.get(case)
    clf.to_onnx(path, maps, opset=opset)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    (imported,) = model.opset_import
    assert opset in (None, imported.version)
    assert model.ir_version == onnx.helper.find_min_ir_version_for([imported])
    session = start(path)

    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata.keys() == {"classes", "image_shape", "value_range", "skgcm_version"}
    classes = json.loads(metadata["classes"])
    assert [(type(label), label) for label in classes] == [(type(label), label) for label in labels]
    assert tuple(json.loads(metadata["image_shape"])) == clf.image_shape_
    assert tuple(json.loads(metadata["value_range"])) == clf.value_range_
    assert metadata["skgcm_version"] == __version__

    (images,) = session.get_inputs()
    assert (images.name, images.shape) == ("images", ["n", *shape])
    assert images.type == ("tensor(uint8)" if values is BYTES else "tensor(float)")
    for n in (1, 2, 7):
        X = draw(n, shape, values, seed=n)
        evidence, found = clf.explain(X, "all"), run(session, X)
        expected = {"scores": evidence.scores, "probabilities": clf.predict_proba(X)}
        if maps == "contributions":
            expected["contributions"] = evidence.ccm
            means = found["contributions"].mean(axis=(2, 3, 4), dtype=np.float64)
            np.testing.assert_allclose(means, found["scores"], rtol=0, atol=1e-5)
        elif maps == "weights":
            expected["weights"] = evidence.cwm
            if evidence.cwm_dark is not None:
                expected["weights_dark"] = evidence.cwm_dark
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4, err_msg=name)
        assert [classes[j] for j in found["scores"].argmax(axis=1)] == clf.predict(X).tolist()
    if maps is None:
        check_no_maps(path)
    if values is not BYTES:
        X[1, -1, -1] = np.nan
        assert np.isnan(run(session, X)["scores"]).any(axis=1).tolist() == [i == 1 for i in range(7)]
    assert {name: len(array) for name, array in run(session, X[:0]).items()} == dict.fromkeys(found, 0)


def test_channels_are_last_and_of_the_dtype_asked_for(tmp_path):
    X, path = draw(24, (3, 6, 8), BYTES), tmp_path / "model.onnx"
    clf = GCMClassifier(**{**SMALL, **PAPER, "n_stages": 1}, channels_first=True).fit(X, np.resize(INTEGERS, 24))
    clf.to_onnx(path, dtype="float32")
    session, evidence = start(path), clf.explain(X, "all")
    found = run(session, X.transpose(0, 2, 3, 1).astype(np.float32))
    np.testing.assert_allclose(found["contributions"], evidence.ccm, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["scores"], evidence.scores, rtol=0, atol=1e-4)
    with pytest.raises(Exception, match=r"expected: \(tensor\(float\)\)"):  # of a type that ONNX Runtime hides
        run(session, X.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 32.5, -16.5], ids=str)
def test_images_that_predict_refuses_have_no_scores(quick, exported, wrong):
    X = draw(3, (4, 6, 1), DIGITS)
    X[0, 0, 0], X[2, 0, 0] = 31.5, -15.5  # beyond the range, but no further than `predict` allows
    expected = quick.predict_proba(X)
    X[1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"value_range|NaN|infinity"):
        quick.predict(X)
    found = run(start(exported), X)
    for name, array in found.items():
        assert np.isnan(array.reshape(3, -1)).any(axis=1).tolist() == [False, True, False], name
    assert np.isnan(found["scores"][1]).all()
    assert np.isnan(found["probabilities"][1]).all()
    np.testing.assert_allclose(found["probabilities"][[0, 2]], expected[[0, 2]], rtol=0, atol=1e-4)


def test_export_leaves_everything_as_it_was(quick, tmp_path, capfd):
    def state():
        backends = torch.backends
        places = (backends, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
        places += (backends.mkldnn, backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn)
        return (
            pickle.dumps(quick),
            [place.fp32_precision for place in places],
            (backends.mkldnn.enabled, backends.cudnn.enabled, torch.get_num_threads(), torch.is_grad_enabled()),
            (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),  # noqa: NPY002
            [module.training for module in quick.net_.network.modules()],
        )

    before = state()
    quick.to_onnx(tmp_path / "model.onnx")
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["model.onnx"]
    content = (tmp_path / "model.onnx").read_bytes()
    for trace in (os.path.dirname(torch.__file__), os.path.dirname(__file__), ".py", "torch.nn"):
        assert trace.encode() not in content


@pytest.mark.parametrize("flag", ["ieee", "tf32"])
def test_export_works_with_any_flags_of_the_user(quick, exported, flag, tmp_path):
    backends, X = torch.backends, draw(3, (4, 6, 1), DIGITS)
    try:
        backends.mkldnn.conv.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
        backends.fp32_precision = flag
        with torch.autocast("cpu", torch.bfloat16):
            quick.to_onnx(tmp_path / "model")
        assert backends.fp32_precision == backends.mkldnn.conv.fp32_precision == flag
        backends.fp32_precision = "bf16"
        assert backends.mkldnn.conv.fp32_precision == "bf16"  # it still follows
    finally:
        backends.fp32_precision = "none"
    expected = run(start(exported), X)
    for name, array in run(start(tmp_path / "model"), X).items():
        np.testing.assert_array_equal(array, expected[name])


def test_threads_may_export_and_predict(quick, exported, tmp_path):
    X, paths, differences = draw(5, (4, 6, 1), DIGITS), [tmp_path / "one", tmp_path / "two"], []
    expected = quick.decision_function(X)
    threads = [threading.Thread(target=quick.to_onnx, args=[path]) for path in paths]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        differences.append(np.abs(quick.decision_function(X) - expected).max())
    assert max(differences) < 1e-5
    assert all(path.read_bytes() == exported.read_bytes() for path in paths)


def test_a_graph_with_other_results_is_not_written(exported, tmp_path, monkeypatch):
    other, path = fit({**PAPER, "n_stages": 1, "random_state": 1}, (4, 6, 1), DIGITS, INTEGERS), tmp_path / "model.onnx"
    path.write_text("the last one")
    monkeypatch.setattr(onnx_file, "_export", lambda *_: exported.read_bytes())
    with pytest.raises(RuntimeError, match=r"graph's scores differ .* PyTorch .* constraints\.txt"):
        other.to_onnx(path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_text() == "the last one"


def test_a_file_that_cannot_be_written_leaves_the_old_one(quick, exported, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("the last one")

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(onnx_file, "_export", lambda *_: exported.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            quick.to_onnx(path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_text() == "the last one"
    quick.to_onnx(str(path))
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == exported.read_bytes()


def test_errors_say_what_to_do(quick, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    with pytest.raises(NotFittedError):
        GCMClassifier().to_onnx(path)
    with pytest.raises(ValueError, match="maps='ccm' must be 'contributions', 'weights' or None"):
        quick.to_onnx(path, maps="ccm")
    for opset in (16, 24, "17", 17.0, False):
        with pytest.raises(ValueError, match=rf"opset={opset!r} must be an integer from 17 to 23, or None"):
            quick.to_onnx(path, opset=opset)
    with pytest.raises(ValueError, match="dtype='float64' must be 'uint8', 'float32' or None"):
        quick.to_onnx(path, dtype="float64")
    signed = fit({**PAPER, "n_stages": 1}, (4, 6, 1), SIGNED, INTEGERS)
    with pytest.raises(ValueError, match=r"dtype='uint8', but .* value_range of \(-2\.\d+, 4\.\d+\).*dtype='float32'"):
        signed.to_onnx(path, dtype="uint8")
    long = fit({**PAPER, "n_stages": 1}, (4, 6, 1), UNIT, np.array([0, 1], dtype=np.longdouble))
    with pytest.raises(ValueError, match="strings, numbers and booleans, but the classes are"):
        long.to_onnx(path)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            message = f"to_onnx needs {package}, .*: pip install onnx onnxruntime onnxscript$"
            with pytest.raises(ImportError, match=message):
                quick.to_onnx(path)
    assert not path.exists()


def test_a_file_object_is_written(quick, exported, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_file, "_export", lambda *_: exported.read_bytes())
    file = io.BytesIO()
    quick.to_onnx(file)
    assert file.getvalue() == exported.read_bytes()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    quick.to_onnx("~/model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_opset_17_does_not_have_is_an_error():
    node = onnx.helper.make_node("BitwiseNot", ["images"], ["scores"])  # of opset 18
    value = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.INT32, shape=[1])
    graph = onnx.helper.make_graph([node], "graph", [value("images")], [value("scores")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(RuntimeError, match=r"(?s)cannot be written with opset=17: .*BitwiseNot.* Use opset=18"):
        onnx_file._rewrite_as_opset_17(model)
