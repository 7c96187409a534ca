"""Augmented views of waveforms."""

import numpy as np
import pytest

from ser_jax.encoding.views import View, augment_waveforms, views_of
from ser_jax.transforms.augment import parse_operations


@pytest.fixture(scope='module')
def waveforms():
    rng = np.random.default_rng(0)
    return [(3000 * rng.standard_normal(n)).astype(np.int16) for n in (7000, 30000, 12345, 40000)]


def test_types_share_their_views():
    operations = parse_operations(
        ('speed(0.8, 0.9)', 'mixup(0.2)', 'noise(0, 10)', 'noise(0, 10) + spec_mask(1, 0.1, 0.1)'),
        'encoded',
    )
    views, types = views_of(operations)
    assert [view.text for view in views] == ['clean', 'speed(0.8, 0.9)', 'noise(0, 10)']
    assert types == (0, 1, 0, 2, 2)


def test_names_differ_where_views_do():
    texts = ('noise(0, 10)', 'noise(0, 11)', 'speed(0.8, 0.9)', 'speed(0.8, 0.9) + noise(0, 10)')
    views, _ = views_of(parse_operations(texts, 'encoded'))
    assert len({view.name for view in views}) == len(views) == 5
    assert views[0].name == 'clean'
    assert views[3].name.startswith('speed_')
    (same,) = views_of(parse_operations(('noise(0.0, 10.0)',), 'encoded'))[0][1:]
    assert same.name == views[1].name


def test_the_clean_view_changes_nothing(waveforms):
    found = augment_waveforms(View(), waveforms, list('abcd'))
    np.testing.assert_array_equal(found.waveforms[2], waveforms[2] / np.float32(32768))


def test_an_utterance_is_changed_alike_in_any_company(waveforms):
    calls = (('speed', (0.8, 1.2)), ('noise', (5, 20)))
    together = augment_waveforms(View(calls), waveforms, list('abcd'))
    alone = augment_waveforms(View(calls), waveforms[2:3], ['c'])
    np.testing.assert_allclose(alone.waveforms[0], together.waveforms[2], atol=1e-6)
    np.testing.assert_allclose(alone.clean[0], together.clean[2], atol=1e-6)
    other = augment_waveforms(View(calls), waveforms[2:3], ['x'])
    assert len(other.waveforms[0]) != len(alone.waveforms[0])
    for before, after, clean in zip(waveforms, together.waveforms, together.clean):
        assert len(before) / 1.2 - 1 <= len(after) <= len(before) / 0.8 + 1
        assert len(after) == len(clean)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('room(0, 1)', 'reverberation time'),
        ('spec_mask(1, 0.1, 0.1) + noise(0, 10)', 'other changes of the waveform, mixup, spec_mask'),
        ('noise(0, 10) + speed(0.9, 1.1)', 'speed first'),
        ('echo(1)', 'there are speed, noise, gain, filter_augment, band_limit, room, mixup, spec_mask'),
    ],
)  # fmt: skip
def test_bad_operations_are_refused(text, message):
    from ser_jax.runtime.errors import UserError

    with pytest.raises(UserError, match=message.replace('(', r'\(')):
        parse_operations((text,), 'encoded')


def test_rooms_are_for_waveforms_only():
    from ser_jax.runtime.errors import UserError

    with pytest.raises(UserError, match="'room' in"):
        parse_operations(('room(0.2, 0.5)',))
