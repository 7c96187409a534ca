"""Reads a grid file into runs: settings × variants × seeds, each with its config and its command line.

A grid file is a Python file with `get_grid() -> dict`, or `get_grid(argument) -> dict` for `FILE.py:ARGUMENT`;
configs/README.md documents its keys.
"""

import dataclasses
import importlib.util
import inspect
import itertools
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from ser_jax.config import (
    as_json,
    check_config,
    compared,
    flatten,
    name_network,
    parse_config,
    unknown_field,
    without_recipe,
)
from ser_jax.runtime.errors import UserError

_KEYS = ('config', 'variants', 'settings', 'seeds', 'baseline', 'family')
_FAMILIES = ('table', 'condition')
_ENTRY_KEYS = ('argument', 'changes')
_VARIANT_KEYS = (*_ENTRY_KEYS, 'attack_source', 'config', 'seeds')
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.+=-]*')  # names become folders


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a grid.

    Attributes:
        setting, variant, seed: place in the grid.
        flags: `--config` flags for `python -m ser_jax.main`.
        config: config that the flags describe.
        source: variant whose run of the same setting and seed becomes `config.attack_source`, or ''.
    """

    setting: str
    variant: str
    seed: int
    flags: tuple[str, ...]
    config: ml_collections.ConfigDict
    source: str = ''

    @property
    def folder(self) -> str:
        """The run directory, relative to the grid's folder."""
        return f'{self.setting}/{self.variant}/seed{self.seed}'

    def command(self, workdir: Path) -> list[str]:
        """The arguments of the command line, from 'python' on."""
        folders = [f'--workdir={workdir / self.folder}']
        if self.source:
            folders = [f'--config.attack_source={self._source_folder(workdir)}', *folders]
        return ['python', '-m', 'ser_jax.main', *self.flags, *folders]

    def config_in(self, workdir: Path) -> ml_collections.ConfigDict:
        """The config, with `attack_source` inside the grid's folder."""
        config = self.config.copy_and_resolve_references()
        if self.source:
            config.attack_source = str(self._source_folder(workdir))
        return config

    def _source_folder(self, workdir: Path) -> Path:
        return workdir / dataclasses.replace(self, variant=self.source).folder


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The runs of a grid file.

    Attributes:
        name: file name without its suffix.
        runs: runs ordered by seed, so that the first seed already gives a complete table.
        baseline: variant that the others are compared with, or ''.
        family: comparisons that are corrected together: 'table' = all, 'condition' = those of one setting and condition.
    """

    name: str
    runs: tuple[Run, ...]
    baseline: str
    family: str = 'table'

    def summary(self, finished: int) -> str:
        """How many runs are finished, and whether their results mean anything."""
        text = f'{finished} of {len(self.runs)} runs are finished'
        smoke = all('smoke' in run.config.options for run in self.runs)
        return f'{text}; smoke tests, whose results mean nothing' if smoke else text


def read_grid(path: str) -> Grid:
    """Reads a grid file and builds and checks the config of every run, before the first one starts.

    Args:
        path: grid file, with an argument after a colon where its `get_grid` takes one.

    Raises:
        UserError: no such file, or an error in it, with its place.
    """
    file, colon, argument = path.partition('.py:')
    file += '.py' * bool(colon)
    if not file.endswith('.py') or not Path(file).is_file():
        raise UserError(f'--config={path}: no such grid file')
    name = '-'.join([Path(file).stem, *re.findall(r'[\w.+=-]+', argument)])
    try:
        return _make_grid(name, _call_get_grid(file, [argument] if colon else []))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def _call_get_grid(path: str, arguments: Sequence[str]) -> Any:
    spec = importlib.util.spec_from_file_location('grid_file', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, 'get_grid'):
            raise UserError('not a grid file: it has no get_grid(), see configs/grids/demo.py')
        try:
            inspect.signature(module.get_grid).bind(*arguments)
        except TypeError as error:
            raise UserError(
                f'get_grid: {error}: its argument is named after a colon, FILE.py:ARGUMENT'
            ) from error
        return module.get_grid(*arguments)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f'line {error.lineno}: {error.msg}') from error
    except Exception as error:  # the file is the user's code
        raise UserError(_with_line(error, module)) from error


def _with_line(error: Exception, module: ModuleType) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == module.__file__]
    line = f'line {lines[-1]}: ' if lines else ''
    return f'{line}{type(error).__name__}: {error}'


def _make_grid(name: str, content: Any) -> Grid:
    _check_keys(content, _KEYS, 'the grid')
    config = content.get('config')
    _check_config_file(config, "'config'")
    variants = _entries(content, 'variants')
    settings = _entries(content, 'settings') if 'settings' in content else {'': {}}
    seeds = content.get('seeds', (0,))
    _check_seeds(seeds, "'seeds'")
    baseline = content.get('baseline', '')
    if baseline and baseline not in variants:
        raise UserError(f"'baseline' is {baseline!r}; the variants are: {', '.join(variants)}")
    family = content.get('family', 'table')
    if family not in _FAMILIES:
        raise UserError(f"'family' is {family!r}; it must be one of: {', '.join(_FAMILIES)}")
    runs = []
    seeds_of = {name: variant.get('seeds', seeds) for name, variant in variants.items()}
    for seed in dict.fromkeys(itertools.chain(*seeds_of.values())):
        for setting, common in settings.items():
            for variant, own in variants.items():
                if seed not in seeds_of[variant]:
                    continue
                if seed not in seeds_of[own.get('attack_source') or variant]:
                    raise UserError(
                        f"variant {variant!r}: 'attack_source' {own['attack_source']!r} has no seed {seed}"
                    )
                try:
                    file = own.get('config', config)
                    runs.append(_make_run(file, setting, common, variant, own, seed))
                except UserError as error:
                    where = f'setting {setting!r}, variant' if setting else 'variant'
                    raise UserError(f'{where} {variant!r}: {error}') from error
    _refuse_duplicates(runs)
    return Grid(name, tuple(runs), baseline, family)


def _check_config_file(path: Any, what: str) -> None:
    if not isinstance(path, str) or not path.endswith('.py') or not Path(path).is_file():
        raise UserError(f'{what} is {path!r}: no such config file')


def _check_seeds(seeds: Any, what: str) -> None:
    valid = isinstance(seeds, tuple | list) and seeds and all(type(seed) is int for seed in seeds)
    if not valid or len(set(seeds)) < len(seeds):
        raise UserError(f'{what} is {seeds!r}; it must be distinct whole numbers, e.g. (0, 1, 2)')


def _check_keys(value: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f'{what} is {value!r}; it must be a dict with keys from: {", ".join(keys)}')
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise UserError(
            f'{what} has an unknown key {unknown[0]!r}; the keys are: {", ".join(keys)}'
        )


def _entries(content: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The settings or the variants, checked."""
    entries = content.get(key)
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{key!r} is {entries!r}; it must be a dict such as {{'full': {{}}}}")
    for name, entry in entries.items():
        what = f'{key[:-1]} {name!r}'
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f'{what}: names become folders, use letters, digits and _ . + = - only')
        _check_keys(entry, _VARIANT_KEYS if key == 'variants' else _ENTRY_KEYS, what)
        if 'config' in entry:
            _check_config_file(entry['config'], f"{what}: 'config'")
        if 'seeds' in entry:
            _check_seeds(entry['seeds'], f"{what}: 'seeds'")
        source = entry.get('attack_source', '')
        if source and source not in list(entries)[: list(entries).index(name)]:
            raise UserError(f"{what}: 'attack_source' is {source!r}; it must be an earlier variant")
        if not isinstance(entry.get('argument', ''), str):
            raise UserError(f"{what}: 'argument' is {entry['argument']!r}; it must be a string")
        changes = entry.get('changes', {})
        if not isinstance(changes, dict):
            raise UserError(f"{what}: 'changes' is {changes!r}; it must be {{'field': value}}")
        if 'seed' in changes:
            raise UserError(f"{what}: the seed is set by 'seeds', not by 'changes'")
    return entries


def _make_run(
    config_file: str, setting: str, common: Mapping, variant: str, own: Mapping, seed: int
) -> Run:
    options = [entry['argument'] for entry in (common, own) if entry.get('argument')]
    changes = {**common.get('changes', {}), **own.get('changes', {}), 'seed': seed}
    first = f'--config={":".join(filter(None, [config_file, ",".join(options)]))}'
    arguments = (first, *(f'--config.{field}={value}' for field, value in changes.items()))
    # Grids never take a recipe: their runs use the config as written.
    arguments = (*without_recipe(arguments[:1]), *arguments[1:])
    plain = parse_config(name_network(arguments)[:1])
    names = flatten(plain)
    for field in map(str, changes):
        if problem := unknown_field(plain, field):
            raise UserError(problem)
        if field not in names:
            inside = ', '.join(name for name in names if name.startswith(f'{field}.'))
            raise UserError(f'{field!r} is a group of fields: {inside}')
    config = parse_config(arguments)
    check_config(config)
    setting = setting or config.corpus.replace('/', '_')
    return Run(setting, variant, seed, arguments, config, own.get('attack_source', ''))


def _refuse_duplicates(runs: list[Run]) -> None:
    """Refuses two runs in one folder (also on file systems that ignore case) and two equal runs."""
    folders, configs = {}, {}
    for run in runs:
        for seen, key, what in (
            (folders, run.folder.casefold(), 'would share a folder'),
            (
                configs,
                json.dumps(compared(as_json(run.config)), sort_keys=True),
                'are the same run: they train the same (one run can test many conditions)',
            ),
        ):
            if key in seen:
                raise UserError(f'{seen[key].folder} and {run.folder} {what}')
            seen[key] = run
