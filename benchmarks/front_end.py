"""The log-mel front end against librosa and PyTorch: python -m benchmarks.front_end [--minutes=10] [--out=FILE]

Uses SYNTHETIC speech-like waveforms of 1 to 5 s. "x real time" = seconds of audio per second. Each implementation must
match librosa to 1e-3 before it is timed; rounds alternate. PyTorch needs the extra [bench].
"""

import concurrent.futures
import functools
import importlib.util
import multiprocessing
import os
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks import timing
from ser_jax.audio.log_mel import DEFAULT_FRONT_END, log_mel, mel_matrix

_RATE = DEFAULT_FRONT_END.sample_rate
_BATCH = 16


def make_waveforms(minutes: float, seed: int = 0) -> list[np.ndarray]:
    """Harmonic sounds with pauses, int16 [S], sorted by length for little padding in batches."""
    rng = np.random.default_rng(seed)
    waveforms, total = [], 0.0
    while total < 60 * minutes:
        seconds = rng.uniform(1, 5)
        t = np.arange(int(seconds * _RATE)) / _RATE
        pitch = rng.uniform(90, 250)
        x = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 25))
        x *= np.maximum(np.sin(2 * np.pi * 2 * t), 0)
        waveforms.append((3000 * x + rng.normal(0, 5, len(t))).astype(np.int16))
        total += seconds
    return sorted(waveforms, key=len)


def librosa_log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mels by librosa's public function: [T, n_mels]."""
    import librosa

    fe = DEFAULT_FRONT_END
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float32) / 32768,
        sr=fe.sample_rate,
        n_fft=fe.n_fft,
        win_length=fe.win_length,
        hop_length=fe.hop_length,
        n_mels=fe.n_mels,
        fmin=fe.fmin,
        fmax=fe.fmax,
    )
    return np.log(power + fe.floor).T


def _batches(waveforms: list[np.ndarray], multiple: int) -> list[np.ndarray]:
    """Zero-padded float32 batches; lengths are rounded up to a multiple, for few compiled shapes."""
    batches = []
    for start in range(0, len(waveforms), _BATCH):
        part = waveforms[start : start + _BATCH]
        longest = -(-len(part[-1]) // multiple) * multiple
        batch = np.zeros((_BATCH, longest), np.float32)
        for row, samples in zip(batch, part, strict=False):
            row[: len(samples)] = samples / 32768
        batches.append(batch)
    return batches


def jax_runner() -> Callable:
    """Builds waveforms -> [[B, T, n_mels], …], one array per batch, by jitted `batch_log_mel`."""
    import jax

    from ser_jax.audio.log_mel_jax import batch_log_mel

    compute = jax.jit(batch_log_mel)
    return lambda waveforms: [
        np.asarray(compute(batch)) for batch in _batches(waveforms, _RATE // 2)
    ]


def torch_runner() -> Callable:
    """Builds the same function on torch.stft."""
    import torch

    fe = DEFAULT_FRONT_END
    mel, window = torch.from_numpy(mel_matrix(fe)), torch.hann_window(fe.win_length)

    def compute(batch):
        spectrum = torch.stft(
            torch.from_numpy(batch),
            fe.n_fft,
            fe.hop_length,
            fe.win_length,
            window,
            center=True,
            pad_mode='constant',
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(power.transpose(1, 2) @ mel + fe.floor).numpy()

    return lambda waveforms: [compute(batch) for batch in _batches(waveforms, _RATE // 2)]


def _halves(waveforms: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Splits waveforms, sorted by length, into two parts of similar duration."""
    first = [samples for i, samples in enumerate(waveforms) if i % 4 in (0, 3)]
    return [first, [samples for i, samples in enumerate(waveforms) if i % 4 in (1, 2)]]


def _count(function: Callable, waveforms: list[np.ndarray]) -> int:
    """Total frames; log-mels stay in the process, as when it writes its own shards."""
    return sum(map(len, _each(function, waveforms)))


def _each(function: Callable, waveforms: list[np.ndarray]) -> list[np.ndarray]:
    return [function(samples) for samples in waveforms]


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--minutes', type=float, default=10, help='minutes of audio')
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()

    waveforms = make_waveforms(options.minutes)
    seconds = sum(map(len, waveforms)) / _RATE
    context = multiprocessing.get_context('spawn')
    os.environ['OPENBLAS_NUM_THREADS'] = '1'  # one core for each process below
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:

        def both_cores(function, waveforms):
            return sum(pool.map(functools.partial(_count, function), _halves(waveforms)))

        ways = {
            'librosa': functools.partial(_each, librosa_log_mel),
            'librosa, 2 processes': functools.partial(both_cores, librosa_log_mel),
            'records (NumPy)': functools.partial(_each, log_mel),
            'records, 2 processes': functools.partial(both_cores, log_mel),
            'JAX, batches': jax_runner(),
        }
        if importlib.util.find_spec('torch'):
            ways['torch.stft, batches'] = torch_runner()
        expected = [librosa_log_mel(samples) for samples in waveforms]
        for name, way in ways.items():
            results = way(waveforms)
            if 'processes' in name:
                assert results == sum(map(len, expected))
                continue
            if 'batches' in name:
                results = [row for batch in results for row in batch]
            worst = max(
                np.abs(a[: len(b)] - b).max() for a, b in zip(results, expected, strict=False)
            )
            assert worst < 1e-3, f'{name} differs from librosa by {worst}'
        ways = {name: functools.partial(way, waveforms) for name, way in ways.items()}
        times = timing.alternate(ways, options.rounds)
    rows = {name: seconds / statistics.median(values) for name, values in times.items()}
    print(f'{seconds / 60:.1f} min of synthetic audio in {len(waveforms)} pieces')
    for name, speed in rows.items():
        print(f'{name:24} {speed:8.0f} x real time   {speed / rows["librosa"]:6.2f} x librosa')
    timing.write(options.out, times_real_time=rows)


if __name__ == '__main__':
    main()
