"""A grid file read into runs: settings × variants × seeds, each with its config and its command line.

A grid file is a Python file with `get_grid() -> dict`; configs/grids/demo.py shows all its keys.
"""

import dataclasses
import difflib
import importlib.util
import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from ser_jax.config import check_config
from ser_jax.runtime.errors import UserError

_KEYS = ('config', 'variants', 'settings', 'seeds', 'baseline', 'family')
_FAMILIES = ('table', 'condition')
_ENTRY_KEYS = ('argument', 'changes')
_VARIANT_KEYS = (*_ENTRY_KEYS, 'attack_source', 'seeds')
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.+=-]*')  # names become folders


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of a grid.

    Attributes:
        setting, variant, seed: what it is.
        flags: its `--config` flags for `python -m ser_jax.main`.
        config: what they make.
        source: variant whose run of the same setting and seed is its `config.attack_source`, or ''.
    """

    setting: str
    variant: str
    seed: int
    flags: tuple[str, ...]
    config: ml_collections.ConfigDict
    source: str = ''

    @property
    def folder(self) -> str:
        """Its workdir inside the grid's."""
        return f'{self.setting}/{self.variant}/seed{self.seed}'

    def command(self, workdir: Path) -> list[str]:
        """The words of its command line.

        Args:
            workdir: of the grid.
        """
        where = [f'--workdir={workdir / self.folder}']
        if self.source:
            where = [f'--config.attack_source={self._source_folder(workdir)}', *where]
        return ['python', '-m', 'ser_jax.main', *self.flags, *where]

    def config_in(self, workdir: Path) -> ml_collections.ConfigDict:
        """Its config, with the run that it takes from the grid's folder.

        Args:
            workdir: of the grid.
        """
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
        name: of the file, without ending.
        runs: seed by seed, so that the first ones make a whole table.
        baseline: variant that the others are compared with, or ''.
        family: which comparisons are corrected together: 'table' = all, 'condition' = those of a setting under one condition.
    """

    name: str
    runs: tuple[Run, ...]
    baseline: str
    family: str = 'table'


def read_grid(path: str) -> Grid:
    """Reads a grid file and builds the config of every run, so that no mistake shows after hours.

    Args:
        path: of the file.

    Returns:
        The grid.

    Raises:
        UserError: no such file, or anything in it that cannot be run; says where.
    """
    if not path.endswith('.py') or not Path(path).is_file():
        raise UserError(f'--config={path}: no such grid file')
    try:
        return _make_grid(Path(path).stem, _call_get_grid(path))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def _call_get_grid(path: str) -> Any:
    spec = importlib.util.spec_from_file_location('grid_file', path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, 'get_grid'):
            raise UserError('it has no get_grid(): no grid file; see configs/grids/demo.py')
        return module.get_grid()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f'line {error.lineno}: {error.msg}') from error
    except Exception as error:  # whatever the user's code may raise
        raise UserError(_where(error, module)) from error


def _where(error: Exception, module: ModuleType) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == module.__file__]  # fmt: skip
    line = f'line {lines[-1]}: ' if lines else ''
    return f'{line}{type(error).__name__}: {error}'


def _make_grid(name: str, content: Any) -> Grid:
    content = _with_keys(content, _KEYS, 'the grid')
    config = content.get('config')
    if not isinstance(config, str) or not config.endswith('.py') or not Path(config).is_file():
        raise UserError(f"'config' is {config!r}: no such config file")
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
    own_seeds = {name: variant.get('seeds', seeds) for name, variant in variants.items()}
    for seed in dict.fromkeys(seed for several in own_seeds.values() for seed in several):
        for setting, common in settings.items():
            for variant, own in variants.items():
                if seed not in own_seeds[variant]:
                    continue
                if seed not in own_seeds[own.get('attack_source', variant)]:
                    raise UserError(
                        f"variant {variant!r}: 'attack_source' {own['attack_source']!r} has no seed {seed}"
                    )
                try:
                    runs.append(_make_run(config, setting, common, variant, own, seed))
                except UserError as error:
                    where = f'setting {setting!r}, variant' if setting else 'variant'
                    raise UserError(f'{where} {variant!r}: {error}') from error
    _refuse_twins(runs)
    return Grid(name, tuple(runs), baseline, family)


def _check_seeds(seeds: Any, what: str) -> None:
    are = isinstance(seeds, tuple | list) and seeds and all(type(seed) is int for seed in seeds)
    if not are or len(set(seeds)) < len(seeds):
        raise UserError(f'{what} is {seeds!r}; it must be different whole numbers, e.g. (0, 1, 2)')


def _with_keys(value: Any, keys: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f'{what} is {value!r}; it must be a dict with keys from: {", ".join(keys)}')
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise UserError(f'{what} has an unknown key {unknown[0]!r}; there are: {", ".join(keys)}')
    return value


def _entries(content: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """Checks the settings or the variants."""
    entries = content.get(key)
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{key!r} is {entries!r}; it must be a dict such as {{'full': {{}}}}")
    for name, entry in entries.items():
        what = f'{key[:-1]} {name!r}'
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f'{what}: names become folders: letters, digits and _ . + = - only')
        _with_keys(entry, _VARIANT_KEYS if key == 'variants' else _ENTRY_KEYS, what)
        if 'seeds' in entry:
            _check_seeds(entry['seeds'], f"{what}: 'seeds'")
        source = entry.get('attack_source', '')
        if source and source not in list(entries)[: list(entries).index(name)]:
            raise UserError(f"{what}: 'attack_source' is {source!r}, which is no variant before it")
        if not isinstance(entry.get('argument', ''), str):
            raise UserError(f"{what}: 'argument' is {entry['argument']!r}; it must be a string")
        changes = entry.get('changes', {})
        if not isinstance(changes, dict):
            raise UserError(f"{what}: 'changes' is {changes!r}; it must be {{'field': value}}")
        if 'seed' in changes:
            raise UserError(f"{what}: the seed is no change: 'seeds' says it")
    return entries


def _make_run(
    config_file: str, setting: str, common: Mapping, variant: str, own: Mapping, seed: int
) -> Run:
    words = [entry['argument'] for entry in (common, own) if entry.get('argument')]
    changes = {**common.get('changes', {}), **own.get('changes', {}), 'seed': seed}
    first = f'--config={":".join(filter(None, [config_file, ",".join(words)]))}'
    plain = _parse((first,))
    for field in changes:
        _refuse_unknown(plain, field)
    arguments = (first, *(f'--config.{field}={value}' for field, value in changes.items()))
    config = _parse(arguments)
    check_config(config)
    setting = setting or config.corpus.replace('/', '_')
    return Run(setting, variant, seed, arguments, config, own.get('attack_source', ''))


def _parse(arguments: tuple[str, ...]) -> ml_collections.ConfigDict:
    """Makes the config of some flags as the main command does."""
    values = flags.FlagValues()
    words = ['grid', *arguments]
    holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=words)
    try:
        values(words)
    except flags.Error as error:
        raise UserError(' '.join(str(error).split())) from error
    return holder.value


def _refuse_unknown(config: ml_collections.ConfigDict, field: str) -> None:
    node, known = config, []
    for name in str(field).split('.'):
        known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise UserError(f'the config has no field {field!r}{hint}')
        node = node[name]
    if isinstance(node, ml_collections.ConfigDict):
        raise UserError(
            f'{field!r} is no field but several: {", ".join(f"{field}.{name}" for name in node)}'
        )


def _refuse_twins(runs: list[Run]) -> None:
    """Refuses two runs in one folder (also where the file system ignores case), and the same run twice."""
    from ser_jax.config import as_json, compared  # imports JAX: not for --help

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
