"""Encoded corpora on disk: written once, resumed, checked when opened."""

import json
import shutil

import numpy as np
import pytest

from ser_jax.audio.log_mel import log_mel_of_signal
from ser_jax.data.corpora import open_corpus
from ser_jax.data.encoded import Encoding, is_encoded, open_encoded
from ser_jax.encoding import cache
from ser_jax.encoding.extraction import Extractor, average_frames
from ser_jax.encoding.views import View, augment_waveforms
from ser_jax.models.encoders.pretrained import load_encoder
from ser_jax.prepare import prepare_corpus
from ser_jax.runtime.errors import UserError


@pytest.fixture(scope='module')
def corpus(beeps, tmp_path_factory):
    """(waveform records, data_dir)."""
    data_dir = tmp_path_factory.mktemp('encoded')
    where = {'data_dir': data_dir, 'representation': 'waveform'}
    manual_dir = f'{beeps["manual_dir"]}/beeps'
    prepare_corpus('csv_corpus/beeps', manual_dir=manual_dir, **where)
    return open_corpus('csv_corpus/beeps', **where), data_dir


@pytest.fixture(scope='module')
def encoder(tiny_encoder):
    return load_encoder(tiny_encoder)


@pytest.fixture
def encoded(corpus, encoder, tmp_path):
    """(waveform records, data_dir of a copy that may be changed, the encoding, its folder)."""
    records, data_dir = corpus
    cache.encode_corpus(records, encoder, data_dir)
    encoding = Encoding('tiny', encoder.identity, (1, 3))
    copy = encoding.folder(records.name, tmp_path)
    shutil.copytree(encoding.folder(records.name, data_dir), copy)
    return records, tmp_path, encoding, copy


@pytest.fixture(scope='module')
def frames(corpus, encoder):
    """Frames of two views, opened."""
    records, data_dir = corpus
    views = (View(), View((('speed', (0.8, 0.9)), ('noise', (0, 10)))))
    options = {'layers': (1, 3), 'output': 'frames', 'views': views}
    cache.encode_corpus(records, encoder, data_dir, **options)
    encoding = cache.make_encoding(encoder, (1, 3), 'frames', views)
    return open_encoded(records, encoding, data_dir), views


def test_holds_the_statistics_of_every_utterance(encoded, encoder):
    records, data_dir, encoding, _ = encoded
    opened = open_encoded(records, encoding, data_dir)
    assert opened.representation == 'encoded'
    assert len(opened.source()) == len(records)
    extractor = Extractor(encoder, layers=(1, 3), output='statistics')
    for row in (0, 17, len(records) - 1):
        (expected,) = extractor([records.source()[row]])
        np.testing.assert_allclose(opened.source()[row], expected.reshape(1, -1), atol=1e-5)


def test_holds_the_frames_of_every_view(corpus, frames, encoder):
    records, _ = corpus
    opened, views = frames
    source, ids = opened.source(), records.index['id']
    extractor = Extractor(encoder, layers=(1, 3), output='average')
    for row in (0, 17, len(records) - 1):
        for number, view in enumerate(views):
            signals = augment_waveforms(view, [records.source()[row]], ids[row : row + 1])
            (expected,) = extractor(signals.waveforms)
            found, log_mel = source.with_log_mel(row, number)
            assert found.dtype == np.float32
            assert len(found) == len(log_mel) == (len(expected) + 1) // 2
            np.testing.assert_allclose(found, average_frames(expected), rtol=2e-3, atol=2e-3)
            own = log_mel_of_signal(signals.clean[0])
            np.testing.assert_allclose(log_mel[0], own[:4].mean(0), atol=0.02)
            np.testing.assert_allclose(
                log_mel[-2], own[4 * len(log_mel) - 8 :][:4].mean(0), atol=0.02
            )
        assert source.lengths(np.array([row])) == [len(source[row])]


def test_average_of_odd_frames():
    found = average_frames(np.array([[1.0], [3.0], [7.0]]))
    np.testing.assert_array_equal(found, [[2.0], [7.0]])


def test_only_missing_views_are_encoded(corpus, frames, encoder, capsys):
    records, data_dir = corpus
    views = (View(), View((('gain', (-10, 0)),)))
    cache.encode_corpus(records, encoder, data_dir, layers=(1, 3), output='frames', views=views)
    said = capsys.readouterr().err
    assert '1 × 0.01 h of speech (gain(-10, 0))' in said
    cache.encode_corpus(records, encoder, data_dir, layers=(3, 1), output='frames', views=views)
    assert not capsys.readouterr().err


def test_an_interrupted_extraction_resumes(corpus, encoder, tmp_path, monkeypatch):
    records, _ = corpus
    monkeypatch.setattr(cache, '_CHUNK', 16)
    folder = Encoding('tiny', encoder.identity, ()).folder(records.name, tmp_path)
    calls = []

    class Interrupted(Extractor):
        def __call__(self, waveforms):
            calls.append(len(waveforms))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(waveforms)

    monkeypatch.setattr(cache, 'Extractor', Interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.encode_corpus(records, encoder, tmp_path)
    assert not is_encoded(folder)
    cache.encode_corpus(records, encoder, tmp_path)
    assert sum(calls) == len(records) + 16  # the interrupted chunk alone is encoded twice
    cache.encode_corpus(records, encoder, tmp_path)
    assert sum(calls) == len(records) + 16
    assert sorted(path.name for path in folder.iterdir()) == [
        '.lock',
        'checksums.json',
        'metadata.json',
        'values.npy',
    ]


def test_no_room_on_the_disk(corpus, encoder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5 << 30)
    monkeypatch.setattr(cache.shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(UserError, match=r'but 5\.4 GB are free, of which 5 are left'):
        cache.encode_corpus(corpus[0], encoder, tmp_path)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda folder: (folder / 'metadata.json').unlink(), 'is not encoded by tiny'),
        (lambda folder: (folder / 'values.npy').write_bytes(b'x'), 'is damaged'),
        (lambda folder: _rewrite(folder, corpus_hash='0'), 'from an earlier state of'),
        (lambda folder: _rewrite(folder, identity='0'), 'by other weights than tiny'),
    ],
)
def test_what_does_not_fit_is_refused(encoded, spoil, message):
    records, data_dir, encoding, folder = encoded
    spoil(folder)
    with pytest.raises(UserError, match=message):
        open_encoded(records, encoding, data_dir)


def _rewrite(folder, **changes):
    content = json.loads((folder / 'metadata.json').read_text()) | changes
    (folder / 'metadata.json').write_text(json.dumps(content))
    (folder / 'checksums.json').unlink()


def test_test_conditions_are_encoded_once(tmp_path):
    calls = []
    waveforms = [np.full(3, 0.5, np.float32), np.full(5, 0.25, np.float32)]

    def encode(waveforms):
        calls.append(len(waveforms))
        return [np.outer(x, np.ones(2, np.float32)) for x in waveforms]

    path = tmp_path / 'conditions' / 'telephone.npz'
    first = cache.cached_inputs(path, lambda: waveforms, encode)
    again = cache.cached_inputs(path, lambda: waveforms, encode)
    assert calls == [2]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_bytes(path.read_bytes()[:100])
    cache.cached_inputs(path, lambda: waveforms, encode)
    assert calls == [2, 2]
