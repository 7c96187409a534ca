"""Every relative link of every page leads somewhere."""

import re

import pytest
from conftest import ROOT

PAGES = sorted(
    path
    for folder in ('.', 'benchmarks', 'cloud', 'configs', 'results', 'tfds_builders')
    for path in (ROOT / folder).glob('*.md' if folder == '.' else '**/*.md')
)
LINK = re.compile(r'\]\(([^)\s#]+)[^)]*\)')


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    links = LINK.findall(page.read_text(encoding='utf-8'))
    missing = [link for link in links if '://' not in link and not (page.parent / link).exists()]
    assert not missing


def test_there_are_links():
    assert LINK.findall((ROOT / 'README.md').read_text(encoding='utf-8'))
