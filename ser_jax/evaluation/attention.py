"""Where a network with attention listens: its weights over time under the waveforms of some test utterances."""

from pathlib import Path

import jax
import numpy as np

from ser_jax.data import batches
from ser_jax.data.folds import Fold
from ser_jax.models import forward
from ser_jax.reporting import figures
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment

_COUNT = 3  # utterances drawn


def draw_attention(experiment: Experiment, fold: Fold, workdir: Path) -> None:
    """Draws `report/attention.png` with a fold's kept parameters; nothing where the network has no attention.

    Args:
        experiment: of a network that sees waveforms.
        fold: whose test utterances are drawn.
        workdir: of the finished run.
    """
    if not getattr(experiment.model, 'attention', False) or experiment.front_end:
        return
    variables = jax.device_get(
        inference.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    )
    if jax.process_index():
        return
    rows = chosen_rows(experiment, fold)
    utterances = experiment.utterances(rows)
    signals = [utterances[position] for position in range(len(rows))]
    samples = max(map(len, signals))
    x = np.stack([batches.pad(signal, samples) for signal in signals])
    apply = lambda *given: forward.outputs_of(experiment.model, *given, 'waveform', None)
    outputs = jax.jit(apply)(variables, {'length': utterances.lengths}, x)
    model, rate = experiment.model, experiment.config.data.front_end.sample_rate
    titles = []
    for row in rows:
        words = [str(experiment.corpus.index['id'][row])]
        for task in experiment.reported:
            label = experiment.labels_of(task, np.array([row]))[0]
            if label >= 0:
                words.append(f'{task.name} {task.classes[label]}')
        titles.append('\n'.join(words))
    name, synthetic = experiment.corpus.name, experiment.corpus.metadata['synthetic']
    figures.attention_figure(
        signals,
        {task.name: np.asarray(outputs['attention'][task.name]) for task in experiment.reported},
        sample_rate=rate,
        frame=model.frame_samples,
        hop=model.hop_samples,
        titles=titles,
        heading=f'{name} ({"SYNTHETIC" if synthetic else "real"} speech), {fold.name}, test speakers',
        path=workdir / 'report' / 'attention.png',
    )


def chosen_rows(experiment: Experiment, fold: Fold) -> np.ndarray:
    """One test utterance of each class of the first reported task, the one of the middle length; at most three."""
    task = experiment.reported[0]
    labels = experiment.labels_of(task, fold.test)
    durations = experiment.corpus.index['duration'][fold.test]
    chosen = []
    for label in np.unique(labels[labels >= 0])[:_COUNT]:
        same = np.flatnonzero(labels == label)
        order = same[np.argsort(durations[same], kind='stable')]
        chosen.append(fold.test[order[len(order) // 2]])
    return np.array(chosen)
