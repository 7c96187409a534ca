"""Tables of recordings other than a plain metadata.csv: audformat, EmoBox manifests, hostile and random ones."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import beep, call, check_rows, failed, write_csv

from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from tfds_builders import build
from tfds_builders.csv_corpus.csv_corpus_dataset_builder import Builder


def write(folder, files=(), **texts):
    """A folder of beeps and text files, named by keyword: `db_files_csv` is db.files.csv."""
    for number, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, beep(hertz=200 + 10 * number), 16000)
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace('_', '.')).write_text(text, encoding='utf-8')
    return folder


def opened(folder, tmp_path, *flags):
    status, _, err = call(tmp_path, build, 'csv_corpus/x', f'--manual_dir={folder}', *flags)
    assert status == 0, err
    corpus = open_prepared('csv_corpus/x', data_dir=tmp_path / 'records')
    check_rows(corpus)
    return corpus


def test_the_tables_of_an_audformat_database_are_joined(tmp_path):
    folder = write(
        tmp_path / 'x',
        ('wav/03a01Fa.wav', 'wav/08a01Na.wav'),
        db_files_csv='file,duration,speaker,language\nwav/03a01Fa.wav,0 days 00:00:01.9,3,de\nwav/08a01Na.wav,0 days 00:00:01.5,8,de\n',
        db_emotion_csv='file,emotion,emotion.confidence\nwav/03a01Fa.wav,happiness,0.9\nwav/08a01Na.wav,neutral,1\n',
        db_speaker_csv='speaker,age,gender\n3,31,male\n8,34,female\n',
    )
    corpus = opened(folder, tmp_path, '--map', 'happiness=happy')
    assert corpus.index['id'].tolist() == ['wav/03a01Fa', 'wav/08a01Na']
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['happy', 'neutral']
    assert corpus.index['speaker'].tolist() == ['csv_corpus/x/3', 'csv_corpus/x/8']
    assert corpus.index['language'].tolist() == ['de', 'de']
    assert any("'emotion.confidence' is not used" in note for note in corpus.metadata['notes'])
    files = ('db.emotion.csv', 'db.files.csv', 'db.speaker.csv')
    assert set(corpus.metadata['label_files']) == {*files, 'db.*.csv', 'metadata.csv'}


def test_a_segmented_table(tmp_path):
    text = 'file,start,end,emotion\na.wav,0 days 00:00:00,0 days 00:00:01,happy\nb.wav,{},NaT,sad\n'
    folder = write(tmp_path / 'x', ('a.wav', 'b.wav'), db_x_csv=text.format('0 days'))
    assert len(opened(folder, tmp_path)) == 2
    other = write(tmp_path / 'y', ('a.wav', 'b.wav'), db_x_csv=text.format('0 days 00:00:01.5'))
    failed(
        call(tmp_path / 'z', build, 'csv_corpus/y', f'--manual_dir={other}'), 'line 3', 'segments'
    )


@pytest.mark.parametrize('downloads', [False, True])
def test_an_emobox_manifest(tmp_path, downloads):
    files = ('f2/gio-f2-b2.wav', 'm1/neu-m1-n1.wav')
    top = 'downloads/emovo/' if downloads else ''
    lines = [
        json.dumps(
            {
                'key': f'emovo-{name[3:-4]}',
                'dataset': 'emovo',
                'wav': f'downloads/emovo/{name}',
                'type': 'raw',
                'sample_rate': 48000,
                'length': 2.0,
                'task': 'category',
                'emo': name[3:6],
                'channel': 1,
            }
        )
        for name in files
    ]
    folder = write(
        tmp_path / 'x', [top + name for name in files], emovo_jsonl='\n'.join(lines) + '\n'
    )
    (folder / 'label_map.json').write_text('{"gio": "Happy", "neu": "Neutral"}')
    corpus = opened(folder, tmp_path)
    assert corpus.index['id'].tolist() == [top + name.removesuffix('.wav') for name in files]
    assert [EMOTIONS[code] for code in corpus.index['emotion']] == ['happy', 'neutral']
    assert set(corpus.index['speaker']) == {''}
    assert np.isnan(corpus.index['arousal']).all()


MANIFEST = '{"wav": "a.wav", "emo": "happy"}\n'


@pytest.mark.parametrize(
    ('table', 'added'),
    [
        ({'a_jsonl': MANIFEST}, {'label_map.json': '{"happy": "sad"}'}),
        ({'a_jsonl': MANIFEST}, {'b.jsonl': MANIFEST}),
        ({'a_jsonl': MANIFEST}, {'metadata.csv': ''}),
        ({'db_files_csv': 'file,emotion\na.wav,happy\n'}, {'db.x.csv': 'file,speaker\na.wav,f1\n'}),
        ({'db_files_csv': 'file,emotion\na.wav,happy\n'}, {'metadata.csv': ''}),
    ],
)
def test_tables_that_are_added_later_are_noticed(tmp_path, table, added):
    folder = write(tmp_path / 'x', ('a.wav',), **table)
    (folder / '._b.jsonl').touch()  # left by macOS
    opened(folder, tmp_path)
    ((name, text),) = added.items()
    (folder / name).write_text(text)
    with pytest.warns(UserWarning, match=f'/x: {name} is new since .* run python -m') as found:
        open_prepared('csv_corpus/x', data_dir=tmp_path / 'records')
    assert len(found) == 1


@pytest.mark.parametrize(
    ('texts', 'words'),
    [
        ({'a_jsonl': '{"wav": "a.wav"\n'}, ('line 1', 'JSON')),
        ({'a_jsonl': '{"wav": "a.wav", "emo": "happy"}\n[1]\n'}, ('line 2', 'no JSON object')),
        ({'a_jsonl': '{"emo": "happy"}\n'}, ('line 1', '"wav"')),
        ({'a_jsonl': '\n'}, ('no rows',)),
        ({'a_jsonl': '{"wav": "../a.wav", "emo": "happy"}'}, ('line 1', 'outside')),
        ({'a_jsonl': '{"wav": "/etc/passwd", "emo": "happy"}'}, ('line 1', 'outside')),
        ({'a_jsonl': '{}', 'b_jsonl': '{}'}, ('2 jsonl manifests',)),
        ({'db_x_csv': 'speaker,age\n1,2\n'}, ('none of db.x.csv has the column file',)),
        (
            {'metadata_csv': 'file,emotion,speaker,emotion\na.wav,happy,x,sad\n'},
            ("'emotion' twice",),
        ),
        ({'metadata_csv': 'file,emotion,speaker\na\0.wav,happy,x\n'}, ('NUL',)),
        (
            {'metadata_csv': 'file,emotion,speaker' + ',x' * 2000 + '\na.wav,happy,x\n'},
            ('2003 columns',),
        ),
        (
            {'metadata_csv': 'file,emotion,speaker\n' + 'a' * 200_000 + ',happy,x\n'},
            ('line 2', 'csv'),
        ),
        (
            {'metadata_csv': 'file,emotion,speaker\n"..\n/a.wav",happy,x\n'},
            ('line 3', 'control characters'),
        ),
        ({'metadata_csv': 'file,emotion,speaker\n=cmd|calc!A0,"=1+1",x\n'}, ("'=1+1'",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else '',
)
def test_bad_and_hostile_tables_are_one_clear_line(tmp_path, texts, words):
    folder = write(tmp_path / 'bad', ('a.wav',), **texts)
    failed(
        call(tmp_path, build, 'csv_corpus/bad', f'--manual_dir={folder}'), *words, tmp_path=tmp_path
    )


def test_tables_in_other_encodings(tmp_path):
    text = 'file,emotion,speaker\nä.wav,happy,ä\n'
    named = {'utf-16': 'is text in UTF-16', 'latin-1': 'line 2 is not text in UTF-8', 'utf-32': ''}
    for encoding, words in named.items():
        folder = write_csv(tmp_path / encoding, '', ['a.wav'])
        (folder / 'metadata.csv').write_bytes(text.encode(encoding))
        failed(call(tmp_path, build, 'csv_corpus/x', f'--manual_dir={folder}'), 'UTF-8', words)


ROWS = [f'{n}.wav,happy,{{}},s{n % 6}' for n in range(24)]


def table(texts, separator=','):
    """24 rows of six speakers; number -> text of the third cell."""
    rows = [row.replace(',', separator).format(texts.get(n, 'hello')) for n, row in enumerate(ROWS)]
    return '\n'.join(['file,emotion,script,speaker'.replace(',', separator), *rows]) + '\n'


@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize(
    ('texts', 'words'),
    [
        ({3: '"hello you', 11: '"hello you'}, ('line 5', 'quote')),
        ({1: '"'}, ('line 3', 'quote')),
        ({23: '"hello'}, ('line 25', 'quote')),
        ({3: '"hello" you'}, ('line 5', 'quote')),
        ({3: '"hello you', 4: 'hello you"'}, ('line 5', "'4.wav", 'looks like a row')),
        ({3: '"hello you', 11: 'hello you"'}, ('line 5', "'4.wav", 'looks like a row')),
    ],
)
def test_a_stray_quote_swallows_no_rows(tmp_path, texts, words, separator):
    (tmp_path / 'metadata.csv').write_text(table(texts, separator))
    with pytest.raises(UserError) as error:
        Builder.list_utterances(tmp_path)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_legal_quotes_are_read(tmp_path, separator):
    texts = {
        0: '"well, fine; so\tit is"',
        1: '"she said ""ok"""',
        2: '"one line,\nanother line, and a ""third"", too"',
        3: 'he said "ok" to me',
        4: ' "quoted" ',
        5: '""',
        6: "'",
    }
    (tmp_path / 'metadata.csv').write_text('\ufeff' + table(texts, separator), encoding='utf-8')
    utterances = Builder.list_utterances(tmp_path).utterances
    assert [item.id for item in utterances] == [str(n) for n in range(24)]
    assert [item.script for item in utterances[:7]] == [
        'well, fine; so\tit is',
        'she said "ok"',
        'one line,\nanother line, and a "third", too',
        'he said "ok" to me',
        'quoted',
        '',
        "'",
    ]
    assert {item.speaker for item in utterances} == {f'csv_corpus/s{n}' for n in range(6)}


def test_the_line_of_a_quote_after_a_cell_over_several_lines(tmp_path):
    text = 'file,emotion,speaker,script\na.wav,happy,x,"one\ntwo"\nb.wav,sad,y,"one\n'
    (tmp_path / 'metadata.csv').write_text(text)
    with pytest.raises(UserError, match=r'line 4: a quote opens the cell .* does not end it'):
        Builder.list_utterances(tmp_path)


@pytest.mark.parametrize(
    ('row', 'words'),
    [
        ('x.wav,happy,well, fine,03', ('line 2 has 5 cells, the table has 4 columns', 'quote')),
        ('x.wav,happy,,03,', None),
        ('x.wav,happy,,03,,,', None),
        ('x.wav,,,', None),
        ('x.wav,happy,fine', ('line 2 has 3 cells, the table has 4 columns: speaker missing',)),
        ('x.wav', ('line 2 has 1 cell', 'emotion and speaker missing')),
    ],
)
def test_rows_with_more_or_fewer_cells_than_columns(tmp_path, row, words):
    (tmp_path / 'metadata.csv').write_text(f'file,emotion,script,speaker\n{row}\n\n')
    if words is None:
        (item,) = Builder.list_utterances(tmp_path).utterances
        assert item.speaker in ('', 'csv_corpus/03')
        return
    with pytest.raises(UserError) as error:
        Builder.list_utterances(tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_optional_columns_may_be_left_out_at_the_end_of_a_row(tmp_path):
    text = 'file,emotion,speaker,gender,arousal\na.wav,happy,x\nb.wav,sad,y,male\n'
    (tmp_path / 'metadata.csv').write_text(text)
    assert [item.gender for item in Builder.list_utterances(tmp_path).utterances] == ['', 'male']


def test_a_file_twice_in_one_table_of_an_audformat_database(tmp_path):
    folder = write(tmp_path / 'x', db_x_csv='file,emotion\na.wav,happy\na.wav,sad\n')
    with pytest.raises(UserError, match=r"line 3: 'a.wav' is in this table already"):
        Builder.list_utterances(folder)


def test_two_labels_of_one_file_in_an_audformat_database(tmp_path):
    folder = write(
        tmp_path / 'x',
        ('a.wav',),
        db_gold_csv='file,emotion,note\na.wav,sad,one\n',
        db_silver_csv='file,emotion,note\na.wav,happy,other\n',
    )
    result = call(tmp_path, build, 'csv_corpus/x', f'--manual_dir={folder}')
    failed(result, "db.silver.csv line 2: emotion of 'a.wav' is 'happy', in", "line 2 'sad'")


def test_the_quoted_head_of_an_audformat_table(tmp_path):
    folder = write(tmp_path / 'x', db_x_csv='"file","emotion"\n"a.wav","happy"\n')
    assert len(Builder.list_utterances(folder).utterances) == 1


CELL = st.text(st.characters(exclude_categories=('Cs',)), max_size=12)
CSV = st.lists(st.lists(CELL, max_size=5).map(','.join), max_size=5).map('\n'.join)
OBJECT = st.recursive(
    st.none() | st.booleans() | st.floats() | CELL,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(CELL, inner, max_size=2),
    max_leaves=4,
)
FIELD = st.sampled_from(['wav', 'emo', 'dataset', 'spk', 'gender', 'session'])
JSONL = st.lists(
    st.one_of(CELL, st.dictionaries(FIELD, OBJECT, max_size=4).map(json.dumps)), max_size=4
).map('\n'.join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(['metadata.csv', 'db.x.csv', 'x.jsonl']),
    text=st.one_of(CSV, CSV.map(lambda t: 'file,emotion,speaker,arousal\n' + t), JSONL),
)
def test_any_text_gives_rows_or_one_clear_line(tmp_path_factory, name, text):
    folder = tmp_path_factory.getbasetemp() / 'fuzzed_tables'
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_bytes(text.encode())
    try:
        listing = Builder.list_utterances(folder)
    except UserError as refused:
        said = str(refused)
    else:
        said = ''
        assert listing.utterances
        assert all(item.path.startswith(str(folder)) for item in listing.utterances)
    assert '\n' not in said


def test_other_fields_of_a_manifest(tmp_path):
    lines = [
        {'wav': 'a.wav', 'emo': 'sad', 'arousal': 2.5, 'label': 'happy', 'start': 0},
        {'wav': 'b.wav', 'emo': 'sad', 'arousal': None, 'start': 0.1, 'end': 0.2},
    ]
    text = '\n'.join(map(json.dumps, lines))
    folder = write(tmp_path / 'x', ('a.wav', 'b.wav'), a_jsonl=text)
    failed(call(tmp_path, build, 'csv_corpus/x', f'--manual_dir={folder}'), 'line 2', 'segments')
    (folder / 'a.jsonl').write_text(text.replace('"start": 0.1, "end": 0.2', '"start": 0'))
    corpus = opened(folder, tmp_path)
    np.testing.assert_equal(corpus.index['arousal'], np.array([2.5, np.nan], np.float32))
    assert "column 'label' is not used" in corpus.metadata['notes']
