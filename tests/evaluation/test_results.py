"""Facts and costs of a run from those of its folds."""

import pytest

from ser_jax.evaluation import results
from ser_jax.runtime.files import write_json


def test_a_fact_that_a_fold_lacks_is_averaged_over_the_others(tmp_path):
    for fold, n, facts in (
        ('a', 1, {'perturbation_snr_db': 10.0}),
        ('b', 5, {}),  # every ratio was infinite
        ('c', 3, {'perturbation_snr_db': 30.0}),
    ):
        path = tmp_path / 'predictions' / fold / 'fgsm_0.1.json'
        path.parent.mkdir(parents=True)
        write_json(path, {'fingerprint': '', 'n': n, **facts})
    for folds in ('abc', 'bca'):
        found = results._facts(folds, tmp_path, 'fgsm_0.1')
        assert found == {'perturbation_snr_db': pytest.approx(25.0)}


def test_an_unknown_peak_of_memory_is_not_zero():
    cost = {
        'train_seconds': 2.0,
        'compile_seconds': 1.0,
        'utterances_per_second': 3.0,
        'data_wait_fraction': 0.1,
    }
    peaks = lambda *values: [{**cost, 'peak_memory_mb': value} for value in values]
    assert results._total_cost(peaks(None, None))['peak_memory_mb'] is None
    assert results._total_cost(peaks(None, 7.0, 5.0))['peak_memory_mb'] == 7.0
