"""Writes the tables of configs/README.md from the configs and their comments: `python configs/make_reference.py [--check]`.

A field's description is the comment behind its value, or else the one right above. A comment after an empty line heads
the fields below it. `--check` writes nothing and exits with 1 where the README says something else than the configs.
"""

import argparse
import ast
import fnmatch
import importlib
import inspect
import re
import sys
import tokenize
from pathlib import Path

HERE = Path(__file__).resolve().parent
SYSTEMS = ('mtl_aug', 'end_to_end', 'adversarial_autoencoder')
MARK = '<!-- tables -->\n'  # in the README; what stands below is written
KINDS = {bool: 'True or False', str: 'text', int: 'whole number', float: 'number', tuple: 'tuple'}


class Source:
    """A Python file with the comments on what it assigns to `config.…`: `fields` and `headings`, by field."""

    def __init__(self, path: Path):
        text = path.read_text(encoding='utf-8')
        self._lines, self.tree = text.splitlines(), ast.parse(text)
        tokens = tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__)
        comments = [token for token in tokens if token.type == tokenize.COMMENT]
        self._comments = {token.start[0]: token.string.lstrip('# ') for token in comments}
        self.fields, self.headings = {}, {}
        for node in ast.walk(self.tree):
            target = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ''
            if target.startswith('config.'):
                self._read(target.removeprefix('config.'), node, node.value)

    def _read(self, field: str, node: ast.AST, value: ast.AST):
        content = value.args[0] if isinstance(value, ast.Call) and value.args else value
        above, is_heading = self._above(node.lineno)
        if is_heading:
            self.headings[field] = above.rstrip('.')
        if isinstance(content, ast.Dict):
            for key, below in zip(content.keys, content.values):
                if isinstance(key, ast.Constant):
                    self._read(f'{field}.{key.value}', key, below)
        else:
            comment = self._comments.get(value.end_lineno, above)
            self.fields[field] = self.fields.get(field) or comment

    def entries(self, dictionary: ast.Dict) -> dict[str, str]:
        """Key -> comment, of a dictionary; '' where the key is computed."""
        return {
            getattr(key, 'value', ''): self._comments.get(value.lineno)
            or self._above((key or value).lineno)[0]
            for key, value in zip(dictionary.keys, dictionary.values)
        }

    def _above(self, line: int) -> tuple[str, bool]:
        """The comment right above a line, and whether an empty line is above that."""
        found = []
        while self._lines[line - 2].lstrip().startswith('#'):
            line -= 1
            found.insert(0, self._comments[line])
        return ' '.join(found), bool(found) and not self._lines[line - 2].strip()


def attributes(documented: type) -> dict[str, str]:
    """Attribute -> description, from a class' docstring."""
    pairs = re.findall(r'^    (\w+): (.*(?:\n     +.*)*)', inspect.getdoc(documented), re.MULTILINE)
    return {name: ' '.join(words.split()) for name, words in pairs}


def flat(fields: dict, prefix: str = '') -> dict:
    """Field -> value, groups as `group.field`."""
    nested = lambda name, value: (
        flat(value, f'{name}.') if isinstance(value, dict) else {name: value}
    )
    return {k: v for name, value in fields.items() for k, v in nested(prefix + name, value).items()}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return ''.join(f'| {" | ".join(row)} |\n' for row in (head, ('---',) * len(head), *rows))


def field_table(values: dict, systems: dict[str, dict], base: Source, own: Source) -> str:
    """Field, default, what it must be, what it does; `systems` may have defaults of their own."""
    from ser_jax import config_check
    from ser_jax.audio import log_mel
    from ser_jax.data import tasks

    groups = {  # whose fields are described elsewhere
        'data.front_end': attributes(log_mel.FrontEnd),
        'tasks.NAME': attributes(tasks.Task),
        'optimisers.NAME': {name.partition('.')[2]: does for name, does in base.fields.items()},
    }
    rows = {}  # one for all tasks, and for all optimisers
    for field, value in values.items():
        found = re.fullmatch(r'(tasks|optimisers)\.(\w+)\.(\w+)', field)
        differ = {name: own[field] for name, own in systems.items() if own[field] != value}
        defaults = {found[2]: value} if found else {'': value, **differ}
        rows.setdefault(f'{found[1]}.NAME.{found[3]}' if found else field, {}).update(defaults)
    cells = []
    for row, defaults in rows.items():
        group, _, last = row.rpartition('.')
        does = base.fields.get(row) or own.fields.get(row) or groups[group][last]
        named = [
            f'{name}: `{value!r}`' if name else f'`{value!r}`' for name, value in defaults.items()
        ]
        kind, pattern = KINDS[type(next(iter(defaults.values())))], row.replace('NAME', '*')
        rules = {words for name, _, words in config_check.RULES if fnmatch.fnmatch(name, pattern)}
        number = kind.endswith('number') and not any('whole' in words for words in rules)
        must = '; '.join(([kind] if number or not rules else []) + sorted(rules))
        cells.append((f'`{row}`', '; '.join(named), must, does[0].upper() + does[1:].rstrip('.')))
    return table(('field', 'default', 'must be', 'what it does'), cells)


def tables() -> str:
    """All tables: the fields of all systems, each system, grid files."""
    from ser_jax.config import base_config

    base, shared = Source(HERE.parent / 'ser_jax' / 'config.py'), flat(base_config().to_dict())
    modules = {name: importlib.import_module(f'configs.{name}') for name in SYSTEMS}
    # As they are for a corpus without settings of its own.
    systems = {
        name: flat(module.get_config('csv_corpus/NAME').to_dict()) | {'corpus': shared['corpus']}
        for name, module in modules.items()
    }
    # The config itself has lost its order.
    shared = {field: shared[field] for field in (*base.fields, *shared) if field in shared}
    parts, groups = [], {}
    for field, value in shared.items():
        parents = [field.rsplit('.', up)[0] for up in range(field.count('.') + 1)]
        heading = next((base.headings[name] for name in parents if name in base.headings), '')
        groups.setdefault(heading or list(groups)[-1], {})[field] = value
    for heading, values in groups.items():
        same = {
            name: fields | {'system': '', 'settings_of': ''} for name, fields in systems.items()
        }
        parts.append(f'## {heading}\n\n{field_table(values, same, base, base)}')

    sets = lambda changes: ', '.join(f'`{f} = {v!r}`' for f, v in changes.items()) or '–'
    for name, module in modules.items():
        own = Source(HERE / f'{name}.py')
        assigned = {
            ast.unparse(n.targets[0]): n for n in own.tree.body if isinstance(n, ast.Assign)
        }
        told = own.entries(assigned['OPTIONS'].value)
        options = [(f'`{o}`', told.get(o) or told[''], sets(c)) for o, c in module.OPTIONS.items()]
        corpora = [(f'`{corpus}`', sets(changes)) for corpus, changes in module.CORPORA.items()]
        alone = [f for f in (*own.fields, *systems[name]) if f in systems[name] and f not in shared]
        parts.append(f'## [`{name}.py`]({name}.py)\n\n{module.__doc__.partition(chr(10))[0]}\n')
        parts.append(table(('option', 'what', 'sets'), options))
        parts.append(table(('corpus', 'sets; any other corpus: nothing'), corpora))
        parts.append(field_table({f: systems[name][f] for f in alone}, {}, base, own))

    grids = {path.name: Source(path) for path in sorted((HERE / 'grids').glob('*.py'))}
    example = next(n.value for n in ast.walk(grids['demo.py'].tree) if isinstance(n, ast.Return))
    keys = [(f'`{key}`', words) for key, words in grids['demo.py'].entries(example).items()]
    parts.append(f'## Grid files\n\n{table(("key", "what"), keys)}')
    title = lambda source: ast.get_docstring(source.tree).partition('\n')[0]
    files = [(f'[`{name}`](grids/{name})', title(source)) for name, source in grids.items()]
    parts.append(table(('file', 'what'), files))
    return '\n'.join(parts)


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
