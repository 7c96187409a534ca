"""demo_speech, the SYNTHETIC corpus: deterministic, speech-like, balanced, not solved by loudness."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from trees import check_rows

from ser_jax.prepare import open_prepared
from tfds_builders.core import catalogue
from tfds_builders.demo_speech import synthesiser, voices


def test_demo_voices():
    speakers = [voices.speaker(name) for name in voices.SPEAKERS]
    kinds = [(speaker.gender, speaker.language) for speaker in speakers]
    assert len(set(kinds)) == 4
    for start in range(0, len(kinds), 6):  # four folds of neighbours
        assert set(kinds[start : start + 6]) == set(kinds)
    for start in range(4):
        assert set(kinds[start::4]) == set(kinds)
    sounds = {s for script in ('a01', 'b04') for s in voices.syllables(script)}
    assert len(sounds) > 8


def test_demo_speech_is_deterministic_and_speech_like():
    name, script = '02', voices.scripts(voices.speaker('02').language)[0]
    takes = {e: synthesiser.synthesise(name, e, script) for e in voices.EMOTIONS}
    assert np.array_equal(takes['sad'], synthesiser.synthesise(name, 'sad', script))
    code = (
        'import hashlib; from tfds_builders.demo_speech.synthesiser import synthesise\n'
        f'print(hashlib.sha256(synthesise({name!r}, "sad", {script!r}).tobytes()).hexdigest())'
    )
    other = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert other.stdout.strip() == hashlib.sha256(takes['sad'].tobytes()).hexdigest()
    for samples in takes.values():
        assert 0.8 < len(samples) / 16000 < 4
        assert 300 < np.abs(samples.astype(int)).max() < 32767
    # Harmonics of the voice: the autocorrelation of a vowel peaks at a pitch between 60 and 500 Hz.
    samples = takes['neutral'].astype(float)
    loudest = int(np.argmax(np.convolve(samples**2, np.ones(1600), 'valid')))
    piece = samples[loudest : loudest + 1600]
    piece -= piece.mean()
    correlation = np.correlate(piece, piece, 'full')[1599:]
    lags = correlation[32:266] / correlation[0]
    assert lags.max() > 0.5


def test_demo_corpus_listing():
    listing = catalogue.list_corpus('demo_speech', None)
    assert len(listing.utterances) == 384
    assert len({item.id for item in listing.utterances}) == 384
    ratings = np.array([[i.arousal, i.valence, i.dominance] for i in listing.utterances])
    assert ratings.min() >= 1
    assert ratings.max() <= 5
    emotions = np.array([item.emotion for item in listing.utterances])
    assert ratings[emotions == 'angry', 0].mean() > ratings[emotions == 'sad', 0].mean() + 1
    assert catalogue.builder_class('demo_speech').SYNTHETIC


@pytest.mark.slow
def test_demo_speech_is_not_solved_by_loudness(demo_records):
    from benchmarks.demo_speech_baseline import measure

    corpus = open_prepared('demo_speech', data_dir=demo_records)
    check_rows(corpus)
    assert corpus.metadata['synthetic'] is True
    scores = measure(demo_records)
    assert scores['uar_level_duration_pitch'] < 0.5
    assert scores['uar_functionals'] > 0.65
    for share in scores['variance_share'].values():
        assert share['speaker'] > share['emotion']


def test_the_readme_cites_the_measured_baseline():
    measured = json.loads((ROOT / 'results' / 'demo_speech_baseline.json').read_text())
    text = ' '.join((ROOT / 'results' / 'README.md').read_text(encoding='utf-8').split())
    simple, rich = measured['uar_level_duration_pitch'], measured['uar_functionals']
    assert f'mean pitch reaches {100 * simple:.1f} %' in text
    assert f'the pitch contour {100 * rich:.1f} %' in text
