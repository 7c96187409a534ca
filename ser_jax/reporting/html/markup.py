"""HTML pages as trees of elements; all text is escaped when the page is written."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from importlib import resources

# Nothing is loaded and no script runs: pictures and recordings are part of the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_UNPRINTABLE = {code: '�' for code in range(32) if chr(code) not in '\t\n'}


def element(tag: str, *children, **attributes) -> ET.Element:
    """An HTML or SVG element.

    Args:
        tag: tag name.
        children: elements, or anything else as text; None is left out.
        attributes: `class_` stands for class, `stroke_width` for stroke-width; None is left out.
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
    """Text without control characters and invalid UTF-8, which file names and ids may contain."""
    return str(value).translate(_UNPRINTABLE).encode('utf-8', 'replace').decode('utf-8')


def table(head: Sequence, rows: Iterable[Sequence], texts: int = 1, **attributes) -> ET.Element:
    """A table that scrolls horizontally on narrow pages.

    Args:
        head: column headings, text or elements.
        rows: rows of cells, text or elements; `th` and `td` elements are used as cells.
        texts: number of text columns on the left; the others are numbers.
        attributes: attributes of the table.

    Returns:
        The `div` around the table.
    """

    def line(cells, tag):
        row = element('tr')
        for number, cell in enumerate(cells):
            if not (isinstance(cell, ET.Element) and cell.tag in ('td', 'th')):
                cell = element(tag, cell, class_=None if number < texts else 'number')
            row.append(cell)
        return row

    body = element('tbody', *(line(row, 'td') for row in rows))
    node = element('table', element('thead', line(head, 'th')), body, **attributes)
    return element('div', node, class_='scroll')


def details(summary: str, *children) -> ET.Element:
    """Collapsible content under a summary."""
    return element('details', element('summary', summary), *children)


def definitions(pairs: Iterable[tuple]) -> ET.Element:
    """A list of (name, value) pairs; None and '' are left out."""
    rows = [(name, value) for name, value in pairs if value is not None and value != '']
    return element(
        'dl', *(element('div', element('dt', n), element('dd', value)) for n, value in rows)
    )


def section(heading: str, *children) -> ET.Element:
    """A section with a heading."""
    return element('section', element('h2', heading), *children)


def document(title: str, *body: ET.Element) -> str:
    """A whole page.

    Args:
        title: title in the browser.
        body: elements.

    Returns:
        Text of a self-contained HTML file without scripts.
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
