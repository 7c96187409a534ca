"""The architecture, held in place by reading the source: packages import in one order, bottom up."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The packages and top-level files of ser_jax, bottom up. One may import itself and what stands on earlier lines, not its
# neighbours on the same line.
ORDER = (
    ('runtime', 'metrics'),
    ('audio',),
    ('config', 'data'),
    ('models', 'runs'),
    ('transforms',),
    ('encoding',),
    ('serving', 'objectives'),
    ('training',),
    ('evaluation',),
    ('reporting',),
    ('prepare', 'report', 'predict', 'encode', 'export'),
    ('train',),
    ('grid', 'main', 'demo'),
    ('general', 'console'),
)
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
FORBIDDEN = {'tensorflow', 'clu', 'pickle', 'cloudpickle', 'dill'}
FOR_BUILDERS = ('ser_jax.runtime.', 'ser_jax.audio.', 'ser_jax.data.records')
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


def package_of(name):
    """`ser_jax.models.layers` -> `models`; `ser_jax.train` -> `train`; '' for ser_jax itself."""
    return name.removeprefix('ser_jax').strip('.').partition('.')[0]


def faults(root):
    """What is wrong with the imports below a root, one line a fault."""
    found = []
    for path in python_files(root, 'ser_jax'):
        name = module_name(root, path).removesuffix('.__init__')
        own = package_of(name)
        if own and own not in LEVELS:
            found.append(f'{name} is in no package of ORDER')
            continue
        for target, inside, line in imports(root, path):
            where, package = f'{name}:{line}', target.split('.')[0]
            if package == 'tfds_builders' and (own != 'prepare' or not inside):
                found.append(f'{where} imports {target}: only prepare may, inside a function')
            elif package == 'configs':
                found.append(f'{where} imports {target}')
            elif package == 'ser_jax' and target != 'ser_jax' and own:
                other = package_of(target)
                if other != own and not LEVELS.get(other, len(ORDER)) < LEVELS[own]:
                    found.append(f'{where} imports {target}, which is not below {own}')
    for path in python_files(root, 'tfds_builders'):
        for target, _, line in imports(root, path):
            package = target.partition('.')[0]
            if package == 'configs' or (
                package == 'ser_jax' and not f'{target}.'.startswith(FOR_BUILDERS)
            ):
                found.append(f'{module_name(root, path)}:{line} imports {target}')
    for path in [*sorted(root.glob('*.py')), *python_files(root, *EVERYWHERE)]:
        for target, _, line in imports(root, path):
            if target.split('.')[0] in FORBIDDEN and not (
                target == 'pickle' and 'tests' in path.parts  # that sources travel to workers
            ):
                found.append(f'{path.relative_to(root)}:{line} imports {target}')
    return found


def circles(root):
    """Modules of ser_jax that import one another when they are imported; [] where there are none."""
    paths = python_files(root, 'ser_jax')
    above = {
        module_name(root, path): {target for target, inside, _ in imports(root, path) if not inside}
        for path in paths
    }
    try:
        graphlib.TopologicalSorter(above).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


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


def test_modules_do_not_import_one_another():
    assert circles(ROOT) == []


def test_reading_finished_runs_needs_no_jax():
    code = (
        'import sys, ser_jax.reporting.figures, ser_jax.reporting.html.page, ser_jax.metrics.significance; '
        'import ser_jax.evaluation.compare, ser_jax.runs.finished; '
        'sys.exit("jax" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    'path', python_files(ROOT, *PACKAGES), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_are_documented(path):
    assert undocumented(path) == []


# That the checks above can fail.


@pytest.mark.parametrize(
    ('where', 'source', 'fault'),
    [
        ('ser_jax/utils.py', '', 'ser_jax.utils is in no package'),
        ('ser_jax/other/x.py', '', 'ser_jax.other.x is in no package'),
        ('ser_jax/models/x.py', 'from ser_jax import train', 'imports ser_jax.train'),
        ('ser_jax/models/x.py', 'from ser_jax.runs import workdir', 'imports ser_jax.runs.workdir'),  # a neighbour
        ('ser_jax/metrics/x.py', 'import ser_jax.objectives.losses', 'imports ser_jax.objectives.losses'),
        ('ser_jax/metrics/x.py', 'from ser_jax.objectives import losses', 'imports ser_jax.objectives.losses'),
        ('ser_jax/metrics/x.py', 'from ser_jax.train import run', 'imports ser_jax.train'),
        ('ser_jax/metrics/x.py', 'def f():\n    import ser_jax.training.steps', 'imports ser_jax.training.steps'),
        ('ser_jax/models/x.py', 'from ..objectives import losses', 'imports ser_jax.objectives.losses'),
        ('ser_jax/audio/x.py', 'from importlib import import_module as i\nimport_module(f"ser_jax.models.{i}")',
         'imports ser_jax.models.'),
        ('ser_jax/audio/__init__.py', 'from ser_jax.models.mtl_aug import Model', 'imports ser_jax.models.mtl_aug'),
        ('ser_jax/audio/x.py', 'from ser_jax.nothing import x', 'imports ser_jax.nothing'),
        ('ser_jax/prepare.py', 'import tfds_builders', 'only prepare may, inside a function'),
        ('ser_jax/data/x.py', 'def f():\n    import tfds_builders.build', 'only prepare may'),
        ('ser_jax/data/x.py', 'import configs.mtl_aug', 'imports configs.mtl_aug'),
        ('tfds_builders/x.py', 'from ser_jax.data import batches', 'imports ser_jax.data.batches'),
        ('tfds_builders/x.py', 'from ser_jax.metrics.rates import uar', 'imports ser_jax.metrics.rates'),
        ('tfds_builders/x.py', 'import tensorflow as tf', 'imports tensorflow'),
        ('results/x.py', 'import pickle', 'imports pickle'),
        ('configs/x.py', 'from clu import metrics', 'imports clu'),
    ],
)  # fmt: skip
def test_faults_are_found(tmp_path, where, source, fault):
    lay(tmp_path)
    write(tmp_path, where, source)
    assert [line for line in faults(tmp_path) if fault in line] == faults(tmp_path) != []


@pytest.mark.parametrize(
    ('where', 'source'),
    [
        ('ser_jax/prepare.py', 'def prepare():\n    import tfds_builders.build'),
        ('ser_jax/train.py', 'from ser_jax.metrics import rates\nfrom ser_jax.objectives import losses'),
        ('ser_jax/train.py', 'import importlib as i\ni.import_module(f"ser_jax.models.{name}")'),
        ('ser_jax/models/x.py', 'from ser_jax.models import mtl_aug'),
        ('tfds_builders/x.py', 'from ser_jax.data.records import EMOTIONS\nimport tensorflow_datasets'),
    ],
)  # fmt: skip
def test_what_is_allowed_passes(tmp_path, where, source):
    lay(tmp_path)
    write(tmp_path, where, source)
    assert faults(tmp_path) == []


def lay(root):
    """A house in miniature, without a fault."""
    for name in (
        'train',
        'metrics/rates',
        'data/batches',
        'data/records',
        'models/mtl_aug',
        'runs/workdir',
        'objectives/losses',
        'training/steps',
    ):
        write(root, f'ser_jax/{name}.py', '')
    assert faults(root) == []


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
