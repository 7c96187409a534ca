"""Conditions: call strings, names in results, sanity checks of attacks."""

import subprocess
import sys

import pytest

from ser_jax.runtime.errors import UserError
from ser_jax.transforms import attacks
from ser_jax.transforms.conditions import (
    ATTACK_RULES,
    attack_checks,
    parse_attack,
    parse_conditions,
)


def test_parsing_needs_no_jax():
    code = 'import sys, ser_jax.transforms.conditions; sys.exit("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_every_attack_has_rules():
    assert list(ATTACK_RULES) == list(attacks.ATTACKS)


def test_call_strings():
    assert parse_attack('pgd(0.05, 20, 2)') == ('pgd', (0.05, 20, 2))
    assert parse_attack('pgd_waveform(2e-3, 20)') == ('pgd_waveform', (0.002, 20, 1))
    for condition, text in {
        'random_sign_0.05': 'random_sign(0.05)', 'fgsm_0': 'fgsm(0)', 'bim_0.05_10': 'bim(5e-2, 10)',
        'pgd_0.05_20_1': 'pgd(0.05, 20)', 'fgsm_waveform_0.002': 'fgsm_waveform(0.002)',
    }.items():  # fmt: skip
        assert parse_attack(text).condition == condition


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('deepfool(0.1)', "'deepfool' does not exist; there are random_sign, fgsm, bim, pgd"),
        ('fgsm', r'takes 1 argument: fgsm\(epsilon\)'),
        ('bim(0.1)', r'takes 2 arguments: bim\(epsilon, steps\)'),
        ('pgd(0.1)', r'takes 2 arguments: pgd\(epsilon, steps\)'),
        ('fgsm(-0.1)', 'epsilon must be a number from 0 to 100'),
        ('fgsm(1e999)', 'epsilon must be a number'),
        ('fgsm(True)', 'epsilon must be a number'),
        ('bim(0.1, 0)', 'steps must be a whole number from 1 to 10000'),
        ('bim(0.1, 2.5)', 'steps must be a whole number'),
        ('pgd(0.1, 5, 0)', 'starts must be a whole number from 1'),
        ('fgsm(epsilon=0.1)', 'not of the form'),
    ],
)
def test_wrong_call_strings(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_attack(text)
    assert '\n' not in str(error.value)


GOOD = {
    'clean': 0.80, 'random_sign(0.005)': 0.80, 'random_sign(0.3)': 0.55, 'fgsm(0.005)': 0.75,
    'fgsm(0.3)': 0.20, 'pgd(0.005, 20)': 0.745, 'pgd(0.3, 20)': 0.02, 'pgd(0.3, 40)': 0.01,
    'pgd_waveform(0.002, 20)': 0.30,
}  # fmt: skip
FALLS, ZERO, FGSM, RANDOM, TWICE = (
    'falls with epsilon', 'reaches below 10 %', 'as strong as FGSM', 'harm less', 'twice the steps'
)  # fmt: skip


def failed_and_texts(results):
    """(failed checks, all checks) of results by call string."""
    rates = {
        text if text == 'clean' else parse_attack(text).condition: r for text, r in results.items()
    }
    attacks = [text for text in results if text != 'clean']
    checks = attack_checks(parse_conditions(attacks), rates)
    assert all(type(check['holds']) is bool for check in checks)
    texts = [check['check'] for check in checks]
    return [check['check'] for check in checks if not check['holds']], texts


def test_good_attacks_pass_every_check():
    failed, texts = failed_and_texts(GOOD)
    assert not failed
    counts = [sum(w in text for text in texts) for w in (FALLS, ZERO, FGSM, RANDOM, TWICE)]
    assert counts == [4, 1, 3, 2, 1]  # falling: fgsm, pgd of 20 and of 40 steps, pgd_waveform
    assert 'fgsm falls with epsilon: clean 80.0 %, fgsm_0.005 75.0 %, fgsm_0.3 20.0 %' in texts
    assert 'the largest epsilon reaches below 10 %: pgd_0.3_40_1 1.0 %' in texts


@pytest.mark.parametrize(
    ('changes', 'faults'),
    [
        ({'fgsm(0.005)': 0.81, 'random_sign(0.005)': 0.82}, []),  # one point
        ({'fgsm(0.005)': 0.812, 'random_sign(0.005)': 0.82}, [FALLS]),
        ({'fgsm(0.01)': 0.758, 'fgsm(0.1)': 0.766}, [FALLS]),  # slowly up
        ({'pgd(0.005, 20)': 0.755}, []),  # half a point
        ({'pgd(0.005, 20)': 0.757}, [FGSM]),
        ({'pgd(0.3, 20)': 0.11, 'pgd(0.3, 40)': 0.105}, [ZERO]),
        ({'pgd(0.3, 20)': 0.049}, [TWICE]),
        ({'random_sign(0.3)': 0.20}, [RANDOM]),
        ({'fgsm(0.005)': 0.8, 'random_sign(0.005)': 0.8}, []),  # nothing changed: no fault
        ({'fgsm(0.005)': float('nan')}, [FALLS, RANDOM, FGSM]),
    ],
)
def test_every_fault_is_found(changes, faults):
    failed, _ = failed_and_texts({**GOOD, **changes})
    assert [fault in text for text, fault in zip(failed, faults, strict=True)] == [True] * len(
        faults
    )


@pytest.mark.parametrize(
    'results',
    [
        {},
        {'clean': 0.8},
        {'fgsm(0.1)': 0.4, 'random_sign(0.2)': 0.7},
        # The units differ: PGD on the waveform is not compared with FGSM on the log-mel.
        {'pgd_waveform(0.1, 5)': 0.4, 'fgsm(0.1)': 0.1},
    ],
)
def test_checks_need_comparable_results(results):
    assert failed_and_texts(results) == ([], [])


def test_transferred_attacks_and_corruptions_are_not_checked():
    conditions = parse_conditions(('transfer_fgsm(0.3)', 'gain(-20)'))
    assert (
        attack_checks(conditions, {'clean': 0.8, 'transfer_fgsm_0.3': 0.9, 'gain_-20': 0.9}) == []
    )
