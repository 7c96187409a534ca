"""The map of utterances: that it shows what the heads see, of every utterance once."""

import csv

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from configs import adversarial_autoencoder, end_to_end, mtl_aug
from ser_jax.evaluation.embedding import COLUMNS, main_axes, represent, write_embedding
from ser_jax.models.adversarial_autoencoder import Head
from ser_jax.train import build_experiment
from ser_jax.training import inference, steps


def _network(module, options, beeps):
    """(experiment, parameters before training, rows of its first fold)."""
    config = module.get_config(f'csv_corpus/beeps,{options}smoke')
    config.data.data_dir = beeps['data_dir']
    config.data.manual_dir = f'{beeps["manual_dir"]}/beeps'
    experiment = build_experiment(config)
    fold = experiment.dataset.folds[0]
    state = jax.device_get(experiment.program.init_state(experiment.dataset.statistics(fold.train)))
    rows = np.concatenate([fold.train, fold.validation, fold.test])
    return experiment, steps.inference_variables(state), rows


def _said(experiment, variables, rows):
    return inference.predict(experiment, variables, experiment.dataset.utterances(rows))


def _dense(parameters, x):
    return x @ np.asarray(parameters['kernel']) + np.asarray(parameters['bias'])


def test_the_map_is_of_what_the_head_of_mtl_aug_sees(beeps, tmp_path, monkeypatch):
    experiment, variables, rows = _network(mtl_aug, '', beeps)
    vectors = represent(experiment, variables, rows)
    expected = _said(experiment, variables, rows)['emotion']
    assert np.ptp(expected, axis=0).max() > 1e-3, 'they all say the same'
    said = jax.nn.softmax(_dense(variables['params']['emotion_head'], vectors))
    np.testing.assert_allclose(said, expected, atol=1e-5)

    fold, index = experiment.dataset.folds[0], experiment.dataset.corpus.index
    monkeypatch.setattr(inference, 'restore_best', lambda *_: variables)
    write_embedding(experiment, fold, tmp_path)
    text = (tmp_path / 'report' / 'embedding.csv').read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert tuple(table[0]) == COLUMNS
    assert len({line['id'] for line in table}) == len(table) == len(rows)
    for side in ('train', 'validation', 'test'):
        own = [line['id'] for line in table if line['side'] == side]
        assert own == index['id'][getattr(fold, side)].tolist()
    for line in table:
        assert line['emotion'] in line['id']
        assert line['speaker'].rpartition('/')[2] in line['id']
        assert line['gender'] in ('female', 'male')
    points = np.array([[float(line['x']), float(line['y'])] for line in table])
    np.testing.assert_allclose(points, main_axes(vectors), rtol=1e-3, atol=1e-4)


def test_the_heads_of_the_autoencoder_see_the_code(beeps):
    experiment, variables, rows = _network(adversarial_autoencoder, 'functionals,', beeps)
    codes = represent(experiment, variables, rows)
    assert codes.shape[1] == experiment.program.model.code_features
    head = Head(experiment.program.model.embedding_features, 4)
    said = jax.nn.softmax(head.apply({'params': variables['params']['emotion_head']}, codes))
    expected = _said(experiment, variables, rows)['emotion']
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_every_head_of_end_to_end_sees_its_own(beeps):
    experiment, variables, rows = _network(end_to_end, 'arousal,valence,', beeps)
    parts = np.split(represent(experiment, variables, rows), 2, axis=1)
    expected = _said(experiment, variables, rows)
    for task, part in zip(('arousal', 'valence'), parts):
        said = jax.nn.softmax(_dense(variables['params'][f'{task}_head'], part))
        np.testing.assert_allclose(said, expected[task], atol=1e-5)


@pytest.mark.parametrize('shape', [(30, 6), (5, 40), (2, 3)])
def test_main_axes_equal_scikit_learn(shape):
    vectors = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    expected = PCA(2, svd_solver='full').fit_transform(vectors)
    np.testing.assert_allclose(main_axes(vectors), expected, atol=1e-9)
    np.testing.assert_allclose(main_axes(vectors.astype(np.float32)), expected, atol=1e-4)


def test_one_axis():
    found = main_axes(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(found, [[-2, 0], [-1, 0], [3, 0]])


@pytest.mark.parametrize('shape', [(1, 4), (5, 1), (5, 4)])
def test_where_there_is_no_axis(shape):
    found = main_axes(np.ones(shape))
    np.testing.assert_array_equal(found, np.zeros((shape[0], 2)))
