"""Evaluation conditions beside `clean`: what is done to the test utterances of a fold before its model hears them.

While a system is developed (`config.report_test = False`), to its validation utterances instead.
"""

import zlib
from typing import NamedTuple

import numpy as np

from ser_jax.audio.log_mel import log_mel_of_signal, mel_matrix
from ser_jax.data.folds import Fold
from ser_jax.evaluation.attacker import Attacker, SourceRun
from ser_jax.evaluation.recordings import Waveforms, open_clips
from ser_jax.runtime.errors import UserError
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment
from ser_jax.transforms.conditions import Attack, parse_conditions
from ser_jax.transforms.corruptions import (
    SAMPLE_RATE,
    Corruption,
    corrupt,
)


class Recordings(NamedTuple):
    """Recordings in memory as a stand-in for `data.Utterances`.

    Attributes:
        arrays: log-mels, float32 [T, F] each, or waveforms, float32 [S].
        lengths: int32 [N].
        representation: which of the two, 'log_mel' or 'waveform'.
    """

    arrays: list[np.ndarray]
    lengths: np.ndarray
    representation: str

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.arrays[position]


class Tester:
    """Predicts utterances under the conditions of a config.

    Everything that the conditions need is opened at once, so that a run fails before it trains.

    Args:
        experiment: of the run.

    Attributes:
        conditions: name -> parsed call.

    Raises:
        UserError: a condition that does not exist or cannot be met.
    """

    def __init__(self, experiment: Experiment):
        self._experiment, config = experiment, experiment.config
        self.conditions = parse_conditions(config.conditions)
        corruptions = [c for c in self.conditions.values() if isinstance(c, Corruption)]
        rate = config.data.front_end.sample_rate
        if self.conditions and rate != SAMPLE_RATE:
            raise UserError(
                f'config.conditions are made for {SAMPLE_RATE} Hz, config.data.front_end has {rate}'
            )
        for name, condition in self.conditions.items():
            if (
                isinstance(condition, Attack)
                and not experiment.front_end
                and '_waveform' not in name
            ):
                raise UserError(
                    f'condition {name}: the network sees waveforms: attack them, {condition.name}_waveform(…)'
                )
        self._waveforms = None
        if corruptions or any('_waveform' in name for name in self.conditions):
            self._waveforms = Waveforms(experiment.corpus, config)
        # All levels of a kind of noise take the same recordings, which are read once.
        kinds = {c.condition: (c.name, *c.arguments[:1]) for c in corruptions}
        opened = {kinds[c.condition]: c for c in corruptions}
        opened = {kind: open_clips(c, config) for kind, c in opened.items()}
        self._clips = {condition: opened[kind] for condition, kind in kinds.items()}
        self._source = None
        self._attackers = {}
        if any(name.startswith('transfer_') for name in self.conditions):
            self._source = SourceRun(experiment)

    def made_with(self, name: str) -> str:
        """What a condition's predictions depend on beside model and utterances: others must be made anew."""
        if name in self._clips:
            return self._clips[name][1]
        return self._source.fingerprint if name.startswith('transfer_') else ''

    def rows(self, fold: Fold) -> np.ndarray:
        """The utterances of a fold that are tested: the validation's where no test speaker may be read."""
        return fold.test if self._experiment.config.report_test else fold.validation

    def predict(self, name: str, variables: dict, fold: Fold) -> tuple[dict[str, np.ndarray], dict]:
        """What the model says of a fold's utterances (`rows`) under a condition.

        Args:
            name: `clean`, or of `conditions`.
            variables: of the fold's model.
            fold: the fold.

        Returns:
            (reported task -> probabilities float32 [N, K] or ratings [N, 1]; what else there is to say, numbers by name).
        """
        experiment, rows = self._experiment, self.rows(fold)
        if name == 'clean':
            return inference.predict(experiment, variables, experiment.utterances(rows)), {}
        condition = self.conditions[name]
        if isinstance(condition, Corruption):
            return inference.predict(experiment, variables, self._corrupted(condition, rows)), {}
        kind = 'waveform' if '_waveform' in name else 'standardised'
        transfer = name.startswith('transfer_')
        if (kind, transfer) not in self._attackers:
            model = self._source.model if transfer else experiment.model
            self._attackers[kind, transfer] = Attacker(experiment, model, kind)
        source = self._source.variables(fold, variables) if transfer else variables
        waveforms = self._waveforms if kind == 'waveform' else None
        return self._attackers[kind, transfer].predict(
            condition, variables, source, rows, waveforms
        )

    def _corrupted(self, corruption: Corruption, rows: np.ndarray) -> Recordings:
        """Corrupted waveforms, or the log-mels of them.

        What is random is a function of the utterance and the kind of corruption, so that systems, seeds and levels
        are compared on the same noise.
        """
        config, index = self._experiment.config, self._experiment.corpus.index
        front_end, clips = self._experiment.front_end, self._clips[corruption.condition][0]
        arrays = []
        for row in rows:
            words = (str(index['id'][row]), corruption.name)
            rng = np.random.default_rng([zlib.crc32(word.encode()) for word in words])
            signal = corrupt(corruption, self._waveforms[row], rng, clips)
            if front_end:
                signal = log_mel_of_signal(signal, front_end, mel_matrix(front_end))
            arrays.append(signal)
        lengths = np.array([len(array) for array in arrays], np.int32)
        return Recordings(arrays, lengths, config.representation)
