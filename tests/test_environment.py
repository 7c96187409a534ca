"""Where a run took place is said truly."""

import re

from ser_jax.environment import environment, joined


def test_environment_of_this_run():
    place = environment()
    assert re.fullmatch(r'([0-9a-f]{40}(\+changes)?)?', place['commit'])
    assert re.match(r'\d+\.\d+', place['versions']['jax'])
    assert 'cpu' in place['device'].lower()


def test_a_run_in_two_places_names_both():
    here = {'commit': 'a', 'versions': {'jax': '1'}, 'device': 'cpu'}
    there = {'commit': 'b', 'versions': {'jax': '1'}, 'device': 'gpu'}
    assert joined([here, there, here]) == {
        'commit': 'a; b',
        'versions': {'jax': '1'},
        'device': 'cpu; gpu',
    }
