"""Pages of HTML, built as trees of elements: whatever text is put into one is escaped when the page is written."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from importlib import resources

# Nothing is loaded from anywhere, and nothing runs: pictures and sounds are part of the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_UNPRINTABLE = {code: '�' for code in range(32) if chr(code) not in '\t\n'}


def element(tag: str, *children, **attributes) -> ET.Element:
    """An element of a page, or of a picture in SVG.

    Args:
        tag: its name.
        children: elements, or anything else as text; None is left out.
        attributes: `class_` stands for class, `stroke_width` for stroke-width; None is left out.

    Returns:
        The element.
    """
    named = {name.rstrip('_').replace('_', '-'): value for name, value in attributes.items()}
    node = ET.Element(tag, {name: _text(v) for name, v in named.items() if v is not None})
    for child in children:
        if isinstance(child, ET.Element):
            node.append(child)
        elif child is not None and len(node):
            node[-1].tail = (node[-1].tail or '') + _text(child)
        elif child is not None:
            node.text = (node.text or '') + _text(child)
    return node


def _text(value) -> str:
    """Text that can be written: file names may hold bytes that are no UTF-8, ids anything at all."""
    return str(value).translate(_UNPRINTABLE).encode('utf-8', 'replace').decode('utf-8')


def table(head: Sequence, rows: Iterable[Sequence], texts: int = 1, **attributes) -> ET.Element:
    """A table that scrolls by itself where the page is too narrow for it.

    Args:
        head: of the columns: text or elements.
        rows: of cells: text or elements; elements `th` and `td` are cells themselves.
        texts: so many columns on the left hold words, the others numbers.
        attributes: of the table.

    Returns:
        The element around the table.
    """

    def line(cells, usual):
        made = []
        for number, cell in enumerate(cells):
            if not (isinstance(cell, ET.Element) and cell.tag in ('td', 'th')):
                cell = element(usual, cell, class_=None if number < texts else 'number')
            made.append(cell)
        return element('tr', *made)

    body = element('tbody', *(line(row, 'td') for row in rows))
    made = element('table', element('thead', line(head, 'th')), body, **attributes)
    return element('div', made, class_='scroll')


def details(summary: str, *children) -> ET.Element:
    """What is shown when it is asked for."""
    return element('details', element('summary', summary), *children)


def facts(pairs: Iterable[tuple]) -> ET.Element:
    """A list of names and what is to be said of each; what is None or '' is left out."""
    rows = [(name, value) for name, value in pairs if value is not None and value != '']
    return element(
        'dl', *(element('div', element('dt', n), element('dd', value)) for n, value in rows)
    )


def section(heading: str, *children) -> ET.Element:
    """A part of the page under a heading."""
    return element('section', element('h2', heading), *children)


def document(title: str, *body: ET.Element) -> str:
    """A whole page.

    Args:
        title: shown by the browser.
        body: elements.

    Returns:
        The text of the file: it needs no other file, no network and no script.
    """
    head = element(
        'head',
        element('meta', charset='utf-8'),
        element('meta', http_equiv='Content-Security-Policy', content=_POLICY),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('meta', name='color-scheme', content='light dark'),
        element('title', title),
        element(
            'style',
            resources.files('ser_jax.reporting.html').joinpath('report.css').read_text('utf-8'),
        ),
    )
    page = element('html', head, element('body', element('main', *body)), lang='en')
    return '<!DOCTYPE html>\n' + ET.tostring(page, encoding='unicode', method='html') + '\n'
