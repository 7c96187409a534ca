"""The corpora that a config names: labelled ones that join, types of noise, and what is refused."""

import csv
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from trees import write_csv

from configs.mtl_aug import get_config
from ser_jax.data.dataset import (
    refuse_splits_without_labels,
    rows_that_join,
    rows_with_labels,
    untrained_classes,
)
from ser_jax.data.folds import Fold
from ser_jax.data.tasks import Task
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from ser_jax.train import check_data, open_data

TYPES = ('Rain', 'Dog bark', 'Clock tick')


@pytest.fixture(scope='module')
def noises(beeps, tmp_path_factory):
    """A corpus of three types of noise beside the beeps, log-mels and waveforms."""
    folder = tmp_path_factory.mktemp('noises') / 'noises'
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / 'metadata.csv').open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(['file', 'script', 'emotion', 'speaker'])
        for kind in TYPES:
            soundfile.write(folder / f'{kind}.wav', 0.1 * rng.standard_normal(8000), 16000)
            table.writerow([f'{kind}.wav', kind, '', ''])
    for representation in ('log_mel', 'waveform'):
        open_prepared(
            'csv_corpus/noises',
            data_dir=beeps['data_dir'],
            manual_dir=folder,
            representation=representation,
        )
    return 'csv_corpus/noises'


def make_config(beeps, **fields):
    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    config.data.manual_dir = f'{beeps["manual_dir"]}/beeps'
    config.update_from_flattened_dict(fields)
    return config


def test_a_labelled_corpus_joins_training_alone(beeps, capsys):
    alone = open_data(make_config(beeps))
    joined = open_data(make_config(beeps, labelled=('csv_corpus/hums',)))
    assert (
        'csv_corpus/hums joins csv_corpus/beeps: neutral, happy, sad, angry'
        in capsys.readouterr().err
    )
    rows = joined.folds[0].train
    np.testing.assert_array_equal(rows, alone.folds[0].train)
    np.testing.assert_array_equal(joined.folds[0].test, alone.folds[0].test)
    labels = [data.train_batches(rows).labelled.labels['emotion'] for data in (alone, joined)]
    assert len(labels[1]) == len(labels[0]) + 16
    assert np.bincount(labels[1])[0] == np.bincount(labels[0])[0] + 4
    means = [data.statistics(rows)['mean'] for data in (alone, joined)]
    assert np.abs(means[0] - means[1]).max() > 1e-3  # the statistics are those of all that trains
    assert joined.corpus_hashes().keys() == {'csv_corpus/beeps', 'csv_corpus/hums'}


def test_balanced_draws_take_every_emotion_of_every_corpus_equally_often(beeps):
    hums = ('csv_corpus/hums',)
    dataset = open_data(make_config(beeps, labelled=hums, balanced_draws=True, batch_size=8))
    rows = dataset.folds[0].train
    batches = dataset.train_batches(rows)
    ids = [name for step in range(len(rows)) for name in batches.ids(step)]
    all_ids, emotions = batches.labelled.ids.tolist(), batches.labelled.labels['emotion']
    drawn = [(k >= len(rows), emotions[k]) for k in map(all_ids.index, ids)]
    assert {drawn.count(group) for group in set(drawn)} == {len(ids) // 8}
    assert len(set(drawn)) == 8
    counts = [ids.count(name) for name in all_ids[: len(rows)]]
    of_group = np.bincount(emotions[: len(rows)])[emotions[: len(rows)]]
    expected = len(ids) / 8 / of_group  # the utterances of a group in turn
    assert (np.abs(np.array(counts) - expected) < 1).all()
    np.testing.assert_array_equal(dataset.statistics(rows)['class_weights']['emotion'], 1)


def test_a_corpus_is_left_out(beeps):
    protocol = 'leave_corpus_out()'
    config = make_config(beeps, protocol=protocol, labelled=('csv_corpus/hums',), folds=())
    dataset = open_data(config)
    [fold] = dataset.folds
    assert not len(fold.train)
    assert not len(fold.validation)
    np.testing.assert_array_equal(fold.test, dataset.rows)
    trained = dataset.train_batches(fold.train).labelled.ids
    assert set(trained) == set(
        open_prepared('csv_corpus/hums', data_dir=beeps['data_dir']).index['id']
    )
    with pytest.raises(UserError, match='trains on other corpora only'):
        open_data(make_config(beeps, protocol=protocol, folds=()))


def test_a_share_of_its_labels_joins(beeps):
    config = make_config(beeps, labelled=('csv_corpus/hums',), labelled_share=0.25)
    dataset = open_data(config)
    rows = dataset.folds[0].train
    batches = dataset.train_batches(rows)
    assert len(batches.labelled) == round(0.25 * (len(rows) + 16))
    assert len(batches.labelled) + len(batches.unlabelled) == len(rows) + 16


class Rated(SimpleNamespace):
    """A corpus of four utterances with ratings alone."""

    def __len__(self):
        return 4


def rated(**ratings):
    """The corpus, and a task a dimension."""
    levels = ('low', 'middle', 'high')
    tasks = tuple(Task(name, 'classification', name, 1.0, levels) for name in ratings)
    index = {name: np.array(values) for name, values in ratings.items()}
    return Rated(name='rated', index=index), tasks


def test_a_split_without_a_label_is_refused_before_training():
    corpus, tasks = rated(arousal=[1.0, 3.0, 5.0, 3.0], valence=[1.0, 3.0, np.nan, 5.0])
    rows = lambda *chosen: np.array(chosen, int)
    fold = lambda *splits: [Fold('fold_01', *splits, ())]
    refuse_splits_without_labels(corpus, fold(rows(2), rows(0), rows(1, 2)), tasks)
    refuse_splits_without_labels(corpus, fold(rows(0, 1, 2, 3), rows(), rows()), tasks)
    with pytest.raises(UserError, match=r'fold_01 of rated: no test utterance .* valence'):
        refuse_splits_without_labels(corpus, fold(rows(0), rows(1), rows(2)), tasks)
    with pytest.raises(UserError, match=r'no validation utterance .* valence'):
        refuse_splits_without_labels(corpus, fold(rows(0), rows(2), rows(1)), tasks)


def test_a_class_that_a_fold_does_not_train_is_remarked():
    corpus, tasks = rated(arousal=[1.0, 3.0, 5.0, 1.0], valence=[1.0, 3.0, np.nan, 3.0])
    rows = lambda *chosen: np.array(chosen, int)
    split = lambda *splits: [Fold('fold_02', *splits, ())]
    assert untrained_classes(corpus, split(rows(0, 1, 2), rows(), rows(3)), tasks, []) == []
    (remark,) = untrained_classes(corpus, split(rows(0, 1), rows(3), rows(2)), tasks, [])
    assert remark.startswith('fold_02: no training utterance has the arousal high, which')
    joined = [(corpus, rows(2))]
    assert untrained_classes(corpus, split(rows(0, 1), rows(3), rows(2)), tasks, joined) == []


def test_a_class_of_one_speaker_is_warned_of_before_training(tmp_path):
    folder = tmp_path / 'mine'
    text = ['file,emotion,speaker']
    for number in range(8):
        emotion = 'bored' if number == 7 else ('sad', 'happy')[number % 2]
        text.append(f'{number}.wav,{emotion},s{number // 2}')
    write_csv(folder, '\n'.join(text), [f'{number}.wav' for number in range(8)])
    open_prepared('csv_corpus/mine', data_dir=tmp_path, manual_dir=folder)
    config = get_config('csv_corpus/mine,smoke')
    config.data.data_dir, config.folds = str(tmp_path), ()
    with pytest.warns(UserWarning, match='fold_04: no training utterance has the emotion bored'):
        dataset = open_data(config)
    assert 'bored' in dataset.untrained_classes[-1]


def test_a_task_of_one_class_is_refused():
    corpus, (task,) = rated(arousal=[3.0, 3.5, 3.5, np.nan])
    with pytest.raises(UserError, match='all of one class, for arousal: leave'):
        rows_with_labels(corpus, (task,))
    regression = dataclasses.replace(task, kind='regression')
    np.testing.assert_array_equal(rows_with_labels(corpus, (regression,)), [0, 1, 2])


def test_a_corpus_with_one_class_of_a_task_does_not_join():
    corpus, tasks = rated(arousal=[1.0, 3.0, 5.0, 3.0], valence=[np.nan] * 4)
    np.testing.assert_array_equal(rows_that_join(corpus, tasks, 'mine'), np.arange(4))
    corpus, tasks = rated(arousal=[5.0] * 4, valence=[1.0] * 4)
    with pytest.raises(UserError, match='rated has 1 of the classes low, middle, high'):
        rows_that_join(corpus, tasks, 'mine')


@pytest.mark.parametrize(('types', 'rows'), [((), [0, 1, 2]), (('clock_tick',), [2])])
def test_types_of_noise_that_train(beeps, noises, types, rows):
    corpus, chosen = open_data(make_config(beeps, noise_corpus=noises, noise_types=types)).noise
    kinds = corpus.index['script'][chosen]
    assert sorted(kinds) == sorted(TYPES[row] for row in rows)


def test_a_type_that_trains_is_not_tested(beeps, noises):
    fields = {'noise_corpus': noises, 'test_noise_corpus': noises}
    apart = fields | {
        'noise_types': ('rain', 'clock_tick'),
        'conditions': ("noise('dog_bark', 5)",),
    }
    check_data(make_config(beeps, **apart))
    for changed in ({'noise_types': ()}, {'conditions': ("noise('rain', 5)",)}):
        with pytest.raises(UserError, match='trains; name the types'):
            check_data(make_config(beeps, **apart | changed))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'labelled': ('csv_corpus/noises',)}, 'has none of the classes'),
        ({'labelled': ('csv_corpus/beeps',)}, 'is the labelled corpus already'),
        (
            {'labelled': ('csv_corpus/hums',), 'unlabelled': ('csv_corpus/hums',)},
            'both in config.labelled and in config.unlabelled',
        ),
        (
            {'unlabelled': ('csv_corpus/hums',), 'babble_corpus': 'csv_corpus/hums'},
            'babble_corpus: csv_corpus/hums is in use already',
        ),
        (
            {'noise_corpus': 'csv_corpus/noises', 'noise_types': ('hail',)},
            "type 'hail'; it has clock",
        ),
        ({'noise_types': ('rain',)}, 'noise_types is set, but there is no config.noise_corpus'),
        ({'noise_corpus': 'csv_corpus/noises', 'augmentations': ()}, 'no augmentation noise'),
        ({'few_shot': (5,)}, 'few_shot is set, but there is no config.test_corpora'),
        ({'target_statistics': True}, 'target_statistics is set'),
        ({'test_corpora': ('csv_corpus/hums',), 'report_test': False}, 'need config.report_test'),
    ],
)
def test_what_cannot_be_is_refused(beeps, noises, fields, message):
    config = make_config(beeps, **fields)
    with pytest.raises(UserError, match=message):
        open_data(config)
