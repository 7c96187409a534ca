"""Summaries of predictions and the console table."""

import dataclasses
import json
import re

import numpy as np
import pytest
from cards import LABELS, card, predictions, take
from sklearn import metrics as oracle

from ser_jax.evaluation import summary
from ser_jax.reporting.text import card_table
from ser_jax.runs.predictions import pool
from ser_jax.runtime import files
from ser_jax.runtime.errors import UserError


def test_summary_equals_scikit_learn():
    whole = predictions()
    found = summary.summarise(whole, LABELS)
    truth, predicted = whole.label, whole.probabilities.argmax(1)
    assert found['n'] == 150
    assert found['uar'] == pytest.approx(oracle.balanced_accuracy_score(truth, predicted))
    assert found['wa'] == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert found['macro_f1'] == pytest.approx(oracle.f1_score(truth, predicted, average='macro'))
    assert found['confusion'] == oracle.confusion_matrix(truth, predicted).tolist()
    recalls = oracle.recall_score(truth, predicted, average=None)
    assert found['recall'] == pytest.approx(dict(zip(LABELS, recalls)))
    lower, upper = found['uar_ci95']
    assert lower < found['uar'] < upper
    assert [fold['fold'] for fold in found['folds']] == [f'fold_{n:02d}' for n in range(1, 6)]
    second = found['folds'][1]
    rows = whole.fold == 'fold_02'
    assert second['test_speakers'] == ['emodb/02']
    assert second['uar'] == pytest.approx(
        oracle.balanced_accuracy_score(truth[rows], predicted[rows])
    )
    assert second['wa'] == pytest.approx(oracle.accuracy_score(truth[rows], predicted[rows]))
    json.dumps(found, allow_nan=False)
    # Pooled: not the mean over folds, and independent of the order of the utterances.
    assert found['uar'] != pytest.approx(np.mean([fold['uar'] for fold in found['folds']]))
    parts = [take(whole, whole.fold == name) for name in np.unique(whole.fold)[::-1]]
    assert summary.summarise(pool(parts), LABELS)['uar_ci95'] == found['uar_ci95']


def test_undefined_rates_are_none():
    whole = predictions(n_folds=1, each=20)
    alone = take(whole, whole.label != 2)
    found = summary.summarise(alone, LABELS)
    assert found['recall']['neutral'] is None
    assert found['uar_ci95'] == [None, None]
    unknown = dataclasses.replace(whole, speaker=np.full(20, ''))
    found = summary.summarise(unknown, LABELS)
    assert found['folds'][0]['test_speakers'] == []
    assert None not in found['uar_ci95']


def test_predictions_that_are_not_finite_are_refused():
    whole = predictions()
    whole.probabilities[3, 1] = np.nan
    with pytest.raises(UserError, match=r'1 of 150 .* not finite, e\.g\. of wav/0003'):
        summary.summarise(whole, LABELS)


def test_json_is_plain_and_written_whole(tmp_path):
    path = tmp_path / 'new' / 'results.json'
    content = {
        'a': np.float32(0.5),
        'b': [np.nan, np.int64(3)],
        'c': np.eye(2),
        'd': np.bool_(True),
    }
    files.write_json(path, content)
    plain = {'a': 0.5, 'b': [None, 3], 'c': [[1.0, 0.0], [0.0, 1.0]], 'd': True}
    assert json.loads(path.read_text()) == plain
    with pytest.raises(TypeError):
        files.write_json(path, {'a': object()})
    assert json.loads(path.read_text()) == plain
    assert [entry.name for entry in path.parent.iterdir()] == ['results.json']


def test_card_has_the_expected_fields():
    made = card()
    assert list(made) == [
        'system', 'config_hash', 'commit', 'versions', 'device', 'corpus', 'trained_on', 'corpus_hash',
        'synthetic', 'labels', 'tasks', 'protocol', 'n_folds', 'seed', 'n_params', 'conditions', 'leak_check', 'cost', 'config',
    ]  # fmt: skip
    assert list(made['conditions']['clean']) == [
        'n', 'uar', 'uar_ci95', 'redrawn', 'wa', 'macro_f1', 'recall', 'confusion', 'folds',
    ]  # fmt: skip


def test_table_of_a_tested_run():
    made = card()
    text = card_table(made)
    clean = made['conditions']['clean']
    assert text.splitlines()[0] == (
        'mtl_aug on emodb (real speech), leave_one_speaker_out(), 5 of 5 folds, seed 0'
    )
    lower, upper = (f'{100 * bound:.1f}' for bound in clean['uar_ci95'])
    assert re.search(rf'UAR +{100 * clean["uar"]:.1f} % +\[{lower}, {upper}\].* 5 speakers', text)
    assert re.search(r'chance +25.0 %  4 classes, n = 150', text)
    assert re.search(rf'WA +{100 * clean["wa"]:.1f} %', text)
    row = clean['confusion'][1]
    counts = ' +'.join(map(str, row))
    assert re.search(rf'happy +{sum(row)} +{100 * clean["recall"]["happy"]:.1f} +{counts}\n', text)
    third = clean['folds'][2]
    assert re.search(rf'fold_03 +03 +30 +{100 * third["uar"]:.1f} +{100 * third["wa"]:.1f}\n', text)
    for words in (
        'leak check',
        '10 scripts',
        'training 1 min 40 s',
        '212 utterances/s',
        '1,104,123',
    ):
        assert words in text
    assert 'SYNTHETIC speech' in card_table(card(synthetic=True, corpus='demo_speech'))


def test_table_is_never_wider_than_100_columns():
    names = [f'a rather long emotion {number}' for number in range(12)]
    noisy = {'noise_rain_' + 'x' * 60: summary.summarise(predictions(), LABELS, n_bootstrap=9)}
    made = card(labels=names, conditions=noisy, system='mtl_aug,' + 'long_option,' * 9)
    for fold in made['conditions']['clean']['folds']:
        fold['test_speakers'] = [f'csv_corpus/mine/somebody_{number}' for number in range(40)]
    lines = card_table(made).splitlines()
    assert max(map(len, lines)) <= 100
    text = '\n'.join(lines)
    assert sum(map(len, re.findall('x{3,}', text))) == 60  # broken into lines, but not cut
    for word in (*(f'somebody_{number}' for number in range(40)), *names):
        assert word in text


def test_table_without_test_shows_validation_only():
    folds = [
        {'fold': 'fold_01', 'validation_speakers': ['emodb/08', 'emodb/10'], 'n': 60, 'uar': 0.8},
        {'fold': 'fold_02', 'validation_speakers': ['emodb/09', 'emodb/11'], 'n': 60, 'uar': 0.9},
    ]
    made = card(validation=summary.summarise_validation(folds))
    made['conditions'] = {}
    text = card_table(made)
    assert re.search(r'UAR +85.0 % +mean over 2 folds, .* selected; no test speaker was read', text)
    assert re.search(r'fold_02 +09 11 +60 +90.0\n', text)
    assert 'WA' not in text
    assert 'interval' not in text
    # Beside a test result the validation is one line.
    tested = card_table(card(validation=summary.summarise_validation(folds)))
    assert re.search(r'validation UAR +85.0 % +mean over 2 folds, .* selected\n', tested)
    assert 'fold_02  02' in tested


def test_table_of_one_speaker_has_no_interval():
    whole = predictions(n_folds=1)
    made = card()
    made['conditions'] = {'clean': summary.summarise(whole, LABELS)}
    assert 'no interval: a single speaker' in card_table(made)
    assert '5 of 5 folds,' in card_table(made)


def test_table_of_classes_by_one_speaker_each_says_why_there_is_no_interval():
    whole = predictions(n_folds=8, n_classes=8)
    label = np.array([int(speaker[-2:]) - 1 for speaker in whole.speaker])
    labels = [f'class {number}' for number in range(8)]
    made = card(labels=labels)
    made['conditions'] = {
        'clean': summary.summarise(dataclasses.replace(whole, label=label), labels)
    }
    (line,) = [line for line in card_table(made).splitlines() if 'no interval' in line]
    assert line.endswith('no interval: fewer than 1 in 100 draws of speakers hold every class')


def test_table_names_unknown_speakers_in_the_bootstrap():
    whole = predictions(n_folds=6)
    made = card()
    made['leak_check']['unknown_speakers'] = 99  # also those of training and of added corpora
    made['conditions'] = {'clean': summary.summarise(whole, LABELS)}
    assert 'bootstrap over 6 speakers\n' in card_table(made)
    whole.speaker[:30] = ''
    made['conditions'] = {'clean': summary.summarise(whole, LABELS)}
    assert 'bootstrap over 5 speakers and 30 utterances of unknown ones\n' in card_table(made)


def test_leaks_are_printed():
    leaking = card(0) | {'leak_check': {'speakers': 3, 'audio': 0, 'ids': 0, 'scripts': 8}}
    assert 'FAILED: 3 speakers in two splits; 8 scripts' in card_table(leaking)
    assert 'passed: no speaker, audio or id in two splits' in card_table(card(0))
