"""Every link inside the project has a target."""

import re

import pytest
from conftest import ROOT

PAGES = sorted(
    path
    for folder in ('.', 'benchmarks', 'cloud', 'configs', 'docs', 'results', 'tfds_builders')
    for path in (ROOT / folder).glob('*.md' if folder == '.' else '**/*.md')
)
LINK = re.compile(r'\]\(([^)\s]+)\)')


def anchors(page):
    """GitHub's anchors of a page's headings."""
    text = re.sub(
        r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL
    )
    titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    return {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    for link in LINK.findall(page.read_text(encoding='utf-8')):
        if '://' in link:
            continue
        file, _, anchor = link.partition('#')
        target = page.parent / file if file else page
        assert target.is_file(), link  # the site has no page for a folder
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short():
    page = ROOT / 'README.md'
    assert page.stat().st_size <= 10_000
    assert len(LINK.findall(page.read_text(encoding='utf-8'))) > 20


def test_licences_are_those_of_the_corpora():
    text = (ROOT / 'docs' / 'corpora.md').read_text(encoding='utf-8')
    rows = dict(re.findall(r'^\| \[.*?\]\(\.\./tfds_builders/(\w+)/README\.md\) (.*)$', text, re.M))
    pages = {path.parent.name: path for path in (ROOT / 'tfds_builders').glob('*/README.md')}
    assert rows.keys() == pages.keys()
    for name, page in pages.items():
        stated = re.search(r'^\| Licence \|(.*)\|$', page.read_text(encoding='utf-8'), re.M)
        named = re.findall(r'CC BY[A-Z-]* \d\.\d', stated[1] if stated else '')
        assert re.findall(r'CC BY[A-Z-]* \d\.\d', rows[name]) == named, name
