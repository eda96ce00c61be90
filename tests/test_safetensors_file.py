"""The file format: whole or not at all, and one error type for any invalid content."""

import errno
import os
import re
import stat

import mutator
import pytest
import torch

from skgcm import ModelFileError
from skgcm.files import safetensors_file
from skgcm.utils import atomic


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "best": torch.randn(7, dtype=torch.float64, generator=generator),
        "steps": torch.tensor(2**40),
        "generator": generator.get_state(),
        "empty": torch.zeros(0, 3),
    }


METADATA = {"number": 0.1, "large": 2**63, "text": 'ü "\\ \ud800', "list": [None, True, []], "nested": {"a": {"b": -1}}}


def test_what_was_written_is_read(tmp_path, tensors):
    path = tmp_path / "run.ckpt"
    safetensors_file.write(path, tensors, METADATA, "checkpoint")
    read, metadata = safetensors_file.read(path, "checkpoint")
    assert metadata == METADATA
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype
    assert os.listdir(tmp_path) == ["run.ckpt"]


def test_a_file_may_be_overwritten_while_its_tensors_are_in_use(tmp_path, tensors):
    path = tmp_path / "model.gcm"
    safetensors_file.write(path, tensors, {}, "model")
    read, _ = safetensors_file.read(path, "model")
    safetensors_file.write(path, {"weight": torch.zeros(10_000)}, {}, "model")
    assert torch.equal(read["weight"], tensors["weight"])
    safetensors_file.write(path, read, {}, "model")
    assert torch.equal(safetensors_file.read(path, "model")[0]["weight"], tensors["weight"])


def no_space(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize(("failure", "error"), [(no_space, OSError), (interrupt, KeyboardInterrupt)])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, tensors, monkeypatch, function, failure, error):
    path = tmp_path / "model.gcm"
    safetensors_file.write(path, tensors, METADATA, "model")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failure)
        with pytest.raises(error):
            safetensors_file.write(path, {}, {}, "model")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.gcm"]


def test_a_full_disk_is_an_os_error(tmp_path, tensors):
    resource = pytest.importorskip("resource")  # of Unix
    path = tmp_path / "model.gcm"
    safetensors_file.write(path, tensors, METADATA, "model")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            safetensors_file.write(path, {"weight": torch.zeros(100_000)}, {}, "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.gcm"]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        safetensors_file.write(tmp_path / "none" / "model.gcm", {}, {}, "model")
    with pytest.raises(IsADirectoryError):
        safetensors_file.write(tmp_path, {}, {}, "model")
    assert os.listdir(tmp_path) == []


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, tensors):
    path = tmp_path / ("x" * 251 + ".gcm")
    safetensors_file.write(path, tensors, METADATA, "model")
    assert safetensors_file.read(path, "model")[1] == METADATA
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_read_gets_its_file(tmp_path, tensors, monkeypatch):
    path, opening = tmp_path / "model.gcm", os.open

    def refusing(name, *args):
        if name == str(tmp_path):
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return opening(name, *args)

    monkeypatch.setattr(os, "open", refusing)
    safetensors_file.write(path, tensors, METADATA, "model")
    assert safetensors_file.read(path, "model")[1] == METADATA


def test_an_error_names_the_file_that_the_caller_named(tmp_path):
    for path in (tmp_path / "missing" / "model.gcm", tmp_path):
        with pytest.raises(OSError, match=re.escape(f"'{path}'") + "$"):
            atomic.replace(path, b"new")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["run.ckpt", "run2.ckpt", "[r]un.ckpt"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: None)  # the new files stay as they are when a process is killed
        for name in names:
            atomic.replace(name, b"new")
    others = [".run.ckpt.0123abcd.tmp", ".skgcm-0123456789abcdef-01234567.tmp", *names]
    for name in others:
        (tmp_path / name).write_bytes(b"old")
    assert len(os.listdir(tmp_path)) == len(others) + 3
    atomic.discard_leftovers("run.ckpt")
    assert len(os.listdir(tmp_path)) == len(others) + 2
    for name in names:
        atomic.discard_leftovers(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_links_and_permissions_stay(tmp_path, tensors):
    target, link = tmp_path / "model-3.gcm", tmp_path / "model.gcm"
    safetensors_file.write(target, {}, {}, "model")
    target.chmod(0o640)
    link.symlink_to(target.name)
    safetensors_file.write(link, tensors, {}, "model")
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert safetensors_file.read(target, "model")[0].keys() == tensors.keys()


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": torch.tensor([1.0, torch.nan])}, {}, "Tensor 'a' .* not finite"),
        ({"a": torch.tensor([-torch.inf])}, {}, "Tensor 'a' .* not finite"),
        ({"a": torch.zeros(2, dtype=torch.bfloat16)}, {}, "Tensor 'a' of type torch.bfloat16"),
        ({}, {"a": float("nan")}, "JSON compliant"),
        ({}, {"a": "x" * 2**20}, "must fit into 1048576 bytes"),
    ],
    ids=["nan", "inf", "type", "json-nan", "long"],
)
def test_content_that_could_not_be_read_is_not_written(tmp_path, tensors, metadata, message):
    with pytest.raises(ValueError, match=message):
        safetensors_file.write(tmp_path / "model.gcm", tensors, metadata, "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5000, "limit .* for integer string conversion"),
        ("1e999", "not finite"),
        ("NaN", "not finite"),
        ("[-Infinity]", "not finite"),
        ("[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "twice"),
        ("{", "Expecting"),
        ("", "Expecting"),
    ],
    ids=["digits", "large", "nan", "infinity", "deep", "twice", "cut", "empty"],
)
def test_json_has_limits(text, message):
    with pytest.raises(ValueError, match=message):
        safetensors_file.parse(text)


def test_a_shape_of_many_axes_is_an_error_of_the_file(tmp_path, tensors):
    path = tmp_path / "model.gcm"
    safetensors_file.write(path, tensors, {}, "model")
    header, data = mutator.split(path.read_bytes())
    header["more"] = {"dtype": "F32", "shape": [0] + [1] * 60_000, "data_offsets": [len(data), len(data)]}
    path.write_bytes(mutator.sign(header, data))
    with pytest.raises(ModelFileError, match="was damaged or changed"):
        safetensors_file.read(path, "model")


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.gcm does not exist\. Expected a model file, which"):
        safetensors_file.read(tmp_path / "model.gcm", "model")
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Expected a checkpoint, which"):
        safetensors_file.read(tmp_path, "checkpoint")
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a regular file"):
        safetensors_file.read(tmp_path / "pipe", "model")  # would wait for a writer


def test_the_error_for_another_kind_names_its_reader(tmp_path):
    path = tmp_path / "run.ckpt"
    safetensors_file.write(path, {}, {}, "checkpoint")
    with pytest.raises(ModelFileError, match=r"of kind 'checkpoint', not 'model'.*GCMClassifier\(checkpoint=\.\.\.\)"):
        safetensors_file.read(path, "model")


def test_another_schema_names_both(tmp_path, monkeypatch):
    path = tmp_path / "model.gcm"
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_file, "SCHEMA", 7)
        safetensors_file.write(path, {}, {}, "model")
    with pytest.raises(ModelFileError, match="schema '7', and this version of skgcm reads only '1'"):
        safetensors_file.read(path, "model")
