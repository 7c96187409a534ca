"""Interleaved timing of several implementations, and the conditions of a measurement."""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping

from ser_jax.runs.environment import environment


def parser(doc: str) -> argparse.ArgumentParser:
    """The parser of a benchmark with this docstring, which has `--out`."""
    result = argparse.ArgumentParser(description=doc.partition('\n')[0])
    result.add_argument('--out', type=pathlib.Path)
    return result


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


def print_steps(seconds: Mapping[str, list[float]], utterances: int) -> dict[str, dict]:
    """Prints and returns a row for each name: seconds a step (medians), utterances per second, ratio to ser_jax."""
    rows = {}
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = statistics.median(v / b for v, b in zip(values, seconds['ser_jax'], strict=True))
        rows[name] = {
            'seconds_per_step': median,
            'utterances_per_second': utterances / median,
            'times_ser_jax': ratio,
        }
        print(
            f'{name:32} {1000 * median:8.1f} ms a step {utterances / median:8.1f} utterances/s   x {ratio:.2f}'
        )
    return rows


def write(out: pathlib.Path | None, **results) -> None:
    """Prints the conditions of a measurement, and writes results and conditions to `out` as JSON if given."""
    where = environment()
    versions = where['versions']
    print(f'{where["device"]}, jax {versions["jax"]}, commit {where["commit"][:10] or "unknown"}')
    if out:
        out.write_text(json.dumps({**results, 'environment': where}, indent=1) + '\n')
