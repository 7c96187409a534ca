"""nEMO, URDU, CREMA-D, LibriSpeech, ESC-10, DEMAND and MUSAN: small synthetic trees of the owners' layouts, and the real corpora where available."""

import os
import re
import shutil

import pytest
from conftest import ROOT
from trees import call, check_rows, failed, write_files

from configs.mtl_aug import get_config
from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from ser_jax.train import build_experiment
from tfds_builders import build, doctor

REAL = os.environ.get('SER_JAX_MANUAL_DIR')


def _nemo(folder, *rows):
    write_files(folder, *(f'samples/{row[0]}' for row in rows))
    lines = ['file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage']
    lines += [f'{name}\t{emotion}\tA\ta\t        {name[:3]}\tmale\t23' for name, emotion in rows]
    (folder / 'data.tsv').write_text('\n'.join(lines), encoding='utf-8')
    return folder


def _open(name, folder, tmp_path):
    corpus = open_prepared(name, data_dir=tmp_path / 'records', manual_dir=folder)
    check_rows(corpus)
    return corpus


def test_nemo(tmp_path):
    rows = ('WR0_surprised_70.wav', 'surprised'), ('AB1_anger_7.wav', 'anger')
    folder = _nemo(tmp_path / 'nemo', *rows)
    (folder / 'samples/WR0_surprised_70.wav').rename(folder / 'samples/XX0_fear_1.wav')
    write_files(folder, 'samples/WR0_surprised_70.flac')
    corpus = _open('nemo', folder, tmp_path)
    assert corpus.index['id'].tolist() == ['samples/AB1_anger_7', 'samples/WR0_surprised_70']
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['angry', 'surprised']
    assert corpus.index['speaker'].tolist() == ['nemo/AB1', 'nemo/WR0']
    assert corpus.index['script'].tolist() == ['7', '70']
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (4481, 4479)
    assert any('XX0_fear_1' in note for note in corpus.metadata['notes'])
    status, out, _ = call(tmp_path, doctor, 'nemo', f'--manual_dir={folder}')
    assert status == 1
    assert 'found 2 of 4481 published utterances, missing 4479' in out


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('surprised\t', 'astonished\t', ('astonished', 'WR0_surprised_70')),
        ('emotion\t', 'feeling\t', ('column emotion', 'data.tsv')),
        ('\tA\t', '\t"A\t', ('line 2', 'quote')),
        ('', '', ('no data.tsv',)),
    ],
)
def test_nemo_with_a_bad_table(tmp_path, old, new, words):
    folder = _nemo(tmp_path / 'nemo', ('WR0_surprised_70.wav', 'surprised'))
    table = folder / 'data.tsv'
    if old:
        table.write_text(table.read_text().replace(old, new, 1))
    else:
        table.unlink()
    failed(call(tmp_path, build, 'nemo', f'--manual_dir={folder}'), *words, tmp_path=tmp_path)


def test_urdu(tmp_path):
    published = (ROOT / 'tfds_builders/urdu/published.txt').read_text().split()
    sad_woman = next(name for name in published if name.startswith('Sad/SF'))
    names = 'Angry/SM1_F10_A010.wav', f'{sad_woman}.flac', 'Sad/SF99_F1_S1.wav'
    folder = write_files(tmp_path / 'urdu', *names)
    corpus = _open('urdu', folder, tmp_path)
    assert corpus.index['id'].tolist() == ['Angry/SM1_F10_A010', sad_woman]
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['angry', 'sad']
    assert corpus.index['gender'].tolist() == [1, 0]
    assert corpus.index['speaker'][0] == 'urdu/M1'
    assert corpus.index['speaker'][1].startswith('urdu/F')
    assert corpus.metadata['published'] == 400


def test_librispeech(tmp_path):
    folder = write_files(
        tmp_path / 'LibriSpeech',
        'train-clean-100/19/198/19-198-0001.flac',
        'train-clean-100/26/495/26-495-0080.flac',
        'elsewhere/1/2/1-2-3.flac',
    )
    (folder / 'SPEAKERS.TXT').write_text(
        ';ID |SEX| SUBSET\n19   | F | train-clean-100  | 25.19 | A\n26 | M | train-clean-100 | 25 | B\n'
    )
    corpus = _open('librispeech', folder, tmp_path)
    assert corpus.index['speaker'].tolist() == ['librispeech/19', 'librispeech/26']
    assert corpus.index['gender'].tolist() == [0, 1]
    assert corpus.index['session'].tolist() == ['198', '495']
    assert set(corpus.index['emotion']) == {-1}
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (28539, 28537)
    config = get_config('librispeech')
    config.data.data_dir = str(tmp_path / 'records')
    with pytest.raises(UserError, match='no emotion labels'):
        build_experiment(config)
    (folder / 'SPEAKERS.TXT').unlink()
    status, out, _ = call(tmp_path, doctor, 'librispeech', f'--manual_dir={folder}')
    assert status == 1
    assert 'genders are unknown' in out


def test_esc10(tmp_path):
    folder = write_files(tmp_path / 'esc10', '002 - Rain/1-1-A.ogg', '004 - Baby cry/2-2-A.wav')
    corpus = _open('esc10', folder, tmp_path)
    assert corpus.index['script'].tolist() == ['rain', 'baby_cry']
    assert set(corpus.index['speaker']) == {''}
    assert corpus.metadata['published'] == 400


def test_crema_d(tmp_path):
    names = '1001_DFA_ANG_XX', '1040_ITH_SAD_X', '1002_IEO_NEU_HI', '1003_IEO_JOY_HI'
    folder = write_files(tmp_path / 'crema_d', *(f'AudioWAV/{name}.wav' for name in names))
    (folder / 'VideoDemographics.csv').write_text(
        'ActorID,Age,Sex,Race\n1001,51,Male,Caucasian\n1002,21,Female,Caucasian\n'
    )
    corpus = _open('crema_d', folder, tmp_path)
    assert corpus.index['id'].tolist() == sorted(f'AudioWAV/{name}' for name in names[:3])
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['angry', 'neutral', 'sad']
    assert corpus.index['speaker'].tolist() == ['crema_d/1001', 'crema_d/1002', 'crema_d/1040']
    assert corpus.index['script'].tolist() == ['DFA', 'IEO', 'ITH']
    assert corpus.index['gender'].tolist() == [1, 0, -1]
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (7442, 7439)
    assert any('1003_IEO_JOY_HI' in note for note in corpus.metadata['notes'])
    table = folder / 'VideoDemographics.csv'
    table.write_text('Actor,Sex\n1001,Male\n')
    failed(call(tmp_path, build, 'crema_d', f'--manual_dir={folder}'), 'ActorID')
    table.write_text('ActorID,Age,Sex\n1001,51,Male\n"1002,21,Female\n')
    failed(call(tmp_path, build, 'crema_d', f'--manual_dir={folder}'), 'line 3', 'quote')
    table.write_text('ActorID,Age,Sex\n1001,51, or so,Male\n')
    failed(call(tmp_path, build, 'crema_d', f'--manual_dir={folder}'), 'line 2 has 4 cells')


def test_demand(tmp_path):
    folder = write_files(
        tmp_path / 'demand', 'TBUS/ch01.wav', 'TBUS/ch02.wav', 'DKITCHEN/ch01.flac'
    )
    corpus = _open('demand', folder, tmp_path)
    assert corpus.index['id'].tolist() == ['DKITCHEN/ch01', 'TBUS/ch01']
    assert corpus.index['script'].tolist() == ['dkitchen', 'tbus']
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (18, 16)


@pytest.mark.parametrize('top', ['', 'musan/'])
def test_musan(tmp_path, top):
    names = 'noise/free-sound/noise-free-sound-0000.wav', 'speech/us-gov/speech-us-gov-0001.wav'
    folder = write_files(tmp_path / 'musan', *(top + name for name in names))
    corpus = _open('musan', folder, tmp_path)
    assert corpus.index['id'].tolist() == [name.removesuffix('.wav') for name in names]
    assert corpus.index['script'].tolist() == ['noise', 'speech']
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (930 + 426, 1354)


def test_a_folder_of_recordings(tmp_path):
    names = 'a.wav', 'a.flac', 'street/b.ogg', 'street/._b.ogg', 'deep/deeper/c.flac', 'notes.txt'
    folder = write_files(tmp_path / 'mine', *(name for name in names if not name.endswith('txt')))
    (folder / 'notes.txt').write_text('no recording')
    (folder / 'broken.mp3').write_bytes(b'no recording either')
    corpus = _open('folder/mine', folder, tmp_path)
    assert corpus.index['id'].tolist() == ['a', 'a.flac', 'deep/deeper/c', 'street/b']
    assert corpus.index['script'].tolist() == ['', '', 'deeper', 'street']
    assert set(corpus.index['speaker']) == {''}
    assert [problem['id'] for problem in corpus.metadata['skipped']] == ['broken']
    assert corpus.metadata['protocol'] is None
    (tmp_path / 'empty').mkdir()
    failed(
        call(tmp_path, build, 'folder/none', f'--manual_dir={tmp_path / "empty"}'), 'no recording'
    )


def test_a_folder_of_linked_folders_and_several_formats(tmp_path):
    write_files(tmp_path / 'disk', 'one/x.wav', 'one/y.wav')
    folder = write_files(tmp_path / 'mine', 'z.wav', 'x.wav', 'x.flac', 'song.m4a.wav')
    shutil.copy(folder / 'z.wav', folder / 'z.flac')  # the same audio in two formats
    (folder / 'old.m4a').touch()
    (folder / 'linked').symlink_to(tmp_path / 'disk', target_is_directory=True)
    (folder / 'gone.wav').symlink_to(tmp_path / 'nowhere.wav')
    (folder / 'linked' / 'loop').symlink_to(folder, target_is_directory=True)
    corpus = _open('folder/mine', folder, tmp_path)
    assert corpus.index['id'].tolist() == [
        *('linked/one/x', 'linked/one/y', 'song.m4a', 'x', 'x.flac', 'z')
    ]
    notes = corpus.metadata['notes']
    assert any('passed over 1 file ' in note and 'old.m4a' in note for note in notes)
    assert any(
        '1 recordings are there in two formats' in note and 'z.flac' in note for note in notes
    )


def test_a_folder_joins_training_unlabelled(beeps, tmp_path):
    folder = write_files(tmp_path / 'mine', *(f'{number}.wav' for number in range(4)))
    shutil.copytree(beeps['data_dir'], tmp_path / 'records')
    _open('folder/mine', folder, tmp_path)
    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = str(tmp_path / 'records')
    config.unlabelled = ('folder/mine',)
    experiment = build_experiment(config)
    batches = experiment.dataset.train_batches(experiment.dataset.folds[0].train)
    assert len(batches.unlabelled) == 4
    assert not batches[0]['emotion_mask'][-batches.n_unlabelled :].any()


@pytest.mark.parametrize(
    'name', ['nemo', 'urdu', 'crema_d', 'iemocap', 'librispeech', 'esc10', 'demand', 'musan']
)
def test_an_empty_folder_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    failed(call(tmp_path, build, name, f'--manual_dir={tmp_path / name}'), str(tmp_path / name))


@pytest.mark.parametrize(('name', 'published'), [('librispeech', None), ('esc10', 400)])
def test_real_folders(tmp_path, name, published):
    if not REAL or not os.path.isdir(os.path.join(REAL, name)):
        pytest.skip(f'real audio: set SER_JAX_MANUAL_DIR to a folder with {name}/')
    status, out, _ = call(tmp_path, doctor, name, f'--manual_dir={REAL}/{name}')
    first = out.splitlines()[0]
    found, total, missing, unusable = map(int, re.findall(r' (\d+)\b', first.partition(': ')[2]))
    assert found > 0
    assert total in (published, found + missing)
    assert unusable == 0
    assert status == (missing > 0)
