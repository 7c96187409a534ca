"""Cross-corpus tests of a final model: unchanged, with target statistics, adapted."""

import json

import jax
import numpy as np
import pytest
from conftest import metrics, run, write_beeps
from refusals import refusal

from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.predictions import read_predictions

HUMS = ("--config.test_corpora=('csv_corpus/hums',)",)
ADAPTED = (
    *HUMS,
    '--config.target_statistics=True',
    '--config.few_shot=(0,1)',
    '--config.few_shot_speakers=(0,0.5)',
    '--config.few_shot_steps=20',
    '--config.few_shot_learning_rate=0.01',
)
ENDINGS = ['', '_target_statistics', '_few_shot_0', '_few_shot_1', '_speakers_0', '_speakers_0.5']


def command(beeps, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        '--config.protocol=whole_corpus()',
        '--config.folds=()',
        '--config.final=True',
        '--config.steps=20',
        '--config.eval_every=10',
        f'--workdir={workdir}',
        *(more or HUMS),
    )


@pytest.fixture(scope='module')
def tested(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('cross') / 'run'
    result = run(*command(beeps, workdir, *ADAPTED))
    assert result.returncode == 0, result.stderr
    assert (
        'hums, emotion: neutral, happy, sad, angry are shared; 16 of 16 utterances' in result.stderr
    )
    assert 'cross_csv_corpus_hums' in result.stdout
    return workdir


def predictions(workdir, ending):
    return read_predictions(workdir / 'predictions' / f'cross_csv_corpus_hums{ending}.csv')[0]


def test_one_model_is_trained_on_all_speakers(tested):
    assert {row['fold'] for row in metrics(tested)} == {'final'}
    card = json.loads((tested / 'results.json').read_text())
    assert card['n_folds'] == [0, 0]
    assert list(card['conditions']) == [f'cross_csv_corpus_hums{ending}' for ending in ENDINGS]
    for result in card['conditions'].values():
        assert result['labels'] == ['neutral', 'happy', 'sad', 'angry']
        assert (result['corpus'], result['synthetic']) == ('csv_corpus/hums', False)
    assert (tested / 'report' / 'confusion_matrix_cross_csv_corpus_hums.png').exists()


def test_adaptation_utterances_are_not_tested(tested):
    whole, shot = predictions(tested, ''), predictions(tested, '_few_shot_1')
    assert len(whole.id) == 16
    assert len(set(whole.speaker)) == 2
    assert len(set(shot.speaker)) == 1  # the other gives an utterance of every class
    assert np.bincount(shot.label).tolist() == [2] * 4
    assert set(predictions(tested, '_few_shot_0').id) == set(shot.id)
    half = predictions(tested, '_speakers_0.5')
    assert len(set(half.speaker)) == 1
    assert set(predictions(tested, '_speakers_0').id) == set(half.id)


def test_statistics_and_adaptation_change_the_predictions(tested):
    plain, adapted = (predictions(tested, f'_few_shot_{k}') for k in (0, 1))
    assert np.abs(plain.probabilities - adapted.probabilities).max() > 1e-3
    whole = predictions(tested, '')
    rows = [whole.id.tolist().index(name) for name in plain.id]
    np.testing.assert_allclose(plain.probabilities, whole.probabilities[rows], atol=1e-5)
    assert (
        np.abs(whole.probabilities - predictions(tested, '_target_statistics').probabilities).max()
        > 1e-3
    )
    np.testing.assert_allclose(adapted.probabilities.sum(1), 1, atol=1e-5)


def test_a_finished_run_is_not_tested_again(beeps, tested):
    before = (tested / 'results.json').stat().st_mtime_ns
    result = run(*command(beeps, tested, *ADAPTED))
    assert result.returncode == 0, result.stderr
    assert (tested / 'results.json').stat().st_mtime_ns == before


def test_a_corpus_that_was_prepared_again_is_tested_again(beeps, tested):
    card = (tested / 'results.json').read_text()
    old = json.loads(card)
    hashes = old['tested_with']['corpus_hashes']
    assert list(hashes) == ['csv_corpus/hums']
    hashes['csv_corpus/hums'] = 'another'
    (tested / 'results.json').write_text(json.dumps(old))
    result = run(*command(beeps, tested, *ADAPTED))
    assert result.returncode == 0, result.stderr
    assert (tested / 'results.json').read_text() == card


@pytest.fixture(scope='module')
def others(beeps, tmp_path_factory):
    """The folder of a corpus with other emotions."""
    folder = tmp_path_factory.mktemp('others') / 'moods'
    write_beeps(folder, speakers=2, seed=2, prefix='m')
    text = (folder / 'metadata.csv').read_text()
    for old, new in (('angry', 'bored'), ('happy', 'excited'), ('neutral', 'calm')):
        text = text.replace(f',{old},', f',{new},')
    (folder / 'metadata.csv').write_text(text)
    return folder.parent


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (("--config.test_corpora=('csv_corpus/moods',)",), 'share 1 of the classes'),
        ((*HUMS, "--config.unlabelled=('csv_corpus/hums',)"), 'leak'),
        (('--config.seed=0',), 'no test speakers'),
        ((*HUMS, '--config.final=False'), 'final model'),
        (("--config.test_corpora=('csv_corpus/beeps',)",), 'labelled corpus already'),
        ((*HUMS, '--config.few_shot=(-1,)'), 'few_shot'),
        ((*HUMS, '--config.few_shot=(4,)'), 'left to test'),
        ((*HUMS, '--config.few_shot=(5,)'), 'have only 4'),
        ((*HUMS, "--config.few_shot_speakers=('a',)"), 'fractions from 0'),
    ],
)
def test_impossible_tests_are_refused_before_training(
    beeps, others, tmp_path, monkeypatch, more, message
):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', str(others))
    assert message in refusal(*command(beeps, tmp_path / 'run', *more))


def test_a_corpus_that_is_left_out_does_not_train(beeps, tmp_path):
    workdir, left_out = tmp_path / 'run', '--config.protocol=leave_corpus_out()'
    result = run(
        *command(beeps, workdir, left_out, "--config.labelled=('csv_corpus/hums',)"),
        '--config.validation=False',
        "--config.conditions=('random_sign(0.1)',)",
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((workdir / 'results.json').read_text())
    assert (card['corpus'], card['trained_on']) == ('csv_corpus/beeps', ['csv_corpus/hums'])
    assert card['n_folds'] == [1, 1]
    assert list(card['conditions']) == ['clean', 'random_sign_0.1']
    assert card['conditions']['clean']['n'] == 48
    # The final model saw the same utterances, in the same order.
    folders = [workdir / 'checkpoints' / name / 'best' for name in ('fold_01', 'final')]
    fold, final = (Checkpoints(folder, read_only=True).restore() for folder in folders)
    jax.tree.map(np.testing.assert_array_equal, fold['params'], final['params'])
