"""IEMOCAP on a synthetic tree of the official layout: all fields of all records, bad label files, and all systems."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from conftest import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import beep, call, check_rows, failed

from ser_jax.data.labels import labels_of
from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from tfds_builders import build, doctor
from tfds_builders.iemocap.iemocap_dataset_builder import Builder

HEADER = '% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n'
# Lines below each turn in the official files: raters, their attributes, self-evaluations.
RATERS = (
    'C-E2:\tNeutral;\t()\nC-E4:\tAnger; Frustration;\t()\nC-F1:\tNeutral;\t()\n'
    'A-E3:\tval 3; act 2; dom  2;\t()\nA-M1:\tval 2; act 3; dom  4;\t()\n\n'
)
TURNS = (
    ('F000', 'neu', (2.5, 2.0, 3.5)),
    ('M000', 'exc', (4.6667, 4.0, 3.0)),
    ('F001', 'xxx', (3.0, 3.0, 3.0)),
    ('M001', 'hap', (4.5, 4.0, 2.5)),
    ('F002', 'ang', (1.5, 4.5, 5.0)),
    ('M002', 'sad', (2.0, 1.5, 1.0)),
)


def turn_line(name, code, ratings, start=6.2901):
    shown = ', '.join(f'{rating:.4f}' for rating in ratings)
    return f'[{start:.4f} - {start + 1.5:.4f}]\t{name}\t{code}\t[{shown}]\n'


def write_iemocap(folder, sessions=5, dialogs=('impro01', 'script02_2')):
    """As unpacked, with the files that macOS leaves and the folders that are not read."""
    release = folder / 'IEMOCAP_full_release'
    for session in range(1, sessions + 1):
        labels = release / f'Session{session}/dialog/EmoEvaluation'
        (labels / 'Self-evaluation').mkdir(parents=True)
        (labels / 'Self-evaluation' / f'Ses0{session}F_impro01_f.anvil').write_text('x')
        (labels / 'Categorical').mkdir()
        (labels / 'Categorical' / f'Ses0{session}F_impro01_e1_cat.txt').write_text('[no turn here')
        for number, name in enumerate(dialogs):
            dialog = f'Ses0{session}{"FM"[number % 2]}_{name}'
            text = HEADER
            wavs = release / f'Session{session}/sentences/wav/{dialog}'
            wavs.mkdir(parents=True)
            for turn, (suffix, code, ratings) in enumerate(TURNS):
                text += turn_line(f'{dialog}_{suffix}', code, ratings) + RATERS
                sound = beep(0.3 + 0.05 * turn, 150 + 40 * turn + 7 * session + 3 * number)
                soundfile.write(wavs / f'{dialog}_{suffix}.wav', sound, 16000)
            (labels / f'{dialog}.txt').write_text(text)
            (labels / f'._{dialog}.txt').write_bytes(b'\x00\x05\x16\x07')
            (wavs / f'._{dialog}_F000.wav').write_bytes(b'\x00\x05\x16\x07')
    return folder


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_iemocap(tmp_path_factory.mktemp('corpora') / 'iemocap')


@pytest.fixture(scope='module')
def records(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp('built')
    status, out, err = call(
        folder, build, 'iemocap', f'--manual_dir={tree}', '--representation=both'
    )
    assert status == 0, err
    assert 'iemocap: 60 of 10039 published utterances' in out
    return folder / 'records'


@pytest.mark.parametrize('inside', [False, True])
def test_a_label_file_that_is_added_later_is_noticed(tree, tmp_path, inside):
    release = tmp_path / 'iemocap/IEMOCAP_full_release'
    shutil.copytree(tree, tmp_path / 'iemocap')
    folder = release if inside else tmp_path / 'iemocap'
    labels = release / 'Session5/dialog/EmoEvaluation/Ses05F_impro01.txt'
    text = labels.read_text()
    labels.unlink()
    open_prepared('iemocap', data_dir=tmp_path, manual_dir=folder)
    labels.write_text(text)
    expected = f'{folder}: {labels.relative_to(folder)} is new since'
    with pytest.warns(UserWarning, match=expected):
        open_prepared('iemocap', data_dir=tmp_path)


@pytest.mark.parametrize('inside', [False, True])
def test_every_field_of_every_record(tree, tmp_path, inside):
    folder = tree / 'IEMOCAP_full_release' if inside else tree
    corpus = open_prepared('iemocap', data_dir=tmp_path, manual_dir=folder)
    check_rows(corpus)
    index = corpus.index
    assert len(corpus) == 5 * 2 * 6
    for row, name in enumerate(index['id']):
        _, _, _, dialog, turn = name.split('/')
        assert name == f'Session{dialog[4]}/sentences/wav/{dialog}/{turn}'
        suffix, code, (valence, arousal, dominance) = TURNS[row % 6]
        assert turn == f'{dialog}_{suffix}'
        emotion = dict(neu='neutral', exc='excited', hap='happy', ang='angry', sad='sad').get(code)
        assert index['emotion'][row] == (EMOTIONS.index(emotion) if emotion else -1)
        rated = [index[field][row] for field in ('valence', 'arousal', 'dominance')]
        np.testing.assert_allclose(rated, (valence, arousal, dominance), rtol=1e-6)
        assert index['session'][row] == dialog[4]
        assert index['speaker'][row] == f'iemocap/{dialog[4]}{suffix[0]}'
        assert index['gender'][row] == 'FM'.index(suffix[0])
        assert index['script'][row] == dialog.partition('_')[2]
        assert index['language'][row] == 'en'
        assert index['duration'][row] == pytest.approx(0.3 + 0.05 * (row % 6), abs=1e-3)
    assert corpus.metadata['protocol'] == 'leave_one_session_out()'
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (10039, 9979)


def test_excited_is_merged_into_happy_unless_the_task_names_it(records):
    corpus = open_prepared('iemocap', data_dir=records)
    rows = np.arange(6)
    usual = ('angry', 'happy', 'neutral', 'sad')
    assert labels_of(corpus, rows, 'emotion', usual).tolist() == [2, 1, -1, 1, 0, 3]
    named = ('excited', *usual)
    assert labels_of(corpus, rows, 'emotion', named).tolist() == [3, 0, -1, 2, 1, 4]
    assert labels_of(corpus, rows, 'arousal_of_emotion', ('low', 'high')).tolist() == [
        *(0, 1, -1, 1, 1, 0)
    ]


def test_doctor(tree, tmp_path):
    status, out, _ = call(tmp_path, doctor, 'iemocap', f'--manual_dir={tree}')
    assert status == 1  # not the whole corpus
    assert 'found 60 of 10039 published utterances, missing 9979, unusable 0' in out
    counts = 'no label 10 of 2507, angry 10 of 1103, disgusted 0 of 2, excited 10 of 1041'
    assert counts in out
    assert 'default task (angry, happy, neutral, sad): 50 of 5531' in out
    assert 'sessions: 5: 1 12, 2 12, 3 12, 4 12, 5 12' in out
    assert 'rated: arousal 60, valence 60, dominance 60' in out
    assert '20 files named ._… (left by macOS) are skipped' in out
    assert 'speakers: 10' in out


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[6.29 - 8.23]\tSes01F_impro01_F000\tneu\n', ('line 1', 'a turn must read')),
        (turn_line('Ses01F_impro01_F000', 'joy', (1, 2, 3)), ('line 1', "'joy'")),
        (turn_line('Ses01F_impro01_X000', 'neu', (1, 2, 3)), ('line 1', 'a turn must read')),
        (2 * turn_line('Ses01F_impro01_F000', 'neu', (1, 2, 3)), ('has labels already',)),
        ('', ('no IEMOCAP turn', 'Ses01F_impro01_F000.wav')),
        (b'[6.29 \xff', ('UTF-8',)),
    ],
)
def test_a_bad_label_file_is_one_clear_line(tmp_path, text, words):
    folder = write_iemocap(tmp_path / 'iemocap', sessions=1, dialogs=('impro01',))
    path = folder / 'IEMOCAP_full_release/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    failed(call(tmp_path, build, 'iemocap', f'--manual_dir={folder}'), *words, tmp_path=tmp_path)


LINES = st.one_of(
    st.text(max_size=80),
    st.builds(
        '[{} - {}]\tSes0{}{}_{}_{}\t{}\t[{}, {}, {}]'.format,
        *[st.one_of(st.floats(), st.text(max_size=5))] * 2,
        st.integers(0, 9),
        st.sampled_from('FMX'),
        st.text(max_size=8),
        st.text(max_size=5),
        st.sampled_from(['neu', 'xxx', 'joy', '']),
        *[st.one_of(st.floats(), st.text(max_size=5))] * 3,
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(LINES, max_size=4))
def test_any_text_gives_turns_or_a_clear_error(tmp_path_factory, lines):
    folder = tmp_path_factory.getbasetemp() / 'fuzzed_iemocap'
    labels = folder / 'Session1/dialog/EmoEvaluation'
    labels.mkdir(parents=True, exist_ok=True)
    text = '\n'.join(lines).encode('utf-8', 'surrogatepass')
    (labels / 'Ses01F_impro01.txt').write_bytes(text)
    with pytest.raises(UserError) as caught:  # at best, the error for a missing recording
        Builder.list_utterances(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('system', 'folds', 'conditions'),
    [
        ('mtl_aug.py:iemocap,smoke', 5, ['clean']),
        ('adversarial_autoencoder.py:iemocap,smoke', 5, ['clean']),
        (
            'end_to_end.py:iemocap,smoke',
            1,
            ['clean_arousal', 'clean_dominance', 'clean_valence'],
        ),
    ],
)
def test_all_systems(records, tmp_path, system, folds, conditions):
    result = run(
        'ser_jax.main',
        f'--config=configs/{system}',
        f'--config.data.data_dir={records}',
        '--config.folds=()',
        f'--workdir={tmp_path / "run"}',
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert sorted(card['conditions']) == conditions
    assert card['n_folds'] == [folds, folds]
    held_out = [fold['test_speakers'] for fold in card['conditions'][conditions[0]]['folds']]
    expected = [[f'iemocap/{n}F', f'iemocap/{n}M'] for n in range(1, 6)]
    assert held_out == (expected if folds == 5 else expected[-1:])
    assert sum(f['n'] for f in card['conditions'][conditions[0]]['folds']) == (
        50 if folds == 5 else 12
    )
    shown = run('ser_jax.report', f'--workdir={tmp_path / "run"}', f'--condition={conditions[0]}')
    assert shown.returncode == 0, shown.stderr
    assert 'UAR' in shown.stdout
