"""openSMILE's ComParE 2016 functionals in the place of the statistics of a pretrained encoder.

6373 statistics of hand-made descriptors of an utterance (Schuller et al. 2016; Eyben et al. 2010), the field's usual baseline.
The package opensmile is not part of this project, and its licence forbids commercial use.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from ser_jax.runtime.errors import UserError

NAME = 'opensmile'  # in the place of an encoder's name
_SAMPLE_RATE = 16000


@dataclasses.dataclass(frozen=True)
class Functionals:
    """Functionals of waveforms at 16 kHz, in the interface of an encoder's module; runs on the CPU and has no gradient.

    Attributes:
        on_host, outputs, statistics, min_samples: see `transformer.PretrainedModule`.
    """

    on_host: ClassVar[bool] = True
    outputs: ClassVar[int] = 1
    statistics: ClassVar[int] = 6373
    min_samples: ClassVar[int] = 1600

    def extract(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Computes the functionals of N waveforms float32 [S]: N arrays float32 [1, 6373]."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(_functionals, waveforms))

    def apply(self, waveform: jax.Array, samples: jax.Array) -> jax.Array:
        """Computes the functionals of a batch [B, S] with lengths [B] inside a jitted function: [B, 1, 6373]."""

        def extract(waveform, samples):
            rows = zip(np.asarray(waveform), np.asarray(samples))
            return np.stack(self.extract([row[:size] for row, size in rows]))

        shape = jax.ShapeDtypeStruct((waveform.shape[0], 1, self.statistics), np.float32)
        return jax.pure_callback(extract, shape, waveform, samples)


def fingerprint() -> str:
    """SHA-256 of openSMILE's version and configuration; raises UserError without the package."""
    smile = _smile()
    from importlib.metadata import version

    digest = hashlib.sha256(version('opensmile').encode())
    digest.update(Path(smile.config_path).read_bytes())
    return digest.hexdigest()


@cache
def _smile():
    try:
        import opensmile
    except ImportError as error:
        raise UserError(
            "openSMILE is not installed: pip install 'ser_jax[opensmile]' (its licence forbids commercial use)"
        ) from error
    return opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)


def _functionals(waveform: np.ndarray) -> np.ndarray:
    found = _smile().process_signal(waveform, _SAMPLE_RATE).to_numpy(np.float32)
    return np.nan_to_num(found, posinf=0.0, neginf=0.0)
