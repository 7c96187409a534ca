"""The encoders against transformers: frames of every layer and gradients."""

import os

import numpy as np
import pytest

pytest.importorskip('torch', reason='needs the extra [parity]')
pytest.importorskip('transformers', reason='needs the extra [parity]')

from benchmarks import encoder_parity
from benchmarks.encoder_parity import CASES

SMALL = [name for name, case in CASES.items() if case.size in ('small', 'deep')]
PUBLISHED = [name for name, case in CASES.items() if case.size in ('base', 'large')]


def _check(name):
    result = encoder_parity.compare(CASES[name])
    assert result.hidden <= 2e-5
    assert result.gradient is None or result.gradient <= 1e-4


@pytest.mark.parametrize('name', SMALL)
def test_small(name):
    _check(name)
    assert CASES[name].gradient


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_size(name):
    _check(name)


@pytest.mark.skipif(
    not {'SER_JAX_ENCODER', 'SER_JAX_MANUAL_DIR'} <= set(os.environ),
    reason='needs SER_JAX_ENCODER (Whisper tiny.en) and SER_JAX_MANUAL_DIR (real speech)',
)
def test_real_weights_on_real_speech():
    """float32 itself differs from float64 in the last layers, in transformers too: their activations reach 600."""
    found = encoder_parity.compare_real(
        os.environ['SER_JAX_ENCODER'], encoder_parity.real_speech(os.environ['SER_JAX_MANUAL_DIR'])
    )
    ours, theirs = found['ser_jax'], found['transformers']
    assert ours[:, :4].max() <= 5e-6
    assert ours.max() <= 1e-4
    assert np.median(ours) <= 2 * np.median(theirs)
