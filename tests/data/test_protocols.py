"""Protocols and the leak check, on synthetic metadata with answers written by hand."""

import json

import numpy as np
import pytest

from ser_jax.data.folds import Fold, make_folds, select_folds, validation_speakers
from ser_jax.data.leaks import check_folds, check_leaks
from ser_jax.data.records import similar_names
from ser_jax.runtime.errors import UserError

FEMALE, MALE, UNKNOWN = 0, 1, -1
# EMO-DB's ten speakers; the men are 03 10 11 12 15.
EMODB = {
    f'emodb/{name}': MALE if name in {'03', '10', '11', '12', '15'} else FEMALE
    for name in ('03', '08', '09', '10', '11', '12', '13', '14', '15', '16')
}
RAVDESS = {f'ravdess/Actor_{n:02d}': MALE if n % 2 else FEMALE for n in range(1, 25)}
PUBLISHED = [
    [f'ravdess/Actor_{n:02d}' for n in numbers]
    for numbers in (
        (1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18),
        (6, 13, 17, 22),
    )
]  # fmt: skip


def corpus(genders, each=4, sessions=None, prefix=''):
    """An index with `each` utterances a speaker, speakers interleaved."""
    speakers = [speaker for _ in range(each) for speaker in genders]
    n = len(speakers)
    return {
        'id': np.array([f'{prefix}{row:04d}' for row in range(n)]),
        'speaker': np.array(speakers),
        'gender': np.array([genders[speaker] for speaker in speakers]),
        'session': np.array([sessions[speaker] if sessions else '' for speaker in speakers]),
        'script': np.array([f'sentence {row % 3}' for row in range(n)]),
        'audio_sha256': np.array([f'{prefix}hash{row}' for row in range(n)]),
        'duration': np.arange(n) + 1.0,
    }


def split(index, protocol, **options):
    options = {'rows': np.arange(len(index['id'])), **options}
    return make_folds(index, protocol, **options)


def speakers(index, rows):
    return sorted(set(index['speaker'][rows].tolist()))


def check_partition(index, folds, rows):
    """All rows are tested once; the splits of a fold share no speaker; no row is lost."""
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), rows)
    for fold in folds:
        splits = [fold.train, fold.validation, fold.test]
        np.testing.assert_array_equal(np.sort(np.concatenate(splits)), rows)
        together = [name for part in splits for name in speakers(index, part)]
        assert len(together) == len(set(together))
        assert fold.test_speakers == tuple(speakers(index, fold.test))
        for part in splits:
            assert part.dtype == np.int64
            assert (np.diff(part) > 0).all()


def test_leave_one_speaker_out():
    index = corpus(EMODB)
    folds = split(index, 'leave_one_speaker_out()')
    check_partition(index, folds, np.arange(40))
    assert [fold.name for fold in folds] == [f'fold_{number:02d}' for number in range(1, 11)]
    assert [fold.test_speakers for fold in folds] == [(speaker,) for speaker in sorted(EMODB)]
    # Written by hand: the next woman and the next man, round the end of the list.
    validation = {fold.test_speakers[0]: speakers(index, fold.validation) for fold in folds}
    assert validation['emodb/03'] == ['emodb/08', 'emodb/10']
    assert validation['emodb/12'] == ['emodb/13', 'emodb/15']
    assert validation['emodb/15'] == ['emodb/03', 'emodb/16']
    assert validation['emodb/16'] == ['emodb/03', 'emodb/08']


def test_only_usable_rows_take_part():
    index = corpus(EMODB)
    rows = np.flatnonzero(index['speaker'] != 'emodb/08')[::2]
    folds = split(index, 'leave_one_speaker_out()', rows=rows)
    check_partition(index, folds, rows)
    assert ('emodb/08',) not in [fold.test_speakers for fold in folds]


def test_published_folds():
    index = corpus(RAVDESS)
    folds = split(index, 'published_folds()', folds=PUBLISHED)
    check_partition(index, folds, np.arange(96))
    assert [list(fold.test_speakers) for fold in folds] == PUBLISHED
    assert speakers(index, folds[0].validation) == ['ravdess/Actor_22', 'ravdess/Actor_23']
    # The last test speaker is 24: round the end.
    assert speakers(index, folds[3].validation) == ['ravdess/Actor_01', 'ravdess/Actor_02']


def test_bad_published_folds():
    index = corpus(RAVDESS)
    with pytest.raises(UserError, match='has none'):
        split(index, 'published_folds()')
    with pytest.raises(UserError, match='fold_07: no test utterance'):
        split(index, 'published_folds()', folds=[*PUBLISHED, ['ravdess/Actor_25']])
    with pytest.raises(UserError, match=r'speaker Actor_01 is a test speaker of two folds'):
        split(index, 'published_folds()', folds=[*PUBLISHED, ['ravdess/Actor_01']])


def test_leave_one_session_out():
    genders = {f'iemocap/{n}{g}': 'FM'.index(g) for n in range(1, 6) for g in 'FM'}
    index = corpus(genders, sessions={name: f'Session{name[8]}' for name in genders})
    folds = split(index, 'leave_one_session_out()')
    check_partition(index, folds, np.arange(40))
    assert folds[0].test_speakers == ('iemocap/1F', 'iemocap/1M')
    assert speakers(index, folds[0].validation) == ['iemocap/2F', 'iemocap/2M']
    assert speakers(index, folds[4].validation) == ['iemocap/1F', 'iemocap/1M']
    index['session'][7] = ''
    with pytest.raises(UserError, match='1 of 40 utterances have no session'):
        split(index, 'leave_one_session_out()')
    index['session'][:] = 'Session1'
    with pytest.raises(UserError, match='one session only'):
        split(index, 'leave_one_session_out()')


def test_speaker_folds_are_balanced_and_repeatable():
    index = corpus(RAVDESS)
    folds = split(index, 'speaker_folds(5)')
    check_partition(index, folds, np.arange(96))
    for gender in (FEMALE, MALE):
        counts = [sum(RAVDESS[name] == gender for name in fold.test_speakers) for fold in folds]
        assert max(counts) - min(counts) <= 1
    sizes = [len(fold.test_speakers) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    order = np.random.default_rng(0).permutation(96)
    again = split({name: field[order] for name, field in index.items()}, 'speaker_folds(5)')
    assert [fold.test_speakers for fold in again] == [fold.test_speakers for fold in folds]
    other = split(index, 'speaker_folds(5)', seed=1)
    check_partition(index, other, np.arange(96))
    assert [fold.test_speakers for fold in other] != [fold.test_speakers for fold in folds]


def test_validation_speakers_without_genders():
    nobody = dict.fromkeys('abcdef', UNKNOWN)
    assert validation_speakers(nobody, ['e']) == ('f', 'a')
    assert validation_speakers({**nobody, 'c': FEMALE}, ['a']) == ('b', 'c')
    assert validation_speakers(dict.fromkeys('abcdef', FEMALE), ['c']) == ('d', 'e')
    # Training keeps at least as many speakers.
    assert validation_speakers({'a': FEMALE, 'b': FEMALE, 'c': MALE}, ['a']) == ('b',)
    assert validation_speakers({'a': FEMALE, 'b': FEMALE}, ['a']) == ()
    mixed = corpus({**EMODB, 'emodb/99': UNKNOWN})
    check_partition(mixed, split(mixed, 'leave_one_speaker_out()'), np.arange(44))


def test_two_speakers_suffice_without_validation():
    index = corpus({'a': FEMALE, 'b': MALE})
    folds = split(index, 'leave_one_speaker_out()', validation=False)
    assert [fold.test_speakers for fold in folds] == [('a',), ('b',)]
    assert [speakers(index, fold.train) for fold in folds] == [['b'], ['a']]
    assert not any(fold.validation.size for fold in folds)
    with pytest.raises(UserError, match='needs 3 known speakers'):
        split(index, 'leave_one_speaker_out()')
    with pytest.raises(UserError, match=r'needs 2 known speakers \(test, training\)'):
        split(corpus({'a': FEMALE}), 'leave_one_speaker_out()', validation=False)


def test_validation_speakers_can_join_training():
    index = corpus(EMODB)
    with_validation = split(index, 'speaker_folds(5)')
    for fold, reference in zip(split(index, 'speaker_folds(5)', validation=False), with_validation):
        assert fold.validation.size == 0
        np.testing.assert_array_equal(fold.test, reference.test)
        np.testing.assert_array_equal(fold.train, np.union1d(reference.train, reference.validation))


@pytest.mark.parametrize('protocol', ['leave_one_speaker_out()', 'speaker_folds(2)'])
def test_unknown_speakers_are_excluded(protocol):
    index = corpus({**EMODB, '': UNKNOWN})
    unknown = np.flatnonzero(index['speaker'] == '')
    folds = split(index, protocol)
    check_partition(index, folds, np.setdiff1d(np.arange(44), unknown))
    for fold in folds:
        np.testing.assert_array_equal(fold.excluded, unknown)
    counts = check_folds(index, folds)
    assert (counts['excluded'], counts['unknown_speakers']) == (4, 0)


def test_three_speakers_are_needed():
    index = corpus({'emodb/03': FEMALE, 'emodb/10': MALE, 'emodb/11': MALE})
    check_partition(index, split(index, 'leave_one_speaker_out()'), np.arange(12))
    with pytest.raises(UserError, match=r'no validation utterance \(test speakers: 03, 11\)'):
        split(index, 'speaker_folds(2)')
    for few in ({'a': FEMALE, 'b': MALE}, {'a': FEMALE, 'b': MALE, '': UNKNOWN}, {'': UNKNOWN}):
        with pytest.raises(UserError, match='needs 3 known speakers'):
            split(corpus(few), 'leave_one_speaker_out()')


@pytest.mark.parametrize(
    ('protocol', 'message'),
    [
        ('leave_one_out()', 'unknown protocol.*leave_one_speaker_out, leave_one_session_out'),
        ('speaker_folds()', "missing a required argument: 'k'"),
        ('speaker_folds(1)', 'k must be 2 to 10'),
        ('speaker_folds(11)', 'k must be 2 to 10'),
        ('speaker_folds("4")', 'k must be 2 to 10'),
        ('leave_one_speaker_out(3)', 'too many positional'),
        ('fixed_lists(3)', 'cannot read 3'),
        ('session_split("1", "2", "3")', "'1' is no session of the corpus.*none"),
        ('make_folds()', 'unknown protocol'),
        ('speaker_folds(4', 'not of the form'),
    ],
)
def test_bad_protocols_are_one_clear_line(protocol, message):
    with pytest.raises(UserError, match=message) as caught:
        split(corpus(EMODB), protocol)
    assert '\n' not in str(caught.value)


def test_session_split():
    index = corpus(EMODB, sessions={name: str(k // 2) for k, name in enumerate(EMODB)})
    (fold,) = split(index, 'session_split("0 1", "2", "4")')
    splits = [
        set(index['session'][rows].tolist()) for rows in (fold.train, fold.validation, fold.test)
    ]
    assert splits == [{'0', '1'}, {'2'}, {'4'}]
    assert fold.test_speakers == ('emodb/15', 'emodb/16')
    (fold,) = split(index, 'session_split("0 1", "2", "4")', validation=False)
    assert set(index['session'][fold.train].tolist()) == {'0', '1', '2'}
    with pytest.raises(UserError, match="session '2' is named twice"):
        split(index, 'session_split("0 2", "2", "4")')
    rows = np.flatnonzero(index['session'] != '4')
    with pytest.raises(UserError, match="no utterance of session '4' has a label"):
        make_folds(index, 'session_split("0 1", "2", "4")', rows=rows)


def test_select_folds():
    folds = split(corpus(EMODB), 'leave_one_speaker_out()')
    assert select_folds(folds, ()) == folds
    assert select_folds(folds, (3, 1, 3)) == [folds[0], folds[2]]
    for number in (0, 11, -1, 'fold_01'):
        with pytest.raises(UserError, match='only 1 to 10'):
            select_folds(folds, (number,))


def fixed(tmp_path, content):
    path = tmp_path / 'lists.json'
    path.write_text(json.dumps(content))
    return f'fixed_lists({str(path)!r})'


def ids(index, *names):
    return index['id'][np.isin(index['speaker'], names)].tolist()


def test_fixed_lists(tmp_path):
    index = corpus(EMODB)
    lists = {
        'train': ids(index, 'emodb/03', 'emodb/08', 'emodb/09'),
        'validation': ids(index, 'emodb/10'),
        'test': ids(index, 'emodb/11', 'emodb/12'),
    }
    (fold,) = split(index, fixed(tmp_path, lists))
    for part, names in lists.items():
        assert index['id'][getattr(fold, part)].tolist() == sorted(names)
    assert fold.test_speakers == ('emodb/11', 'emodb/12')
    # A listed utterance without a label of the task is skipped.
    rows = np.arange(1, 40)
    (fold,) = split(index, fixed(tmp_path, lists), rows=rows)
    assert index['id'][fold.train].tolist() == sorted(lists['train'])[1:]
    # Two folds; the second one has the default validation speakers.
    other = {'train': ids(index, 'emodb/03', 'emodb/08', 'emodb/09', 'emodb/10', 'emodb/11')}
    other['test'] = ids(index, 'emodb/16')
    folds = split(index, fixed(tmp_path, [lists, other]))
    assert speakers(index, folds[1].validation) == ['emodb/03', 'emodb/08']
    assert split(index, fixed(tmp_path, [lists]), validation=False)[0].validation.size == 0


def test_fixed_lists_of_windows(tmp_path):
    index, path = corpus(EMODB), tmp_path / 'lists.json'
    lists = {'train': index['id'][:4].tolist(), 'test': index['id'][4:8].tolist()}
    path.write_bytes(b'\xef\xbb\xbf' + json.dumps(lists, indent=1).replace('\n', '\r\n').encode())
    (fold,) = split(index, f'fixed_lists({str(path)!r})', validation=False)
    assert len(fold.train) == len(fold.test) == 4
    path.write_text(json.dumps({**lists, 'test': ['wav/0004.wav']}))
    with pytest.raises(UserError, match=r"e.g. 'wav/0004.wav'; it has '0004'"):
        split(index, f'fixed_lists({str(path)!r})')


def test_fixed_lists_may_use_unknown_speakers(tmp_path):
    index = corpus({'': UNKNOWN, 'a': FEMALE})
    names = index['id'].tolist()
    lists = {'train': names[0:4], 'validation': names[4:6:2], 'test': names[6:8:2]}
    lists['train'].remove(names[1])
    lists['train'].remove(names[3])
    (fold,) = split(index, fixed(tmp_path, lists))
    assert fold.test_speakers == ()
    assert check_leaks(index, fold)['unknown_speakers'] == 4


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'train': ['0000']}, 'need "train", "test"'),
        ([['0000']], 'need "train", "test"'),
        ({'train': ['0000'], 'test': ['0001'], 'dev': []}, 'need "train", "test"'),
        ({'train': ['0000'], 'test': ['x', 'y'], 'validation': []}, "2 test ids are not.*'x'"),
        ({'train': ['0000'], 'test': [], 'validation': ['0001']}, 'no test utterance'),
        ([{'train': ['0000'], 'test': ['0001'], 'validation': ['0002']}] * 2, 'in two folds'),
    ],
)
def test_bad_lists(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        split(corpus(EMODB), fixed(tmp_path, content))


def test_missing_lists():
    with pytest.raises(UserError, match=r'cannot read nowhere\.json'):
        split(corpus(EMODB), 'fixed_lists("nowhere.json")')


# The leak check.


def fold_of(index, train, validation, test):
    rows = [np.flatnonzero(np.isin(index['speaker'], names)) for names in (train, validation, test)]
    return Fold('fold_01', *rows, tuple(test))


def test_clean_folds_pass_and_scripts_are_counted():
    index = corpus(EMODB)
    counts = check_folds(index, split(index, 'leave_one_speaker_out()'))
    assert counts == {
        'speakers': 0, 'audio': 0, 'ids': 0, 'scripts': 3, 'unknown_speakers': 0, 'excluded': 0
    }  # fmt: skip
    index['script'][:] = ''
    assert 'scripts' not in check_folds(index, split(index, 'leave_one_speaker_out()'))


@pytest.mark.parametrize(
    ('splits', 'message'),
    [
        (('ab', 'c', 'ad'), "'a' is in training and in test"),
        (('ab', 'cd', 'd'), "'d' is in validation and in test"),
        (('ab', 'bc', 'd'), "'b' is in training and in validation"),
    ],
)
def test_speaker_leaks(splits, message):
    index = corpus(dict.fromkeys((f'csv_corpus/mine/{name}' for name in 'abcd'), FEMALE), each=6)
    letters = np.array([name[-1] for name in index['speaker']])
    rows = [np.flatnonzero(np.isin(letters, list(part))) for part in splits]
    rows = [part[number::3] for number, part in enumerate(rows)]  # disjoint, same speakers
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    with pytest.raises(UserError, match=f'leak in fold_01: speaker {message}'):
        check_leaks(index, Fold('fold_01', *rows, ()))


def test_audio_and_id_leaks():
    index = corpus(EMODB)
    fold = split(index, 'leave_one_speaker_out()')[0]
    index['audio_sha256'][fold.test[1]] = index['audio_sha256'][fold.train[2]]
    name = index['id'][fold.test[1]]
    with pytest.raises(UserError, match=f"identical audio of '{name}' is in training and in test"):
        check_leaks(index, fold)
    index['audio_sha256'][:] = ''  # no hash known: nothing is identical
    check_leaks(index, fold)
    index['id'][fold.validation[0]] = index['id'][fold.train[0]]
    with pytest.raises(UserError, match=r'utterance .* is in training and in validation'):
        check_leaks(index, fold)


def test_unknown_speakers_are_not_one_speaker(tmp_path):
    index = corpus({**EMODB, '': UNKNOWN})
    fold = fold_of(index, ['', 'emodb/03'], ['emodb/08'], ['emodb/09'])
    half = np.flatnonzero(index['speaker'] == '')[:2]
    both = Fold(
        'f', np.setdiff1d(fold.train, half), fold.validation, np.union1d(fold.test, half), ()
    )
    assert check_leaks(index, both)['unknown_speakers'] == 4


def test_added_corpora():
    index = corpus(EMODB)
    fold = split(index, 'leave_one_speaker_out()')[0]
    tested, trained = fold.test[0], fold.train[0]
    other = corpus({'nemo/A': FEMALE, '': UNKNOWN}, prefix='other')
    assert check_leaks(index, fold, [other])['unknown_speakers'] == 4
    for field, message in (
        ('speaker', r"speaker '03' \(emodb\) of an added corpus"),
        ('audio_sha256', "identical audio of 'other0001' of an added corpus"),
    ):
        leaking = {name: values.astype(object).copy() for name, values in other.items()}
        leaking[field][1] = index[field][trained]
        check_leaks(index, fold, [leaking])  # training rows may be duplicated
        leaking[field][1] = index[field][tested]
        with pytest.raises(UserError, match=message):
            check_leaks(index, fold, [other, leaking])


def test_same_id_in_another_corpus_leaks_only_with_the_same_duration():
    index = corpus(EMODB)
    fold = split(index, 'leave_one_speaker_out()')[0]
    other = corpus({'copy/A': FEMALE})
    other['audio_sha256'][:] = ''
    other['duration'] += 0.5
    check_leaks(index, fold, [other])
    other['duration'][fold.test[0]] = index['duration'][fold.test[0]] + 0.01
    with pytest.raises(UserError, match="utterance '0000' of an added corpus"):
        check_leaks(index, fold, [other])


def test_speakers_whose_names_differ_in_spelling_only_are_a_warning(recwarn):
    alike = corpus(dict.fromkeys(('c/03', 'c/3', 'c/a', 'c/b', 'd/3'), UNKNOWN))
    with pytest.warns(UserWarning, match="speakers '03' and '3' of c differ in spelling") as found:
        check_folds(alike, split(alike, 'leave_one_speaker_out()'))
    assert len(found) == 1
    added = corpus({'c/A': UNKNOWN}, prefix='added')
    few = {name: values[(alike['speaker'] != 'c/3')] for name, values in alike.items()}
    with pytest.warns(UserWarning, match="speakers 'A' and 'a' of c"):
        check_folds(few, split(few, 'leave_one_speaker_out()'), [added])
    check_folds(few, split(few, 'leave_one_speaker_out()'))
    assert not recwarn.list


def test_names_of_published_corpora_do_not_resemble_each_other():
    names = [*EMODB, *RAVDESS, 'iemocap/1F', 'iemocap/1M', 'urdu/M1', 'urdu/F1', 'urdu/M11']
    assert similar_names([*names, *(f'librispeech/{n}' for n in range(1000))]) == []


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ([], 'the list of folds is empty'),
        ({'train': [['a']], 'test': ['b']}, 'lists of ids'),
        ({'train': 'a', 'test': ['b']}, 'lists of ids'),
        ({'train': 5, 'test': ['b']}, 'lists of ids'),
        ({'train': {'a': 1}, 'test': ['b']}, 'lists of ids'),
    ],
)
def test_fixed_lists_of_another_form(tmp_path, content, words):
    path = tmp_path / 'lists.json'
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        split(corpus(EMODB), f'fixed_lists({str(path)!r})')
