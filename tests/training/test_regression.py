"""Regression of ratings: the concordance loss, its metric and interval, and a whole run."""

import csv
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import metrics as rows_of
from conftest import run
from refusals import refusal

from ser_jax.data.labels import level_of, rating_scale
from ser_jax.metrics import rates, significance
from ser_jax.objectives import losses
from ser_jax.runs.finished import Runs
from ser_jax.runs.predictions import Predictions, read_predictions, write_predictions

RNG = np.random.default_rng(0)


def pairs(count=24):
    targets = RNG.uniform(1, 5, count)
    return targets, 0.6 * targets + RNG.normal(1, 0.5, count)


def test_loss_is_one_minus_the_metric_over_labelled_utterances():
    targets, predictions = pairs()
    present = RNG.random(len(targets)) < 0.7
    hidden = np.where(present, targets, np.nan)
    loss = lambda p: losses.concordance_loss(p, hidden, present)
    value, gradient = jax.value_and_grad(loss)(predictions)
    assert value == pytest.approx(1 - rates.ccc(hidden, predictions), abs=1e-5)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~present] == 0).all()
    step = predictions - 0.1 * np.asarray(gradient)
    assert rates.ccc(hidden, step) > rates.ccc(hidden, predictions)


@pytest.mark.parametrize(('count', 'expected'), [(0, 0.0), (1, 1.0)])
def test_loss_of_a_batch_with_at_most_one_label(count, expected):
    targets, predictions = pairs()
    present = np.arange(len(targets)) < count
    loss = lambda p: losses.concordance_loss(p, targets, present)
    value, gradient = jax.value_and_grad(loss)(predictions)
    assert value == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(gradient).all()


def test_devices_share_the_loss_of_the_whole_batch():
    targets, predictions = pairs()
    present = RNG.random(len(targets)) < 0.7
    parts = [array.reshape(4, -1) for array in (predictions, targets, present)]
    share = lambda *part: losses.concordance_loss(*part, axis_name='data')
    shares = jax.vmap(share, axis_name='data')(*parts)
    whole = losses.concordance_loss(predictions, targets, present)
    np.testing.assert_allclose(shares, np.full(4, whole / 4), rtol=1e-5)


def test_the_metric_follows_from_sums_by_speaker():
    targets, predictions = pairs()
    speakers = np.array(['a', 'b', '', 'c'])[RNG.integers(4, size=len(targets))]
    sums = rates.concordance_sums(targets, predictions, speakers)
    assert len(sums) == 3 + (speakers == '').sum()
    whole = rates.ccc_of_sums(sums.sum(0))
    assert whole == pytest.approx(rates.ccc(targets, predictions))
    some = np.isin(speakers, ['a', 'c'])  # the first and the third
    expected = rates.ccc(targets[some], predictions[some])
    assert rates.ccc_of_sums(sums[0] + sums[2]) == pytest.approx(expected)


def test_bootstrap_draws_whole_speakers():
    targets, predictions = pairs(60)
    speakers = np.repeat(list('abc'), 20)
    drawn = significance.bootstrap_ccc(
        rates.concordance_sums(targets, predictions, speakers), replicates=400
    )
    possible = [
        rates.ccc(targets[rows], predictions[rows])
        for choice in np.ndindex(3, 3, 3)
        for rows in [np.concatenate([np.arange(20) + 20 * k for k in choice])]
    ]
    assert len(set(drawn.round(9))) == 10  # ways to draw 3 of 3
    assert set(drawn.round(9)) == set(np.round(possible, 9))
    assert np.isnan(significance.bootstrap_ccc(np.ones((1, 6)), 10)).all()


def test_the_rating_scale_ignores_missing_ratings():
    corpus = SimpleNamespace(index={'arousal': np.array([1.0, np.nan, 3.0, 9.0], np.float32)})
    mean, std = rating_scale([(corpus, np.array([0, 1, 2]))], 'arousal')
    assert (mean, std) == (2, 1)
    assert rating_scale([(corpus, np.array([1]))], 'arousal').tolist() == [3, 1]


def test_ratings_survive_writing_and_reading_predictions(tmp_path):
    targets, predictions = pairs()
    levels = level_of(targets)
    written = Predictions(
        [f'id{row}' for row in range(24)],
        ['fold_01'] * 24,
        ['a'] * 24,
        levels,
        np.eye(3)[level_of(predictions)],
        targets,
        predictions,
    )
    write_predictions(tmp_path / 'x.csv', written, ('low', 'middle', 'high'))
    read, names = read_predictions(tmp_path / 'x.csv')
    assert names == ['low', 'middle', 'high']
    assert read.rated
    np.testing.assert_array_equal(read.predicted_rating, written.predicted_rating)
    np.testing.assert_array_equal(read.rating, written.rating)


def test_the_class_of_several_seeds_is_that_of_their_mean_rating():
    ratings = np.array([[1.5, 3.0, 4.2], [3.1, 3.6, 4.6]])
    classes = np.eye(3)[level_of(ratings)]
    runs = Runs([], ['low', 'middle', 'high'], np.zeros(3), np.array(['a'] * 3), classes, ratings)
    assert runs.averaged().argmax(-1).tolist() == [[1, 1, 2]]  # a vote would tie on the first
    assert runs.averaged(slice(1)).argmax(-1).tolist() == [[0, 1, 2]]


def command(data_dir, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/end_to_end.py:demo_speech,smoke,regression,with_emotion',
        f'--config.data.data_dir={data_dir}',
        f'--workdir={workdir}',
        *more,
    )


@pytest.fixture(scope='module')
def finished(demo_records, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('regression') / 'run'
    more = ("--config.conditions=('pgd_waveform(0.01, 3)',)", '--config.final=True')
    result = run(*command(demo_records, workdir, *more))
    assert result.returncode == 0, result.stderr
    assert 'CCC' in result.stdout
    assert 'CCC' in result.stderr
    return workdir


@pytest.mark.slow
def test_the_card_has_the_concordance(finished):
    card = json.loads((finished / 'results.json').read_text())
    for task in ('arousal', 'valence', 'dominance'):
        found = read_predictions(finished / 'predictions' / f'clean_{task}.csv')[0]
        result = card['conditions'][f'clean_{task}']
        expected = rates.ccc(found.rating, found.predicted_rating)
        assert result['ccc'] == pytest.approx(expected, abs=1e-9)
        assert result['ccc_ci95'][0] <= expected <= result['ccc_ci95'][1]
        assert (found.prediction == level_of(found.predicted_rating)).all()
        assert 1 < found.predicted_rating.mean() < 5
    assert 'ccc' not in card['conditions']['clean']
    validation = card['validation']
    last = max(rows_of(finished)[:2], key=lambda row: row['validation_score'])
    assert validation['ccc'] == pytest.approx(last['validation_ccc'])
    assert validation['uar_emotion'] == pytest.approx(last['validation_uar_emotion'])
    tasks = ('ccc_arousal', 'ccc_valence', 'ccc_dominance', 'uar_emotion')
    assert validation['score'] == pytest.approx(np.mean([validation[name] for name in tasks]))


@pytest.mark.slow
def test_an_attack_on_ratings_moves_them_away(finished):
    distances = []
    for name in ('clean', 'pgd_waveform_0.01_3_1'):
        error = 0.0
        for task in ('arousal', 'valence', 'dominance'):
            found = read_predictions(finished / 'predictions' / f'{name}_{task}.csv')[0]
            error += np.mean((found.rating - found.predicted_rating) ** 2)
        distances.append(error)
    assert distances[1] > distances[0]


@pytest.mark.slow
@pytest.mark.parametrize('form', ['json', 'csv'])
def test_recordings_get_ratings_and_emotions(finished, voices, form):
    result = run('ser_jax.predict', f'--workdir={finished}', f'--format={form}', voices)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    rows = [json.loads(line) for line in lines] if form == 'json' else list(csv.DictReader(lines))
    assert len(rows) == 8
    for row in rows:
        assert 1 < float(row['arousal']) < 5
        assert row['emotion'] in ('angry', 'happy', 'neutral', 'sad')


@pytest.mark.slow
def test_two_devices_give_the_same_losses(beeps, tmp_path):
    found, manual_dir = [], {'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    for devices in (1, 2):
        workdir = tmp_path / str(devices)
        arguments = command(beeps['data_dir'], workdir, '--config.eval_every=1')
        # Beeps are shorter.
        arguments = [argument.replace('demo_speech', 'csv_corpus/beeps') for argument in arguments]
        result = run(*arguments, devices=devices, **manual_dir)
        assert result.returncode == 0, result.stderr
        found.append([[row['loss'], row['gradient_norm']] for row in rows_of(workdir)])
    np.testing.assert_allclose(*found, atol=1e-4)


def test_only_ratings_are_regressed(demo_records, tmp_path):
    asked = command(demo_records, tmp_path / 'run', '--config.tasks.arousal.target=gender')
    assert 'a regression predicts a rating' in refusal(*asked)
