"""The scripts in examples/ and the README's code run as they stand, but for fewer epochs."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skgcm import GCMClassifier

plt = pytest.importorskip("matplotlib.pyplot")

ROOT = Path(__file__).parents[1]
# examples that are only run, without a test of their own
ALL_ELSE = ("versus", "frames", "transform", "grid_search", "guidance", "reject", "wrong_labels", "operating_point")


@pytest.fixture(autouse=True)
def _one_epoch_in_an_empty_folder(tmp_path, monkeypatch):
    fit, changes = GCMClassifier.fit, {"max_epochs": 1, "verbose": 0}
    monkeypatch.setattr(GCMClassifier, "fit", lambda self, X, y, **more: fit(self.set_params(**changes), X, y, **more))
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def save_images(folder, n, seed, name="{}.png"):
    """n images of 70 x 64 pixels, grey but in three channels, as many cameras write them."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (n, 70, 64, 1), dtype=np.uint8)):
        Image.fromarray(pixels.repeat(3, axis=2)).save(folder / name.format(i))


def run(name, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_digits(tmp_path, monkeypatch, capsys):
    run("plot_digits.py", monkeypatch)
    assert "accuracy on 599 held-out images: 0." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]


@pytest.mark.parametrize("folder", [False, True], ids=["drawn", "folder"])
def test_inspection(tmp_path, monkeypatch, capsys, folder):
    if folder:
        for seed, name in enumerate(("good", "scratched")):
            save_images(tmp_path / "parts" / name, 24, seed)
    run("plot_inspection.py", monkeypatch, *["parts", r"/(\d)"] * folder)
    lines = capsys.readouterr().out.splitlines()
    named = r"(good|scratched)[/\\]\d+\.png" if folder else r"sheet \d+, photo \d"
    assert sum(bool(re.match(rf"  .*{named}: \w+ before \w+ by \d", line)) for line in lines) == 2
    assert any(re.match(rf".*{named}: -?\d+% of the difference between \w+ and \w+ is", line) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} - {"parts"} == {"inspection.png", "inspection.gcm"}


@pytest.fixture
def onnx():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)


@pytest.mark.usefixtures("onnx")
def test_deployment(monkeypatch, capsys):
    fit = GCMClassifier.fit  # an export takes time in proportion to the layers
    monkeypatch.setattr(GCMClassifier, "fit", lambda self, X, y: fit(self.set_params(n_stages=1), X, y))
    run("plot_onnx.py", monkeypatch)
    found = re.findall(r"accuracy of (skgcm|ONNX Runtime): (0\.\d+)", capsys.readouterr().out)
    assert found == [("skgcm", found[0][1]), ("ONNX Runtime", found[0][1])]


@pytest.mark.parametrize("name", ALL_ELSE)
def test_the_rest_of_the_gallery(tmp_path, monkeypatch, name):
    run(f"plot_{name}.py", monkeypatch)
    assert plt.get_fignums()
    assert not list(tmp_path.iterdir())


def test_every_example_is_in_the_gallery_and_tested():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    tested = set(re.findall(r"plot_\w+", Path(__file__).read_text(encoding="utf-8")))
    tested |= {f"plot_{name}" for name in ALL_ELSE} | {"plot_dask"}  # in test_dask.py, where the cluster is
    assert names
    assert names <= tested


def test_the_code_in_the_readme(tmp_path):
    for seed, name in enumerate(("parts/good", "parts/scratched")):
        save_images(tmp_path / name, 24, seed, "part{}_left.png")
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert not set(names["groups"][names["train"]]) & set(names["groups"][names["test"]])
    evidence = names["evidence"]
    np.testing.assert_allclose(evidence.ccm.mean(axis=(2, 3, 4)), evidence.scores, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "evidence.png", "parts.gcm"}
