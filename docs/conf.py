"""Sphinx configuration of the documentation; `make docs` builds it."""

from importlib.metadata import version as version_of

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "clarigrpc"
author = "the clarigrpc authors"
version = release = version_of("clarigrpc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]

# Options and JSON are there to be copied.
smartquotes = False

html_theme = "furo"
html_title = f"clarigrpc {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# The arguments of a class stand in its text; most classes here are not made by their users.
autodoc_class_signature = "separated"
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    # For the parts of a client among themselves.
    "exclude-members": "__init__, child, close_with, raises_on_partial, unary, within",
}
# Names of types as a reader would write them, without their modules.
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_use_rtype = False


def setup(app: Sphinx) -> None:
    """Shows requests over HTTP as they are: they lack the version that the lexer asks for."""
    app.add_lexer("http", TextLexer)
