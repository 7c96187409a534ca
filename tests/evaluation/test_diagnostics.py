"""Diagnostics of a fold: inputs of the heads, map of utterances, attention weights, codes."""

import csv
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from configs import adversarial_autoencoder, end_to_end, mtl_aug
from ser_jax.evaluation import diagnostics
from ser_jax.evaluation.diagnostics import farthest, main_axes, represent
from ser_jax.models.adversarial_autoencoder import Head
from ser_jax.train import build_experiment
from ser_jax.training import inference, steps


def _network(module, options, beeps):
    """(experiment, variables before training, rows of its first fold)."""
    config = module.get_config(f'csv_corpus/beeps,{options}smoke')
    config.data.data_dir = beeps['data_dir']
    config.data.manual_dir = f'{beeps["manual_dir"]}/beeps'
    experiment = build_experiment(config)
    fold = experiment.dataset.folds[0]
    state = jax.device_get(experiment.program.init_state(experiment.dataset.statistics(fold.train)))
    rows = np.concatenate([fold.train, fold.validation, fold.test])
    return experiment, steps.inference_variables(state), rows


def _predict(experiment, variables, rows):
    return inference.predict(experiment, variables, experiment.dataset.utterances(rows))


def _dense(parameters, x):
    return x @ np.asarray(parameters['kernel']) + np.asarray(parameters['bias'])


def test_map_of_mtl_aug_shows_the_input_of_its_head(beeps, tmp_path):
    experiment, variables, rows = _network(mtl_aug, '', beeps)
    vectors = represent(experiment, variables, rows)
    expected = _predict(experiment, variables, rows)['emotion']
    assert np.ptp(expected, axis=0).max() > 1e-3, 'all predictions are equal'
    predicted = jax.nn.softmax(_dense(variables['params']['emotion_head'], vectors))
    np.testing.assert_allclose(predicted, expected, atol=1e-5)

    fold, index = experiment.dataset.folds[0], experiment.dataset.corpus.index
    path = tmp_path / 'report' / 'embedding.csv'
    diagnostics.write_embedding(diagnostics.embedding(experiment, fold, variables), path)
    table = list(csv.DictReader(path.read_text().splitlines()))
    assert tuple(table[0]) == ('id', 'side', 'emotion', 'speaker', 'gender', 'x', 'y')
    assert len({line['id'] for line in table}) == len(table) == len(rows)
    for side in ('train', 'validation', 'test'):
        own = [line['id'] for line in table if line['side'] == side]
        assert own == index['id'][getattr(fold, side)].tolist()
    for line in table:
        assert line['emotion'] in line['id']
        assert line['speaker'].rpartition('/')[2] in line['id']
        assert line['gender'] in ('female', 'male')
    points = np.array([[float(line['x']), float(line['y'])] for line in table])
    np.testing.assert_allclose(points, main_axes(vectors)[0], rtol=1e-3, atol=1e-4)
    assert diagnostics.attention(experiment, fold, variables) is None
    assert diagnostics.codes(experiment, fold, variables) is None


def test_codes_are_the_input_of_the_heads_of_the_autoencoder(beeps):
    experiment, variables, rows = _network(adversarial_autoencoder, 'functionals,', beeps)
    codes = represent(experiment, variables, rows)
    assert codes.shape[1] == experiment.program.model.code_features
    head = Head(experiment.program.model.embedding_features, 4)
    predicted = jax.nn.softmax(head.apply({'params': variables['params']['emotion_head']}, codes))
    expected = _predict(experiment, variables, rows)['emotion']
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    found = diagnostics.codes(experiment, experiment.dataset.folds[0], variables)
    np.testing.assert_array_equal(found.points, main_axes(codes)[0])
    assert {len(names) for names in found.labels.values()} == {len(rows)}
    assert found.path is None, 'functionals are no log-mels'


def test_decoded_path(beeps, tmp_path):
    experiment, variables, _ = _network(adversarial_autoencoder, '', beeps)
    path = diagnostics.codes(experiment, experiment.dataset.folds[0], variables).path
    frames, bands = experiment.program.crop_frames, experiment.program.front_end.n_mels
    assert path.log_mels.shape == (5, frames, bands)
    assert set(path.emotions) <= set(experiment.dataset.labels)
    assert np.isfinite(path.log_mels).all()


def test_path_leads_between_the_farthest_emotions():
    corners = {'sad': (0, 0), 'happy': (1, 0), 'angry': (0, 2)}
    assert farthest({name: np.array(at) for name, at in corners.items()}) == ('angry', 'happy')


def test_every_head_of_end_to_end_has_its_own_input(beeps):
    experiment, variables, rows = _network(end_to_end, 'arousal,valence,', beeps)
    parts = np.split(represent(experiment, variables, rows), 2, axis=1)
    expected = _predict(experiment, variables, rows)
    for task, part in zip(('arousal', 'valence'), parts):
        predicted = jax.nn.softmax(_dense(variables['params'][f'{task}_head'], part))
        np.testing.assert_allclose(predicted, expected[task], atol=1e-5)
    found = diagnostics.attention(experiment, experiment.dataset.folds[0], variables)
    assert list(found.weights) == ['arousal', 'valence']
    for weights in found.weights.values():
        assert weights.shape[0] == len(found.signals) == len(found.titles) > 0
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


def test_attention_examples_are_one_utterance_of_median_length_per_class():
    labels = np.array([1, 1, 0, 1, -1, 2])
    dataset = SimpleNamespace(
        reported=[None],
        labels_of=lambda task, rows: labels[rows],
        corpus=SimpleNamespace(index={'duration': np.array([3.0, 1.0, 9.0, 2.0, 5.0, 4.0])}),
    )
    experiment = SimpleNamespace(dataset=dataset)
    fold = SimpleNamespace(test=np.arange(6))
    assert diagnostics.example_rows(experiment, fold).tolist() == [2, 3, 5]


@pytest.mark.parametrize('shape', [(30, 6), (5, 40), (2, 3)])
def test_main_axes_equal_scikit_learn(shape):
    vectors = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    pca = PCA(2, svd_solver='full')
    expected = pca.fit_transform(vectors)
    points, shares = main_axes(vectors)
    np.testing.assert_allclose(points, expected, atol=1e-9)
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_)
    np.testing.assert_allclose(main_axes(vectors.astype(np.float32))[0], expected, atol=1e-4)


def test_one_axis():
    points, shares = main_axes(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(points, [[-2, 0], [-1, 0], [3, 0]])
    np.testing.assert_allclose(shares, [1, 0])


@pytest.mark.parametrize('shape', [(1, 4), (5, 1), (5, 4)])
def test_without_an_axis(shape):
    points, shares = main_axes(np.ones(shape))
    assert points.shape == (shape[0], 2)
    assert not points.any()
    assert not shares.any()
