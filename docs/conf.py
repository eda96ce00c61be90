"""Sphinx builds the manual from this folder: ``make docs``. Nothing is downloaded."""

import re
import warnings
from pathlib import Path

import skgcm

warnings.filterwarnings("ignore", category=FutureWarning, module="sphinx_gallery")

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "skgcm"
author = "skgcm developers"
project_copyright = author
version = release = skgcm.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]
suppress_warnings = ["config.cache"]  # a key function of the gallery cannot be stored between builds

# ---- pages that are written elsewhere -----------------------------------------------------------------------------
# Copies, not includes: links between the pages keep working, and each result table is a page of its own.


def copy_page(source, target, links=()):
    text = source.read_text(encoding="utf-8")
    for pattern, replacement in links:
        text = re.sub(pattern, replacement, text)
    target.parent.mkdir(exist_ok=True)
    if not target.exists() or target.read_text(encoding="utf-8") != text:  # else Sphinx would build it again
        target.write_text(text, encoding="utf-8")


LINKS = [(r"\]\((?:\.\./)*benchmarks/results/", "](../benchmarks/"), (r"\]\(\.\./\.\./docs/", "](../")]
for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG"):
    copy_page(ROOT / f"{name}.md", DOCS / "project" / f"{name.lower()}.md", LINKS)
results = ROOT / "benchmarks" / "results"
titles = {path: path.read_text(encoding="utf-8").partition("\n")[0] for path in results.glob("*.md")}
for path, title in titles.items():
    same = list(titles.values()).count(title) > 1
    unique = [(r"\A.*", lambda found, stem=path.stem: f"{found[0]} ({stem})")] if same else []
    copy_page(path, DOCS / "benchmarks" / path.name, LINKS + unique)
for path in results.glob("*.png"):
    (DOCS / "benchmarks" / path.name).write_bytes(path.read_bytes())

myst_heading_anchors = 3

# ---- the reference ------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"
autodoc_default_options = {"member-order": "bysource"}
numpydoc_show_class_members = False  # the template lists them
numpydoc_validation_checks = set()

# ---- the gallery: every script of examples/ runs when the manual is built -----------------------------------------


class Order:
    """From what most readers look for to what few do."""

    names = (
        *("digits", "inspection", "versus", "reject", "wrong_labels", "operating_point"),
        *("frames", "transform", "grid_search", "onnx"),
    )

    def __init__(self, folder):
        pass

    def __call__(self, file):
        name = Path(file).stem.removeprefix("plot_")
        return self.names.index(name) if name in self.names else len(self.names)


sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/plot_",
    "within_subsection_order": Order,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "reference_url": {},
    "abort_on_example_error": True,
    "write_computation_times": False,  # that page would load scripts from elsewhere
    "matplotlib_animations": False,
}

# ---- how it looks -------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"skgcm {release}"
html_theme_options = {
    "show_prev_next": False,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
}
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_show_sourcelink = False
html_copy_source = False
