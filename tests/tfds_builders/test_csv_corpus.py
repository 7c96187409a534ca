"""csv corpora: a folder and a metadata.csv, valid and invalid."""

import numpy as np
import pytest
import soundfile
from trees import call, check_rows, failed, write_csv

from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from tfds_builders import build, doctor

TABLE = """file,emotion,speaker,gender,arousal,language
a/one.wav,Happy,anna,f,3.5,en
a/two.flac,angry,ben,male,,en
three.ogg,,,,,

four.mp3,bored,ben,m,1,
"""


def test_csv_corpus(tmp_path):
    folder = write_csv(
        tmp_path / 'mine', TABLE, ('a/one.wav', 'a/two.flac', 'three.ogg', 'four.mp3')
    )
    flags = (f'--manual_dir={folder}', '--map', 'bored=neutral')
    assert call(tmp_path, build, 'csv_corpus/mine', *flags)[0] == 0
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records')
    check_rows(corpus)
    index = corpus.index
    assert index['id'].tolist() == ['a/one', 'a/two', 'three', 'four']
    assert index['emotion'].tolist() == [EMOTIONS.index('happy'), EMOTIONS.index('angry'), -1, 0]
    assert index['speaker'].tolist() == [
        *('csv_corpus/mine/anna', 'csv_corpus/mine/ben', '', 'csv_corpus/mine/ben')
    ]
    assert index['gender'].tolist() == [0, 1, -1, 1]
    np.testing.assert_equal(index['arousal'], np.array([3.5, np.nan, np.nan, 1], np.float32))
    metadata = corpus.metadata
    assert any('1 utterances have no emotion' in note for note in metadata['notes'])
    assert metadata['labels'] == ['neutral', 'happy', 'angry']
    assert metadata['protocol'] == 'leave_one_speaker_out()'
    assert metadata['published'] is None
    with (folder / 'metadata.csv').open('a') as file:
        file.write('\n')
    with pytest.warns(UserWarning, match='has changed since'):
        open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records', manual_dir=folder)


def test_csv_own_labels_semicolons_and_many_speakers(tmp_path):
    rows = [f'{n}.wav;{"Wut" if n % 2 else "Freude"};s{n}' for n in range(14)]
    table = '\ufefffile;emotion;speaker\n' + '\n'.join(rows)
    folder = write_csv(tmp_path / 'de', table, [f'{n}.wav' for n in range(14)])
    status, _, err = call(
        tmp_path, build, 'csv_corpus/de', f'--manual_dir={folder}', '--own_labels'
    )
    assert status == 0, err
    corpus = open_prepared('csv_corpus/de', data_dir=tmp_path / 'records')
    assert corpus.metadata['vocabulary'] == corpus.metadata['labels'] == ['Freude', 'Wut']
    assert corpus.metadata['protocol'] == 'speaker_folds(5)'
    assert corpus.index['emotion'].tolist() == [0, 1] * 7
    check_rows(corpus)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (None, ('metadata.csv is missing', 'file, emotion, speaker')),
        ('', ('lacks the columns file, emotion, speaker', 'none')),
        ('file,label,speaker\na.wav,happy,x\n', ('lacks the column emotion', 'file, label')),
        ('file,emotion,speaker\n', ('no rows',)),
        (
            'file,emotion,speaker\na.wav,joy,x\n',
            ("'joy' (line 2)", '--map joy=', '--own_labels', 'neutral, calm'),
        ),
        ('file,emotion,speaker\na.wav,sad|calm,x\n', ("--map 'sad|calm=EMOTION'", "'sad|calm='")),
        ('file,emotion,speaker\n../a.wav,happy,x\n', ('line 2', 'outside')),
        ('file,emotion,speaker\nb/../../a.wav,happy,x\n', ('line 2', 'outside')),
        ('file,emotion,speaker\n/etc/a.wav,happy,x\n', ('line 2', 'outside')),
        ('file,emotion,speaker\n,happy,x\n', ('line 2', 'no file')),
        ('file,emotion,speaker\na.wav,happy,x\na.wav,sad,x\n', ('line 3', 'line 2 already')),
        ('file,emotion,speaker,valence\na.wav,happy,x,7\n', ('line 2', "valence '7'", '1 to 5')),
        ('file,emotion,speaker,valence\na.wav,happy,x,high\n', ("valence 'high'",)),
        ('file,emotion,speaker,gender\na.wav,happy,x,other\n', ("gender 'other'",)),
        ('file,emotion,speaker\nnot_there.wav,happy,x\n', ('none of the 1', 'no such file')),
    ],
)
def test_bad_csv(tmp_path, text, words):
    folder = write_csv(tmp_path / 'bad', text or '', ['a.wav'])
    if text is None:
        (folder / 'metadata.csv').unlink()
    failed(
        call(tmp_path, build, 'csv_corpus/bad', f'--manual_dir={folder}'), *words, tmp_path=tmp_path
    )


def test_unknown_columns_are_notes(tmp_path):
    text = 'file,emotion,speaker,arousel,mood\na.wav,happy,x,3,\n'
    folder = write_csv(tmp_path / 'mine', text, ['a.wav'])
    _, out, _ = call(tmp_path, build, 'csv_corpus/mine', f'--manual_dir={folder}')
    assert "note: column 'arousel' is not used; did you mean 'arousal'?\n" in out
    assert "note: column 'mood' is not used\n" in out


def test_csv_not_utf8(tmp_path):
    folder = write_csv(tmp_path / 'bad', '')
    (folder / 'metadata.csv').write_bytes('file,emotion,speaker\nä.wav,,\n'.encode('latin-1'))
    failed(
        call(tmp_path, build, 'csv_corpus/bad', f'--manual_dir={folder}'),
        'UTF-8',
        tmp_path=tmp_path,
    )


def test_csv_absent_files(tmp_path):
    text = 'file,emotion,speaker\na.wav,happy,x\ngone.wav,sad,x\n'
    folder = write_csv(tmp_path / 'some', text, ['a.wav'])
    flags = ('csv_corpus/some', f'--manual_dir={folder}')
    failed(call(tmp_path, build, *flags, '--strict'), 'gone.wav: no such file', tmp_path=tmp_path)
    status, out, _ = call(tmp_path, build, *flags)
    assert status == 0
    assert 'gone: no such file' in out
    status, out, _ = call(tmp_path, doctor, *flags)
    assert status == 1
    assert '1 of 2 recordings are usable' in out


def test_blank_like_speakers_are_unknown(tmp_path):
    missing = ('nan', 'NA', 'None', '?', 'n/a', '')
    rows = [f'{n}.wav,happy,{name},{name},' for n, name in enumerate((*missing, 'Nan Li'))]
    text = '\n'.join(['file,emotion,speaker,session,gender', *rows]) + '\n'
    folder = write_csv(tmp_path / 'mine', text, [f'{n}.wav' for n in range(len(rows))])
    status, out, _ = call(tmp_path, build, 'csv_corpus/mine', f'--manual_dir={folder}')
    assert status == 0
    assert 'note: 6 utterances have no speaker' in out
    assert "note: the speaker '?' or 'NA' or 'None' or 'n/a' or 'nan' counts as unknown" in out
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records')
    assert corpus.index['speaker'].tolist() == [''] * 6 + ['csv_corpus/mine/Nan Li']
    assert corpus.index['session'].tolist() == [''] * 6 + ['Nan Li']


def test_a_label_that_looks_missing_is_named(tmp_path):
    text = 'file,emotion,speaker\na.wav,joy,x\nb.wav,nan,y\n'
    folder = write_csv(tmp_path / 'mine', text, ['a.wav', 'b.wav'])
    flags = ('csv_corpus/mine', f'--manual_dir={folder}', '--own_labels')
    assert "the label 'nan' is a class" in call(tmp_path, build, *flags)[1]


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        ('03', '3'),
        ('3.0', '3'),
        ('Anna', 'anna'),
        ('Jos\u00e9', 'Jose\u0301'),
        ("'03'", '03'),
        ('s_01', 'S1'),
        ('Anna B', 'anna_b'),
    ],
)
def test_one_speaker_under_two_names_is_a_warning(tmp_path, one, other):
    names = (one, other, 'ben', 'cara')
    rows = [f'{n}.wav,{("happy", "sad")[n % 2]},{name}' for n, name in enumerate(names)]
    text = '\n'.join(['file,emotion,speaker', *rows]) + '\n'
    folder = write_csv(tmp_path / 'mine', text, [f'{n}.wav' for n in range(4)])
    flags = ('csv_corpus/mine', f'--manual_dir={folder}')
    names = sorted((one, other))
    expected = f'warning: speakers {names[0]!r} and {names[1]!r} of csv_corpus/mine differ in'
    for module in (doctor, build):
        status, out, _ = call(tmp_path, module, *flags)
        assert status == 0
        assert out.count('warning: ') == 1
        assert expected in out


NAMES = [
    ('Jos\u00e9.wav', 'Jose\u0301.wav', 'in another Unicode form'),
    ('ANNA.WAV', 'anna.wav', 'in another case'),
    ('anna', 'anna.wav', 'with another ending'),
    ('anna.wav', 'anna.flac', 'with another ending'),
    ('corpus/audio/anna.wav', 'audio/anna.wav', 'in another folder'),
    ('anna.wav', 'deep/anna.wav', 'in another folder'),
]


@pytest.mark.parametrize(('named', 'there', 'difference'), NAMES)
def test_the_file_that_a_wrong_name_means_is_named(tmp_path, named, there, difference):
    text = f'file,emotion,speaker\n{named},happy,x\n'
    folder = write_csv(tmp_path / 'mine', text, [there, 'other/ben.wav'])
    flags = ('csv_corpus/mine', f'--manual_dir={folder}')
    words = f'no such file ({difference}: there is {there!r})'
    failed(call(tmp_path, build, *flags), words, tmp_path=tmp_path)
    failed(call(tmp_path, build, *flags, '--strict'), words, tmp_path=tmp_path)
    assert words in call(tmp_path, doctor, *flags)[1]


@pytest.mark.parametrize('named', ['C:\\data\\Anna.wav', '/home/me/anna.wav', '..\\anna.wav'])
def test_a_name_outside_names_the_file_inside(tmp_path, named):
    text = f'file,emotion,speaker\n{named},happy,x\n'
    folder = write_csv(tmp_path / 'mine', text, ['audio/anna.wav'])
    status = call(tmp_path, build, 'csv_corpus/mine', f'--manual_dir={folder}')
    failed(status, 'line 2', 'outside', "name files inside it: 'audio/anna.wav'")


def test_thousands_of_equal_problems_are_summarised(tmp_path):
    rows = [f'old/{n}.wav,happy,x' for n in range(3000)]
    rows += [f'gone{n}.wav,happy,x' for n in range(3)]
    text = '\n'.join(['file,emotion,speaker', 'a.wav,happy,y', *rows])
    folder = write_csv(tmp_path / 'mine', text, ['a.wav'])
    for n in range(3000):
        (folder / f'{n}.wav').touch()
    flags = ('csv_corpus/mine', f'--manual_dir={folder}')
    for module in (build, doctor):
        _, out, _ = call(tmp_path, module, *flags, '--workers=1')
        assert len(out.splitlines()) < 40
        assert (
            "old/0.wav: no such file (in another folder: there is '0.wav')".replace(
                '.wav:', '.wav:' if module is doctor else ':'
            )
            in out
        )
        assert '… and 2980 more: no such file (in another folder)\n' in out
        assert 'gone2' in out
    assert call(tmp_path, doctor, *flags, '--workers=1', '--all')[1].count('no such file') == 3003


def test_decimal_commas_and_missing_ratings(tmp_path):
    cells = ('3,5', '2.5', 'NA', '?', '')
    rows = [f'{n}.wav;happy;x;{text}' for n, text in enumerate(cells)]
    table = '\n'.join(['sep=;', 'file;emotion;speaker;arousal', *rows]) + '\n'
    folder = write_csv(tmp_path / 'mine', table, [f'{n}.wav' for n in range(len(cells))])
    status, _, err = call(tmp_path, build, 'csv_corpus/mine', f'--manual_dir={folder}')
    assert status == 0, err
    corpus = open_prepared('csv_corpus/mine', data_dir=tmp_path / 'records')
    np.testing.assert_equal(
        corpus.index['arousal'], np.array([3.5, 2.5, np.nan, np.nan, np.nan], np.float32)
    )


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('sep=;\nfile;emotion;speaker\na.wav;joy;x\n', ("'joy' (line 3)",)),
        ('file|emotion|speaker\na.wav|sad|x\n', ('it has file|emotion|speaker (commas, semi',)),
        (
            'file,emotion,speaker,arousal\na.wav,sad,x,0.5\n',
            ("line 2: arousal '0.5' is not a number from 1 to 5: convert the whole column",),
        ),
        (
            'file,emotion,speaker,arousal\na.wav,sad,x,inf\n',
            ("arousal 'inf' is not a number from 1 to 5",),
        ),
        (
            'file,emotion,speaker\na.wav,sad,x\na.flac,happy,x\n',
            ("line 3: 'a.flac' and 'a.wav' in line 2 differ in their ending only",),
        ),
    ],
)
def test_what_to_do_is_told(tmp_path, text, words):
    folder = write_csv(tmp_path / 'bad', text, ['a.wav', 'a.flac'])
    failed(call(tmp_path, build, 'csv_corpus/bad', f'--manual_dir={folder}'), *words)


@pytest.mark.parametrize(
    ('times', 'refused'),
    [
        (('0.2,0.4', '0,0.4'), 'line 2'),
        (('0,0.2', '0.2,0.4'), 'line 2'),
        (('0,0.4', '00:00:00.100,00:00:00.400'), 'line 3'),
        (('0,0.4', '0.0,'), None),
        (('0,0.39', '0 days,NaT'), None),
        (('2026-03-01,2026-03-02', 'a,b'), None),
    ],
)
def test_segments_of_files_are_refused(tmp_path, times, refused):
    rows = [f'{name}.wav,sad,x,{cells}' for name, cells in zip('ab', times)]
    text = '\n'.join(['file,emotion,speaker,start,end', *rows]) + '\n'
    folder = write_csv(tmp_path / 'mine', text, ['a.wav', 'b.wav'])
    result = call(tmp_path, doctor, 'csv_corpus/mine', f'--manual_dir={folder}')
    if refused:
        failed(result, refused, 'segments of files are not read')
    else:
        assert result[0] == 0


def test_one_label_in_two_spellings_is_a_warning(tmp_path):
    labels = ('Joy', 'joy', 'joy\u200b', 'anger')
    rows = [f'{n}.wav,{label},s{n}' for n, label in enumerate(labels)]
    text = '\n'.join(['file,emotion,speaker', *rows]) + '\n'
    folder = write_csv(tmp_path / 'mine', text, [f'{n}.wav' for n in range(4)])
    flags = ('csv_corpus/mine', f'--manual_dir={folder}', '--own_labels')
    for module in (doctor, build):
        out = call(tmp_path, module, *flags)[1]
        assert out.count('warning: ') == 1
        assert "labels 'Joy' and 'joy' and 'joy\\u200b' differ in spelling only and are 3 cl" in out


@pytest.mark.parametrize(
    ('emotion', 'speaker', 'expected'),
    [
        ('sad', 'x', "warning: identical audio: 0 = 1, labelled 'happy' and 'sad': correct"),
        ('happy', 'y', "labelled 'csv_corpus/mine/x' and 'csv_corpus/mine/y': correct"),
        ('happy', 'x', 'note: identical audio: 0 = 1'),
        ('', '', 'note: identical audio: 0 = 1'),
    ],
)
def test_contradictory_labels_of_one_recording(tmp_path, emotion, speaker, expected):
    text = f'file,emotion,speaker\n0.wav,happy,x\n1.wav,{emotion},{speaker}\n2.wav,sad,z\n'
    folder = write_csv(tmp_path / 'mine', text, ['0.wav', '2.wav'])
    (folder / '1.wav').write_bytes((folder / '0.wav').read_bytes())
    for module in (doctor, build):
        out = call(tmp_path, module, 'csv_corpus/mine', f'--manual_dir={folder}')[1]
        assert expected in out


def test_maps_that_contradict_each_other_or_fit_no_label(tmp_path):
    text = 'file,emotion,speaker\n0.wav,Freude,x\n1.wav,Trauer,y\n'
    folder = write_csv(tmp_path / 'mine', text, ['0.wav', '1.wav'])
    flags = [f'--manual_dir={folder}', '--map=Freude=happy', '--map=Trauer=sad']
    failed(
        call(tmp_path, doctor, 'csv_corpus/mine', *flags, '--map=freude=sad'),
        "--map freude=sad: another --map reads 'freude' as 'happy'",
    )
    status, out, _ = call(tmp_path, doctor, 'csv_corpus/mine', *flags, '--map=Wut=angry')
    assert status == 0
    assert out.count('--map') == 1
    assert "note: --map: no label is 'Wut'" in out


@pytest.mark.parametrize('name', ['Metadata.CSV', 'metadata.csv.csv', 'metadata.xlsx'])
def test_a_table_of_another_name_is_named(tmp_path, name):
    folder = write_csv(tmp_path / 'mine', 'file,emotion,speaker\n0.wav,sad,x\n', ['0.wav'])
    (folder / 'metadata.csv').rename(folder / name)
    result = call(tmp_path, doctor, 'csv_corpus/mine', f'--manual_dir={folder}')
    failed(result, f'there is {name}: save it as metadata.csv')


def test_numbers_that_a_spreadsheet_rounded(tmp_path):
    text = 'file,emotion,speaker,session\n0.wav,sad,1.23E+11,1E5\n1.wav,sad,1.23E+11,e+1\n'
    folder = write_csv(tmp_path / 'mine', text, ['0.wav', '1.wav'])
    out = call(tmp_path, doctor, 'csv_corpus/mine', f'--manual_dir={folder}')[1]
    assert out.count('note: ') == 1
    assert "note: '1.23E+11' looks like a number that a spreadsheet rounded" in out


def test_ogg_files_without_a_last_page_are_noted(tmp_path):
    text = 'file,emotion,speaker\na.ogg,sad,x\nb.opus,sad,x\n'
    folder = write_csv(tmp_path / 'mine', text)
    for name, subtype in (('a.ogg', 'VORBIS'), ('b.opus', 'OPUS')):
        noise = np.random.default_rng(0).normal(0, 0.1, 60000)
        soundfile.write(folder / name, noise, 16000, format='OGG', subtype=subtype)
    flags = 'csv_corpus/mine', f'--manual_dir={folder}'
    assert 'last page' not in call(tmp_path, doctor, *flags)[1]
    whole = (folder / 'b.opus').read_bytes()
    (folder / 'b.opus').write_bytes(whole[: whole.rfind(b'OggS')])  # cut off between two pages
    note = 'note: 1 ogg files do not end with a last page'
    for command in (doctor, build):
        out = call(tmp_path, command, *flags)[1]
        assert [line[-6:] for line in out.splitlines() if line.startswith(note)] == ['b.opus']


@pytest.mark.parametrize(
    ('rows', 'warning'),
    [
        ('0.wav,happy,anna\n1.wav,sad,ben\n', '2 known speaker(s)'),
        ('0.wav,happy,anna\n1.wav,happy,ben\n2.wav,happy,cara\n', 'one emotion, happy'),
    ],
)
def test_doctor_warns_of_too_few_speakers_or_emotions_to_train_on(tmp_path, rows, warning):
    text = f'file,emotion,speaker\n{rows}'
    folder = write_csv(tmp_path / 'mine', text, [f'{n}.wav' for n in range(rows.count('\n'))])
    _, out, _ = call(tmp_path, doctor, 'csv_corpus/mine', f'--manual_dir={folder}')
    assert f'warning: {warning}' in out
    assert out.count('warning: ') == 1
