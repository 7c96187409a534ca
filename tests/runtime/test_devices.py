"""Environments that JAX cannot compute in, or not as ser_jax does: every command says so in one line."""

import pytest
from conftest import run

VARIABLES = [
    ({'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': ''}, 'JAX_PLATFORMS=cuda'),
    ({'JAX_PLATFORMS': 'nonsense'}, 'JAX_PLATFORMS=nonsense'),
    ({'JAX_ENABLE_X64': '1'}, 'JAX_ENABLE_X64'),
]


@pytest.mark.parametrize(('environment', 'named'), VARIABLES, ids=str)
def test_training(beeps, tmp_path, environment, named):
    config = '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke'
    folders = f'--config.data.data_dir={beeps["data_dir"]}', f'--workdir={tmp_path / "run"}'
    assert_one_line(run('ser_jax.main', config, *folders, **environment), named)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('environment', 'named'), VARIABLES[1:], ids=str)
@pytest.mark.parametrize(
    'arguments',
    [
        ('ser_jax.predict', '--workdir={workdir}', 'x.wav'),
        ('ser_jax.export', '--workdir={workdir}', '--out={out}'),
        ('ser_jax.export', '--check={workdir}'),
        ('ser_jax.encode', '--encoder={workdir}', 'x.wav'),
    ],
    ids=lambda arguments: ' '.join(arguments[:2]),
)
def test_other_commands(trained, tmp_path, arguments, environment, named):
    arguments = [x.format(workdir=trained[0], out=tmp_path / 'out') for x in arguments]
    assert_one_line(run(*arguments, **environment), named)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('name', 'value'), [('JAX_DEFAULT_MATMUL_PRECISION', 'nonsense'), ('JAX_DEBUG_NANS', '2')]
)
def test_values_that_jax_does_not_take(trained, name, value):
    result = run('ser_jax.predict', f'--workdir={trained[0]}', 'x.wav', **{name: value})
    assert_one_line(result, f"{name}='{value}' is no value that JAX takes")


def test_results_are_printed_without_a_device(trained):
    result = run('ser_jax.report', f'--workdir={trained[0]}', JAX_PLATFORMS='nonsense')
    assert result.returncode == 0, result.stderr


def assert_one_line(result, named):
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    assert named in line
    assert 'unset' in line
