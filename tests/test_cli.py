"""The command line: folders to models to tables, errors in one line, exit codes."""

import csv
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skgcm
from skgcm import GCMClassifier, cli

FIT = ["--set", "encoder_width=4", "--set", "decoder_width=4", "--set", "device=cpu", "--set", "max_epochs=3"]


def save_images(folder, brightness, n=30, seed=0, size=(12, 14)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.normal(brightness, 20, size).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"part{i // 2}_{i}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with images of two classes, new ones, and a model: all that a shell would do, in one process."""
    root = tmp_path_factory.mktemp("a folder with spaces")
    save_images(root / "parts" / "bright", 150, seed=1)
    save_images(root / "parts" / "dark", 90, seed=2)
    save_images(root / "new" / "bright", 150, n=4, seed=3)
    save_images(root / "new" / "dark", 90, n=3, seed=4)
    assert cli.main(["fit", str(root / "parts"), "-o", str(root / "parts.gcm"), "--size", "12x14", *FIT]) == 0
    return root


@pytest.fixture
def run(capsys, monkeypatch, world):
    """Run a command in the folder of the images: exit code, stdout and stderr."""
    monkeypatch.chdir(world)

    def call(*arguments):
        capsys.readouterr()
        try:
            code = cli.main(list(arguments))
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def shell(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(skgcm.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "skgcm.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


# ---- as a user would -------------------------------------------------------------------------------------------------


def test_from_a_folder_to_a_table_in_two_commands(run, tmp_path, monkeypatch):
    for name, brightness in (("bright", 160), ("dark", 80)):
        save_images(tmp_path / "parts" / name, brightness)
    fit = shell(tmp_path, "fit", "parts", "-o", "parts.gcm", "--size", "12", *FIT[:-1], "max_epochs=20")
    assert fit.returncode == 0, fit.stderr
    assert "trained on         48" in fit.stdout
    assert "held out           12" in fit.stdout
    (tmp_path / "parts" / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    monkeypatch.chdir(tmp_path)
    code, out, err = run("predict", "parts.gcm", "parts")
    rows = list(csv.DictReader(out.splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", "margin", "typicality", "unlike"]
    assert len(rows) == 60
    assert np.mean([Path(row["path"]).parent.name == row["label"] for row in rows]) > 0.8
    assert code == 1
    assert f"skgcm: left out: {Path('parts', 'dark', 'broken.png')}: " in err
    assert "skgcm: 1 of 61 images could not be read and are left out" in err
    assert "Traceback" not in err


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_writes_a_model_of_what_is_not_held_out(run, world):
    code, out, _ = run("fit", "parts", "-o", "again.gcm", "--size", "12x14", "--json", *FIT)
    facts = json.loads(out)
    assert code == 0
    assert (facts["classes"], facts["trained_on"], facts["held_out"]) == (["bright", "dark"], 48, 12)
    assert 0 <= facts["balanced_accuracy"] <= 1
    assert facts["accuracy"] == facts["balanced_accuracy"]  # as many held out of each class
    one, other = (GCMClassifier.load(world / name) for name in ("again.gcm", "parts.gcm"))
    assert (one.image_shape_, one.encoder_width, len(one.history_)) == ((12, 14, 1), 4, 3)
    for a, b in zip(one.net_.network.parameters(), other.net_.network.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())  # the same command, the same model


def test_a_broken_image_is_left_out_of_the_fit_and_the_exit_code_says_so(run, tmp_path):
    for name, brightness in (("bright", 160), ("dark", 80)):
        save_images(tmp_path / name, brightness, n=10)
    (tmp_path / "dark" / "broken.png").write_bytes(b"nothing")
    code, out, err = run("fit", str(tmp_path), "-o", "b.gcm", "--size", "8", *FIT)
    assert code == 1
    assert "trained on         16" in out
    assert "skgcm: warning: 1 of 21 images cannot be read and are left out" in err
    assert "broken.png" in err


def test_ctrl_c_has_no_traceback(run, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_image_folder", interrupted)
    assert run("fit", "parts", "-o", "x.gcm") == (130, "", "skgcm: interrupted\n")


def test_hold_out_0_trains_on_all(run):
    code, out, _ = run("fit", "parts", "-o", "all.gcm", "--size", "8", "--mode", "RGB", "--hold-out", "0", *FIT)
    assert code == 0
    assert "trained on         60" in out
    assert GCMClassifier.load("all.gcm").image_shape_ == (8, 8, 3)


def test_images_of_a_group_are_on_one_side(run, monkeypatch):
    splits = []
    split = cli._split
    monkeypatch.setattr(
        cli, "_split", lambda y, groups, share: splits.append((groups, split(y, groups, share))) or splits[-1][1]
    )
    assert run("fit", "parts", "-o", "g.gcm", "--size", "8", "--groups", r"part(\d+)_", *FIT)[0] == 0
    ((groups, (train, held_out)),) = splits
    assert len(held_out) == pytest.approx(12, abs=4)
    assert not set(groups[train]) & set(groups[held_out])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_epoch=3", "no parameter 'max_epoch'; did you mean max_epochs?"),
        ("qqq=3", "no parameter 'qqq'; the parameters are architecture, "),
        ("max_epochs", "expected NAME=VALUE"),
        ("max_epochs=-1", "The 'max_epochs' parameter of GCMClassifier must be"),
        ("polarity=dark", "The 'polarity' parameter of GCMClassifier must be"),
    ],
)
def test_a_wrong_parameter_is_a_usage_error_before_an_image_is_read(run, setting, message):
    code, out, err = run("fit", "nowhere", "-o", "x.gcm", "--set", setting)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("x.gcm").exists()


def test_values_are_python_literals_or_words():
    params = cli._params(
        [
            "value_range=(0, 255)",
            "polarity=both",
            "lr=0.1",
            "net_params__criterion__label_smoothing=0.1",
            "class_weight={'a': 2}",
        ]
    )
    assert params == {
        "value_range": (0, 255),
        "polarity": "both",
        "lr": 0.1,
        "net_params__criterion__label_smoothing": 0.1,
        "class_weight": {"a": 2},
    }


# ---- predict ---------------------------------------------------------------------------------------------------------


def test_predict_reads_images_as_the_model_was_fitted(run, world):
    code, out, err = run("predict", "parts.gcm", "new", str(Path("new", "dark", "part0_0.png")))
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert err == ""
    assert [Path(row["path"]) for row in rows[-2:]] == [Path("new/dark/part1_2.png"), Path("new/dark/part0_0.png")]
    clf = GCMClassifier.load(world / "parts.gcm")
    X = np.stack([np.asarray(Image.open(row["path"])) for row in rows])
    probabilities, scores = clf.predict_proba(X), clf.decision_function(X)
    assert [row["label"] for row in rows] == clf.predict(X).tolist()
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probabilities.max(axis=1), atol=1e-5)
    np.testing.assert_allclose([float(row["margin"]) for row in rows], np.abs(scores), atol=1e-5)
    assert [row["typicality"] for row in rows] == [""] * 8  # 48 images are too few to judge by
    assert [row["unlike"] for row in rows] == [""] * 8


def test_predict_writes_a_file_or_json(run):
    assert run("predict", "parts.gcm", "new", "-o", "table.csv") == (0, "", "")
    assert len(Path("table.csv").read_text().splitlines()) == 8
    code, out, _ = run("predict", "parts.gcm", "new", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(rows) == 7
    assert rows[0].keys() == set(cli.COLUMNS)
    assert rows[0]["typicality"] is rows[0]["unlike"] is None


def test_the_number_of_strange_images_is_reported(run, monkeypatch):
    usual = np.array([0.0009999, 0.5, 0.001, 0.00999, 0.01, 1, np.nan])
    monkeypatch.setattr(GCMClassifier, "_typicality", staticmethod(lambda descriptions: usual))
    code, out, err = run("predict", "parts.gcm", "new")
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["typicality"] for row in rows][:2] == ["0.001", "0.5"]  # rounded
    assert [row["unlike"] for row in rows] == ["yes", "no", "doubtful", "doubtful", "no", "no", ""]
    assert err == "skgcm: 1 of 7 images is unlike the training images: typicality below 0.001\n"


def test_only_broken_images_are_an_empty_table(run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    code, out, err = run("predict", "parts.gcm", str(tmp_path))
    assert (code, out) == (1, ",".join(cli.COLUMNS) + "\n")
    assert "1 of 1 images could not be read" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_refused(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    code, out, err = run("predict", "parts.gcm", str(tmp_path / "pipe.png"))
    assert (code, out) == (1, "")
    assert "pipe.png' is not a regular file" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere.gcm", "new"], "nowhere.gcm does not exist. Expected a model file, which"),
        (["predict", "parts", "new"], "parts is a folder. Expected a model file, which"),
        (["report", "nowhere.gcm", "new", "-o", "x.html"], "nowhere.gcm does not exist. Expected a model file"),
        (["export", "parts", "x.onnx"], "parts is a folder. Expected a model file"),
        (["predict", "parts.gcm", "nowhere"], "nowhere"),
        (["predict", str(Path("new", "dark", "part0_0.png")), "new"], "is not a model file of skgcm, or it is cut off"),
        (["info", "nowhere.gcm"], "nowhere.gcm does not exist. Expected a model file"),
        (["fit", "nowhere", "-o", "x.gcm"], "nowhere"),
        (["fit", "new/dark", "-o", "x.gcm"], "no class folders"),
    ],
    ids=str,
)
def test_an_error_is_one_line_and_exit_code_1(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("skgcm: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "parts", "-o", "nodir/x.gcm"],
        ["fit", "parts", "-o", "x.gcm", "--report", "nodir/x.html"],
        ["predict", "parts.gcm", "new", "-o", "nodir/x.csv"],
        ["report", "parts.gcm", "new", "-o", "nodir/x.html"],
        ["calibrate", "parts.gcm", "new", "-o", "nodir/x.gcm"],
        ["export", "parts.gcm", "nodir/x.onnx"],
    ],
    ids=str,
)
def test_an_output_in_no_folder_is_an_error_before_the_work(run, monkeypatch, arguments):
    for name in ("load_image_folder", "_load"):
        monkeypatch.setattr(cli, name, lambda *args, **options: pytest.fail("the work has begun"))
    wrong = "skgcm: error: the folder 'nodir' does not exist. Make it first, or name another file.\n"
    assert run(*arguments) == (1, "", wrong)


def test_an_output_that_is_a_folder_or_in_a_folder_without_write_access_is_an_error(run, monkeypatch):
    assert run("fit", "parts", "-o", "new") == (1, "", "skgcm: error: 'new' is a folder. Name a file to write.\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, err = run("fit", "parts", "-o", "new/x.gcm")
    assert code == 1
    assert "error: the folder 'new' is not writable. Change its permissions, or name another file." in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["predict", "parts.gcm"],
        ["fit", "parts"],
        ["fit", "parts", "-o", "x.gcm", "--size", "12x"],
        ["fit", "parts", "-o", "x.gcm", "--hold-out", "1"],
        ["fit", "parts", "-o", "x.gcm", "--hold-out", "0", "--report", "x.html"],
    ],
    ids=str,
)
def test_a_wrong_command_is_exit_code_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: skgcm" in err


def test_a_model_of_other_arrays_is_refused(run):
    X = np.random.default_rng(0).random((20, 8, 8))
    GCMClassifier(max_epochs=1, device="cpu").fit(X, np.arange(20) % 2).save("floats.gcm")
    code, _, err = run("predict", "floats.gcm", "new")
    assert code == 1
    assert "fitted on images of 1 channels and the value range (0, 1)" in err


def test_a_reader_that_has_enough_of_stdout_is_no_error_with_a_traceback(world):
    command = f'"{sys.executable}" -m skgcm.cli predict parts.gcm new | head -n 1'
    environment = {**os.environ, "PYTHONPATH": str(Path(skgcm.__file__).parents[1])}
    done = subprocess.run(command, cwd=world, env=environment, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout == ",".join(cli.COLUMNS) + "\n"
    assert "Traceback" not in done.stderr


# ---- the others ------------------------------------------------------------------------------------------------------


def test_info_says_what_a_model_is(run):
    code, out, _ = run("info", "parts.gcm", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["classes"] == ["bright", "dark"]
    assert facts["image"] == "12 rows x 14 columns x 1 channels"
    assert (facts["value_range"], facts["epochs"], facts["temperature"]) == ([0, 255], 3, 1.0)
    assert "encoder_width=4" in facts["parameters"]
    code, out, _ = run("info", "parts.gcm")
    assert "classes      bright, dark\n" in out


def test_calibrate_writes_a_model_of_another_temperature(run, world):
    code, out, err = run("calibrate", "parts.gcm", "new", "-o", "calibrated.gcm", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert (facts["model"], facts["images"]) == ("calibrated.gcm", 7)
    assert facts["log_loss_after"] != facts["log_loss_before"]
    one, other = (GCMClassifier.load(world / name) for name in ("calibrated.gcm", "parts.gcm"))
    paths = sorted(world.glob("new/*/*.png"))
    X, y = np.stack([np.asarray(Image.open(path)) for path in paths]), [path.parent.name for path in paths]
    assert one.temperature_ == other.calibrate(X, y).temperature_ != 1
    assert facts["temperature"] == round(one.temperature_, 4)


def test_calibrate_needs_the_classes_as_folders(run, tmp_path):
    save_images(tmp_path / "today", 120, n=2)
    code, out, err = run("calibrate", "parts.gcm", str(tmp_path), "-o", "no.gcm")
    assert (code, out) == (1, "")
    assert "the names of the model's classes, which are bright, dark: FOLDER/CLASS/FILE" in err
    assert not Path("no.gcm").exists()


def test_calibrate_leaves_out_a_broken_image_and_the_exit_code_says_so(run, tmp_path):
    save_images(tmp_path / "bright", 150, n=2)
    save_images(tmp_path / "dark", 90, n=2)
    (tmp_path / "dark" / "broken.png").write_bytes(b"nothing")
    code, out, err = run("calibrate", "parts.gcm", str(tmp_path), "-o", "some.gcm")
    assert code == 1
    assert "images           4\n" in out
    assert "1 of 5 images could not be read" in err


def test_export_writes_onnx(run, monkeypatch):
    asked = []
    monkeypatch.setattr(GCMClassifier, "to_onnx", lambda self, *args, **options: asked.append((args, options)))
    assert run("export", "parts.gcm", "parts.onnx") == (0, "", "")
    assert run("export", "parts.gcm", "parts.onnx", "--no-maps") == (0, "", "")
    assert asked == [(("parts.onnx",), {"maps": maps}) for maps in ("contributions", None)]


@pytest.fixture
def reports(monkeypatch):
    """What reports were asked for, in place of the reports themselves."""
    asked = []

    class Report:
        @classmethod
        def from_estimator(cls, estimator, X, y=None, *, names=None, max_images=200):
            asked.append({"clf": estimator, "X": X, "y": y, "names": list(names)})
            return types.SimpleNamespace(save=lambda path: Path(path).write_text("a report"))

    monkeypatch.setattr(skgcm, "Report", Report, raising=False)
    return asked


def test_a_report_of_new_images_knows_the_classes_by_their_folders(run, reports):
    assert run("report", "parts.gcm", "new", "-o", "report.html") == (0, "", "")
    (asked,) = reports
    assert Path("report.html").read_text() == "a report"
    assert asked["X"].shape == (7, 12, 14, 1)
    assert asked["y"].tolist() == ["bright"] * 4 + ["dark"] * 3
    assert asked["names"][0] == str(Path("bright", "part0_0.png"))


def test_a_report_of_images_in_other_folders_has_no_true_classes(run, reports, tmp_path):
    save_images(tmp_path / "today", 120, n=2)
    assert run("report", "parts.gcm", str(tmp_path / "today"), "new", "-o", "report.html")[0] == 0
    assert reports[0]["y"] is None
    assert len(reports[0]["names"]) == 9


def test_the_help_says_that_a_report_needs_images_that_were_not_in_the_fit(run):
    code, out, _ = run("report", "--help")
    assert code == 0
    assert "Use images that were not in the fit" in " ".join(out.split())


def test_fit_reports_on_held_out_images(run, reports):
    code, out, _ = run("fit", "parts", "-o", "r.gcm", "--size", "8", "--report", "fit.html", *FIT)
    assert code == 0
    assert "fit.html" in out
    (asked,) = reports
    assert len(asked["X"]) == len(asked["y"]) == len(asked["names"]) == 12
    assert all(name.split(os.sep)[0] == label for name, label in zip(asked["names"], asked["y"], strict=True))
