"""Writes the tables of configs/README.md from the declarations of the fields: `python configs/make_reference.py [--check]`.

`--check` writes nothing and exits with 1 if the README differs.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
SYSTEMS = {
    'mtl_aug': 'MTL-AUG',
    'end_to_end': 'end-to-end multitask learning',
    'adversarial_autoencoder': 'the adversarial autoencoder',
    'probe': 'the linear probe',
}
MARK = '<!-- tables -->\n'  # in the README; the tables follow it
KINDS = {bool: 'True or False', str: 'text', int: 'whole number', float: 'number', tuple: 'tuple'}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return ''.join(f'| {" | ".join(row)} |\n' for row in (head, ('---',) * len(head), *rows))


def field_table(fields: Mapping, systems: Mapping[str, Mapping]) -> str:
    """Name, meaning, default and bounds of each field.

    Args:
        fields: dotted name -> `Field`; those of all tasks share a row, and those of all optimisers.
        systems: system -> dotted name -> value, for defaults that may differ from those of the fields.
    """
    defaults, cells = {}, {}
    for name, field in fields.items():
        row = re.sub(r'^(tasks|optimisers)\.\w+', r'\1.NAME', name)
        label = '' if row == name else f'{name.split(".")[1]}: '
        differing = {s: own[name] for s, own in systems.items() if own[name] != field.default}
        defaults.setdefault(row, []).append(f'{label}`{field.default!r}`')
        defaults[row] += [f'{system}: `{value!r}`' for system, value in differing.items()]
        kind, bounds = KINDS[type(field.default)], field.bounds and field.bounds.words
        number = kind.endswith('number') and 'number' not in (bounds or '')
        allowed = f'{kind}, {bounds}' if bounds and number else bounds or kind
        cells[row] = field.meaning[0].upper() + field.meaning[1:], allowed
    rows = [
        (f'`{row}`', meaning, '; '.join(defaults[row]), allowed)
        for row, (meaning, allowed) in cells.items()
    ]
    return table(('field', 'meaning', 'default', 'must be'), rows)


def tables() -> str:
    """All tables: fields of all systems, each system, grid files."""
    from ser_jax.config import GROUPS, flatten

    def changes(sets):
        return ', '.join(f'`{name} = {value!r}`' for name, value in sets.items()) or '–'

    modules = {name: importlib.import_module(f'configs.{name}') for name in SYSTEMS}
    # Defaults for a corpus without settings of its own.
    same = {'system': '', 'settings_of': '', 'corpus': 'demo_speech'}
    systems = {n: flatten(m.get_config('csv_corpus/NAME')) | same for n, m in modules.items()}
    parts = [
        f'## Fields: {head}\n\n{field_table(fields, systems)}' for head, fields in GROUPS.items()
    ]
    for name, module in modules.items():
        title = f'{name}.py: options, settings and fields of {SYSTEMS[name]}'
        parts.append(f'## {title}\n\n{module.__doc__.partition(chr(10))[0]}\n')
        options = [(f'`{k}`', o.meaning, changes(o.sets)) for k, o in module.OPTIONS.items()]
        parts.append(table(('option', 'meaning', 'sets'), options))
        corpora = [(f'`{corpus}`', changes(sets)) for corpus, sets in module.CORPORA.items()]
        parts.append(table(('corpus', 'sets; other corpora: see above'), corpora))
        parts.append(field_table(module.FIELDS, {}))
    grids = [path.stem for path in sorted((HERE / 'grids').glob('*.py'))]
    titles = [importlib.import_module(f'configs.grids.{name}').__doc__ for name in grids]
    files = [(f'[`{n}.py`](grids/{n}.py)', t.partition('\n')[0]) for n, t in zip(grids, titles)]
    return '\n'.join(
        [*parts, f'## The grids in configs/grids/\n\n{table(("file", "question"), files)}']
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, exit 1 on difference')
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(HERE.parent))
    readme = HERE / 'README.md'
    old = readme.read_text(encoding='utf-8')
    new = f'{old.partition(MARK)[0]}{MARK}{tables()}'
    if not options.check:
        readme.write_text(new, encoding='utf-8')
    elif new != old:
        print(f'{readme} differs: run python configs/make_reference.py', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
