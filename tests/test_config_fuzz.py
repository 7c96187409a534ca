"""Random values of fields: a run trains with the value, or refuses it in a line with the name of the field."""

import importlib
import json
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from ser_jax import train
from ser_jax.config import flatten
from ser_jax.runtime.errors import UserError

# Locations, and what the argument of --config sets.
LEFT_OUT = ('data.data_dir', 'data.manual_dir', 'corpus', 'settings_of', 'options', 'system')
CALLS = ['clean', 'gain(0)', "noise('white', 5)", 'pgd(0.1, 2)', 'mixup(0.2)', 'speed(0.9, 1.1)']
CALLS += ['single_fold()', 'speaker_folds(2)', 'speaker_folds(99)', 'f(', '../x', 'csv_corpus/hums']
CALLS += ['multitask', 'pmap', 'augmented', 'waveform', 'emotion', 'angry', 'happy', 'a\nb', '']
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, -1]) | st.integers()
SHARES = st.sampled_from([0.0, 0.5, 1.0, 1e-30, 1e30, 1e300, -1.0]) | st.floats()
TEXTS = st.sampled_from(CALLS) | st.text(max_size=8)
VALUES = {
    bool: st.booleans(),
    int: NUMBERS,
    float: SHARES,
    str: TEXTS,
    tuple: st.lists(TEXTS | NUMBERS | SHARES, max_size=2).map(tuple),
}


def fuzzed(system, beeps, field, value):
    """The smoke config of a system with one field changed; None if the config refuses the type of the value."""
    config = importlib.import_module(f'configs.{system}').get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    config.update(steps=1, eval_every=1)
    try:
        config.update_from_flattened_dict({field: value})
    except TypeError:
        return None
    return config


def takes_long(field, value):
    """Whether a value is valid but too large for a short run."""
    sizes = field.startswith(('model.', 'batch', 'eval_b', 'crop', 'few_shot', 'parallel_runs'))
    values = value if isinstance(value, tuple) else (value,)
    numbers = [one for one in values if isinstance(one, int)]
    return any(
        one > (64 if sizes else 3) for one in numbers if sizes or field in ('steps', 'folds')
    ) and all(one <= 65_536 for one in numbers)


@pytest.mark.slow
@pytest.mark.parametrize('system', ['mtl_aug', 'end_to_end', 'adversarial_autoencoder', 'probe'])
def test_a_value_is_used_or_refused(system, beeps, tiny_encoder, monkeypatch):
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    monkeypatch.setenv(
        'SER_JAX_MANUAL_DIR', beeps['manual_dir']
    )  # waveforms are prepared on demand
    fields = flatten(fuzzed(system, beeps, 'seed', 0))
    fields = {name: value for name, value in fields.items() if name not in LEFT_OUT}
    ended = {'used': 0, 'refused': 0}

    # No shrinking: every try is a training run.
    @hypothesis.settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(st.sampled_from(sorted(fields)), st.data())
    def one(field, data):
        value = data.draw(VALUES[type(fields[field])], label=field)
        config = fuzzed(system, beeps, field, value)
        hypothesis.assume(config is not None and not takes_long(field, value))
        with tempfile.TemporaryDirectory() as folder:
            workdir = Path(folder) / 'run'
            refusal = ''
            try:
                train.train_and_evaluate(config, workdir)
            except UserError as error:
                refusal = str(error)
            if refusal:
                ended['refused'] += 1
                name = field.rpartition('.')[2].removesuffix(
                    's'
                )  # the message may name one of several
                assert name in refusal, f'{field} = {value!r}: {refusal}'
                return
            stored = json.loads((workdir / 'config.json').read_text())
            assert flatten(stored)[field] == (list(value) if isinstance(value, tuple) else value)
            assert (workdir / 'results.json').exists()
            ended['used'] += 1

    one()
    assert min(ended.values()) > 1, ended
