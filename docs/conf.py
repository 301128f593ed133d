"""The documentation site: `make docs` builds it into build/docs."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_extensions")]
os.environ["PYTHONPATH"] = str(ROOT)  # notebooks run in a process of their own
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))

# the kernel reads this instead of the user's own IPython configuration
PROFILE = ROOT / "build" / "ipython" / "profile_default"
PROFILE.mkdir(parents=True, exist_ok=True)
(PROFILE / "ipython_kernel_config.json").write_text('{"IPKernelApp": {"log_level": 40}}')
os.environ["IPYTHONDIR"] = str(PROFILE.parent)

import kdjax  # noqa: E402  after the path is set

project = "kdjax"
author = "The kdjax authors"
release = version = kdjax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "mathml"]
extensions += ["links", "reference"]
exclude_patterns = ["_generated", "_extensions"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "auto"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True
nb_ipywidgets_js = {}  # would be loaded from another host

autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # `docstrings` writes the shapes
napoleon_numpy_docstring = False

html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = "kdjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
