"""Evaluation conditions: parsing of `config.conditions`, their names in results, and sanity checks of attacks.

Importing this module does not import JAX.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ser_jax.runtime.call_strings import check_arguments, number_rule, parse_call
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.text import percent
from ser_jax.transforms.corruptions import CORRUPTIONS, Corruption, parse_corruption

_EPSILON = {'epsilon': number_rule(0, 100)}
_STEPS = {'steps': number_rule(1, 10_000, whole=True)}
_STARTS = {'starts': number_rule(1, 1000, whole=True)}  # default 1
# Attack (`attacks.ATTACKS`) -> rules of its arguments: argument -> (test, the requirement as text).
ATTACK_RULES = {
    'random_sign': _EPSILON,
    'fgsm': _EPSILON,
    'bim': _EPSILON | _STEPS,
    'pgd': _EPSILON | _STEPS | _STARTS,
}
ATTACK_RULES |= {f'{name}_waveform': rules for name, rules in ATTACK_RULES.items()}


class Attack(NamedTuple):
    """A parsed call string.

    Attributes:
        name: key of `ATTACK_RULES`.
        arguments: epsilon first, defaults filled in.
    """

    name: str
    arguments: tuple

    @property
    def condition(self) -> str:
        """Name in results: `fgsm_0.05`, `bim_0.05_10`, `pgd_0.05_20_1`."""
        return '_'.join([self.name, *(f'{number:g}' for number in self.arguments)])


def parse_attack(text: str) -> Attack:
    """Parses a call string, e.g. `fgsm(0.05)`, `bim(0.05, 10)`, `pgd(0.05, 20, 2)`, `pgd_waveform(0.002, 20)`.

    Raises:
        UserError: unknown attack or wrong arguments.
    """
    name, arguments = parse_call(text, 'condition')
    if name not in ATTACK_RULES:
        raise UserError(f'attack {name!r} does not exist; there are {", ".join(ATTACK_RULES)}')
    rules, defaults = ATTACK_RULES[name], ()
    if 'starts' in rules and len(arguments) < len(rules):
        rules, defaults = {field: rules[field] for field in ('epsilon', 'steps')}, (1,)
    check_arguments('attack', text, name, arguments, rules)
    return Attack(name, (*arguments, *defaults))


def parse_conditions(texts: tuple[str, ...]) -> dict[str, Corruption | Attack]:
    """Parses `config.conditions`: name of the condition -> the parsed call.

    The prefix `transfer_` marks attacks made on the models of another run.

    Raises:
        UserError: unknown condition, wrong arguments, or a repeated condition.
    """
    conditions = {}
    for text in texts:
        call = text.strip().removeprefix('transfer_')
        name = re.match(r'\w*', call)[0]
        if name in ATTACK_RULES:
            parsed = parse_attack(call)
            key = ('transfer_' if call != text.strip() else '') + parsed.condition
        elif name in CORRUPTIONS and call == text.strip():
            parsed = parse_corruption(call)
            key = parsed.condition
        else:
            names = ', '.join([*CORRUPTIONS, *ATTACK_RULES])
            raise UserError(
                f'condition {text!r} does not exist; there are {names}, and transfer_ before an attack'
            )
        if key in conditions:
            raise UserError(f'config.conditions has {text!r} twice')
        conditions[key] = parsed
    return conditions


def needs_waveforms(conditions: Mapping[str, Corruption | Attack]) -> bool:
    """Whether conditions need the waveforms of the tested corpus: corruptions and attacks on waveforms do."""
    return any(
        isinstance(condition, Corruption) or '_waveform' in name
        for name, condition in conditions.items()
    )


def attack_checks(
    conditions: Mapping[str, Corruption | Attack], rates: Mapping[str, float]
) -> list[dict[str, str | bool]]:
    """Sanity checks of attacks (after Carlini et al. 2019, arXiv 1902.06705), as far as the results allow.

    The rate falls with epsilon (overall, and to 1 point at every step); the largest epsilon, if at least 0.3, brings it
    below 10 %; PGD is as strong as FGSM (to half a point); random signs harm less than FGSM; twice the steps change less
    than 3 points.

    Args:
        conditions: name -> parsed call. Transferred attacks are not checked: they need not be strong.
        rates: name of a condition, or 'clean' -> accuracy or UAR, a fraction.

    Returns:
        {'check': the expectation with the numbers, 'holds': whether it is met} each.
    """
    attacks = {
        attack: rates[name]
        for name, attack in conditions.items()
        if isinstance(attack, Attack) and not name.startswith('transfer_')
    }
    clean = rates.get('clean')
    checks = [*_checks_over_epsilon(attacks, clean), *_checks_of_pairs(attacks, clean)]
    return [{'check': text, 'holds': bool(holds)} for text, holds in checks]


def _checks_over_epsilon(rates, clean):
    attacks = {attack: rate for attack, rate in rates.items() if 'random_sign' not in attack.name}
    for kind in dict.fromkeys((attack.name, attack.arguments[1:]) for attack in attacks):
        sweep = {a: r for a, r in attacks.items() if (a.name, a.arguments[1:]) == kind}
        if clean is not None:
            sweep[Attack('clean', ())] = clean
        order = sorted(sweep, key=lambda attack: attack.arguments[:1])
        values = np.array([sweep[attack] for attack in order])
        falls = values[1:] <= np.minimum.accumulate(values)[:-1] + 0.01
        if len(order) > 1:
            # No fall at all means no effect, as on a model that always predicts the same class.
            holds = falls.all() and values[-1] < values[0]
            yield f'{kind[0]} falls with epsilon: {_listed(sweep, *order)}', holds
    largest = max((attack.arguments[0] for attack in attacks), default=0)
    if largest >= 0.3:
        strongest = min((a for a in attacks if a.arguments[0] == largest), key=attacks.get)
        text = f'the largest epsilon reaches below 10 %: {_listed(attacks, strongest)}'
        yield text, attacks[strongest] < 0.1


def _checks_of_pairs(rates, clean):
    for attack, rate in rates.items():
        kind, (epsilon, *rest) = attack.name.removesuffix('_waveform'), attack.arguments
        fgsm = Attack(attack.name.replace(kind, 'fgsm'), (epsilon,))
        if fgsm in rates and kind == 'pgd':
            holds = rate <= rates[fgsm] + 0.005
            yield f'PGD is as strong as FGSM: {_listed(rates, attack, fgsm)}', holds
        if fgsm in rates and kind == 'random_sign' and epsilon > 0:
            # An epsilon too small to change anything is no fault of the attack.
            holds = rate > rates[fgsm] or rate == rates[fgsm] == clean
            yield f'random signs harm less than FGSM: {_listed(rates, attack, fgsm)}', holds
        twice = Attack(attack.name, (epsilon, *(2 * steps for steps in rest[:1]), *rest[1:]))
        if rest and twice in rates:
            holds = abs(rates[twice] - rate) < 0.03
            yield f'twice the steps change little: {_listed(rates, attack, twice)}', holds


def _listed(rates, *attacks) -> str:
    return ', '.join(f'{attack.condition} {percent(rates[attack])} %' for attack in attacks)
