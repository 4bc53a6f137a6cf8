"""How is the documentation built?  ``python -m sphinx --fail-on-warning -b html docs docs/_build/html``"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext"), str(ROOT / "tests")]

project = "adasplash2"
author = "The adasplash2 developers"
copyright = f"2026, {author}"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "matplotlib.sphinxext.plot_directive",
    # docs/_ext
    "mathml",
    "claims",
    "commands",
    "conformance",
    "development",
    "evidence",
    "options",
    "speed",
    "steps",
]
exclude_patterns = ["_build"]
html_math_renderer = "mathml"

autosummary_generate = True
default_role = "py:obj"
autodoc_typehints = "none"  # numpydoc sections give the types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

plot_formats = [("svg", 100)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_rcparams = {
    "figure.figsize": (6.4, 3.4),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}
plot_apply_rcparams = True

html_theme = "pydata_sphinx_theme"
html_title = f"adasplash2 {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {
    "index": [],
    "import_the_reference": [],
    "train": [],
    "installation": [],
    "tutorial": [],
    "oracle": [],
    "evidence/*": [],
    "how_it_works": [],
    "proofs": [],
    "changelog": [],
}


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the entries that autodoc makes of a named tuple's fields: the class says what they are."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect the filter."""
    app.connect("autodoc-skip-member", skip_tuple_fields)
