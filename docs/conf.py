"""Sphinx configuration of the site; title, version and author come from settings.ini. Built by `make site`."""
import configparser
import importlib.util
import inspect
import re
from pathlib import Path

from fastcore.docments import docments

# this file is read from the folder that tools/stage_docs.py laid out, two levels below the project
ROOT = next(p for p in Path(__file__).resolve().parents if (p / 'settings.ini').exists())
ini = configparser.ConfigParser()
ini.read(ROOT / 'settings.ini')
about = ini['DEFAULT']

project, author, release = about['title'], about['author'], about['version']
copyright = about['copyright']
root_doc = 'index'
# no viewcode: the source of everything exported stands, folded, on the page of its notebook
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx_design', 'sphinx_copybutton']
exclude_patterns = ['README.md', 'jupyter_execute']

nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'  # tables too, in what a cell shows
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'deflist', 'attrs_inline']
myst_heading_anchors = 3
suppress_warnings = ['mystnb.unknown_mime_type', 'myst.header', 'misc.highlighting_failure']

autodoc_typehints = 'description'
autodoc_typehints_format = 'short'
autodoc_member_order = 'bysource'
add_module_names = False

html_theme = 'pydata_sphinx_theme'
# MathJax beside the pages; the package is also an extension, which does not say that it may be loaded in parallel builds
offline = importlib.util.find_spec('sphinx-mathjax-offline')
if offline is None or offline.origin is None: raise SystemExit('formulas need the package sphinx-mathjax-offline (make env)')
mathjax_path = 'mathjax/tex-chtml.js'
html_static_path = ['_static', str(Path(offline.origin).parent / 'static')]
html_title = project
html_theme_options = {'header_links_before_dropdown': 8, 'navigation_with_keys': False, 'show_prev_next': True,
                      'show_toc_level': 2, 'secondary_sidebar_items': ['page-toc'], 'footer_start': ['copyright'], 'footer_end': []}
html_show_sourcelink = False
html_copy_source = False
html_css_files = ['site.css']
html_favicon = '_static/favicon.svg'
html_context = {'default_mode': 'auto'}

def readable(line: str) -> str:
    "A docstring written as plain text with back-ticks, as reStructuredText."
    parts = re.split(r'(`[^`]+`)', line)
    return ''.join(f'`{p}`' if p.startswith('`') else re.sub(r'([*|\\]|_(?=\W|$))', r'\\\1', p) for p in parts)

def parameter_comments(app, what, name, obj, options, lines):
    "The comments behind parameters as fields of the reference entry."
    lines[:] = [readable(x) for x in lines]
    target = obj.__init__ if inspect.isclass(obj) and '__init__' in vars(obj) else obj
    try: notes = docments(target)
    except (TypeError, ValueError, OSError, SyntaxError, AttributeError): return
    fields = [(k, ' '.join(v.split())) for k, v in notes.items() if isinstance(v, str) and k != 'self']
    if fields: lines.append('')
    lines += [f':return: {readable(v)}' if k == 'return' else f':param {k}: {readable(v)}' for k, v in fields]

def setup(app): app.connect('autodoc-process-docstring', parameter_comments)
