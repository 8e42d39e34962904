"""How Sphinx builds these pages (`make docs`). The reference comes from docstrings, as `docs/api.md` lists them."""

from layerhold.store import VERSION

project = "Layerhold"
copyright = "the Layerhold authors"  # noqa: A001 - Sphinx's name
release = version = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Layerhold {VERSION}"
html_show_copyright = False

# Headings can be linked to, as on the pages of a forge.
myst_heading_anchors = 3

# Docstrings: what stands in backquotes is code, and members come in the order of the source.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
add_module_names = False

# Every name in a signature has to be found, but for those that this reference has no pages for.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!layerhold\.).*")]


def setup(app):  # noqa: ANN001, ANN201 - Sphinx is not there where types are checked
    """Show classes without what their constructors take: only errors and values are made by callers."""
    app.connect("autodoc-process-signature", lambda _app, what, *_: ("", "") if what == "class" else None)
