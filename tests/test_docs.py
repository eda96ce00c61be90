"""The manual names everything public, its code runs, and README stays short."""

import copy
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skgcm
from skgcm import GCMClassifier

ROOT = Path(__file__).parents[1]


def code_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def test_the_reference_names_everything_public_and_nothing_else():
    text = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    module, documented = None, set()
    for line in text.splitlines():
        module = line.split("::")[1].strip() if line.startswith(".. currentmodule::") else module
        if re.fullmatch(r"   \w+", line):
            documented.add(f"{module}.{line.strip()}")
    modules = ("skgcm", "skgcm.datasets", "skgcm.metrics")
    public = {f"{name}.{item}" for name in modules for item in set(importlib.import_module(name).__all__)}
    assert documented == public | {"skgcm.network.GCM"}


def test_readme_has_at_most_700_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def test_the_citation_has_the_version():
    assert f"\nversion: {skgcm.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs"])
def test_links_to_files_lead_somewhere(name):
    path = ROOT / name
    for page in sorted(path.rglob("*.md")) if path.is_dir() else [path]:
        if {"_build", "api", "benchmarks", "gallery", "project"} & set(page.relative_to(ROOT).parts):
            continue
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            built = ("gallery/", "project/")  # made when the manual is built
            if "://" not in link and not link.removeprefix("../").startswith(built):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.fixture(scope="module")
def fitted():
    # boxes of the guide lie in images of 48 pixels
    X = np.random.default_rng(0).integers(0, 256, (60, 48, 48, 1), dtype=np.uint8)
    y = np.array(["good", "scratched"] * 30)
    return X, y, GCMClassifier(random_state=0, max_epochs=1, n_stages=1).fit(X[:20], y[:20])


@pytest.fixture
def small_world(fitted, tmp_path, monkeypatch):
    """An empty folder with images of two classes, quick fits, and the names that the guide uses."""
    pytest.importorskip("matplotlib")
    fit = GCMClassifier.fit

    def fit_once(self, X, y, **options):
        return fit(self.set_params(max_epochs=1, n_stages=1, verbose=0), X, y, **options)

    monkeypatch.setattr(GCMClassifier, "fit", fit_once)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.array(["good", "scratched"] * 30)
    X = rng.integers(0, 256, (60, 12, 12, 1), dtype=np.uint8)
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        for folder in (f"parts/{label}", "new"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(f"{folder}/part{i // 4}_{i}.png")
    X, y, clf = fitted
    names = {"GCMClassifier": GCMClassifier, "frames": rng.integers(0, 256, (1, 80, 96), dtype=np.uint8)}
    for i, part in enumerate(("train", "valid", "test")):
        names[f"X_{part}"], names[f"y_{part}"] = X[20 * i : 20 * i + 20], y[20 * i : 20 * i + 20]
    names["clf"] = copy.deepcopy(clf)
    return names


@pytest.mark.parametrize("page", ["getting-started", *(f"guide/{path.stem}" for path in ROOT.glob("docs/guide/*.md"))])
def test_the_code_of_the_guide_runs(small_world, page):
    if page.endswith("deploy"):
        for name in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(name)
    for block in code_blocks(ROOT / "docs" / f"{page}.md"):
        exec(compile(block, page, "exec"), small_world)


def test_the_manual_builds_without_a_warning(tmp_path):
    for name in ("sphinx", "numpydoc", "sphinx_gallery", "pydata_sphinx_theme", "myst_parser", "matplotlib"):
        pytest.importorskip(name, reason="the manual is built with the extra docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-D", "plot_gallery=0"]
    command += ["-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_private_parts_of_scikit_learn_are_imported_in_one_module():
    private = re.compile(r"^\s*from sklearn[.\w]*\._|^\s*from sklearn[.\w]* import .*\b_[a-z]", re.MULTILINE)
    found = [path for path in (ROOT / "skgcm").rglob("*.py") if private.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in found] == ["sklearn_compat.py"]
