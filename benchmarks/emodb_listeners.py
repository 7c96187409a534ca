"""Errors of systems and of human listeners on EMO-DB, compared: python -m benchmarks.emodb_listeners results/mtl_aug

EMO-DB includes a listening test: `erkennung.txt` holds, for each recording, the percentage of listeners who recognised the intended
emotion. It is compared with the fraction of a grid's finished runs that predict it, clean.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy.stats import spearmanr

from ser_jax.data.records import default_manual_dir
from ser_jax.runs import finished
from ser_jax.runtime.errors import UserError


def read_listeners(path: pathlib.Path) -> dict[str, float]:
    """Reads the listening test: name of the recording without `.wav` -> percentage of the listeners who named its emotion.

    `erkennung.txt`, ISO 8859-1: number, file, % of listeners who recognised the emotion, % who found it natural.
    """
    found = {}
    for line in path.read_text(encoding='latin-1').splitlines():
        cells = [cell.strip() for cell in line.split('\t')]
        if len(cells) > 2 and cells[1].endswith('.wav'):
            found[cells[1].removesuffix('.wav')] = float(cells[2].replace(',', '.'))
    return found


def measure(folders: list[pathlib.Path], listeners: dict[str, float]) -> dict:
    """Compares listeners and runs.

    Args:
        folders: run directories of finished runs on the same utterances.
        listeners: result of `read_listeners`.

    Returns:
        For each emotion and all of them: number of recordings; mean % of listeners who recognised the emotion, over all recordings, those
        that every run classifies correctly and those that fewer than half do (None: there is none); Spearman's correlation over the
        recordings between the fractions of listeners and of runs. No p-value: recordings of one speaker are not independent.

    Raises:
        UserError: runs that cannot be paired, or a recording without listeners.
    """
    runs = finished.read_runs(folders, [finished.read_card(one) for one in folders], 'clean')
    ids = sorted(finished.read_condition(folders[0], 'clean')[0].id)
    names = [pathlib.PurePosixPath(one).name for one in ids]
    missing = [name for name in names if name not in listeners]
    if missing:
        raise UserError(f'the listening test has no {missing[0]} ({len(missing)} missing)')
    people = np.array([listeners[name] for name in names])
    right = (runs.probabilities.argmax(2) == runs.label).mean(0)

    def mean(chosen):
        return round(float(people[chosen].mean()), 1) if chosen.any() else None

    def rounded(number, digits):  # None: no correlation of constant values
        return round(float(number), digits) if np.isfinite(number) else None

    result = {'runs': len(folders), 'emotions': {}}
    for number, name in [*enumerate(runs.labels), (None, 'all')]:
        own = np.ones(len(ids), bool) if number is None else runs.label == number
        correlation = spearmanr(people[own], right[own])
        result['emotions'][name] = {
            'recordings': int(own.sum()),
            'listeners': mean(own),
            'listeners_where_every_run_is_right': mean(own & (right == 1)),
            'listeners_where_fewer_than_half_are': mean(own & (right < 0.5)),
            'spearman': rounded(correlation.statistic, 3),
        }
    return result


def main() -> None:
    """Prints the comparison and writes it to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('group', type=pathlib.Path, help='folder of finished runs')
    parser.add_argument(
        '--manual_dir', type=pathlib.Path, help='folder of EMO-DB with erkennung.txt'
    )
    parser.add_argument(
        '--out', type=pathlib.Path, default=pathlib.Path('results/emodb_listeners.json')
    )
    options = parser.parse_args()
    folder = options.manual_dir or default_manual_dir('emodb')
    try:
        if folder is None:
            raise UserError('where is EMO-DB? --manual_dir, or SER_JAX_MANUAL_DIR')
        folders = finished.list_runs(options.group)
        if not folders:
            raise UserError(f'{options.group} holds no finished run')
        result = measure(folders, read_listeners(folder / 'erkennung.txt'))
    except (UserError, OSError) as error:
        parser.exit(1, f'emodb_listeners: {error}\n')
    text = json.dumps(result, indent=1)
    options.out.write_text(f'{text}\n')
    print(text)


if __name__ == '__main__':
    main()
