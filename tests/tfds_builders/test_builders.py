"""Building corpora: what records hold and what happens to bad input."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run
from trees import EMODB, beep, call, check_rows, failed, spoil, write_emodb

from ser_jax.audio.log_mel import FrontEnd, log_mel
from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from tfds_builders import build, doctor
from tfds_builders.core import base
from tfds_builders.emodb.emodb_dataset_builder import Builder as EmoDB


@pytest.mark.parametrize('per_shard', [1000, 3])
def test_emodb_records(tmp_path, monkeypatch, per_shard):
    monkeypatch.setattr(base, 'UTTERANCES_PER_SHARD', per_shard)
    folder = write_emodb(tmp_path / 'emodb')
    corpus = open_prepared('emodb', data_dir=tmp_path / 'records', manual_dir=folder)
    assert len(list(corpus.path.glob('*array_record*'))) == (1 if per_shard == 1000 else 3)
    check_rows(corpus)
    index = corpus.index
    assert index['id'].tolist() == [f'wav/{name}' for name in EMODB]
    assert [EMOTIONS[code] for code in index['emotion']] == [
        *('happy', 'neutral', 'angry', 'neutral', 'sad', 'happy', 'sad', 'angry')
    ]
    assert index['speaker'][0] == 'emodb/03'
    assert index['script'][7] == 'b10'
    assert index['gender'].tolist() == [1, 1, 1, 0, 0, 0, 1, 0]
    assert set(index['language']) == {'de'}
    assert set(index['session']) == {''}
    assert np.isnan(index['arousal']).all()
    metadata = corpus.metadata
    assert metadata['labels'] == ['angry', 'happy', 'neutral', 'sad']
    assert metadata['protocol'] == 'leave_one_speaker_out()'
    assert (metadata['published'], metadata['missing'], metadata['utterances']) == (535, 527, 8)
    assert metadata['synthetic'] is False


def test_long_recordings_make_more_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(base, 'BYTES_PER_SHARD', 50_000)
    folder = write_emodb(tmp_path / 'emodb')
    size = sum(path.stat().st_size for path in folder.rglob('*.wav'))
    corpus = open_prepared('emodb', data_dir=tmp_path / 'records', manual_dir=folder)
    assert len(list(corpus.path.glob('*array_record*'))) == -(-size // 50_000) > 1
    check_rows(corpus)


def test_num_shards(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    flags = ('emodb', f'--manual_dir={folder}')
    assert call(tmp_path, build, *flags)[0] == 0
    before = open_prepared('emodb', data_dir=tmp_path / 'records')
    arrays = [before.source()[row] for row in range(len(before))]
    for number in (3, 12):  # more than utterances: some stay empty
        assert call(tmp_path, build, *flags, f'--num_shards={number}')[0] == 0
        corpus = open_prepared('emodb', data_dir=tmp_path / 'records')
        assert len(list(corpus.path.glob('*array_record*'))) == number
        assert corpus.metadata['corpus_hash'] == before.metadata['corpus_hash']
        for row, array in enumerate(arrays):
            np.testing.assert_array_equal(corpus.source()[row], array)
    assert 'prepared already' in call(tmp_path, build, *flags)[1]
    failed(call(tmp_path, build, *flags, '--num_shards=0'), '--num_shards=0: expected 1 or more')


def test_both_representations_agree(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    status, _, _ = call(tmp_path, build, 'emodb', f'--manual_dir={folder}', '--representation=both')
    assert status == 0
    data_dir = tmp_path / 'records'
    spectra = open_prepared('emodb', data_dir=data_dir)
    waveforms = open_prepared('emodb', data_dir=data_dir, representation='waveform')
    check_rows(waveforms)
    assert waveforms.source()[2].dtype == np.int16
    assert spectra.metadata['corpus_hash'] == waveforms.metadata['corpus_hash']
    for field, values in spectra.index.items():
        assert np.array_equal(values, waveforms.index[field], equal_nan=values.dtype.kind == 'f')
    for row in range(len(spectra)):
        assert np.array_equal(log_mel(waveforms.source()[row]), spectra.source()[row])


def test_ravdess_records(tmp_path):
    names = ['Actor_01/03-01-06-01-02-01-01', 'Actor_24/03-01-01-01-01-02-24']
    for name in (*names, 'Actor_24/._03-01-01-01-01-02-24', 'Actor_24/03-02-01-01-01-02-24'):
        path = tmp_path / 'ravdess' / f'{name}.flac'
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, beep(hertz=100 + len(name)), 16000)
    corpus = open_prepared(
        'ravdess', data_dir=tmp_path / 'records', manual_dir=tmp_path / 'ravdess'
    )
    assert corpus.index['id'].tolist() == names
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['fearful', 'neutral']
    assert corpus.index['speaker'].tolist() == ['ravdess/01', 'ravdess/24']
    assert corpus.index['gender'].tolist() == [1, 0]
    assert corpus.index['script'].tolist() == ['02', '01']
    folds = corpus.metadata['folds']
    assert sorted(actor for fold in folds for actor in fold) == [
        f'ravdess/{n:02d}' for n in range(1, 25)
    ]
    assert folds[0] == ['ravdess/01', 'ravdess/11', 'ravdess/20', 'ravdess/21']
    assert corpus.metadata['published'] == 1440
    assert any('not of RAVDESS speech' in note for note in corpus.metadata['notes'])


def test_other_front_end(tmp_path):
    front_end = FrontEnd(n_mels=40)
    folder = write_emodb(tmp_path / 'emodb', EMODB[:2])
    corpus = open_prepared(
        'emodb', data_dir=tmp_path / 'records', manual_dir=folder, front_end=front_end
    )
    assert corpus.source()[0].shape[1] == 40
    assert corpus.index['log_mel_sum'].shape == (2, 40)


def test_unusable_files_are_skipped_and_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(base, 'UTTERANCES_PER_SHARD', 2)  # one shard stays empty
    folder = write_emodb(tmp_path / 'emodb')
    spoil(folder)
    status, out, _ = call(tmp_path, build, 'emodb', f'--manual_dir={folder}')
    assert status == 0
    assert 'skipped 4 unusable' in out
    for line in ('03a01Nc: empty file', '03a01Wa: silent', '08a01Na: too short', '08a02Tb: trunc'):
        assert line in out
    assert 'identical audio: wav/03a01Fa = wav/09a01Fa' in out
    assert '531 published' not in out
    assert '527 published utterances' in out
    corpus = open_prepared('emodb', data_dir=tmp_path / 'records')
    check_rows(corpus)
    assert corpus.index['id'].tolist() == [
        *('wav/03a01Fa', 'wav/09a01Fa', 'wav/11a05Td', 'wav/16b10Wb')
    ]
    assert len(corpus.metadata['skipped']) == 4


def test_strict_stops(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    spoil(folder)
    result = call(tmp_path, build, 'emodb', f'--manual_dir={folder}', '--strict')
    failed(result, '03a01Nc.wav: empty file', '--strict', tmp_path=tmp_path)


def test_nothing_usable(tmp_path):
    folder = write_emodb(tmp_path / 'emodb', EMODB[:1])
    (folder / 'wav/03a01Fa.wav').write_bytes(b'RIFF')
    result = call(tmp_path, build, 'emodb', f'--manual_dir={folder}')
    failed(result, 'none of the 1 utterances', 'cannot be decoded', tmp_path=tmp_path)


def test_building_again(tmp_path):
    folder = write_emodb(tmp_path / 'emodb', EMODB[:3])
    flags = ('emodb', f'--manual_dir={folder}')
    call(tmp_path, build, *flags)
    assert 'prepared already' in call(tmp_path, build, *flags)[1]
    soundfile.write(folder / 'wav/16b10Wb.wav', beep(), 16000)
    assert '4 of 535' in call(tmp_path, build, *flags)[1]
    # A rebuild that fails leaves the corpus that was there.
    (folder / 'wav/08a01Na.wav').write_bytes(b'')
    assert call(tmp_path, build, *flags, '--strict')[0] == 1
    assert len(open_prepared('emodb', data_dir=tmp_path / 'records')) == 4


def test_as_a_plain_tfds_builder(tmp_path):
    """The builder class works with TFDS alone, which passes manual_dir in its own way."""
    import tensorflow_datasets as tfds

    folder = write_emodb(tmp_path / 'emodb', EMODB[:3])
    builder = EmoDB(data_dir=tmp_path / 'tfds')
    assert builder.name == 'emodb'
    assert 'Burkhardt' in builder.info.citation
    config = tfds.download.DownloadConfig(manual_dir=folder)
    builder.download_and_prepare(download_config=config)
    assert len(builder.as_data_source('utterances')) == 3


def test_commands_as_a_user_runs_them(tmp_path):
    """One build and one failure in processes of their own: no traceback, no TensorFlow, no JAX."""
    folder = write_emodb(tmp_path / 'emodb')
    code = (
        'import sys; from tfds_builders.build import main\n'
        f'status = main(["emodb", "--manual_dir={folder}", "--data_dir={tmp_path}", "--workers=2"])\n'
        'from ser_jax.data.corpora import open_corpus\n'
        f'source = open_corpus("emodb", data_dir={str(tmp_path)!r}).source(); source[0]\n'
        'assert not {"tensorflow", "jax"} & set(sys.modules)\n'
        'sys.exit(status)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    result = run('tfds_builders.build', 'nosuch', f'--data_dir={tmp_path / "r"}')
    assert result.returncode == 1
    assert result.stderr.startswith(
        "error: unknown corpus 'nosuch': one of crema_d, csv_corpus/<name>, "
    )
    assert result.stderr.count('\n') == 1
    assert not (tmp_path / 'r').exists()


def test_wrong_folders(tmp_path, monkeypatch):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    (tmp_path / 'empty').mkdir()
    result = call(tmp_path, build, 'emodb', f'--manual_dir={tmp_path / "empty"}')
    failed(result, 'no EMO-DB utterance', 'wav/03a01Fa.wav', tmp_path=tmp_path)
    result = call(tmp_path, build, 'ravdess', f'--manual_dir={tmp_path / "nothing"}')
    failed(result, 'nothing of ravdess is not a folder', tmp_path=tmp_path)
    failed(call(tmp_path, build, 'csv_corpus/mine'), 'metadata.csv', 'SER_JAX_MANUAL_DIR')
    failed(call(tmp_path, build, 'csv_corpus/../mine'), 'unknown corpus')
    failed(
        call(tmp_path, doctor, 'emodb', f'--manual_dir={tmp_path / "empty"}'), 'no EMO-DB utterance'
    )
    failed(call(tmp_path, build, 'emodb', '--map', 'a=b'), 'csv_corpus')
    failed(call(tmp_path, build, 'csv_corpus/mine', '--map', 'ab'), 'LABEL=EMOTION')
    failed(call(tmp_path, build, 'emodb', '--workers=0'), '--workers=0')


def test_unwritable_data_dir(tmp_path, capsys):
    folder = write_emodb(tmp_path / 'emodb', EMODB[:2])
    (tmp_path / 'file').touch()
    for place in ('file', 'file/below'):
        flags = ['emodb', f'--manual_dir={folder}', f'--data_dir={tmp_path / place}']
        assert build.main(flags) == 1
        err = capsys.readouterr().err
        assert err.startswith('error: cannot write below')
        assert err.count('\n') == 1
