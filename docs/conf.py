"""How Sphinx builds this documentation: `make docs`. Nothing is fetched from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metering_core import __doc__ as summary

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "metering_core"
author = "metering_core contributors"
copyright = author  # noqa: A001 - Sphinx's word
html_title = project
html_short_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_meta = {"description": summary}

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = (
    True  # The attributes of a class are a list in its text, not entries of their own.
)


def readable_default(_app: Sphinx, *documented: object) -> tuple[str | None, str | None]:
    """Write `…` for a default that a factory makes, which attrs calls NOTHING."""
    signature, returns = documented[-2:]
    shown = signature.replace("= NOTHING", "= …") if isinstance(signature, str) else None
    return shown, returns if isinstance(returns, str) else None


def setup(app: Sphinx) -> None:
    """Have Sphinx ask for the signatures."""
    app.connect("autodoc-process-signature", readable_default)
