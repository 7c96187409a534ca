"""The main command: every user error is one clear line and a non-zero exit status, and leaves nothing behind."""

import ast
import contextlib
import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load, metrics, run

from configs.mtl_aug import get_config
from ser_jax import main, train
from ser_jax.config import check_config
from ser_jax.runs.predictions import read_predictions
from ser_jax.runtime.errors import UserError

CONFIG = '--config=configs/mtl_aug.py'


def refused(result, message, code=1):
    """Asserts that a command ended with one line on stderr that contains `message`, and no traceback."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().split('\n')
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith('error: ')
    assert message in lines[0]
    assert 'Traceback' not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), '--config is required'),
        (('--config=configs/nowhere.py',), 'no such config file'),
        ((CONFIG + ':emodb,nonsense',), "unknown option 'nonsense'"),
        ((CONFIG, '--config.sed=1'), 'seed'),
        ((CONFIG, '--config.seed=many'), 'many'),
        (
            (CONFIG, '--config.optimiser.rate=1'),
            "'optimiser.rate'; did you mean 'optimiser.learning_rate'",
        ),
        ((CONFIG, '--config.learning_rate=1'), "did you mean 'optimiser.learning_rate'?"),
        ((CONFIG, '--config.model.name=nowhere'), 'no ser_jax/models/nowhere.py'),
        ((CONFIG, '--nonsense=1'), 'nonsense'),
        ((CONFIG, '--mode=dream'), 'dream'),
        ((CONFIG, 'demo_speech'), "unexpected argument 'demo_speech'"),
    ],
    ids=lambda value: ' '.join(value)[-30:] if isinstance(value, tuple) else '',
)
def test_a_wrong_command_line(arguments, message):
    refused(run('ser_jax.main', *arguments), message, code=2)


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(flag):
    result = run('ser_jax.main', flag)
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) <= 40
    for word in ('--config.X', '--workdir', '--mode', 'configs/README.md', 'results.json', '143'):
        assert word in result.stdout
    for command in re.findall(r'^python -m (\S+)', result.stdout, re.MULTILINE):
        assert importlib.util.find_spec(command), command


def test_help_of_the_options_behind_the_colon():
    refused(run('ser_jax.main', f'{CONFIG}:demo_speech,help'), 'no_validation, single_task', code=2)


@pytest.mark.parametrize(
    ('module', 'expected'),
    [
        ('ser_jax.predict', ('--workdir', 'FILE_OR_FOLDER', 'json')),
        ('ser_jax.export', ('--workdir', '--out', '--check')),
        ('ser_jax.report', ('--workdir', '--against', '--condition')),
        ('ser_jax.grid', ('--config', '--list', 'configs/grids/demo.py')),
        ('tfds_builders.build', ('--manual_dir', 'emodb', 'csv_corpus/<name>')),
        ('tfds_builders.doctor', ('--manual_dir', 'emodb', '--all')),
    ],
)
def test_help_of_the_other_commands_needs_no_slow_imports(module, expected):
    result = run(module, '--help', PYTHONPROFILEIMPORTTIME='1')
    assert result.returncode == 0
    for word in expected:
        assert word in result.stdout
    for slow in ('jax', 'tensorflow_datasets', 'matplotlib.pyplot'):
        assert not re.search(rf'\| +{slow}$', result.stderr, re.MULTILINE), slow


@pytest.mark.parametrize(
    'module',
    ['ser_jax.main', 'ser_jax.predict', 'ser_jax.export', 'ser_jax.report', 'ser_jax.encode', 'ser_jax.grid',
     'ser_jax.models.encoders.convert', 'tfds_builders.build', 'tfds_builders.doctor'],
)  # fmt: skip
def test_help_does_not_need_docstrings(module):
    with_them, without = (run(module, '--help', PYTHONOPTIMIZE=level) for level in ('', '2'))
    assert with_them.returncode == 0
    assert without.stdout == with_them.stdout


def test_a_run_without_docstrings_and_assertions(beeps, tmp_path):
    config = '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke'
    folders = f'--config.data.data_dir={beeps["data_dir"]}', f'--workdir={tmp_path}'
    result = run('ser_jax.main', config, *folders, PYTHONOPTIMIZE='2')
    assert result.returncode == 0, result.stderr
    first = result.stderr.splitlines()[0]
    assert first.startswith(
        'csv_corpus/beeps has the settings of emodb (339 utterances), which were not chosen for it; others'
    )
    stored = json.loads((tmp_path / 'config.json').read_text())
    assert (stored['settings_of'], stored['clean_share'], stored['steps']) == ('emodb', 0.25, 4)
    again = run('ser_jax.main', config, *folders)  # a finished run keeps its settings
    assert again.returncode == 0, again.stderr
    assert not again.stderr


def refuses(data_dir, workdir, message, *fields, corpus='csv_corpus/beeps'):
    """Asserts that a smoke run with `--config.X=Y` fields raises a UserError of one line that contains `message`."""
    config = get_config(f'{corpus},smoke')
    config.data.data_dir = str(data_dir)
    for name, value in (field.removeprefix('--config.').split('=', 1) for field in fields):
        with contextlib.suppress(ValueError, SyntaxError):  # a bare word is a string
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=re.escape(message)) as error:
        train.train_and_evaluate(config, workdir)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('corpus', 'fields', 'message'),
    [
        ('nowhere', (), 'nowhere'),
        ('emodb', (), 'emodb'),  # not prepared, and its audio is not available
        ('csv_corpus/beeps', ('--config.folds=(9,)',), 'no fold 9'),
        ('csv_corpus/beeps', ('--config.protocol=leave_one_session_out()',), 'session'),
        ('csv_corpus/beeps', ('--config.protocol=guess()',), "unknown protocol 'guess'"),
        ('csv_corpus/beeps', ("--config.labels=('angry', 'hungry')",), "'hungry'"),
        ('csv_corpus/beeps', ("--config.augmentations=('echo(1)',)",), "'echo'"),
        ('csv_corpus/beeps', ('--config.noise_corpus=nowhere',), 'nowhere'),
        (
            'csv_corpus/beeps',
            ('--config.noise_corpus=csv_corpus/beeps',),
            'labelled corpus already',
        ),
        ('csv_corpus/beeps', ('--config.corpus=demo_speech',), 'after the colon'),
        ('csv_corpus/beeps', ('--config.patience=0',), 'at least 1'),
        (
            'csv_corpus/beeps',
            ('--config.unlabelled_share=0.99', "--config.unlabelled=('csv_corpus/hums',)"),
            '8 of 8 utterances',
        ),
        ('csv_corpus/beeps', ('--config.tasks.emotion.weight=0.0',), "'emotion'"),
        ('csv_corpus/beeps', ('--config.model.name=nowhere',), 'nowhere'),
        (
            'csv_corpus/beeps',
            ('--config.validation=False', '--config.report_test=False'),
            'nothing',
        ),
        ('csv_corpus/beeps', ("--config.unlabelled=('nowhere',)",), 'nowhere'),
        ('csv_corpus/beeps', ('--config.parallelism=pjit',), "'jit' or 'pmap'"),
        ('csv_corpus/beeps', ('--config.reconstruction_target=noise',), "'augmented'"),
        ('csv_corpus/beeps', ('--config.data.front_end.n_mels=64',), 'n_mels'),
        ('csv_corpus/beeps', ('--config.tasks.emotion.kind=clustering',), 'clustering'),
        ('csv_corpus/beeps', ('--config.tasks.emotion.target=duration',), "target 'emotion'"),
    ],
)
def test_a_config_that_cannot_run(beeps, tmp_path, monkeypatch, corpus, fields, message):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', str(tmp_path / 'no corpora here'))
    refuses(beeps['data_dir'], tmp_path / 'run', message, *fields, corpus=corpus)
    assert not (tmp_path / 'run').exists()


def test_the_command_prints_the_error_as_one_line(beeps, tmp_path):
    refused(smoke(beeps, tmp_path / 'run', '--config.folds=(9,)'), 'no fold 9')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('seed', -1),
        ('steps', 0),
        ('batch_size', 0),
        ('label_smoothing', 5.0),
        ('labels', ('angry', 'angry')),
        ('optimiser.clip', 0.0),
    ],
)
def test_invalid_values_are_refused(field, value):
    config = load(ROOT / 'configs' / 'mtl_aug.py').get_config()
    check_config(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f'config.{field} is '):
        check_config(config)


def smoke(beeps, workdir, *more, config=CONFIG, option='smoke', **environment):
    return run(
        'ser_jax.main',
        f'{config}:csv_corpus/beeps,{option},smoke',
        f'--workdir={workdir}',
        f'--config.data.data_dir={beeps["data_dir"]}',
        *more,
        **environment,
    )


def test_a_wrong_manual_dir(beeps, tmp_path):
    result = run(
        'ser_jax.main',
        f'{CONFIG}:emodb,smoke',
        f'--workdir={tmp_path / "run"}',
        f'--config.data.data_dir={tmp_path / "records"}',
        f'--config.data.manual_dir={beeps["manual_dir"]}',
    )
    refused(result, 'EMO-DB')
    assert not (tmp_path / 'run').exists()
    assert not list((tmp_path / 'records').rglob('*.array_record*'))


def test_speakers_in_test_and_training(beeps, tmp_path):
    lists = tmp_path / 'lists.json'
    ids = [f's{s}_{e}_{t}' for s in range(6) for e in ('angry', 'sad') for t in range(2)]
    lists.write_text(json.dumps({'train': ids[1:], 'test': ids[:1]}))
    protocol = f'--config.protocol=fixed_lists("{lists}")'
    refuses(beeps['data_dir'], tmp_path / 'run', 'speaker', protocol)
    assert not (tmp_path / 'run').exists()


def test_lists_that_change_after_a_run(beeps, tmp_path):
    lists = tmp_path / 'lists.json'
    ids = lambda *speakers: [
        f's{s}_{e}_{t}' for s in speakers for e in ('angry', 'sad') for t in '01'
    ]
    splits = {'train': ids(0, 1), 'validation': ids(2), 'test': ids(3)}
    lists.write_text(json.dumps(splits))
    protocol = f'--config.protocol=fixed_lists("{lists}")'
    folders = f'--config.data.data_dir={beeps["data_dir"]}', f'--workdir={tmp_path / "run"}'
    command = ('ser_jax.main', f'{CONFIG}:csv_corpus/beeps,smoke', *folders, protocol)
    for _ in range(2):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    lists.write_text(json.dumps(splits | {'test': ids(4)}))
    refused(run(*command), f'lists: {lists} has changed since the run')


def test_unlabelled_speech_of_the_same_recordings_leaks(beeps, tmp_path):
    shutil.copytree(
        Path(beeps['data_dir']) / 'csv_corpus/beeps', tmp_path / 'records/csv_corpus/beeps'
    )
    shutil.copytree(
        Path(beeps['data_dir']) / 'csv_corpus/beeps', tmp_path / 'records/csv_corpus/copy'
    )
    unlabelled = "--config.unlabelled=('csv_corpus/copy',)"
    refuses(tmp_path / 'records', tmp_path / 'run', 'leak', unlabelled)


def test_nan_in_features(beeps, tmp_path):
    shutil.copytree(beeps['data_dir'], tmp_path / 'records')
    index = next((tmp_path / 'records/csv_corpus/beeps/log_mel').rglob('index.npz'))
    with np.load(index) as stored:
        fields = dict(stored)
    fields['log_mel_sum'][:, 0] = np.nan
    fields['log_mel_squares'][:, 0] = np.nan
    np.savez(index, **fields)
    index.with_name('checksums.json').unlink()
    refuses(tmp_path / 'records', tmp_path / 'run', 'not finite')
    assert not (tmp_path / 'run').exists()


def test_a_workdir_in_the_home_folder(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / 'run')
    result = run(
        'ser_jax.main',
        f'{CONFIG}:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={trained[1].data.data_dir}',
        '--config.optimiser.learning_rate=0.02',
        '--config.final=True',
        '--config.steps=60',
        '--config.eval_every=20',
        '--workdir=~/run',
        HOME=str(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f'Everything about this run: {tmp_path / "run"}\n')
    before = (trained[0] / 'command.txt').read_text()
    assert (tmp_path / 'run' / 'command.txt').read_text() == before


@pytest.mark.parametrize(
    ('given', 'kept'),
    [
        (('--config=x.py', '--workdir=a b'), "--config=x.py '--workdir=a b'"),
        (('--workdir', 'w', '--config', 'x.py:emodb'), '--config x.py:emodb --workdir=w'),
        (('--mode=evaluate', '-workdir=w', '--config.seed=1'), '--config.seed=1 --workdir=w'),
        (('--mode', 'evaluate', '--config.data.data_dir=d'), '--config.data.data_dir=d --workdir=runs/x'),
    ],
)  # fmt: skip
def test_the_command_of_a_run(given, kept):
    workdir = next((a.partition('=')[2] or 'w' for a in given if 'workdir' in a), Path('runs/x'))
    assert main.command(['main.py', *given], workdir) == f'python -m ser_jax.main {kept}'


def test_the_command_of_a_finished_run_prints_its_results(trained):
    python, *words = shlex.split((trained[0] / 'command.txt').read_text())
    card = (trained[0] / 'results.json').read_bytes()
    result = run(*words[1:])
    assert (python, words[0], result.returncode) == ('python', '-m', 0), result.stderr
    assert result.stderr == ''
    assert result.stdout.endswith(f'Everything about this run: {trained[0]}\n')
    assert (trained[0] / 'results.json').read_bytes() == card


def test_events_are_written_as_tensorboard_reads_them(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    from ser_jax.training.metric_log import MetricLog

    log = MetricLog(tmp_path)
    log.write({'fold': 'fold_01', 'step': 20, 'loss': 0.5})
    content = next((tmp_path / 'events' / 'fold_01').iterdir()).read_bytes()
    log.close()
    events = []
    while content:  # length, its checksum, the event, its checksum
        end = 12 + int.from_bytes(content[:8], 'little')
        events.append(Event.FromString(content[12:end]))
        content = content[end + 4 :]
    assert [event.step for event in events] == [0, 20, 20]
    value = events[2].summary.value[0]
    assert (value.tag, value.simple_value) == ('loss', 0.5)


def test_an_unwritable_workdir(beeps, tmp_path):
    (tmp_path / 'file').write_text('')
    refuses(beeps['data_dir'], tmp_path / 'file' / 'run', 'cannot write to the workdir')


def test_a_workdir_with_other_files(beeps, tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    refuses(beeps['data_dir'], tmp_path, 'no config.json')
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_a_workdir_of_another_config(beeps, trained):
    workdir, config = trained
    before = (workdir / 'config.json').read_text()
    same = (f'--config.{name}={config[name]}' for name in ('steps', 'eval_every', 'final'))
    rate = '--config.optimiser.learning_rate=0.02'
    message = 'seed: 0 there, 5 now'
    refuses(beeps['data_dir'], workdir, message, '--config.seed=5', rate, *same)
    assert (workdir / 'config.json').read_text() == before


CONFIGS = sorted({*(ROOT / 'configs').glob('*.py')} - {ROOT / 'configs' / 'make_reference.py'})


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_the_settings_for_a_corpus_are_config_fields(config):
    module = load(config)
    for corpus in module.CORPORA:
        assert module.get_config(f'{corpus},smoke').corpus == corpus


# Options that do not affect each other share a run: each run compiles a program of its own.
TOGETHER = [
    'no_augmentation_type,no_reconstruction,no_validation',
    'arousal,valence,regression,with_emotion',
    'dominance,emotion,no_attention,no_validation',
    'functionals,no_autoencoder,no_speaker,gaussian,no_validation',
    'auxiliary,dimensions,no_adversary,no_gender',
]


def in_runs(options):
    """The options of a config, one string per run."""
    joined = [names for names in TOGETHER if {*names.split(',')} <= {*options}]
    return joined + sorted({*options} - {name for names in joined for name in names.split(',')})


def test_options_that_share_a_run_exist():
    runs = {names for config in CONFIGS for names in in_runs(load(config).OPTIONS)}
    assert runs >= {*TOGETHER}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'options'),
    [
        pytest.param(
            config,
            options,
            id=f'{config.stem}-{options}',
        )
        for config in CONFIGS
        for options in in_runs(load(config).OPTIONS)
    ],
)
def test_every_config_runs_with_every_option(beeps, tiny_encoder, tmp_path, config, options):
    workdir, environment = tmp_path / 'run', {'SER_JAX_ENCODER': str(tiny_encoder)}
    more = [f'--config.data.manual_dir={beeps["manual_dir"]}/beeps']
    if 'auxiliary' in options:  # its corpora are not available everywhere
        more.append("--config.unlabelled=('csv_corpus/hums',)")
    if options == 'opensmile':
        pytest.importorskip('opensmile', reason='needs the extra [opensmile]')
    if options == 'whisper_tiny':  # the tiny encoder has fewer layers
        more.append('--config.encoder.layers=(1, 2)')
    arguments = {'config': f'--config={config}', 'option': options}
    result = smoke(beeps, workdir, *more, **arguments, **environment)
    assert result.returncode == 0, result.stderr
    card = json.loads((workdir / 'results.json').read_text())
    assert next(iter(card['conditions'].values()))['n'] == 8
    assert 'UAR' in result.stdout


def test_a_run_leaves_all_its_files(beeps, tmp_path):
    workdir = tmp_path / 'run'
    result = smoke(beeps, workdir, '--config.final=True', '--config.noise_corpus=csv_corpus/hums')
    assert result.returncode == 0, result.stderr
    for path in (
        'config.json',
        'results.json',
        'metrics.jsonl',
        'predictions/clean.csv',
        'report/confusion_matrix.png',
    ):
        assert (workdir / path).stat().st_size > 0, path
    assert list(workdir.rglob('events.out.tfevents.*'))
    assert {row['fold'] for row in metrics(workdir)} == {'fold_01', 'final'}
    kept = sorted(p.name for p in (workdir / 'checkpoints' / 'fold_01').iterdir())
    assert kept == ['best', 'cost.json', 'summary.json']
    kept = sorted(p.name for p in (workdir / 'predictions' / 'fold_01').iterdir())
    assert kept == ['clean.csv', 'clean.json', 'validation.csv']
    card = json.loads((workdir / 'results.json').read_text())
    assert card['corpus'] == 'csv_corpus/beeps'
    assert card['cost']['train_seconds'] > 0


def test_development_never_reads_test_speakers(beeps, tmp_path):
    result = smoke(beeps, tmp_path / 'run', '--config.report_test=False', '--config.final=True')
    assert result.returncode == 0, result.stderr
    assert 'no test speaker was read' in result.stdout
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert card['conditions'] == {}
    assert not list((tmp_path / 'run').rglob('clean.csv'))
    assert {row['fold'] for row in metrics(tmp_path / 'run')} == {'fold_01'}
    assert 'conditions' not in card['validation']

    # Conditions that are added later are tested on the same speakers, with the selected parameters.
    result = smoke(
        beeps,
        tmp_path / 'run',
        '--config.report_test=False',
        '--config.final=True',
        "--config.conditions=('gain(0)', 'pgd(100., 2)')",
        f'--config.data.manual_dir={beeps["manual_dir"]}/beeps',
    )
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert again['conditions'] == {}
    rates = again['validation'].pop('conditions')
    assert again['validation'] == card['validation']
    folder = tmp_path / 'run' / 'predictions' / 'fold_01'
    names = ('_gain_0', '_pgd_100_2_1')
    files = {name: read_predictions(folder / f'validation{name}.csv')[0] for name in names}
    assert len(files['_gain_0'].id) == card['validation']['folds'][0]['n']
    speakers = card['validation']['folds'][0]['validation_speakers']
    assert set(files['_gain_0'].speaker) == set(speakers)
    assert rates['gain_0'] == pytest.approx(card['validation']['uar'])
    of_labels = {n: p.probabilities[np.arange(len(p.id)), p.label] for n, p in files.items()}
    assert of_labels['_pgd_100_2_1'].mean() < of_labels['_gain_0'].mean()
    assert rates.keys() == {'gain_0', 'pgd_100_2_1'}
    assert 'checks of the attacks' in result.stdout
    assert re.search(r'^gain_0 +\d', result.stdout, re.M)


def test_a_further_task_is_one_config_line(beeps, tmp_path):
    config = tmp_path / 'more_tasks.py'
    text = (ROOT / 'configs' / 'mtl_aug.py').read_text()
    line = (
        "    config.tasks.gender = {'kind': 'classification', 'target': 'gender', 'weight': 0.1}\n"
    )
    line += "    config.tasks.spoken = {'kind': 'classification', 'target': 'language', 'weight': 0.1}\n"
    config.write_text(text.replace('    return apply_options', line + '    return apply_options'))
    # Fold 2 trains on both languages: the loss of a task with one class would be 0.
    result = smoke(beeps, tmp_path / 'run', '--config.folds=(2,)', config=f'--config={config}')
    assert result.returncode == 0, result.stderr
    row = metrics(tmp_path / 'run')[-1]
    assert row['loss_gender'] > 0
    assert row['loss_spoken'] > 0
