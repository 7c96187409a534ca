"""What the pages share: templates, style sheet and figures."""

import itertools
from importlib import resources

import jinja2

from ser_jax.reporting import figures

_FILES = resources.files('ser_jax.reporting.html')


def read(name: str) -> str:
    """The text of a file beside this module."""
    return _FILES.joinpath(name).read_text('utf-8')


def render(template: str, *, policy: str = '', **context) -> str:
    """Fills a template; whatever is no markup already is escaped.

    Args:
        template: file name of a template that extends `base.html.j2`.
        policy: end of the page's content security policy, which allows inline styles, and images and sounds in the page.
        **context: variables of the template.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(read),
        finalize=lambda value: (
            value if hasattr(value, '__html__') else figures.printable_xml(value)
        ),
    )
    page = environment.get_template(template)
    return page.render(context, policy=policy, css=read('page.css'))


class Drawing:
    """Makes figures of a page, with ids that are unique in it."""

    def __init__(self):
        self._numbers = itertools.count()

    def __call__(self, heading: str, figure, note: str = '') -> dict:
        svg = figures.to_svg(figure, heading, f'f{next(self._numbers)}-')
        return {'heading': heading, 'svg': svg, 'note': note}
