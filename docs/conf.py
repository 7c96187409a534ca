"""Sphinx: `sphinx-build -W -c docs . site` builds the site from the pages of the whole repository."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import ser_jax  # noqa: E402

project = 'ser_jax'
author = 'The ser_jax developers'
release = version = ser_jax.__version__
root_doc = 'docs/index'
# The sources are the repository's own pages, so that their links work in a clone, on GitHub and here.
include_patterns = [
    'CHANGELOG.md',
    'README.md',
    'docs/**.md',
    'configs/README.md',
    'benchmarks/README.md',
    'cloud/README.md',
    'results/*.md',
    'results/*/*.md',
    'ser_jax/pretrained/*/*.md',
    'tfds_builders/*/README.md',
]
exclude_patterns = ['.*', 'runs', 'site', 'results/*/*/*', '**/__pycache__']
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']

myst_heading_anchors = 4  # GitHub's anchors
myst_enable_extensions = ['colon_fence']

highlight_language = 'none'  # of blocks that name no language: commands, tables, folders
html_theme = 'furo'
smartquotes = False  # flags have two hyphens
html_title = f'ser_jax {version}'
html_extra_path = ['_extra']  # sends index.html on to docs/index.html
html_static_path, html_css_files = ['_static'], ['site.css']
html_copy_source = False
html_show_copyright = html_show_sphinx = False

default_role = 'code'
autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
napoleon_use_ivar = True


class FieldAnchors(SphinxTransform):
    """Gives each row of the config reference the anchor `#FIELD` and an entry in index and search."""

    default_priority = 500

    def apply(self):
        if self.env.docname != 'configs/README':
            return
        seen = set()
        for row in self.document.findall(nodes.row):
            name = row[0].astext()
            if isinstance(row.parent, nodes.thead) or name in seen:
                continue
            seen.add(name)
            row['ids'].append(f'field-{name}')
            entry = addnodes.index(entries=[('single', name, f'field-{name}', '', None)])
            row[0].insert(0, entry)


def escape_docstring(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: shields what reStructuredText would read as markup."""
    parts = re.split(r'(`[^`]*`)', '\n'.join(lines))
    parts[::2] = [re.sub(r'([*|\\]|_\b)', r'\\\1', part) for part in parts[::2]]
    parts[2::2] = [re.sub(r'^(?=\w)', r'\\ ', part) for part in parts[2::2]]  # `Fold`s
    lines[:] = ''.join(parts).split('\n')


def skip_flax(app, what, name, obj, skip, options):
    """Leaves out what Flax adds to every module, and the fields of named tuples, which their docstrings describe."""
    return skip or name in ('name', 'parent', 'scope') or type(obj).__name__ == '_tuplegetter'


def leave_out_of_search(app, doctree):
    """Keeps the tables of all grids out of the search, where they would precede the pages about a corpus."""
    if re.fullmatch(r'results/\w+/\w+', app.env.docname):
        app.env.metadata[app.env.docname]['nosearch'] = True


def setup(app):
    app.add_transform(FieldAnchors)
    app.connect('autodoc-process-docstring', escape_docstring, priority=100)
    app.connect('autodoc-skip-member', skip_flax)
    app.connect('doctree-read', leave_out_of_search)
