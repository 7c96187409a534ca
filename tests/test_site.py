"""The documentation site: built with warnings as errors, it loads nothing from outside, and every field of a config can be found."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, load

from ser_jax.config import flatten

pytest.importorskip('sphinx', reason='Sphinx is not installed (extra [docs])')
pytest.importorskip('furo', reason='furo is not installed (extra [docs])')
pytest.importorskip('myst_parser', reason='MyST is not installed (extra [docs])')

# What a browser fetches by itself: scripts, images, style sheets, fonts.
LOADED = re.compile(
    r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]*)"|<link\b[^>]*\brel="(?:stylesheet|icon|preload)"[^>]*\bhref="([^"]*)"|url\(([^)]*)\)|@import ([^;]*)'
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'sphinx', '-W', '-q', '-c', 'docs', '-d', folder / 'cache']
    result = subprocess.run(
        [*command, '.', folder / 'html'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return folder / 'html'


def test_it_loads_nothing_from_outside(site):
    files = [*site.rglob('*.html'), *site.rglob('*.css')]
    found = [match for file in files for match in LOADED.findall(file.read_text(encoding='utf-8'))]
    assert len(found) > 100
    outside = [''.join(match) for match in found if '//' in ''.join(match)]
    assert [text for text in outside if not text.strip('\'"').startswith('data:')] == []


def test_every_page_and_every_field_can_be_reached(site):
    index = (site / 'docs' / 'index.html').read_text(encoding='utf-8')
    for page in (ROOT / 'docs').glob('*.md'):
        assert f'href="{page.stem}.html"' in index or page.stem == 'index', page
    reference = (site / 'configs' / 'README.html').read_text(encoding='utf-8')
    words = (site / 'genindex.html').read_text(encoding='utf-8')
    for system in ('mtl_aug', 'end_to_end', 'adversarial_autoencoder', 'probe'):
        for field in flatten(load(f'configs/{system}.py').get_config()):
            name = re.sub(r'^(tasks|optimisers)\.\w+', r'\1.NAME', field)
            assert reference.count(f'id="field-{name}"') == 1, name
            assert f'configs/README.html#field-{name}"' in words, name


def test_the_search_leaves_out_tables_of_grids(site):
    script = (site / 'searchindex.js').read_text(encoding='utf-8')
    index = json.loads(script[script.index('{') : script.rindex('}') + 1])
    found = {index['docnames'][number] for number in index['terms']['ravdess']}
    assert {'docs/corpora', 'docs/systems'} <= found
    assert not [page for page in found if re.fullmatch(r'results/\w+/\w+', page)]
