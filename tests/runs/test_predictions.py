"""Predictions: pooling, and the CSV files."""

import dataclasses

import numpy as np
import pytest

from ser_jax.runs.predictions import Predictions, pool, read_predictions, write_predictions
from ser_jax.runtime.errors import UserError

LABELS = ['angry', 'happy', 'neutral', 'sad']


def predictions(fold=1, n=30, **ratings):
    """Random predictions for the utterances of one fold, all of one speaker."""
    rng = np.random.default_rng(fold)
    ids = [f'wav/{fold}{row:03d}' for row in range(n)]
    probabilities = rng.dirichlet(np.ones(4), n)
    return Predictions(
        ids,
        [f'fold_{fold}'] * n,
        [f's{fold}'] * n,
        rng.integers(4, size=n),
        probabilities,
        **ratings,
    )


def test_pooling_and_its_errors():
    parts = [predictions(1), predictions(2)]
    pooled = pool(parts)
    assert pooled.id.tolist() == [*parts[0].id, *parts[1].id]
    assert not pooled.rated
    with pytest.raises(ValueError, match='wav/1000 was tested 2 times'):
        pool([*parts, parts[0]])
    with pytest.raises(ValueError, match='different lengths'):
        dataclasses.replace(parts[0], label=parts[0].label[1:])


@pytest.mark.parametrize('rated', [False, True])
def test_files_round_trip(tmp_path, rated):
    ratings = np.random.default_rng(0).uniform(1, 5, (2, 30))
    extra = {'rating': ratings[0], 'predicted_rating': ratings[1]} if rated else {}
    whole = predictions(**extra)
    whole.id[0] = 'a, "b"\nä–'
    whole.speaker[1] = ''
    path = tmp_path / 'predictions' / 'clean.csv'
    write_predictions(path, whole, LABELS)
    back, labels = read_predictions(path)
    assert labels == LABELS
    assert back.rated == rated
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(whole, field.name))
    content = path.read_bytes()
    write_predictions(path, back, labels)
    assert path.read_bytes() == content
    columns = ['id', 'fold', 'speaker', 'label', 'prediction']
    columns += [f'probability_{label}' for label in LABELS] + [*extra]
    assert content.decode().splitlines()[0] == ','.join(columns)
    assert [entry.name for entry in path.parent.iterdir()] == ['clean.csv']


def test_unreadable_files_are_refused(tmp_path):
    path = tmp_path / 'x.csv'
    for content in (None, '', 'a,b\n1,2\n', 'id,fold,speaker,label,prediction,probability_a\n'):
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match='cannot read predictions'):
            read_predictions(path)
    write_predictions(path, predictions(), LABELS)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match='it is cut short'):
        read_predictions(path)
