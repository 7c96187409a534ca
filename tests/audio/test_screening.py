"""Flags of recordings."""

import numpy as np
import pytest

from ser_jax.audio.screening import screen
from tfds_builders.core import catalogue

TIME = np.arange(32000) / 16000


@pytest.mark.parametrize('rate', [8000, 16000, 48000])
def test_too_short(rate):
    noise = np.random.default_rng(0).normal(0, 3000, rate).astype(np.int16)
    assert screen(noise[: int(0.49 * rate)], rate) == ('too_short',)
    assert 'too_short' not in screen(noise[: int(0.51 * rate)], rate)


def test_silent():
    click = np.zeros(32000, np.int16)
    click[16000:16010] = 20000
    offset = np.full(16000, 1000, np.int16)
    for nothing in (np.full(16000, 15, np.int16), offset, click):
        assert screen(nothing) == ('silent',)


@pytest.mark.parametrize(
    'sound',
    [
        np.random.default_rng(0).normal(0, 3000, 32000),
        np.random.default_rng(0).normal(0, 100, 32000).cumsum(),
        10000 * np.sin(2 * np.pi * 440 * TIME),
        np.random.default_rng(0).normal(0, 30, 32000) + 3000 * np.sin(2 * np.pi * 50 * TIME),
    ],
    ids=['white noise', 'brown noise', 'tone', 'hum'],
)
def test_no_speech(sound):
    assert screen(np.clip(sound, -32767, 32767).astype(np.int16)) == ('non_speech',)


def test_speech_and_clipped_speech():
    builder = catalogue.builder_class('demo_speech')
    for utterance in catalogue.list_corpus('demo_speech', None).utterances[:384:16]:
        samples = builder.LOAD(utterance, 16000)
        assert screen(samples) == ()
        loud = np.clip(samples.astype(float) * 60000 / np.abs(samples).max(), -32768, 32767)
        assert screen(loud.astype(np.int16)) == ('clipped',)
