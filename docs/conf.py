"""Settings of the documentation site. `make docs` builds it into out/docs; no page needs a network.

Two extensions of ours lie in docs/extensions: formulas become drawings, and tables, figures and
notebooks come from the results, the command line and the course at the time of building.
"""

import sys
from pathlib import Path

import lietoolkit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "lietoolkit"
author = "The lietoolkit developers"
version = release = lietoolkit.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "drawn_formulas",
    "generated_parts",
]
exclude_patterns = ["extensions"]

# Every role must find what it names. Other projects' indexes would have to be fetched.
nitpicky = True
# Type variables have no page.
nitpick_ignore = [("py:class", f"lietoolkit.geometry.ranks.{name}") for name in ("Item", "Result")]
nitpick_ignore_regex = [(r"py:.*", r"(?!lietoolkit\b).*")]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "drawn"

# Notebooks are shown with the outputs that are in them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = False
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The empty line that ends an example's output is for doctest, not for the reader.
highlight_options = {"pycon": {"stripnl": True}}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "lietoolkit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
# A summary is fetched from its page, which a browser refuses for pages opened as files.
html_show_search_summary = False
html_use_index = False
# Pages that stand alone have no section to list.
ALONE = ("index", "quickstart", "which-planner", "limits", "comparison", "results", "command-line")
html_sidebars = {name: [] for name in ALONE}
html_theme_options = {
    "logo": {"text": "lietoolkit"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "xcode",
    "pygments_dark_style": "github-dark",
}
