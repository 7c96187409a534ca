"""The architecture, held in place by reading the source: imports point strictly downward.

A new file of ser_jax needs its level here, unless it is a network; without one the test fails.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The module map, bottom up. A module may import modules of lower levels only. Below level 0 lie the
# three that level 0 itself builds on: the error everybody raises, file writing, the front end.
LEVELS = {
    name: level
    for level, names in {
        -3: 'models.__init__ errors',
        -2: 'paths stopping checksums stored',
        -1: 'features workdir metrics markup models.convolution models.recurrent',
        0: 'models.layers losses audio pipeline calls config config_check checkpoints sharding writer figures '
        'console optimiser cost environment front_end comparison selection svg exported',
        0.1: 'screening',
        0.3: 'mel models.encoder',
        0.6: 'augmentations grid_figure grid_matrix',
        1: 'protocols augment attacks corruptions corpora grid_plan models.*',
        1.3: 'tasks',
        1.5: 'networks clips labels',
        1.8: 'folds',
        2: 'objectives data leaks',
        2.3: 'adversarial',
        2.6: 'phases',
        2.5: 'sources',
        3: 'steps',
        3.5: 'predictions',
        3.8: 'calibration',
        4: 'evaluation experiment',
        4.3: 'attacker finished',
        4.4: 'paired inference',
        4.5: 'loop',
        4.6: 'embedding',
        4.7: 'conditions cross_corpus attention codes',
        4.8: 'reporting hardest html_figures',
        4.9: 'html_card',
        5: 'train predictor grid_rows html_page',
        5.1: '__init__',
        5.3: 'grid_table prediction_formats',
        5.5: 'grid_runs artefact',
        6: 'main grid predict report export',
    }.items()
    for name in names.split()
}
FORBIDDEN = {'tensorflow', 'clu', 'pickle', 'cloudpickle', 'dill'}
FOR_BUILDERS = {'corpora', 'features', 'audio', 'errors', 'paths', 'stopping', 'checksums'}
LONGEST = 300
PACKAGES = ('ser_jax', 'tfds_builders', 'configs')
EVERYWHERE = (*PACKAGES, 'tests', 'results', 'benchmarks', 'colab', 'cloud')


def python_files(root, *folders):
    """The Python files below some folders, sorted."""
    return sorted(path for folder in folders for path in (root / folder).rglob('*.py'))


def module_name(root, path):
    """`ser_jax/models/layers.py` -> `ser_jax.models.layers`."""
    return '.'.join(path.relative_to(root).with_suffix('').parts)


def is_module(root, name):
    """Whether a dotted name is a file or a package below the root."""
    return (root / name.replace('.', '/')).with_suffix('.py').exists() or (
        root / name.replace('.', '/')
    ).is_dir()


def imports(root, path):
    """Every import of a file: (dotted name, whether inside a function, line).

    `from a import b` counts as `a.b` where that is a module, else as `a`; `import_module('a.b')` and
    `import_module(f'a.{name}')` count as `a.b` and `a.`.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    package = module_name(root, path).split('.')[:-1]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*parent, *([node.module] if node.module else [])])
            full = [f'{base}.{alias.name}' for alias in node.names]
            names = [name if is_module(root, name) else base for name in full]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            if called in ('import_module', '__import__'):
                argument = node.args[0]
                if isinstance(argument, ast.JoinedStr) and argument.values:
                    argument = argument.values[0]
                if isinstance(argument, ast.Constant):
                    names = [argument.value]
        for name in names:
            yield name, id(node) in inside, node.lineno


def listed(short):
    """The level of a module in the map, where networks share one; None for a module without."""
    return LEVELS.get(short, LEVELS['models.*'] if short.startswith('models.') else None)


def level_of(name):
    """The level of `ser_jax.…`; of a package or an unfinished name, the highest below it."""
    short = name.removeprefix('ser_jax').strip('.')
    if listed(short) is not None:
        return listed(short)
    below = [level for other, level in LEVELS.items() if short and other.startswith(f'{short}.')]
    # A package itself imports nothing of ours, and costs nothing; one of its modules may be any.
    return (max(below) if name.endswith('.') else LEVELS['models.__init__']) if below else None


def faults(root):
    """What is wrong with the imports below a root, one line a fault."""
    found = []
    for path in python_files(root, 'ser_jax'):
        name = module_name(root, path)
        own = listed(name.removeprefix('ser_jax.'))
        if own is None:
            found.append(f'{name} has no level: add it to LEVELS')
            continue
        for target, inside, line in imports(root, path):
            where = f'{name}:{line}'
            if target.split('.')[0] == 'tfds_builders':
                if name != 'ser_jax.corpora' or not inside:
                    found.append(f'{where} imports {target}: only corpora may, inside a function')
            elif target.split('.')[0] == 'ser_jax' and target != 'ser_jax':
                level = level_of(target)
                if level is None or level >= own:
                    found.append(f'{where} imports {target} (level {level}) from level {own}')
            elif target.split('.')[0] == 'configs':
                found.append(f'{where} imports {target}')
    for path in python_files(root, 'tfds_builders'):
        for target, _, line in imports(root, path):
            package, _, rest = target.partition('.')
            allowed = package != 'ser_jax' or rest.split('.')[0] in FOR_BUILDERS
            if package == 'configs' or not allowed:
                found.append(f'{module_name(root, path)}:{line} imports {target}')
    for path in [*sorted(root.glob('*.py')), *python_files(root, *EVERYWHERE)]:
        for target, _, line in imports(root, path):
            if target.split('.')[0] in FORBIDDEN and not (
                target == 'pickle' and path.parent.name == 'tests'  # that sources travel to workers
            ):
                found.append(f'{path.relative_to(root)}:{line} imports {target}')
    return found


def undocumented(path):
    """The public functions, classes and methods of a file, and the file itself, without a docstring."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    found = [] if ast.get_docstring(tree) or not tree.body else ['the module']
    definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

    def look(body, prefix):
        for node in body:
            if isinstance(node, definition) and not node.name.startswith('_'):
                # Linen's setup() and a dataclass field say nothing that the class does not.
                if ast.get_docstring(node) is None and node.name != 'setup':
                    found.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f'{node.name}.')

    look(tree.body, '')
    return found


def test_imports_point_downward():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    'path', python_files(ROOT, *PACKAGES), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_are_short_and_documented(path):
    assert len(path.read_text(encoding='utf-8').splitlines()) <= LONGEST
    assert undocumented(path) == []


# That the checks above can fail.


@pytest.mark.parametrize(
    ('where', 'source', 'fault'),
    [
        ('ser_jax/utils.py', '', 'ser_jax.utils has no level'),
        ('ser_jax/models.py', '', 'ser_jax.models has no level'),
        ('ser_jax/models/other.py', 'from ser_jax import train', 'imports ser_jax.train'),
        ('ser_jax/models/other.py', 'from ser_jax.models import mtl_aug', 'imports ser_jax.models.mtl_aug'),
        ('ser_jax/metrics.py', 'import ser_jax.losses', 'imports ser_jax.losses'),
        ('ser_jax/metrics.py', 'from ser_jax import losses', 'imports ser_jax.losses'),
        ('ser_jax/metrics.py', 'from . import losses', 'imports ser_jax.losses'),
        ('ser_jax/metrics.py', 'from ser_jax.train import run', 'imports ser_jax.train'),
        ('ser_jax/metrics.py', 'def f():\n    import ser_jax.steps', 'imports ser_jax.steps'),
        ('ser_jax/models/layers.py', 'from .. import losses', 'imports ser_jax.losses'),
        ('ser_jax/losses.py', 'from importlib import import_module as i\nimport_module(f"ser_jax.models.{i}")',
         'imports ser_jax.models.'),
        ('ser_jax/models/__init__.py', 'from ser_jax.errors import UserError', 'imports ser_jax.errors'),
        ('ser_jax/losses.py', 'from ser_jax.nothing import x', 'imports ser_jax.nothing'),
        ('ser_jax/corpora.py', 'import tfds_builders', 'only corpora may, inside a function'),
        ('ser_jax/data.py', 'def f():\n    import tfds_builders.build', 'only corpora may'),
        ('ser_jax/data.py', 'import configs.mtl_aug', 'imports configs.mtl_aug'),
        ('tfds_builders/x.py', 'from ser_jax import data', 'imports ser_jax.data'),
        ('tfds_builders/x.py', 'from ser_jax.metrics import uar', 'imports ser_jax.metrics'),
        ('tfds_builders/x.py', 'import tensorflow as tf', 'imports tensorflow'),
        ('results/x.py', 'import pickle', 'imports pickle'),
        ('configs/x.py', 'from clu import metrics', 'imports clu'),
    ],
)  # fmt: skip
def test_faults_are_found(tmp_path, where, source, fault):
    for name in ('losses', 'train', 'steps', 'data', 'metrics', 'errors', 'models/mtl_aug'):
        write(tmp_path, f'ser_jax/{name}.py', '')
    assert faults(tmp_path) == []
    write(tmp_path, where, source)
    assert [line for line in faults(tmp_path) if fault in line] == faults(tmp_path) != []


@pytest.mark.parametrize(
    ('where', 'source'),
    [
        ('ser_jax/corpora.py', 'def prepare():\n    import tfds_builders.build'),
        ('ser_jax/data.py', 'from ser_jax import metrics\nfrom ser_jax.losses import x'),
        ('ser_jax/train.py', 'import importlib as i\ni.import_module(f"ser_jax.models.{name}")'),
        ('ser_jax/models/other.py', 'from ser_jax.models import layers'),
        ('tfds_builders/x.py', 'from ser_jax.errors import UserError\nimport tensorflow_datasets'),
    ],
)
def test_what_is_allowed_passes(tmp_path, where, source):
    for name in ('losses', 'metrics', 'errors', 'models/mtl_aug', 'models/layers'):
        write(tmp_path, f'ser_jax/{name}.py', '')
    write(tmp_path, where, source)
    assert faults(tmp_path) == []


def test_missing_docstrings_are_found(tmp_path):
    path = write(
        tmp_path,
        'x.py',
        'def f():\n    pass\nclass C:\n    """C."""\n    def g(self):\n        pass\n'
        '    def setup(self):\n        pass\n    def _h(self):\n        pass\ndef _p():\n    pass\n',
    )
    assert undocumented(path) == ['the module', 'f', 'C.g']


def write(root, where, source):
    """Makes a file below the root."""
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path
