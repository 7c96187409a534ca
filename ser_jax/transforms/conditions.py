"""Evaluation conditions: parsing of `config.conditions`, and the conditions behind names of results."""

import re
from collections.abc import Iterable, Mapping

from ser_jax.runtime.errors import UserError
from ser_jax.transforms.attacks import ATTACKS, Attack, attack_checks, parse_attack
from ser_jax.transforms.corruptions import (
    CORRUPTIONS,
    Corruption,
    parse_corruption,
)

_NUMBER = r'-?\d[\d.]*(?:e[+-]?\d+)?'  # as names of results have them


def parse_conditions(texts: tuple[str, ...]) -> dict[str, Corruption | Attack]:
    """Parses `config.conditions`.

    Args:
        texts: call strings of `corruptions.CORRUPTIONS` and `attacks.ATTACKS`; the latter also with
            `transfer_` before them: made on the models of another run.

    Returns:
        Name of the condition -> the parsed call, in their order.

    Raises:
        UserError: one that does not exist, wrong arguments, or the same one twice.
    """
    conditions = {}
    for text in texts:
        call = text.strip().removeprefix('transfer_')
        name = re.match(r'\w*', call)[0]
        if name in ATTACKS:
            parsed = parse_attack(call)
            key = ('transfer_' if call != text.strip() else '') + parsed.condition
        elif name in CORRUPTIONS and call == text.strip():
            parsed = parse_corruption(call)
            key = parsed.condition
        else:
            names = ', '.join([*CORRUPTIONS, *ATTACKS])
            raise UserError(
                f'condition {text!r} does not exist; there are {names}, and transfer_ before an attack'
            )
        if key in conditions:
            raise UserError(f'config.conditions has {text!r} twice')
        conditions[key] = parsed
    return conditions


def named_conditions(names: Iterable[str]) -> dict[str, Corruption | Attack]:
    """The conditions behind names of results, as `parse_conditions` has them; names of anything else are left out."""
    found = {}
    for name in names:
        call = name.removeprefix('transfer_')
        noise = re.fullmatch(rf'noise_(?:babble(\d+)|(\w+))_({_NUMBER})db', call)
        kinds = [
            kind for kind in (*ATTACKS, *CORRUPTIONS) if re.fullmatch(rf'{kind}(_{_NUMBER})*', call)
        ]
        try:
            if noise:
                voices, what, snr = noise.groups()
                kind = 'babble' if voices else 'noise'
                found[name] = Corruption(kind, (int(voices) if voices else what, float(snr)))
            elif kinds:
                words = call.removeprefix(kinds[0]).split('_')[1:]
                made = Attack if words and kinds[0] in ATTACKS else Corruption
                found[name] = made(kinds[0], tuple(map(float, words)))
        except ValueError:  # 1.2.3 is no number: no name that a run gives
            continue
    return found


def checks(conditions: Mapping[str, Corruption | Attack], rates: Mapping[str, float]) -> list[dict]:
    """The sanity checks of the attacks among some conditions (`attacks.attack_checks`).

    Args:
        conditions: of `parse_conditions`.
        rates: name -> UAR, with 'clean'.

    Returns:
        {'check': text, 'holds': bool} each. Transferred attacks are left out: they need not be strong.
    """
    own = {
        f'{attack.name}({", ".join(map(repr, attack.arguments))})': rates[name]
        for name, attack in conditions.items()
        if isinstance(attack, Attack) and not name.startswith('transfer_')
    }
    if not own:
        return []
    found = attack_checks({'clean': rates['clean'], **own})
    return [{'check': text, 'holds': holds} for text, holds in found]
