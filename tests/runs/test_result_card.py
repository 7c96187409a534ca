"""The schema of result cards: what is written, what is refused, and that all stored cards satisfy it."""

import json
from typing import NotRequired, TypedDict

import numpy as np
import pytest
from conftest import ROOT

from ser_jax.runs import finished
from ser_jax.runs.result_card import make_card, read_card
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import mismatch

STORED = ROOT / 'results' / 'calibration' / 'mtl_aug-emodb-seed0'


class Inner(TypedDict):
    """A record."""

    count: int
    rate: NotRequired[float | None]


@pytest.mark.parametrize(
    ('content', 'shape', 'problem'),
    [
        (1, float, ''),
        (1.0, int, 'the whole is 1.0'),
        (True, int, 'the whole is true'),
        (True, bool | None, ''),
        (None, float | None, ''),
        (float('nan'), float, 'the whole is NaN'),
        (10**400, int, f'the whole is 1{"0" * 59}'),
        ([1, 'x'], list[int], '1 is "x"'),
        ([1, 2, 3], tuple[int, int], 'the whole is [1, 2, 3]'),
        ({'a': [1, None]}, dict[str, tuple[int, int]], 'a.1 is null'),
        ({'count': 1, 'more': object}, Inner, ''),
        ({'rate': 1.0}, Inner, 'it lacks count'),
        ({'a': {'count': 1, 'rate': 'x'}}, {'a': Inner}, 'a.rate is "x"'),
        ({'a': {}}, {'a': Inner, 'b?': int}, 'a: it lacks count'),
        ({'a': {'x': []}}, {'a': {str: [int]}, 'b?': int}, ''),
        ([], {'a?': object}, 'the whole is []'),
    ],
)
def test_shapes(content, shape, problem):
    assert mismatch(content, shape) == problem


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'results').glob('*/cards.jsonl')), ids=lambda path: path.parent.name
)
def test_stored_cards_are_valid_and_written_alike(path):
    for line in path.read_text(encoding='utf-8').splitlines():
        run = json.loads(line)
        card = finished.read_card(path.parent / run['run'])
        assert json.dumps(make_card(**card)) == json.dumps(run['card'])


def test_cards_have_plain_values_and_no_absent_fields():
    stored = finished.read_card(STORED)
    card = make_card(**stored | {'n_folds': (1, np.int64(4)), 'validation': None, 'config': {}})
    assert list(card) == [name for name in stored if name != 'validation']
    assert card['n_folds'] == [1, 4]
    assert card['config'] == {}


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'sytem': 'x'}, TypeError, 'not fields of a result card: sytem'),
        ({'system': None}, ValueError, 'it lacks system'),
        ({'seed': '0'}, ValueError, 'seed is "0"'),
        ({'validation': {'uar': np.nan, 'folds': []}}, ValueError, r'validation\.uar is null'),
    ],
)
def test_invalid_cards_are_not_written(changes, error, message):
    with pytest.raises(error, match=message):
        make_card(**finished.read_card(STORED) | changes)


@pytest.mark.parametrize(
    ('result', 'problem'),
    [
        ({'confusion': [[1, 2]]}, 'clean lacks classes'),
        ({'recall': {'a': None}, 'confusion': [[0]]}, 'clean lacks classes'),
        ({'folds': []}, 'clean lacks classes'),
        ({'ccc': 0.5}, 'clean lacks classes'),
        (None, 'it has no results'),
    ],
)
def test_inconsistent_cards_are_refused(tmp_path, result, problem):
    card = finished.read_card(STORED)
    card['conditions'] = {'clean': card['conditions']['clean'] | result} if result else {}
    card.pop('validation', None)
    (tmp_path / 'results.json').write_text(json.dumps(card))
    with pytest.raises(UserError, match=f'results.json is not what ser_jax writes: {problem}'):
        read_card(tmp_path)
    assert read_card(tmp_path / 'missing') is None
