"""CITATION.cff follows the Citation File Format 1.2.0 and agrees with setup.py, the systems' page and the BibTeX."""

import ast

import yaml
from conftest import ROOT

import ser_jax

CITATION = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
SYSTEMS, BIBTEX = (
    ' '.join((ROOT / 'docs' / name).read_text(encoding='utf-8').split())
    for name in ('systems.md', 'citation.md')
)


def setup_argument(name):
    """An argument of `setup` in setup.py."""
    tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == 'setup']
    (value,) = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return ast.literal_eval(value)


def test_the_software_is_that_of_setup_py():
    assert CITATION['cff-version'] == '1.2.0'
    assert {'message', 'title', 'authors'} <= set(CITATION)
    assert CITATION['version'] == setup_argument('version') == ser_jax.__version__
    # setup.py also names that of the parameters in ser_jax/pretrained.
    assert CITATION['license'] == setup_argument('license').partition(' AND ')[0]
    assert setup_argument('name') in CITATION['title']
    assert f'version = {{{CITATION["version"]}}}' in BIBTEX


def test_the_papers_are_those_of_the_systems():
    cited = set()
    for paper in CITATION['references']:
        assert {'type', 'title', 'authors', 'year'} <= set(paper)
        assert paper['title'] in SYSTEMS
        assert f'title = {{{paper["title"]}}}' in BIBTEX
        (number,) = [identifier['value'] for identifier in paper['identifiers']]
        assert paper['url'] == f'https://arxiv.org/abs/{number.removeprefix("arXiv:")}'
        assert paper['url'] in SYSTEMS
        assert f'eprint = {{{number.removeprefix("arXiv:")}}}' in BIBTEX
        for author in paper['authors']:
            assert author.get('family-names', author.get('name')).split()[0] in SYSTEMS
        cited.add(paper['url'])
    assert len(cited) == 3
