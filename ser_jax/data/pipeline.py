"""Host-side input: batches as a pure function of (seed, step), prepared ahead by background threads."""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

BUCKET_STEP = 8  # bucket lengths are multiples of this many frames


def shuffled(size: int, seed: int) -> Sequence[int]:
    """An endless order of `size` items: each epoch is a new permutation, each item a function of (seed, position)."""
    return grain.MapDataset.range(size).seed(seed).shuffle().repeat()


def crop_or_pad(array: np.ndarray, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A random crop of `frames` frames, or the whole array and zeros behind it.

    Args:
        array: [T, ...].
        frames: length wanted.
        rng: draws the crop's start, uniformly.

    Returns:
        ([frames, ...], the number of real frames).
    """
    if len(array) > frames:
        start = rng.integers(len(array) - frames + 1)
        return array[start : start + frames], frames
    return pad(array, frames), len(array)


def pad(array: np.ndarray, frames: int) -> np.ndarray:
    """Appends zeros: [T, ...] -> [frames, ...], T <= frames."""
    return np.pad(array, [(0, frames - len(array))] + [(0, 0)] * (array.ndim - 1))


def bucket_length(frames: int) -> int:
    """The padded length of a whole utterance: about a factor 2^(1/4) apart, so that few shapes are compiled."""
    steps = max(0, int(np.ceil(4 * np.log2(max(frames, 1) / 100))))
    return int(np.ceil(100 * 2 ** (steps / 4) / BUCKET_STEP)) * BUCKET_STEP


def buckets(lengths: np.ndarray, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Groups utterances of like length into batches: neighbours in the order of their lengths, the longest first.

    Args:
        lengths: [N] frames.
        batch_size: utterances a batch.

    Yields:
        (padded length, positions [batch_size] into `lengths`); the last batch is filled up by repeating
        its last position, the shortest.
    """
    order = np.argsort(-lengths, kind='stable')
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        padded = bucket_length(int(lengths[chosen[0]]))
        yield padded, np.pad(chosen, (0, batch_size - len(chosen)), mode='edge')


def prefetch(batches, start: int, stop: int) -> Iterator:
    """Iterates over `batches[start]` … `batches[stop - 1]`, loaded ahead by a thread.

    Args:
        batches: random access by step, a pure function of the step.
        start: first step.
        stop: one past the last step.

    Returns:
        An iterator over the batches in order.
    """
    dataset = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
