"""Predictions for the utterances of a fold under corruptions and attacks.

While a system is developed (`config.report_test = False`), for its validation utterances instead of the tested ones.
"""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.audio.log_mel import log_mel_of_signal
from ser_jax.data.dataset import Dataset
from ser_jax.data.folds import Fold
from ser_jax.encoding.cache import cached_inputs
from ser_jax.encoding.extraction import WINDOW_SECONDS, input_extractor
from ser_jax.evaluation.attacker import Attacker, SourceRun
from ser_jax.evaluation.recordings import Clips, Waveforms, read_clips
from ser_jax.runtime.errors import UserError
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment
from ser_jax.transforms.conditions import Attack, needs_waveforms
from ser_jax.transforms.corruptions import SAMPLE_RATE, VERSION, Corruption, corrupt


class Corrupted(NamedTuple):
    """Corrupted utterances in memory, as `inference.predict` takes them.

    Attributes:
        arrays: log-mels or outputs of an encoder, float32 [T, F] each, or waveforms, float32 [S].
        lengths: int32 [N].
    """

    arrays: list[np.ndarray]
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.arrays[position]


def open_recordings(
    dataset: Dataset,
    conditions: Mapping[str, Corruption | Attack],
    corpora: Mapping[str, str],
    trained_noise: tuple[str, ...] = (),
) -> tuple[Waveforms | None, dict[str, Clips]]:
    """Opens the recordings that conditions need; touches no device.

    Args:
        dataset: dataset of the run.
        conditions, corpora, trained_noise: see `RobustnessTester`.

    Returns:
        (waveforms of the corpus, or None; name of every corruption -> the recordings that it mixes in).

    Raises:
        UserError: a condition that cannot be met.
    """
    rate = dataset.records.front_end.sample_rate
    if conditions and rate != SAMPLE_RATE:
        raise UserError(
            f'config.conditions are made for {SAMPLE_RATE} Hz, config.data.front_end has {rate}'
        )
    if dataset.corpus.representation != 'log_mel':
        for name, condition in conditions.items():
            if isinstance(condition, Attack) and '_waveform' not in name:
                raise UserError(
                    f'condition {name}: the attack has to be one on the waveform, {condition.name}_waveform(…)'
                )
    longest = dataset.corpus.index['duration'][dataset.rows].max(initial=0)
    attacks = [name for name, condition in conditions.items() if isinstance(condition, Attack)]
    if dataset.corpus.representation == 'encoded' and attacks and longest > WINDOW_SECONDS:
        raise UserError(
            f'condition {attacks[0]}: an utterance of {dataset.corpus.name} lasts {longest:.0f} s; through an encoder at '
            f'most {WINDOW_SECONDS} s can be attacked'
        )
    waveforms = None
    if needs_waveforms(conditions):
        waveforms = Waveforms(dataset.corpus, dataset.records)
    corruptions = [c for c in conditions.values() if isinstance(c, Corruption)]
    # All levels of a kind of noise take the same recordings, which are read once.
    kinds = {c.condition: (c.name, *c.arguments[:1]) for c in corruptions}
    read = {kinds[c.condition]: c for c in corruptions}
    read = {k: read_clips(c, dataset, corpora, trained_noise) for k, c in read.items()}
    return waveforms, {condition: read[kind] for condition, kind in kinds.items()}


class RobustnessTester:
    """Predicts utterances under evaluation conditions.

    Everything that the conditions need is opened at once, so that a run fails before it trains.

    Args:
        experiment: dataset and program.
        conditions: name -> parsed call (`conditions.parse_conditions`).
        corpora: 'test_noise_corpus' and 'babble_corpus' -> name of a prepared corpus, or ''.
        trained_noise: types of noise that train; () = all of the noise corpus.
        attack_source: workdir of the run on whose models transferred attacks are made, or ''.
        test: whether test utterances are predicted; else validation utterances.

    Attributes:
        conditions: the given conditions.

    Raises:
        UserError: a condition that cannot be met.
    """

    def __init__(
        self,
        experiment: Experiment,
        conditions: Mapping[str, Corruption | Attack],
        *,
        corpora: Mapping[str, str],
        trained_noise: tuple[str, ...] = (),
        attack_source: str = '',
        test: bool = True,
    ):
        self._experiment, self.conditions, self._test = experiment, conditions, test
        recordings = open_recordings(experiment.dataset, conditions, corpora, trained_noise)
        self._waveforms, self._clips = recordings
        self._source = None
        self._attackers = {}
        program = experiment.program
        attacked = [name for name in conditions if name not in self._clips]
        if attacked and program.encoder and program.encoder.encoder.module.on_host:
            raise UserError(
                f'condition {attacked[0]}: {program.encoder.encoder.name} has no gradient; it cannot be attacked'
            )
        if self._clips and program.representation == 'encoded':
            self._encode = input_extractor(program.encoder)
        if any(name.startswith('transfer_') for name in conditions):
            self._source = SourceRun(experiment, attack_source)

    def fingerprint(self, name: str) -> str:
        """Identifies what predictions depend on apart from model and utterances: where it differs, they are computed again."""
        if name in self._clips:
            return self._clips[name].corpus_hash
        return self._source.fingerprint if name.startswith('transfer_') else ''

    def rows(self, fold: Fold) -> np.ndarray:
        """The utterances of a fold that are predicted."""
        return fold.test if self._test else fold.validation

    def predict(self, name: str, variables: dict, fold: Fold) -> tuple[dict[str, np.ndarray], dict]:
        """Predicts the utterances of a fold (`rows`) under `clean` or one of `conditions`.

        Returns:
            (reported task -> probabilities float32 [N, K] or ratings [N, 1]; further facts, name -> number).
        """
        experiment, rows = self._experiment, self.rows(fold)
        if name == 'clean':
            utterances = experiment.dataset.utterances(rows)
            return inference.predict(experiment, variables, utterances), {}
        condition = self.conditions[name]
        if isinstance(condition, Corruption):
            return inference.predict(experiment, variables, self._corrupted(condition, rows)), {}
        variables = experiment.with_encoder(variables)
        kind = 'waveform' if '_waveform' in name else 'standardised'
        transfer = name.startswith('transfer_')
        if (kind, transfer) not in self._attackers:
            source = self._source if transfer else experiment.program
            self._attackers[kind, transfer] = Attacker(
                experiment, source.model, source.front_end, kind
            )
        source = self._source.variables(fold, variables) if transfer else variables
        waveforms = self._waveforms if kind == 'waveform' else None
        return self._attackers[kind, transfer].predict(
            condition, variables, source, rows, waveforms
        )

    def _corrupted(self, corruption: Corruption, rows: np.ndarray) -> Corrupted:
        """Corrupted waveforms, or what the network sees of them.

        Randomness is a function of the utterance and the kind of corruption, so that systems, seeds and levels
        are compared on the same noise.
        """
        program, ids = self._experiment.program, self._experiment.dataset.corpus.index['id']
        clips = self._clips[corruption.condition]

        def signals():
            for row in rows:
                names = (str(ids[row]), corruption.name)
                rng = np.random.default_rng([zlib.crc32(name.encode()) for name in names])
                yield corrupt(corruption, self._waveforms[row], rng, clips.waveforms)

        if program.representation == 'encoded':
            path = self._cache_file(corruption, ids[rows], clips)
            arrays = cached_inputs(path, signals, self._encode)
        elif program.representation == 'log_mel':
            arrays = [log_mel_of_signal(signal, program.front_end) for signal in signals()]
        else:
            arrays = list(signals())
        return Corrupted(arrays, np.array([len(array) for array in arrays], np.int32))

    def _cache_file(self, corruption: Corruption, ids: np.ndarray, clips: Clips) -> Path:
        """The file of the encoded inputs of some utterances under a corruption."""
        dataset = self._experiment.dataset
        folder = dataset.records.encoding.folder(
            dataset.corpus.name, dataset.records.data_dir, 'conditions'
        )
        depends = [
            dataset.corpus.metadata['corpus_hash'],
            corruption,
            dataset.records.encoding.layers,
        ]
        depends += [VERSION, clips.corpus_hash, sorted(clips.waveforms or ()), ids.tolist()]
        digest = hashlib.sha256(repr(depends).encode()).hexdigest()
        return folder / f'{corruption.condition}_{digest[:16]}.npz'
