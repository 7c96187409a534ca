"""Opening corpora; the real ones where available."""

import os
import pathlib
import pickle
import shlex
import shutil
import warnings

import numpy as np
import pytest
import soundfile

from ser_jax.audio.log_mel import FrontEnd, log_mel
from ser_jax.data.corpora import open_corpus
from ser_jax.data.records import EMOTIONS, GENDERS, corpus_folder, default_manual_dir
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from tfds_builders import build, doctor
from tfds_builders.core.prepare import prepare


@pytest.fixture
def mine(tmp_path):
    """Folder of a csv corpus of three beeps."""
    folder = tmp_path / 'manual' / 'mine'
    folder.mkdir(parents=True)
    rows = ['file,emotion,speaker']
    for number, emotion in enumerate(('happy', 'sad', 'angry')):
        time = np.arange(6000 + 800 * number) / 16000
        soundfile.write(folder / f'{number}.wav', 0.3 * np.sin(2e3 * time), 16000)
        rows.append(f'{number}.wav,{emotion},s{number}')
    (folder / 'metadata.csv').write_text('\n'.join(rows))
    return folder


def test_only_the_other_representation_is_prepared(tmp_path, beeps, monkeypatch):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    records = tmp_path / 'records'
    name = 'csv_corpus/beeps/log_mel'  # another test may have prepared its waveforms
    shutil.copytree(f'{beeps["data_dir"]}/{name}', records / name)
    with pytest.raises(UserError, match=r'prepared as log_mel only.*--representation=waveform'):
        open_prepared('csv_corpus/beeps', data_dir=records, representation='waveform')


def test_vocabulary():
    assert ' '.join(EMOTIONS) == (
        'neutral calm happy sad angry fearful disgusted surprised bored excited frustrated other'
    )
    assert GENDERS == ('female', 'male')


def test_places(monkeypatch):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', '/corpora')
    assert default_manual_dir('emodb') == pathlib.Path('/corpora/emodb')
    assert default_manual_dir('csv_corpus/mine') == pathlib.Path('/corpora/mine')
    monkeypatch.delenv('SER_JAX_MANUAL_DIR')
    assert default_manual_dir('emodb') is None
    monkeypatch.setenv('HOME', '/home/me')
    folder = corpus_folder('csv_corpus/mine', data_dir=None, representation='log_mel')
    assert str(folder) == '/home/me/.cache/ser_jax/records/csv_corpus/mine/log_mel/1.0.0'
    with pytest.raises(UserError, match=r'representation .mfcc.: one of log_mel, waveform'):
        corpus_folder('emodb', data_dir=None, representation='mfcc')


def test_prepared_at_first_use_from_the_environment(tmp_path, monkeypatch, mine, capsys):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', str(mine.parent))
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records')
    assert 'preparing csv_corpus/mine' in capsys.readouterr().err
    again = open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records')
    assert capsys.readouterr().err == ''
    assert again.metadata == corpus.metadata
    source = pickle.loads(pickle.dumps(again.source()))
    assert len(source) == len(again) == 3
    assert source[np.int64(1)].shape == (1 + 6800 // 160, 80)
    assert source[1].dtype == np.float32


def opening(name, **where):
    """The warnings of opening a prepared corpus."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        open_corpus(name, **where)
    return [str(warning.message) for warning in found]


def edit(table, old='sad', new='bored'):
    table.write_text(table.read_text().replace(old, new))


@pytest.mark.parametrize('given', [False, True])
def test_labels_edited_after_a_build_are_noticed(tmp_path, mine, monkeypatch, given):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    where = {'data_dir': tmp_path / 'records'}
    options = {'map': {'sad': 'bored'}, 'own_labels': True}
    prepare('csv_corpus/mine', manual_dir=mine, options=options, **where)
    where |= {'manual_dir': mine} if given else {}
    assert opening('csv_corpus/mine', **where) == []
    edit(mine / 'metadata.csv', 'angry', 'happy')
    (warning,) = opening('csv_corpus/mine', **where)
    assert warning == (
        f'{mine}: metadata.csv has changed since csv_corpus/mine was prepared: to prepare it again, run python -m '
        f'tfds_builders.build csv_corpus/mine --representation=log_mel --manual_dir={mine} --data_dir={tmp_path}/records '
        '--map sad=bored --own_labels'
    )
    arguments = shlex.split(warning.partition('tfds_builders.build ')[2])
    assert build.main(arguments) == 0
    assert opening('csv_corpus/mine', **where) == []
    with (mine / 'metadata.csv').open('a') as file:
        file.write('\n')
    assert 'has changed' in opening('csv_corpus/mine', **where)[0]
    assert build.main(arguments) == 0  # although the labels are the same
    assert opening('csv_corpus/mine', **where) == []
    (mine / 'metadata.csv').unlink()
    assert 'metadata.csv is gone since' in opening('csv_corpus/mine', **where)[0]


def test_records_without_their_folder_are_opened_in_silence(tmp_path, mine, monkeypatch, capsys):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    where = {'data_dir': tmp_path / 'records'}
    open_prepared('csv_corpus/mine', manual_dir=mine, **where)
    check = ['csv_corpus/mine', '--records', f'--data_dir={tmp_path}/records']
    assert doctor.main(check) == 0
    assert 'note' not in capsys.readouterr().out
    shutil.copytree(mine, tmp_path / 'elsewhere/mine', copy_function=shutil.copyfile)
    shutil.rmtree(mine)
    assert opening('csv_corpus/mine', **where) == []
    assert doctor.main(check) == 0
    assert f'note: prepared from {mine}, which is not here' in capsys.readouterr().out
    # An equal copy, whose times differ, is found again; a changed one is not equal.
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', str(tmp_path / 'elsewhere'))
    assert opening('csv_corpus/mine', **where) == []
    edit(tmp_path / 'elsewhere/mine/metadata.csv')
    assert 'elsewhere/mine: metadata.csv has changed' in opening('csv_corpus/mine', **where)[0]


def test_recordings_that_change_after_a_build_are_noticed(tmp_path, mine):
    where = {'data_dir': tmp_path / 'records'}
    with (mine / 'metadata.csv').open('a') as file:
        file.write('\n3.wav,happy,s3\n')  # not there yet
    open_prepared('csv_corpus/mine', manual_dir=mine, **where)
    (mine / 'not_in_the_table.wav').touch()
    assert opening('csv_corpus/mine', **where) == []
    soundfile.write(mine / '3.wav', np.zeros(8000), 16000)
    soundfile.write(mine / '0.wav', np.zeros(8000), 16000)
    os.utime(mine / '1.wav')
    (mine / '2.wav').unlink()
    (warning,) = opening('csv_corpus/mine', **where)
    assert '0.wav and 1 more recordings have changed, 3.wav is new, 2.wav is gone since' in warning


def test_recordings_added_to_a_folder_are_noticed(tmp_path, mine):
    where = {'data_dir': tmp_path / 'records'}
    prepare('folder/mine', manual_dir=mine, **where)
    assert opening('folder/mine', **where) == []
    (mine / 'deep').mkdir()
    shutil.copy(mine / '0.wav', mine / 'deep/new.wav')
    assert 'deep/new.wav is new since folder/mine' in opening('folder/mine', **where)[0]


def test_records_of_older_versions_are_opened(tmp_path, mine):
    where = {'data_dir': tmp_path / 'records'}
    corpus = open_prepared('csv_corpus/mine', manual_dir=mine, **where)
    (corpus.path / 'sources.json').unlink()
    (corpus.path / 'checksums.json').unlink()
    assert opening('csv_corpus/mine', **where) == []
    edit(mine / 'metadata.csv')
    assert opening('csv_corpus/mine', **where) == []  # they do not tell the folder
    assert 'has changed' in opening('csv_corpus/mine', manual_dir=mine, **where)[0]


@pytest.mark.parametrize('text', ['', '[]', '{"manual_dir": "/", "recordings": {"a": 3}}'])
def test_damaged_list_of_sources(tmp_path, mine, text):
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path, manual_dir=mine)
    (corpus.path / 'sources.json').write_text(text)
    (corpus.path / 'checksums.json').unlink()
    with pytest.raises(UserError, match=r'sources.json is damaged'):
        open_corpus('csv_corpus/mine', data_dir=tmp_path)


def test_corpus_hash_depends_on_the_content(tmp_path, mine):
    """The hash depends on recordings and labels, not on the folder."""
    hashes = []
    for name in ('one', 'two', 'three'):
        if name == 'three':
            table = mine / 'metadata.csv'
            table.write_text(table.read_text().replace('sad', 'bored'))
        corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path / name, manual_dir=mine)
        hashes.append(corpus.metadata['corpus_hash'])
    assert hashes[0] == hashes[1] != hashes[2]


def test_other_front_end_names_both(tmp_path, mine):
    open_prepared('csv_corpus/mine', data_dir=tmp_path, manual_dir=mine)
    with pytest.raises(
        UserError, match=r'hop_length=160, n_mels=80, but hop_length=128, n_mels=64'
    ):
        open_prepared(
            'csv_corpus/mine', data_dir=tmp_path, front_end=FrontEnd(n_mels=64, hop_length=128)
        )


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        (
            'emo-db',
            "unknown corpus 'emo-db': one of crema_d, csv_corpus/<name>, demand, demo_speech, emodb, esc10, folder/<name>",
        ),
        ('csv_corpus/none', 'csv_corpus/none is not prepared and not here: it needs a folder'),
        (
            'csv_corpus/',
            "'csv_corpus/': the name after csv_corpus/ begins .* such as csv_corpus/mine",
        ),
        ('csv_corpus', "'csv_corpus': the name after csv_corpus/"),
        ('csv_corpus/méin korpus', r'only A-Z a-z 0-9 _ \. -, such as csv_corpus/mein_korpus'),
        ('folder/../x', 'begins with a letter or digit .* such as folder/x'),
        ('folder/a/b', 'such as folder/a_b'),
    ],
)
def test_missing_corpora(tmp_path, monkeypatch, name, words):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    with pytest.raises(UserError, match=words) as caught:
        open_prepared(name, data_dir=tmp_path / 'records')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'records').exists()


def test_opening_a_corpus_builds_nothing(tmp_path):
    where = f'--representation=waveform --data_dir={tmp_path}'
    with pytest.raises(UserError, match=f'demo_speech is not prepared in .* demo_speech {where}'):
        open_corpus('demo_speech', data_dir=tmp_path, representation='waveform')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('file', ['index.npz', 'metadata.json'])
def test_damaged_index(tmp_path, mine, file):
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path, manual_dir=mine)
    content = (corpus.path / file).read_bytes()
    (corpus.path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='is damaged'):
        open_prepared('csv_corpus/mine', data_dir=tmp_path)


REAL = os.environ.get('SER_JAX_MANUAL_DIR', '')
needs = lambda name: pytest.mark.skipif(
    not (pathlib.Path(REAL) / name).is_dir() or not REAL,
    reason=f'real audio: set SER_JAX_MANUAL_DIR to a folder with {name}/',
)


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    return tmp_path_factory.mktemp('records')


@needs('emodb')
def test_real_emodb(records):
    corpus = open_prepared('emodb', data_dir=records)
    names = np.array([EMOTIONS[code] for code in corpus.index['emotion']])
    counts = {name: int((names == name).sum()) for name in corpus.metadata['labels']}
    assert counts == {'angry': 127, 'happy': 71, 'neutral': 79, 'sad': 62}
    assert sum(counts.values()) == 339
    assert corpus.metadata['missing'] == 535 - len(corpus)
    assert corpus.metadata['skipped'] == []
    task = np.isin(names, corpus.metadata['labels'])
    assert len(set(corpus.index['speaker'][task])) == 10
    men = set(corpus.index['speaker'][corpus.index['gender'] == 1])
    assert men == {f'emodb/{n}' for n in ('03', '10', '11', '12', '15')}
    assert len(set(corpus.index['audio_sha256'])) == len(corpus)
    _check_audio(corpus, pathlib.Path(REAL) / 'emodb')


@needs('ravdess')
def test_real_ravdess(records):
    corpus = open_prepared('ravdess', data_dir=records)
    assert len(corpus) == 1440
    counts = np.bincount(corpus.index['emotion'], minlength=len(EMOTIONS))
    assert counts.tolist() == [96] + [192] * 7 + [0] * 4
    speakers, each = np.unique(corpus.index['speaker'], return_counts=True)
    assert len(speakers) == 24
    assert set(each) == {60}
    assert (corpus.index['gender'] == 1).sum() == 720
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (1440, 0)
    assert any('03-01-03-01-02-02-07' in note for note in corpus.metadata['notes'])
    assert len(set(corpus.index['audio_sha256'])) == 1439
    _check_audio(corpus, pathlib.Path(REAL) / 'ravdess')


def _check_audio(corpus, folder):
    """Records equal the front end applied to the owner's files, read with soundfile."""
    source = corpus.source()
    for row in range(0, len(corpus), len(corpus) // 7):
        [path] = folder.glob(f'{corpus.index["id"][row]}.*')
        samples, rate = soundfile.read(path, dtype='int16')
        if rate != 16000 or samples.ndim > 1:
            continue
        # BLAS may add in another order in another process.
        np.testing.assert_allclose(source[row], log_mel(samples), rtol=0, atol=1e-4)
        assert corpus.index['frames'][row] == 1 + len(samples) // 160
        assert corpus.index['duration'][row] == pytest.approx(len(samples) / 16000)


def test_the_index_is_read_without_tfds(tmp_path, mine, monkeypatch):
    """Folds, leak check and normalisation must not import TFDS."""
    open_prepared('csv_corpus/mine', data_dir=tmp_path, manual_dir=mine)
    monkeypatch.setitem(__import__('sys').modules, 'tensorflow_datasets', None)
    assert len(open_prepared('csv_corpus/mine', data_dir=tmp_path)) == 3
