"""Augmented views of utterances: waveforms after some augmentations, with parameters drawn by utterance and view.

A view is computed once for each corpus and encoder, and is an augmentation type of its own. What an utterance becomes depends
on its id, its samples and the call strings of the view only.
"""

import functools
import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ser_jax.data.batches import as_float
from ser_jax.transforms.augment import FRAME_OPERATIONS, Operation
from ser_jax.transforms.waveform_augmentations import apply_calls, longest_samples

_VERSION = 1  # to be raised where equal call strings come to compute other waveforms: older caches are not read
_BATCH_SAMPLES = 1 << 21  # of a batch of padded waveforms
_SHORTEST = 1 << 15  # samples that shorter utterances are padded to


class View(NamedTuple):
    """Augmentations of a waveform, applied one after the other.

    Attributes:
        calls: ((name, arguments), …) of `waveform_augmentations`; () = the clean utterance.
    """

    calls: tuple[tuple[str, tuple], ...] = ()

    @property
    def text(self) -> str:
        """The call strings, in one spelling."""
        calls = (f'{name}({", ".join(f"{x:g}" for x in values)})' for name, values in self.calls)
        return ' + '.join(calls) or 'clean'

    @property
    def name(self) -> str:
        """Name of its folder: readable, and different for different views."""
        if not self.calls:
            return 'clean'
        digest = hashlib.sha256(f'{_VERSION} {self.text}'.encode()).hexdigest()[:8]
        return re.sub('[^a-z]+', '_', self.text).strip('_') + f'_{digest}'


class Signals(NamedTuple):
    """A view of some utterances.

    Attributes:
        waveforms: N arrays float32 [S].
        clean: N arrays float32 [S], the same without noise, room and filters.
    """

    waveforms: list[np.ndarray]
    clean: list[np.ndarray]


def views_of(operations: Sequence[Operation]) -> tuple[tuple[View, ...], tuple[int, ...]]:
    """The views that augmentation types need: (the clean one first; number of the view of clean and of each type)."""
    of_types = [View()] + [
        View(tuple(call for call in operation.calls if call[0] not in FRAME_OPERATIONS))
        for operation in operations
    ]
    views = tuple(dict.fromkeys(of_types))
    return views, tuple(map(views.index, of_types))


def augment_waveforms(view: View, waveforms: Sequence[np.ndarray], ids: Sequence[str]) -> Signals:
    """Computes a view of N waveforms [S] at 16 kHz, with parameters drawn from the ids of the utterances."""
    if not view.calls:
        floats = [as_float(waveform) for waveform in waveforms]
        return Signals(floats, floats)
    # The length of an utterance alone determines its padding, which the noise depends on.
    padded = np.array([_padded(longest_samples(view.calls, len(x))) for x in waveforms])
    found = [None] * len(waveforms)
    for size in np.unique(padded):
        rows = max(_BATCH_SAMPLES // int(size), 1)
        members = np.flatnonzero(padded == size)
        for start in range(0, len(members), rows):
            chosen = members[start : start + rows]
            x = np.zeros((rows, size), np.float32)
            samples, seeds = np.ones(rows, np.int32), np.zeros(rows, np.uint32)
            for row, k in enumerate(chosen):
                samples[row], seeds[row] = len(waveforms[k]), zlib.crc32(str(ids[k]).encode())
                x[row, : samples[row]] = as_float(waveforms[k])
            signal = _program(view)(seeds, x, samples)
            waveform, clean, lengths = jax.device_get(signal)
            for row, k in enumerate(chosen):
                found[k] = waveform[row, : lengths[row]].copy(), clean[row, : lengths[row]].copy()
    return Signals(*map(list, zip(*found)))


def _padded(samples: int) -> int:
    return max(1 << (samples - 1).bit_length(), _SHORTEST)


@functools.lru_cache(maxsize=64)
def _program(view: View):
    key = zlib.crc32(view.text.encode())

    @jax.jit
    def compute(seeds, x, samples):
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(key), seed))(seeds)
        return apply_calls(view.calls, keys, x, samples)

    return compute
