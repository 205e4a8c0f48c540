"""Sphinx: the site is made from the notebooks of this folder (`make docs`)."""

import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
settings = ConfigParser(interpolation=None)
settings.read(ROOT / "settings.ini", encoding="utf-8")
package = settings["package"]

project, author = package["name"], package["author"]
version = release = package["version"]
# Colab opens notebooks from GitHub alone; without an address nothing links to one
repository = package["repository"].removesuffix(".git")
repository = repository if repository.startswith("https://github.com/") else ""
copyright = author
exclude_patterns = ["jupyter_execute", ".ipynb_checkpoints"]
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "nbdev_sphinx"]

nb_execution_mode = "off"  # outputs are stored in the notebooks, and checked
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables that a cell makes are tables
myst_enable_extensions = ["alert", "colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
numfig = True
numfig_format = {"figure": "Figure %s:"}
add_module_names = False

# one file that loads nothing else; it is copied from a package
mathjax_folder = find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
mathjax_path = "tex-svg-full.js"
html_static_path = ["_static", f"{mathjax_folder}/static/mathjax/{mathjax_path}"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_domain_indices = False  # modules are chapters

html_theme = "sphinx_book_theme"
html_title = f"{project} {version}"
html_short_title = project
html_show_copyright = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": repository,
    "repository_branch": package["branch"],
    "path_to_docs": "nbs",
    "use_repository_button": bool(repository),
    "launch_buttons": {"colab_url": "https://colab.research.google.com"} if repository else {},
    "navbar_persistent": [],
    "show_toc_level": 2,
}
