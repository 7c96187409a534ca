"""Simple baselines on demo_speech (SYNTHETIC): python -m benchmarks.demo_speech_baseline [--out=FILE]

Two support-vector machines (RBF kernel, C = 1, standardised features), on the same speaker-independent folds
as the systems, pooled: one on mean level, duration and mean pitch, which must not suffice (at most half-way between
chance and the system), one on functionals of the log-mel and of the pitch contour, an estimate of what can be learnt.
"""

import argparse
import concurrent.futures
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from ser_jax.data.folds import Fold, make_folds
from ser_jax.prepare import open_prepared

_RATE = 16000
_HOP = 160


def pitch_contour(waveform: np.ndarray) -> np.ndarray:
    """Pitch of the voiced frames of int16 [S] in semitones above 1 Hz, tracked with YIN: [V]."""
    import librosa

    signal = waveform.astype(np.float32) / 32768
    hertz = librosa.yin(signal, fmin=60, fmax=500, sr=_RATE, frame_length=1024, hop_length=_HOP)
    level = librosa.feature.rms(y=signal, frame_length=1024, hop_length=_HOP)[0][: len(hertz)]
    voiced = (level > 0.3 * level.max()) & (hertz < 480)
    return 12 * np.log2(hertz[voiced] if voiced.any() else hertz)


def simple_features(waveform: np.ndarray) -> list[float]:
    """Mean level (dB), duration (s), mean pitch (semitones) of int16 [S]."""
    level = 10 * np.log10((waveform.astype(np.float64) ** 2).mean())
    return [level, len(waveform) / _RATE, pitch_contour(waveform).mean()]


def rich_features(waveform: np.ndarray, log_mel: np.ndarray) -> np.ndarray:
    """Functionals of int16 [S] and float32 [T, F]: bands (level removed), their movement, pitch contour."""
    pitch = pitch_contour(waveform)
    line = np.polyfit(np.linspace(-1, 1, len(pitch)), pitch, 2) if len(pitch) > 3 else np.zeros(3)
    spread = np.percentile(pitch, [10, 50, 90]) - pitch.mean()
    steps = np.diff(pitch)
    steps = steps[np.abs(steps) < 3]
    moves = [steps.std(), np.abs(steps).mean(), (steps**3).mean(), (np.diff(steps)).std()]
    loud = log_mel[log_mel.mean(1) > np.percentile(log_mel.mean(1), 30)]
    shape = loud.mean(0) - loud.mean()
    delta = np.diff(log_mel, axis=0)
    energy = log_mel.mean(1)
    parts = (
        [pitch.mean(), pitch.std(), len(waveform) / _RATE, energy.std(), np.diff(energy).std()],
        line[:2], spread, moves, shape, loud.std(0), delta.std(0),
    )  # fmt: skip
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def leave_speakers_out_uar(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[Fold]
) -> float:
    """UAR of an RBF SVC on features [N, D], predictions pooled over the test folds."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    predictions = np.empty_like(labels)
    for fold in folds:
        model = make_pipeline(StandardScaler(), SVC(C=1.0))
        model.fit(features[fold.train], labels[fold.train])
        predictions[fold.test] = model.predict(features[fold.test])
    return float(balanced_accuracy_score(labels, predictions))


def variance_share(values: np.ndarray, groups: Sequence) -> float:
    """Fraction of the variance of values [N, D] that lies between groups (eta squared, summed over D)."""
    values = values - values.mean(0)
    groups = np.asarray(groups)
    between = sum(
        (groups == group).sum() * (values[groups == group].mean(0) ** 2).sum()
        for group in np.unique(groups)
    )
    return float(between / (values**2).sum())


def measure(data_dir: str | None = None) -> dict:
    """Both scores on demo_speech, which is prepared in `data_dir` if missing."""
    waveforms = open_prepared('demo_speech', data_dir=data_dir, representation='waveform')
    spectra = open_prepared('demo_speech', data_dir=data_dir)
    heard, seen = waveforms.source(), spectra.source()
    rows = range(len(waveforms))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        simple = np.array(list(pool.map(lambda row: simple_features(heard[row]), rows)))
        rich = np.array(list(pool.map(lambda row: rich_features(heard[row], seen[row]), rows)))
    labels, speakers = waveforms.index['emotion'], waveforms.index['speaker']
    spectrum = spectra.index['log_mel_sum'] / spectra.index['frames'][:, None]
    shares = {
        name: {
            'speaker': round(variance_share(values, speakers), 3),
            'emotion': round(variance_share(values, labels), 3),
        }
        for name, values in (
            ('mean_pitch', simple[:, 2:]),
            ('level', simple[:, :1]),
            ('mean_spectrum', spectrum),
        )
    }
    protocol = waveforms.metadata['protocol']
    folds = make_folds(waveforms.index, protocol, rows=np.array(rows), validation=False)
    chance = 1 / len(waveforms.metadata['labels'])
    return {
        'corpus': 'demo_speech',
        'synthetic': True,
        'corpus_hash': waveforms.metadata['corpus_hash'],
        'utterances': len(waveforms),
        'speakers': len(set(speakers)),
        'minutes': round(float(waveforms.index['duration'].sum()) / 60, 2),
        'protocol': protocol,
        'chance': chance,
        'uar_level_duration_pitch': leave_speakers_out_uar(simple, labels, folds),
        'uar_functionals': leave_speakers_out_uar(rich, labels, folds),
        'variance_share': shares,
    }


def main():
    """Prints the scores and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data_dir', help='folder of prepared corpora; default as in ser_jax.main')
    parser.add_argument('--out', default='results/demo_speech_baseline.json', help='JSON file')
    flags = parser.parse_args()
    result = measure(flags.data_dir)
    out = pathlib.Path(flags.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + '\n')
    print(f'demo_speech (SYNTHETIC), {result["utterances"]} utterances, {result["protocol"]}')
    print(f'  chance                              {100 * result["chance"]:5.1f}')
    print(f'  SVC on level, duration, mean pitch  {100 * result["uar_level_duration_pitch"]:5.1f}')
    print(f'  SVC on functionals                  {100 * result["uar_functionals"]:5.1f}')
    for name, share in result['variance_share'].items():
        print(
            f'  variance of {name}: {share["speaker"]:.2f} speaker, {share["emotion"]:.2f} emotion'
        )
    print(f'written to {out}')


if __name__ == '__main__':
    main()
