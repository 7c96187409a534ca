"""Interleaved timing of several implementations, and the conditions of a measurement."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping

from ser_jax.runs.environment import environment


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times compiled, warmed-up functions in alternating rounds, so that other load on the machine affects all of them.

    Returns name -> seconds, one value per round.
    """
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def write(out: pathlib.Path | None, **results) -> None:
    """Prints the conditions of a measurement, and writes results and conditions to `out` as JSON if given."""
    where = environment()
    versions = where['versions']
    print(f'{where["device"]}, jax {versions["jax"]}, commit {where["commit"][:10] or "unknown"}')
    if out:
        out.write_text(json.dumps({**results, 'environment': where}, indent=1) + '\n')
