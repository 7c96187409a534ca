"""The codes of an autoencoder, to look at: a map of utterances, and log-mels decoded between two emotions."""

import functools
from pathlib import Path

import jax
import numpy as np

from ser_jax.data.folds import Fold
from ser_jax.data.records import GENDERS
from ser_jax.evaluation.embedding import represent
from ser_jax.reporting import figures
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment

_STEPS = 5  # log-mels between two emotions


def draw_codes(experiment: Experiment, fold: Fold, workdir: Path) -> None:
    """Draws `report/codes.png` and `report/path.png` with a fold's kept parameters; nothing for networks without codes.

    The map shows the utterances that train, validate and test; the path leads from the mean code of one emotion's training utterances to that
    of another's.

    Args:
        experiment: of the run.
        fold: whose utterances are drawn.
        workdir: of the finished run.
    """
    if not hasattr(experiment.model, 'encode'):
        return
    variables = jax.device_get(
        inference.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    )
    if jax.process_index():
        return
    index, metadata = experiment.corpus.index, experiment.corpus.metadata
    speech = 'SYNTHETIC' if metadata['synthetic'] else 'real'
    heading = f'{experiment.corpus.name} ({speech} speech), {fold.name}'
    # Of all sides: the tested side is often a single speaker, whose gender and name would colour nothing.
    sides = {side: getattr(fold, side) for side in ('train', 'validation', 'test')}
    rows = np.concatenate(list(sides.values()))
    codes = represent(experiment, variables, rows)
    if len(rows) > 1 and experiment.model.code_features > 1:
        figures.codes_figure(
            codes,
            {
                'emotion': np.array([*metadata['vocabulary'], 'unknown'])[index['emotion'][rows]],
                'speaker': index['speaker'][rows],
                'gender': np.array([*GENDERS, 'unknown'])[index['gender'][rows]],
                'side': np.repeat(list(sides), [len(some) for some in sides.values()]),
            },
            f'Codes: {heading}',
            workdir / 'report' / 'codes.png',
        )
    if not experiment.model.reconstruction or experiment.model.input == 'functionals':
        return
    codes = codes[: len(fold.train)]
    emotions = index['emotion'][fold.train]
    means = {name: codes[emotions == code].mean(0) for code, name in _present(metadata, emotions)}
    if len(means) < 2:
        return
    first, last = farthest(means)
    shares = np.linspace(0, 1, _STEPS)[:, None]
    path = (1 - shares) * means[first] + shares * means[last]
    apply = functools.partial(experiment.model.apply, method='decode')
    decoded = apply({'params': variables['params']}, path, experiment.config.crop_frames)
    constants = variables['constants']
    figures.path_figure(
        np.asarray(decoded) * constants['std'] + constants['mean'],
        (first, last),
        f'Decoded between the mean codes of two emotions: {heading}, training speakers',
        workdir / 'report' / 'path.png',
    )


def _present(metadata: dict, emotions: np.ndarray) -> list[tuple[int, str]]:
    codes = np.unique(emotions[emotions >= 0])
    return [(int(code), metadata['vocabulary'][code]) for code in codes]


def farthest(means: dict[str, np.ndarray]) -> tuple[str, str]:
    """The two emotions whose mean codes are farthest apart."""
    names = sorted(means)
    pairs = [(a, b) for a in names for b in names if a < b]
    return max(pairs, key=lambda pair: float(np.sum((means[pair[0]] - means[pair[1]]) ** 2)))
