"""Timing several ways of doing the same thing side by side, and what a number is worth without: its conditions."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping

from ser_jax.runs.environment import environment


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in alternating rounds, so that what else the machine does falls on all.

    Args:
        ways: name -> what to time, compiled and warm.
        rounds: how often.

    Returns:
        name -> one value a round.
    """
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def write(out: pathlib.Path | None, **results) -> None:
    """Prints where it was measured, and writes results and conditions as JSON where `out` is given."""
    where = environment()
    versions = where['versions']
    print(f'{where["device"]}, jax {versions["jax"]}, commit {where["commit"][:10] or "unknown"}')
    if out:
        out.write_text(json.dumps({**results, 'environment': where}, indent=1) + '\n')
