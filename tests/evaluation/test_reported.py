"""Tasks other than the emotion, and networks on waveforms, in the same trainer and evaluator."""

import csv
import json

import matplotlib.image
import numpy as np
import pytest
from conftest import metrics, run, write_beeps
from refusals import refusal

from ser_jax.data.labels import class_names, labels_of
from ser_jax.data.records import EMOTIONS, EMOTIONS_OF
from ser_jax.prepare import open_prepared
from ser_jax.runs.predictions import read_predictions

TASKS = ('arousal', 'dominance', 'valence')
CONDITIONS = ('gain(0)', 'pgd_waveform(0.01, 3)')


def command(data_dir, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/end_to_end.py:demo_speech,smoke',
        f'--config.data.data_dir={data_dir}',
        f'--workdir={workdir}',
        f'--config.conditions={CONDITIONS!r}',
        '--config.final=True',
        *more,
    )


@pytest.fixture(scope='module')
def finished(demo_records, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('end_to_end') / 'run'
    result = run(*command(demo_records, workdir))
    assert result.returncode == 0, result.stderr
    for task in TASKS:
        assert f'clean_{task}' in result.stdout
    return workdir


def probabilities(workdir, name):
    return read_predictions(workdir / 'predictions' / f'{name}.csv')[0].probabilities


@pytest.mark.slow
def test_every_task_has_results(finished):
    card = json.loads((finished / 'results.json').read_text())
    assert card['tasks'] == {task: ['low', 'middle', 'high'] for task in TASKS}
    names = [f'{c}_{t}' for c in ('clean', 'gain_0', 'pgd_waveform_0.01_3_1') for t in TASKS]
    assert list(card['conditions']) == names
    for name, result in card['conditions'].items():
        assert name.endswith(result['task'])
        assert result['n'] == 96
    rows = metrics(finished)
    for row in rows[:2]:
        rates = [row[f'validation_uar_{task}'] for task in TASKS]
        assert row['validation_uar'] == pytest.approx(np.mean(rates))
    for task in TASKS:
        for picture in ('confusion_matrix', 'robustness'):
            assert (finished / 'report' / f'{picture}_{task}.png').stat().st_size > 0


@pytest.mark.slow
def test_attention_is_drawn(finished):
    image = matplotlib.image.imread(finished / 'report' / 'attention.png')
    assert image.shape[1] > image.shape[0] > 500


@pytest.mark.slow
def test_the_page_shows_every_task(finished):
    text = (finished / 'report' / 'report.html').read_text()
    for task in TASKS:
        assert text.count(f'<h3>clean_{task}</h3>') == 3  # confusions, speakers, calibration
        assert f'<h2>Worst errors: clean_{task}</h2>' in text
    ids = [
        line.partition(',')[0] for line in (finished / 'report' / 'embedding.csv').open()
    ]  # fmt: skip
    assert len(set(ids)) == len(ids) == 1 + 384


@pytest.mark.slow
def test_conditions_reach_the_waveform(finished):
    for task in TASKS:
        clean = probabilities(finished, f'clean_{task}')
        np.testing.assert_allclose(probabilities(finished, f'gain_0_{task}'), clean, atol=1e-6)
        attacked = probabilities(finished, f'pgd_waveform_0.01_3_1_{task}')
        label = read_predictions(finished / 'predictions' / f'clean_{task}.csv')[0].label
        rows = np.arange(len(label))
        assert np.log(attacked[rows, label]).mean() < np.log(clean[rows, label]).mean()


@pytest.mark.slow
def test_recordings_are_predicted_in_all_tasks(finished, voices):
    result = run('ser_jax.predict', f'--workdir={finished}', '--format=csv', voices)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert len(rows) == 8
    for row in rows:
        for task in TASKS:
            shares = [float(row[f'{task}_{level}']) for level in ('low', 'middle', 'high')]
            assert sum(shares) == pytest.approx(1, abs=1e-5)
            assert row[task] == ('low', 'middle', 'high')[int(np.argmax(shares))]


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ("--config.conditions=('fgsm(0.1)',)", 'fgsm_waveform'),
        ("--config.augmentations=('mixup(0.2)',)", 'need log-mels'),
        ("--config.reported=('emotion',)", "regression 'emotion'"),
        ('--config.reported=()', 'one or more'),
        ('--config.representation=words', 'representation'),
        ('--config.adversarial_epsilon=0.1', 'attacks that task'),
        ('--config.tasks.arousal.target=emotion', "target is 'emotion'"),
    ],
)
def test_impossible_configs_are_refused(demo_records, tmp_path, more, message):
    asked = command(demo_records, tmp_path / 'run', '--config.conditions=()', more)
    assert message in refusal(*asked)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_corpus_with_ratings_only_split_by_sessions(tmp_path):
    folder = tmp_path / 'manual' / 'rated'
    write_beeps(folder, speakers=6)
    rows = list(csv.DictReader((folder / 'metadata.csv').open()))
    for number, row in enumerate(rows):
        session = sorted({r['speaker'] for r in rows}).index(row['speaker']) // 2 + 1
        row |= {'emotion': '', 'session': session, 'arousal': 1 + number % 5}
    with (folder / 'metadata.csv').open('w') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    result = run(
        'ser_jax.main',
        '--config=configs/end_to_end.py:csv_corpus/rated,arousal,smoke',
        f'--config.data.data_dir={tmp_path / "records"}',
        '--config.protocol=session_split("1", "2", "3")',
        f'--workdir={tmp_path / "run"}',
        SER_JAX_MANUAL_DIR=str(folder.parent),
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert card['conditions']['clean_arousal']['n'] == len(rows) // 3
    assert len(card['conditions']['clean_arousal']['folds'][0]['test_speakers']) == 2


@pytest.mark.slow
def test_other_corpora_are_tested_in_every_task(beeps, tmp_path):
    tasks = ('arousal', 'valence')
    result = run(
        'ser_jax.main',
        '--config=configs/end_to_end.py:csv_corpus/beeps,smoke,arousal,valence',
        f'--config.data.data_dir={beeps["data_dir"]}',
        *(f'--config.tasks.{task}.target={task}_of_emotion' for task in tasks),
        '--config.protocol=whole_corpus()',
        '--config.folds=()',
        '--config.final=True',
        "--config.test_corpora=('csv_corpus/hums',)",
        '--config.target_statistics=True',
        '--config.few_shot=(0,2)',
        '--config.few_shot_steps=2',
        f'--workdir={tmp_path / "run"}',
        SER_JAX_MANUAL_DIR=beeps['manual_dir'],
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    endings = ('', '_target_statistics', '_few_shot_0', '_few_shot_2')
    names = [f'cross_csv_corpus_hums{ending}_{task}' for task in tasks for ending in endings]
    assert list(card['conditions']) == names
    for task in tasks:
        plain, adapted = (
            card['conditions'][f'cross_csv_corpus_hums_few_shot_{k}_{task}'] for k in (0, 2)
        )
        assert plain['labels'] == list(EMOTIONS_OF[f'{task}_of_emotion'])
        assert plain['n'] == adapted['n'] == 8
        found = [
            read_predictions(tmp_path / 'run' / 'predictions' / f'{name}.csv')[0]
            for name in names
            if name.endswith(f'few_shot_2_{task}') or name.endswith(f'few_shot_0_{task}')
        ]
        assert np.abs(found[0].probabilities - found[1].probabilities).max() > 1e-6


@pytest.mark.slow
def test_ratings_are_binned_into_classes(demo_records):
    corpus = open_prepared('demo_speech', data_dir=demo_records, representation='waveform')
    corpus.index['arousal'][:7] = [1, 2, 2.01, 3.99, 4, 5, np.nan]
    found = labels_of(corpus, np.arange(7), 'arousal', ('low', 'middle', 'high'))
    assert found.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert class_names('arousal', [corpus], ()) == ('low', 'middle', 'high')


@pytest.mark.slow
@pytest.mark.parametrize('field', sorted(EMOTIONS_OF))
def test_dimensions_derived_from_emotions(demo_records, field):
    corpus = open_prepared('demo_speech', data_dir=demo_records, representation='waveform')
    names = class_names(field, [corpus], ())
    rows = np.arange(len(corpus))
    emotions = labels_of(corpus, rows, 'emotion', EMOTIONS)
    for emotion, label in zip(emotions, labels_of(corpus, rows, field, names)):
        assert EMOTIONS[emotion] in EMOTIONS_OF[field][names[label]]
