"""Settings of the pages: `make docs` builds them into docs/_build/html."""

from importlib.util import find_spec

from mmmeta import __version__

project = 'mmmeta'
author = copyright = 'The mmmeta authors'
release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
html_theme = 'furo'
html_static_path = ['_static']
html_js_files = ['sort.js']
html_css_files = ['tables.css']
html_title = f'mmmeta {__version__}'
autodoc_typehints = 'none'
# `make docs` needs no MMCV, which takes a minute to compile.
autodoc_mock_imports = [name for name in ('mmcv', 'mmdet', 'mmseg', 'mmpretrain') if find_spec(name) is None]
autodoc_member_order = 'bysource'
napoleon_google_docstring = True
