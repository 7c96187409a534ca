"""A corpus of noise, of any length, for measurements."""

import numpy as np

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.utterance import Utterance

NAME = 'made_up'
_SECONDS = 8


def make_noise(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """Samples of one synthetic utterance, int16 [S]."""
    rng = np.random.default_rng(int(utterance.id))
    return rng.integers(-3000, 3000, _SECONDS * sample_rate, np.int16)


class MadeUp(CorpusBuilder):
    """Noise without labels."""

    name = NAME
    SYNTHETIC = True
    PROTOCOL = None
    LOAD = staticmethod(make_noise)


def make_listing(hours: float) -> Listing:
    """Utterances of the given total length."""
    count = round(3600 * hours / _SECONDS)
    return Listing([Utterance(id=f'{i:06d}', speaker=f'made_up/{i // 50}') for i in range(count)])
