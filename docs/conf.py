"""Settings of the documentation build: `make docs`."""

from importlib.metadata import version as installed_version

project = "learnmech"
author = copyright = "The learnmech authors"
release = version = installed_version("learnmech")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"learnmech {release}"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "signature"  # shapes stand in the annotations: Float[Tensor, "samples features"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
