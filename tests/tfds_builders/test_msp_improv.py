"""MSP-IMPROV on a synthetic tree of the official layout: all fields of all records, bad label files, and all systems."""

import json

import numpy as np
import pytest
import soundfile
from conftest import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import beep, call, check_rows, failed

from ser_jax.data.records import EMOTIONS
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from tfds_builders import build, doctor
from tfds_builders.msp_improv.msp_improv_dataset_builder import Builder

# Lines below each turn in the official file.
RATERS = (
    'WTH00000001; Neutral; Concerned,; A:3.000000; V:2.000000; D:3.000000; N:4.000000;\n'
    'WTH00000002; Angry; Annoyed,Frustrated,; A:2.000000; V:1.000000; D:4.000000; N:3.000000;\n\n'
)
# sentence and acted emotion, kind, emotion perceived, (activation, valence, dominance)
TURNS = (
    ('S01A', 'P', 'A', (2.6, 1.8, 3.8)),
    ('S01A', 'R', 'N', (3.0, 3.0, 3.0)),
    ('S02H', 'S', 'H', (4.0, 4.6, 2.5)),
    ('S02H', 'T', 'X', (3.0, float('nan'), 3.2)),
    ('S03S', 'S', 'S', (1.4, 2.0, 1.0)),
    ('S04N', 'R', 'O', (2.0, 2.8, 4.5)),
)


def turn_line(name, code, ratings):
    a, v, d = (f'{rating:.6f}' if rating == rating else 'NaN' for rating in ratings)
    return f'UTD-IMPROV-{name}.avi; {code}; A:{a}; V:{v}; D:{d} ; N:3.800000;\n'


def write_msp_improv(folder, sessions=6, spelling='Evalution.txt'):
    text = ''
    for session in range(1, sessions + 1):
        for letter, other in ('FM', 'MF'):
            for number, (sentence, kind, code, ratings) in enumerate(TURNS):
                name = f'{sentence}-{letter}0{session}-{kind}-{letter}{other}0{number + 1}'
                text += turn_line(name, code, ratings) + RATERS
                wavs = folder / f'session{session}/{sentence}/{kind}'
                wavs.mkdir(parents=True, exist_ok=True)
                pitch = 150 + 40 * number + 7 * session + 3 * (letter == 'M')
                sound = beep(0.3 + 0.05 * number, pitch)
                soundfile.write(wavs / f'MSP-IMPROV-{name}.wav', sound, 16000)
                (wavs / f'._MSP-IMPROV-{name}.wav').write_bytes(b'\x00\x05\x16\x07')
    (folder / spelling).write_text(text)
    return folder


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_msp_improv(tmp_path_factory.mktemp('corpora') / 'msp_improv')


@pytest.mark.parametrize('spelling', ['Evalution.txt', 'Evaluation.txt'])
def test_every_field_of_every_record(tmp_path, spelling):
    folder = write_msp_improv(tmp_path / 'msp_improv', 2, spelling)
    corpus = open_prepared('msp_improv', data_dir=tmp_path / 'records', manual_dir=folder)
    check_rows(corpus)
    index = corpus.index
    assert len(corpus) == 2 * 2 * 6
    for row, name in enumerate(index['id']):
        session, sentence, kind, turn = name.split('/')
        expected, kind_there, code, (arousal, valence, dominance) = TURNS[row % 6]
        letter = 'FM'[row // 6 % 2]
        assert (sentence, kind) == (expected, kind_there)
        assert turn.startswith(f'MSP-IMPROV-{sentence}-{letter}0{session[-1]}-{kind}-{letter}')
        emotion = dict(A='angry', N='neutral', H='happy', S='sad', O='other').get(code)
        assert index['emotion'][row] == (EMOTIONS.index(emotion) if emotion else -1)
        rated = [index[field][row] for field in ('arousal', 'valence', 'dominance')]
        np.testing.assert_allclose(rated, (arousal, valence, dominance), rtol=1e-6)
        assert index['session'][row] == session[-1] == str(1 + row // 12)
        assert index['speaker'][row] == f'msp_improv/{letter}0{session[-1]}'
        assert index['gender'][row] == 'FM'.index(letter)
        assert index['script'][row] == (sentence[:3] if kind in 'RS' else '')
        assert index['language'][row] == 'en'
        assert index['duration'][row] == pytest.approx(0.3 + 0.05 * (row % 6), abs=1e-3)
    assert corpus.metadata['protocol'] == 'leave_one_session_out()'
    assert (corpus.metadata['published'], corpus.metadata['missing']) == (8438, 8414)


def test_doctor(tree, tmp_path):
    status, out, _ = call(tmp_path, doctor, 'msp_improv', f'--manual_dir={tree}')
    assert status == 1  # not the whole corpus
    assert 'found 72 of 8438 published utterances, missing 8366, unusable 0' in out
    assert 'no label 12, angry 12, happy 12, neutral 12, other 12, sad 12' in out
    assert 'rated: arousal 72, valence 60, dominance 72' in out
    assert 'speakers: 12' in out


NAME = 'S01A-F01-P-FM01'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (f'UTD-IMPROV-{NAME}.avi; A; A:2.6; V:1.8;\n', ('line 1', 'a turn must read')),
        (turn_line(NAME, 'Q', (1, 2, 3)), ('line 1', "'Q'")),
        (turn_line('S01A-F09-P-FM01', 'A', (1, 2, 3)), ('line 1', 'a turn must read')),
        (2 * turn_line(NAME, 'A', (1, 2, 3)), ('line 2', 'has labels already')),
        ('', ('no MSP-IMPROV turn', 'MSP-IMPROV-S01A-F01-P-FM01.wav')),
        (b'UTD \xff', ('UTF-8',)),
    ],
)
def test_a_bad_label_file_is_one_clear_line(tmp_path, text, words):
    folder = write_msp_improv(tmp_path / 'msp_improv', 1)
    path = folder / 'Evalution.txt'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    failed(call(tmp_path, build, 'msp_improv', f'--manual_dir={folder}'), *words, tmp_path=tmp_path)


def test_which_label_file(tmp_path):
    folder = write_msp_improv(tmp_path / 'msp_improv', 1)
    (folder / 'Evaluation.txt').write_text('')
    command = (tmp_path, build, 'msp_improv', f'--manual_dir={folder}')
    failed(call(*command), 'it holds both', tmp_path=tmp_path)
    for name in ('Evaluation.txt', 'Evalution.txt'):
        (folder / name).unlink()
    failed(call(*command), 'it holds neither', tmp_path=tmp_path)


LINES = st.one_of(
    st.text(max_size=80),
    st.builds(
        'UTD-IMPROV-S0{}{}-{}0{}-{}-FM{}.avi; {}; A:{}; V:{}; D:{} ; N:{};'.format,
        st.integers(0, 12),
        st.sampled_from('AHSNX'),
        st.sampled_from('FMX'),
        st.integers(0, 9),
        st.sampled_from('PRSTU'),
        st.text(max_size=3),
        st.text(max_size=3),
        *[st.one_of(st.floats(), st.text(max_size=5), st.just('NaN'))] * 4,
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(LINES, max_size=4))
def test_any_text_gives_turns_or_a_clear_error(tmp_path_factory, lines):
    folder = tmp_path_factory.getbasetemp() / 'fuzzed_msp_improv'
    folder.mkdir(exist_ok=True)
    text = '\n'.join(lines).encode('utf-8', 'surrogatepass')
    (folder / 'Evalution.txt').write_bytes(text)
    with pytest.raises(UserError) as caught:  # at best, the error for a missing recording
        Builder.list_utterances(folder)
    assert '\n' not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('system', 'conditions'),
    [
        ('mtl_aug.py:msp_improv,smoke', ['clean']),
        (
            'end_to_end.py:msp_improv,smoke',
            ['clean_arousal', 'clean_dominance', 'clean_valence'],
        ),
    ],
)
def test_all_systems(tree, tmp_path, system, conditions):
    result = run(
        'ser_jax.main',
        f'--config=configs/{system}',
        f'--config.data.data_dir={tmp_path / "records"}',
        f'--config.data.manual_dir={tree}',
        '--config.folds=()',
        f'--workdir={tmp_path / "run"}',
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert sorted(card['conditions']) == conditions
    assert card['n_folds'] == [6, 6]
    held_out = [fold['test_speakers'] for fold in card['conditions'][conditions[0]]['folds']]
    assert held_out == [[f'msp_improv/F0{n}', f'msp_improv/M0{n}'] for n in range(1, 7)]
    shown = run('ser_jax.report', f'--workdir={tmp_path / "run"}', f'--condition={conditions[0]}')
    assert shown.returncode == 0, shown.stderr
    assert 'UAR' in shown.stdout
