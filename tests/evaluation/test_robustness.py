"""Corrupted and attacked test utterances, from the config to the predictions of a finished run."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import run
from refusals import refusal

from ser_jax.runtime.errors import UserError
from ser_jax.transforms.conditions import parse_conditions

CONDITIONS = (
    'telephone',
    "noise('white', 0)",
    "noise('white', 60)",
    'babble(2, 0)',
    'fgsm(0)',
    'gain(0)',
    'fgsm(0.3)',
    'random_sign(0.3)',
    'pgd(0.3, 2)',
    'bim_waveform(0.001, 2)',
)
NAMES = [
    'telephone',
    'noise_white_0db',
    'noise_white_60db',
    'noise_babble2_0db',
    'fgsm_0',
    'gain_0',
    'fgsm_0.3',
    'random_sign_0.3',
    'pgd_0.3_2_1',
    'bim_waveform_0.001_2',
]


def command(beeps, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        '--config.folds=(1,2)',
        '--config.steps=30',
        '--config.eval_every=15',
        f'--workdir={workdir}',
        *more,
    )


def asked(*texts):
    return f'--config.conditions={texts!r}', '--config.babble_corpus=csv_corpus/hums'


@pytest.fixture(scope='module')
def plain(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('plain') / 'run'
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope='module')
def tested(beeps, plain):
    """The plain run with conditions added, which trains nothing."""
    clean = (plain / 'predictions' / 'clean.csv').read_bytes()
    trained = (plain / 'metrics.jsonl').read_bytes()
    result = run(
        *command(beeps, plain, *asked(*CONDITIONS)), SER_JAX_MANUAL_DIR=beeps['manual_dir']
    )
    assert result.returncode == 0, result.stderr
    assert (plain / 'predictions' / 'clean.csv').read_bytes() == clean
    assert (plain / 'metrics.jsonl').read_bytes() == trained
    return plain


def probabilities(workdir, condition):
    with (workdir / 'predictions' / f'{condition}.csv').open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith('probability_')]
    return np.array([[float(row[name]) for name in names] for row in rows])


def test_every_condition_is_in_the_card_and_has_its_predictions(tested):
    card = json.loads((tested / 'results.json').read_text())
    assert list(card['conditions']) == ['clean', *NAMES]
    assert len({result['n'] for result in card['conditions'].values()}) == 1
    assert card['conditions']['bim_waveform_0.001_2']['perturbation_snr_db'] > 10
    assert any(check['check'].startswith('random signs') for check in card['attack_checks'])
    assert (tested / 'report' / 'robustness.png').read_bytes().startswith(b'\x89PNG')


def test_no_disturbance_changes_nothing_and_a_strong_one_more_than_a_weak_one(tested):
    clean = probabilities(tested, 'clean')
    np.testing.assert_allclose(probabilities(tested, 'fgsm_0'), clean, atol=1e-4)
    # The waveform is analysed again, by the front end of the records.
    np.testing.assert_array_equal(probabilities(tested, 'gain_0'), clean)
    assert np.abs(probabilities(tested, 'noise_white_0db') - clean).max() > 0.01
    near, far = (
        np.abs(probabilities(tested, f'noise_white_{snr}db') - clean).mean() for snr in (60, 0)
    )
    assert near < far


def test_attacks_lower_the_true_class_more_than_random_signs(tested):
    with (tested / 'predictions' / 'clean.csv').open() as file:
        rows = list(csv.DictReader(file))
    labels = [name.removeprefix('probability_') for name in rows[0] if 'probability_' in name]
    truth = np.array([labels.index(row['label']) for row in rows])
    right = {
        name: np.log(probabilities(tested, name)[np.arange(len(truth)), truth]).mean()
        for name in ('clean', 'random_sign_0.3', 'fgsm_0.3', 'pgd_0.3_2_1', 'bim_waveform_0.001_2')
    }
    assert right['fgsm_0.3'] < right['random_sign_0.3'] < right['clean'] + 0.1
    assert right['pgd_0.3_2_1'] < right['random_sign_0.3']
    assert right['bim_waveform_0.001_2'] < right['clean']


def test_evaluating_again_gives_the_same_predictions(beeps, tested, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(tested, workdir)
    (workdir / 'predictions' / 'clean.csv').unlink()
    texts = ('babble(2, 0)', 'pgd(0.3, 2)', 'bim_waveform(0.001, 2)')
    result = run(
        *command(beeps, workdir, *asked(*texts), '--mode=evaluate'),
        SER_JAX_MANUAL_DIR=beeps['manual_dir'],
    )
    assert result.returncode == 0, result.stderr
    for name in ('clean', 'noise_babble2_0db', 'pgd_0.3_2_1', 'bim_waveform_0.001_2'):
        path = f'predictions/{name}.csv'
        assert (workdir / path).read_bytes() == (tested / path).read_bytes(), name


def test_only_outdated_conditions_are_computed_again(beeps, tested):
    folder = tested / 'predictions' / 'fold_01'
    (tested / 'results.json').unlink()
    stored = folder / 'noise_babble2_0db.json'
    stored.write_text(json.dumps({'fingerprint': 'other voices'}))
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob('*.csv')}
    environment = {'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    result = run(*command(beeps, tested, *asked(*CONDITIONS)), **environment)
    assert result.returncode == 0, result.stderr
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob('*.csv')}
    assert [name for name in before if after[name] != before[name]] == ['noise_babble2_0db.csv']
    assert json.loads(stored.read_text())['fingerprint'] != 'other voices'


@pytest.mark.slow
def test_an_attack_transferred_from_the_same_model_is_the_attack_itself(beeps, tested, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(tested, workdir)
    texts = ('fgsm(0.3)', 'transfer_fgsm(0.3)')
    source = f'--config.attack_source={tested}'
    result = run(*command(beeps, workdir, *asked(*texts), source))
    assert result.returncode == 0, result.stderr
    own, transferred = (probabilities(workdir, f'{prefix}fgsm_0.3') for prefix in ('', 'transfer_'))
    np.testing.assert_allclose(own, transferred, atol=1e-4)


@pytest.mark.slow
def test_two_devices_give_the_same(beeps, tested, tmp_path):
    names = ('pgd(0.3, 2)', 'bim_waveform(0.001, 2)')
    workdir = tmp_path / 'run'
    shutil.copytree(tested, workdir)
    result = run(
        *command(beeps, workdir, *asked(*names), '--mode=evaluate'),
        devices=2,
        SER_JAX_MANUAL_DIR=beeps['manual_dir'],
    )
    assert result.returncode == 0, result.stderr
    for name in ('clean', 'pgd_0.3_2_1', 'bim_waveform_0.001_2'):
        # Small gradients may change sign.
        np.testing.assert_allclose(
            probabilities(workdir, name), probabilities(tested, name), atol=0.02
        )


@pytest.mark.parametrize(
    ('text', 'more', 'message'),
    [
        ('fgsm(-0.1)', (), 'epsilon must be'),
        ('pgd(0.1, 0)', (), 'steps must be'),
        ('sharpening(1)', (), "condition 'sharpening"),
        ("noise('rain', 5)", (), 'config.test_noise_corpus'),
        ('babble(99, 0)', (), '99'),
        ("noise('rain', 5)", ('--config.test_noise_corpus=csv_corpus/hums',), "type 'rain'"),
        ('transfer_fgsm(0.1)', (), 'config.attack_source'),
        ('transfer_fgsm(0.1)', ('--config.attack_source=/nowhere',), 'no finished run'),
    ],
)
def test_impossible_conditions_are_refused_before_training(
    beeps, tmp_path, monkeypatch, text, more, message
):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', beeps['manual_dir'])
    assert message in refusal(*command(beeps, tmp_path / 'run', *asked(text), *more))


def test_a_condition_named_twice_is_refused():
    with pytest.raises(UserError, match='twice'):
        parse_conditions(('gain(3)', 'gain(3.0)'))
