"""Frames of a frozen encoder for recordings of any length, or their statistics over time.

Recordings longer than 30 s are encoded in consecutive windows. A rest of less than 1 s is not encoded alone: the last window
begins earlier, and its frames that the window before it has already are left out. Each window is normalised by itself.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.audio.reading import check_floats
from ser_jax.data.batches import as_float
from ser_jax.models.encoders.pretrained import SAMPLE_RATE, Encoder, EncoderInput
from ser_jax.models.layers import mean_and_squares
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError

WINDOW_SECONDS = 30
SHORTEST_WINDOW_SECONDS = 1
# Seconds of audio in a batch of a device. On CPUs more is slower, probably as activations leave the cache.
_BATCH_SECONDS, _BATCH_SECONDS_ON_CPU = 60, 20
_HIGHEST_PEAK = 128.0  # of floats: what noise and attacks add may exceed full scale


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a recording that is encoded at once.

    Attributes:
        start, stop: samples.
        skip: frames at its beginning that the window before it has already.
    """

    start: int
    stop: int
    skip: int


def windows(samples: int, module: nn.Module) -> list[Window]:
    """Cuts a recording into windows whose frames, one window after the other, number `module.frames(samples)`."""
    stride, overlap = module.stride, module.overlap
    size = WINDOW_SECONDS * SAMPLE_RATE // stride  # frames
    least = SHORTEST_WINDOW_SECONDS * SAMPLE_RATE // stride
    frames = module.frames(samples)
    cut = []
    for first in range(0, frames, size):
        begin = first
        if first and frames - first < least:
            begin = frames - size
        stop = min((begin + size) * stride + overlap, samples)
        cut.append(Window(begin * stride, stop, first - begin))
    return cut


class Extractor:
    """Encodes recordings in batches of like length, spread over all devices.

    Args:
        encoder: a loaded encoder.
        layers: numbers of the layers to return; None for all (`encoder.module.outputs`).
        output: 'frames'; 'average', the mean of the layers' frames; or 'statistics', mean and standard deviation over time.

    Raises:
        UserError: no such layer.
    """

    def __init__(
        self, encoder: Encoder, *, layers: Sequence[int] | None = None, output: str = 'frames'
    ):
        module = encoder.module
        self.layers = tuple(range(module.outputs) if layers is None else layers)
        for layer in self.layers:
            if not 0 <= layer < module.outputs:
                raise UserError(
                    f'{encoder.name} has layers 0 to {module.outputs - 1}, not layer {layer}'
                )
        self._module, self._output = module, output
        if module.on_host:
            if output != 'statistics':
                raise UserError(f'{encoder.name} has statistics only, no frames')
            return
        self._placement = devices.DataParallel(devices.make_mesh())
        self._params = devices.replicate(encoder.params, self._placement.mesh)
        self._step = self._placement.compile(_make_step(module, self.layers, output))

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encodes recordings.

        Args:
            waveforms: N arrays [S] at 16 kHz, int16 or float32 in [-1, 1).

        Returns:
            N arrays float32: frames [layers, T, D], T = `module.frames(S)`, their average [T, D], or statistics [layers, 2 D].

        Raises:
            UserError: a recording shorter than the encoder takes (25 ms), of another type or scale, or not finite.
        """
        least = self._module.min_samples
        for waveform in waveforms:
            if len(waveform) < least:
                raise UserError(
                    f'a recording of {len(waveform)} samples is too short for the encoder: it takes {least} or more'
                )
            if waveform.dtype.kind == 'f':
                check_floats(waveform, _HIGHEST_PEAK)
            elif waveform.dtype != np.int16:
                raise UserError(
                    f'a waveform holds int16 or floats in [-1, 1], not {waveform.dtype}'
                )
        if self._module.on_host:
            return self._module.extract([as_float(waveform) for waveform in waveforms])
        cut = [windows(len(waveform), self._module) for waveform in waveforms]
        jobs = [(number, window) for number, parts in enumerate(cut) for window in parts]
        results = dict(self._encode(waveforms, jobs))
        join = _joined_statistics if self._output == 'statistics' else _joined_frames
        return [
            join([results[number, window] for window in parts]) for number, parts in enumerate(cut)
        ]

    def _encode(self, waveforms, jobs) -> Iterator[tuple[tuple[int, Window], object]]:
        """Encodes windows, the longest first; yields ((recording, window), result)."""
        jobs = sorted(jobs, key=lambda job: job[1].start - job[1].stop)
        mesh = self._placement.mesh
        longest_window = WINDOW_SECONDS * SAMPLE_RATE + self._module.overlap
        seconds = _BATCH_SECONDS_ON_CPU if devices.on_cpu() else _BATCH_SECONDS
        while jobs:
            length = min(_padded_length(jobs[0][1].stop - jobs[0][1].start), longest_window)
            rows = max(seconds * SAMPLE_RATE // length, 1) * mesh.size
            batch, jobs = jobs[:rows], jobs[rows:]
            x = np.zeros((rows, length), np.float32)
            samples = np.full(rows, self._module.min_samples, np.int32)
            skip = np.zeros(rows, np.int32)
            for row, (number, window) in enumerate(batch):
                samples[row], skip[row] = window.stop - window.start, window.skip
                x[row, : samples[row]] = as_float(waveforms[number][window.start : window.stop])
            own = devices.local_rows(rows)
            fields = {'waveform': x[own], 'samples': samples[own], 'skip': skip[own]}
            found = self._step(self._params, devices.to_devices(fields, mesh))
            found = jax.tree.map(lambda a: np.asarray(a.addressable_shards[0].data), found)
            for row, job in enumerate(batch):
                frames = self._module.frames(int(samples[row]))
                result = jax.tree.map(lambda a, row=row: a[row], found)
                if self._output != 'statistics':
                    result = result[..., skip[row] : frames, :].copy()
                yield job, result


def input_extractor(seen: EncoderInput) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Builds a function that computes a network's inputs [T, F] of N waveforms [S], as `data.encoded` stores them."""
    average = seen.output == 'frames'
    output = 'average' if average else 'statistics'
    extractor = Extractor(seen.encoder, layers=seen.layers, output=output)
    finish = average_frames if average else (lambda x: x.reshape(1, -1))
    return lambda waveforms: [finish(array) for array in extractor(waveforms)]


def average_frames(frames: np.ndarray) -> np.ndarray:
    """Averages every two frames in time, as `pretrained.EncoderInput` does: [T, D] -> [ceil(T / 2), D]."""
    pairs = np.add.reduceat(frames, np.arange(0, len(frames), 2), axis=0)
    return pairs / np.minimum(2, len(frames) - np.arange(0, len(frames), 2))[:, None]


def _padded_length(samples: int) -> int:
    """Rounds up to one of eight lengths an octave: few programs to compile, 4 % of padding on average."""
    step = 1 << max(samples.bit_length() - 4, 11)
    return -(-samples // step) * step


def _make_step(module: nn.Module, layers: tuple[int, ...], output: str) -> Callable:
    """Builds the per-device step: (params, batch) -> rows of all devices."""

    def step(params, batch):
        # Full float32 products: by default GPUs and TPUs round the factors. bfloat16 is not affected.
        with jax.default_matmul_precision('highest'):
            states, mask = module.apply({'params': params}, batch['waveform'], batch['samples'])
        x = jnp.stack([states[layer] for layer in layers], axis=1)
        if output == 'average':
            x = jnp.mean(x, axis=1)
        elif output == 'statistics':
            mask &= jnp.arange(mask.shape[1]) >= batch['skip'][:, None]
            mean, squares, count = mean_and_squares(x, mask)
            x = {'count': count, 'mean': mean, 'squares': squares}
        return jax.lax.all_gather(x, devices.AXIS, tiled=True)

    return step


def export_encoder(encoder: Encoder, layers: Sequence[int]) -> bytes:
    """Serialises an encoder by `jax.export`, for CPU, GPU and TPU.

    Args:
        encoder: a loaded encoder.
        layers: numbers of the layers to return.

    Returns:
        What `jax.export.deserialize` reads: a function of (waveform float32 [B, S], samples int32 [B]) that returns (frames
        float32 [B, layers, T, D], mask bool [B, T]), for any B and any S up to 30 s. It needs jax, flatbuffers and NumPy only.
    """
    import jax.export

    if encoder.module.on_host:
        raise UserError(f'{encoder.name} cannot be exported')
    module, longest = encoder.module, WINDOW_SECONDS * SAMPLE_RATE
    batch, length = jax.export.symbolic_shape(
        'B, S', constraints=[f'S >= {module.min_samples}', f'S <= {longest}']
    )

    @jax.jit
    def encode(waveform, samples):
        states, mask = module.apply({'params': encoder.params}, waveform, samples)
        return jnp.stack([states[layer] for layer in layers], axis=1), mask

    inputs = (
        jax.ShapeDtypeStruct((batch, length), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    # Full float32 products: by default GPUs and TPUs round the factors.
    with jax.default_matmul_precision('highest'):
        exported = jax.export.export(encode, platforms=('cpu', 'cuda', 'tpu'))(*inputs)
    return bytes(exported.serialize())


def _joined_frames(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-2)


def _joined_statistics(parts: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Mean and standard deviation from those of the windows (Chan et al. 1983)."""
    count, mean, squares = (
        np.stack([part[name] for part in parts]).astype(np.float64)
        for name in ('count', 'mean', 'squares')
    )
    total = np.sum(count, axis=0)
    pooled = np.sum(count * mean, axis=0) / total
    variance = np.sum(squares + count * np.square(mean - pooled), axis=0) / total
    return np.concatenate([pooled, np.sqrt(variance)], axis=-1).astype(np.float32)
