"""Tables of stored runs on pages: made from cards, rows and predictions, and those of this repository are current."""

import dataclasses
import itertools

import numpy as np
import pytest
from cards import LABELS, card, predictions, store, take
from conftest import ROOT
from grids import fake_result, make_grid
from sklearn import metrics as oracle

from ser_jax.grid import pages, rows, tables
from ser_jax.metrics import rates, significance
from ser_jax.runs import finished
from ser_jax.runtime.errors import UserError

FOLD = {'fold': 'fold_01', 'validation_speakers': ['a'], 'n': 1, 'uar': 0.5}
PAGE = 'before\n<!-- table: NAME -->\nold\n<!-- end table -->\nafter\n'


def table(results, name):
    """The lines of a table on a page."""
    lines = pages.fill(PAGE.replace('NAME', name), results).splitlines()
    assert lines[:2] == ['before', f'<!-- table: {name} -->']
    assert lines[-2:] == ['<!-- end table -->', 'after']
    return lines[2:-2]


def cells(lines):
    """The rows of a Markdown table: heading, then rows."""
    head, _, *rows = (line.strip('| ').split(' | ') for line in lines if line.startswith('|'))
    return head, rows


@pytest.fixture
def runs():
    """Three seeds of one system, one of another."""
    seeds = {f'full{seed}': (card(seed), {}) for seed in range(3)}
    return seeds | {'demo': (card(7, system='other', corpus='demo_speech', synthetic=True), {})}


def test_a_row_per_system(tmp_path, runs):
    store(tmp_path / 'emodb4', runs)
    lines = table(tmp_path, 'emodb4')
    header, (demo, full) = cells(lines)
    assert demo[:2] == ['other', 'demo_speech (synthetic)']
    found = dict(zip(header, full))
    clean = [card(seed)['conditions']['clean'] for seed in range(3)]
    uar = 100 * np.array([result['uar'] for result in clean])
    assert found['UAR % (mean ± std)'] == f'{uar.mean():.1f} ± {uar.std(ddof=1):.1f}'
    bounds = 100 * np.mean([result['uar_ci95'] for result in clean], axis=0)
    assert found['95 % interval'] == f'{bounds[0]:.1f} – {bounds[1]:.1f}'
    assert found['WA %'] == f'{100 * np.mean([result["wa"] for result in clean]):.1f}'
    assert (found['n'], found['seeds'], found['time']) == ('150', '0, 1, 2', '2 min 00 s')
    assert found['command'] == '`python -m ser_jax.main --config.seed=0`'
    assert dict(zip(header, demo))['UAR % (mean ± std)'].count('±') == 0
    assert lines[-1] == pages.CAPTION


def test_runs_of_several_tasks_have_a_column_each():
    def run(seed, *tasks, **changes):
        made = card(seed, tasks={task: LABELS for task in tasks}, **changes)
        clean = made['conditions'].pop('clean')
        names = ('clean' if task == 'emotion' else f'clean_{task}' for task in tasks)
        made['conditions'] |= dict.fromkeys(names, clean)
        return made | {'command': 'python'}

    runs = [
        *(run(seed, 'arousal', 'valence', system='net') for seed in range(2)),
        *(run(seed, 'valence', system='net,valence') for seed in range(2)),
        run(0, 'arousal', system='net,arousal,small'),
        run(0, 'arousal', 'valence', 'emotion', system='net,with_emotion'),
    ]
    lines = pages.make_system_table(runs).splitlines()
    rows = [dict(zip(lines[0].split(' | '), line.split(' | '))) for line in lines[2:5]]
    names = [
        '| net, one network for arousal, valence',
        '| net, one network per task',
        '| net,small, one network per task',
    ]
    assert [row['| system'] for row in rows] == names
    uar = [100 * card(seed)['conditions']['clean']['uar'] for seed in range(2)]
    expected = f'{np.mean(uar):.1f} ± {np.std(uar, ddof=1):.1f} ['
    assert all(rows[0][task].startswith(expected) for task in ('arousal', 'valence'))
    assert (rows[1]['arousal'], rows[2]['valence']) == ('not run', 'not run')
    assert rows[1]['valence'].startswith(expected)
    assert rows[2]['arousal'].startswith(f'{uar[0]:.1f} [')
    last = dict(zip(lines[0].split(' | '), lines[5].split(' | ')))
    assert last['emotion'] == last['valence'] == rows[2]['arousal']
    with pytest.raises(UserError, match='different seeds'):
        pages.make_system_table(
            [
                *runs,
                run(0, 'valence', system='net,valence,small'),
                run(1, 'valence', system='net,valence,small'),
            ]
        )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seed': 1}, 'mtl_aug on emodb: seed twice'),
        ({'commit': 'abc+changes'}, 'seed 0 ran uncommitted code'),
        ({'config_hash': 'x'}, 'seeds differ in config_hash'),
        ({'conditions': {}, 'validation': {'uar': 0.5, 'folds': [FOLD]}}, 'not a tested run'),
    ],
)
def test_faulty_runs_make_no_table(tmp_path, runs, changes, message):
    runs['full0'] = card(0) | changes, {}
    store(tmp_path / 'emodb4', runs)
    page = tmp_path / 'page.md'
    page.write_text(PAGE.replace('NAME', 'emodb4'))
    with pytest.raises(UserError, match=message) as error:
        pages.write_pages([page], tmp_path)
    assert str(error.value).startswith(f'{page}: table emodb4: ')
    assert page.read_text() == PAGE.replace('NAME', 'emodb4')


def test_seeds_that_tested_different_utterances(tmp_path, runs):
    runs['full0'][0]['conditions']['clean']['n'] = 149
    store(tmp_path / 'emodb4', runs)
    with pytest.raises(UserError, match=r'its seeds tested \[149, 150\]'):
        table(tmp_path, 'emodb4')


@pytest.mark.parametrize('text', ['', PAGE.replace('<!-- end table -->', ''), PAGE + PAGE[:40]])
def test_every_marker_has_its_end(tmp_path, text):
    with pytest.raises(UserError, match='it needs one <!-- table: NAME --> per <!-- end table -->'):
        pages.fill(text, tmp_path)


def test_markers_within_a_line_are_text(tmp_path, runs):
    store(tmp_path / 'emodb4', runs)
    page = PAGE.replace('NAME', 'emodb4') + 'Tables stand between `<!-- table: … -->` markers.\n'
    assert pages.fill(page, tmp_path).endswith('`<!-- table: … -->` markers.\n')


def test_pages_are_written_only_if_a_table_changed(tmp_path, runs):
    store(tmp_path / 'emodb4', runs)
    page = tmp_path / 'page.md'
    page.write_text(PAGE.replace('NAME', 'emodb4'))
    assert pages.write_pages([page], tmp_path) == [page]
    assert pages.write_pages([page], tmp_path) == []
    store(tmp_path / 'emodb4', runs | {'full3': (card(3), {})})
    assert pages.write_pages([page], tmp_path) == [page]


@pytest.mark.parametrize('page', pages.find_pages(ROOT), ids=lambda path: path.name)
def test_the_tables_of_this_repository_are_current(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding='utf-8')
    assert pages.fill(text, ROOT / 'results') == text


def test_a_grid_of_corpora_shows_the_first_variants_matrices(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = pages.make_table(ROOT / 'results/cross_corpus', '')
    assert [line.split('** (')[0] for line in text.splitlines() if line.startswith('**')] == [
        '**full, as it is',
        '**full, target statistics',
    ]


def test_the_rows_of_a_grid_under_one_condition(monkeypatch):
    monkeypatch.chdir(ROOT)
    head, rows = cells(table(ROOT / 'results', 'label_shares.clean'))
    assert head[:2] == ['setting', 'variant']
    assert len(rows) == 9
    with pytest.raises(UserError, match=r'label_shares: rows\.csv has no condition fgsm'):
        table(ROOT / 'results', 'label_shares.fgsm')


def test_the_overview(monkeypatch):
    monkeypatch.chdir(ROOT)
    head, rows = cells(table(ROOT / 'results', 'overview'))
    found = {row[0]: dict(zip(head, row)) for row in rows}
    assert found['openSMILE ComParE and SVM']['EMO-DB in rain, 5 dB SNR'] == '–'
    assert found['openSMILE ComParE and SVM']['EMO-DB'].startswith('84.1 [')
    paths = [ROOT / f'results/ravdess/ravdess/full/seed{seed}' for seed in range(3)]
    clean = [finished.read_card(path)['conditions']['clean'] for path in paths]
    low, high = 100 * np.mean([result['uar_ci95'] for result in clean], axis=0)
    uar = 100 * np.mean([result['uar'] for result in clean])
    assert found['MTL-AUG, from scratch']['RAVDESS'] == f'{uar:.1f} [{low:.1f}, {high:.1f}]'


def test_the_errors_of_the_variants_of_a_grid(tmp_path):
    def run(seed, *confusion, **changes):
        made = card(seed, **changes)
        recall = dict.fromkeys(('angry', 'happy', 'sad')[: len(confusion)], 0.5)
        made['conditions']['clean'] |= {'recall': recall, 'confusion': list(confusion)}
        return made, {}

    rest = [0, 10, 0], [0, 0, 0]  # no utterance is sad
    runs = {
        'emodb/full/seed0': run(0, [8, 2, 0], *rest),
        'emodb/full/seed1': run(1, [6, 4, 0], *rest),
        'emodb/single_task/seed0': run(0, [9, 0, 1], *rest),
    }
    store(tmp_path / 'emodb4', runs)
    assert table(tmp_path, 'emodb4.confusions')[:4] == [
        '| variant | seeds | angry as happy | angry as sad |',
        '| --- | --- | --- | --- |',
        '| full | 0, 1 | 30.0 ± 14.1 | 0.0 ± 0.0 |',
        '| single_task | 0 | 0.0 | 10.0 |',
    ]
    for message, name, confusion, changes in (
        ('not called SETTING/VARIANT/seedK', 'full/seed2', ([8, 2, 0], *rest), {}),
        ('other classes', 'emodb/full/seed2', ([8, 2], [0, 1]), {}),
        ('another config than', 'emodb/full/seed2', ([8, 2, 0], *rest), {'config_hash': 'x'}),
        ('another corpus', 'emodb/full/seed2', ([8, 2, 0], *rest), {'corpus_hash': 'x'}),
        ('uncommitted code', 'emodb/full/seed2', ([8, 2, 0], *rest), {'commit': 'a+changes'}),
    ):
        store(tmp_path / 'emodb4', runs | {name: run(2, *confusion, **changes)})
        with pytest.raises(UserError, match=message):
            table(tmp_path, 'emodb4.confusions')


def test_what_each_part_adds(tmp_path):
    truth = predictions(0)
    runs, uars, counts = (
        {},
        {},
        {},
    )  # (variant, condition) -> UAR of each seed; confusions by speaker
    for number, variant in enumerate(dict.fromkeys(sum(pages.PARTS.values(), ()))):
        for seed in range(2):
            made, tested = card(seed, system=variant), {}
            for shift, condition in enumerate(
                (
                    'clean',
                    'noise_babble3_0db',
                    'noise_rain_0db',
                    'mu_law',
                    'gain_-20',
                    'fgsm_0.1',
                    'pgd_0.1',
                    'random_sign_0.1',
                )
            ):
                drawn = predictions(100 * number + 10 * seed + shift).probabilities
                tested[condition] = dataclasses.replace(truth, probabilities=drawn)
                made['conditions'][condition] = made['conditions']['clean']
                uar = oracle.balanced_accuracy_score(truth.label, drawn.argmax(1))
                uars.setdefault((variant, condition[:8]), []).append(100 * uar)
                by_speaker = rates.confusion_by_speaker(
                    truth.label, drawn.argmax(1), truth.speaker, len(LABELS)
                )
                counts.setdefault((variant, condition[:8]), []).append(by_speaker)
            runs[f'emodb/{variant}/seed{seed}'] = made, tested
    for found in (uars, counts):
        found |= {(v, 'attack'): [*found[v, 'fgsm_0.1'], *found[v, 'pgd_0.1']] for v, _ in found}
    store(tmp_path / 'emodb4', runs)
    head, rows = cells(table(tmp_path, 'emodb4.parts'))
    assert head == [
        'part',
        'compared',
        'clean (1)',
        'babble (1)',
        'other noise (1)',
        'room, channel (1)',
        '20 dB softer (1)',
        'attack (2)',
    ]
    kinds = 'clean', 'noise_ba', 'noise_ra', 'mu_law', 'gain_-20', 'attack'
    for number, ((part, (a, b)), row) in enumerate(zip(pages.PARTS.items(), rows, strict=True)):
        assert row[:2] == [part, f'{a} - {b}']
        for kind, cell in zip(kinds, row[2:], strict=True):
            difference = np.mean(uars[a, kind]) - np.mean(uars[b, kind])
            low, high = significance.compare(counts[a, kind], counts[b, kind]).interval
            p = significance.holm(
                [
                    significance.compare(counts[c, kind], counts[d, kind]).p
                    for c, d in pages.PARTS.values()
                ]
            )[number]
            expected = f'{difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], p {p:.2g}'
            assert cell == expected
    for seed, message in ((1, 'its variants have different seeds'), (0, 'no run of full')):
        del runs[f'emodb/full/seed{seed}']
        store(tmp_path / 'emodb4', runs)
        with pytest.raises(UserError, match=message):
            table(tmp_path, 'emodb4.parts')


def test_agreement_of_runs_by_recording(tmp_path):
    truth = take(predictions(0), np.arange(6))
    truth = dataclasses.replace(truth, label=[0, 0, 0, 0, 1, 2])
    votes = [0, 0, 1, 1, 1, 3], [0, 1, 1, 3, 1, 0], [0, 0, 0, 1, 1, 3]
    wholes = [dataclasses.replace(truth, probabilities=np.eye(4)[one]) for one in votes]
    store_seeds(tmp_path, wholes)
    assert table(tmp_path, 'emodb4.agreement') == [
        '| emotion | recordings | all right | half or more | fewer | none | predicted as |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| angry | 4 | 1 | 1 | 1 | 1 | happy 2 |',
        '| happy | 1 | 1 | 0 | 0 | 0 | – |',
        '| neutral | 1 | 0 | 0 | 0 | 1 | sad 1 |',
        '| sad | 0 | 0 | 0 | 0 | 0 | – |',
        '',
        pages.AGREEMENT_CAPTION.format(3),
    ]


def store_seeds(results, wholes):
    """Stores the clean predictions of the seeds of one variant."""
    runs = {f'emodb/full/seed{k}': (card(k), {'clean': one}) for k, one in enumerate(wholes)}
    store(results / 'emodb4', runs)


def test_confusion_by_speaker(tmp_path):
    drawn = [predictions(seed) for seed in (0, 5)]
    truth = drawn[0]
    kept = [dataclasses.replace(truth, probabilities=one.probabilities) for one in drawn]
    store_seeds(tmp_path, kept)
    label, speaker = np.array(truth.label), np.array(truth.speaker)
    matrix = sum(
        oracle.confusion_matrix(label, one.probabilities.argmax(1), labels=range(4))
        for one in drawn
    )
    rates = matrix / matrix.sum(1, keepdims=True)
    a, b = max(itertools.combinations(range(4), 2), key=lambda k: rates[k] + rates[k[::-1]])
    expected = []
    for name in (*sorted(set(speaker)), 'all'):
        own = (speaker == name) | (name == 'all')
        both = own & ((label == a) | (label == b))
        if len(set(label[both])) < 2:
            continue
        shares = [
            np.mean([one.probabilities[own & (label == k)].argmax(1) == other for one in drawn])
            for k, other in ((a, b), (b, a))
        ]
        area = np.mean(
            [
                oracle.roc_auc_score(
                    label[both] == a, np.log(one.probabilities[both][:, [a, b]]) @ [1, -1]
                )
                for one in drawn
            ]
        )
        numbers = [str((own & (label == k)).sum()) for k in (a, b)]
        first, second, below = (f'{100 * value:.1f}' for value in (*shares, area))
        expected.append([name, numbers[0], first, numbers[1], second, below])
    head, rows = cells(table(tmp_path, 'emodb4.speakers'))
    assert head == [
        'speaker',
        LABELS[a],
        f'% as {LABELS[b]}',
        LABELS[b],
        f'% as {LABELS[a]}',
        'area %',
    ]
    assert rows == expected
    assert len(rows) > 2
    # Mistaken in one direction only; an unknown speaker.
    truth = take(truth, np.arange(4))
    truth = dataclasses.replace(truth, label=[0, 0, 1, 1], speaker=['', '', '', ''])
    votes = [0, 0, 0, 1], [0, 0, 1, 1]
    kept = [dataclasses.replace(truth, probabilities=np.eye(4)[one]) for one in votes]
    store_seeds(tmp_path, kept)
    assert cells(table(tmp_path, 'emodb4.speakers'))[1] == [
        ['unknown', '2', '0.0', '2', '25.0', '87.5'],
        ['all', '2', '0.0', '2', '25.0', '87.5'],
    ]


def test_the_means_of_a_matrix_of_corpora(tmp_path):
    def run(seed, **results):
        made = card(seed)
        clean = made['conditions'].pop('clean')
        for name, uar in results.items():
            made['conditions'][name] = clean | {'uar': uar, 'corpus': name.split('_')[1]}
        return made, {}

    runs = {}
    for seed, gain in ((0, 0.0), (1, 0.2)):
        runs |= {
            f'emodb/full/seed{seed}': run(seed, cross_urdu=0.4 + gain, cross_urdu_few_shot_5=0.6),
            f'nemo/full/seed{seed}': run(seed, cross_urdu=0.5 + gain, cross_urdu_few_shot_5=0.6),
            f'emodb/single/seed{seed}': run(seed, cross_urdu=0.3, cross_urdu_few_shot_5=0.7),
            f'nemo/single/seed{seed}': run(seed, cross_urdu=0.7, cross_urdu_few_shot_5=0.5),
        }
    store(tmp_path / 'emodb4', runs)
    assert table(tmp_path, 'emodb4.ways')[:4] == [
        '| way | pairs | seeds | full | single | full is best | single is best |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| as it is | 2 | 0, 1 | 55.0 ± 14.1 | 50.0 ± 0.0 | 1 | 1 |',
        '| few shot 5 | 2 | 0, 1 | 60.0 ± 0.0 | 60.0 ± 0.0 | 1 | 1 |',
    ]
    del runs['emodb/full/seed1']
    store(tmp_path / 'emodb4', runs)
    with pytest.raises(UserError, match='different pairs or seeds'):
        table(tmp_path, 'emodb4.ways')


def test_what_was_tried_on_validation_speakers(tmp_path):
    def run(seed, clean, *corrupted, **changes):
        conditions = dict(zip(('telephone', 'gain_-20'), corrupted))
        validation = {'uar': clean, 'folds': [FOLD], 'conditions': conditions}
        made = card(seed, validation=validation, config={'eval_every': 9, 'steps': 9} | changes)
        return made | {'conditions': {}}, {}  # no test speaker was read

    runs = {
        'emodb/gain/seed0': run(0, 0.8, 0.2, 0.6),
        'emodb/gain/seed1': run(1, 0.9, 0.4, 0.6),
        'emodb/none/seed0': run(0, 0.7, 0.1, 0.5),
    }
    store(tmp_path / 'emodb4', runs)
    assert table(tmp_path, 'emodb4.tries')[:4] == [
        '| variant | seeds | clean | corrupted | telephone | gain_-20 |',
        '| --- | --- | --- | --- | --- | --- |',
        '| gain | 0, 1 | 85.0 ± 7.1 | 45.0 ± 7.1 | 30.0 ± 14.1 | 60.0 ± 0.0 |',
        '| none | 0 | 70.0 | 30.0 | 10.0 | 50.0 |',
    ]
    for other, message in (
        (run(1, 0.5), 'other classes or conditions'),
        (run(1, 0.5, 0.1, 0.1, eval_every=3), 'not judged at its last step'),
    ):
        store(tmp_path / 'emodb4', runs | {'emodb/none/seed1': other})
        with pytest.raises(UserError, match=message):
            table(tmp_path, 'emodb4.tries')


def test_the_correction_below_a_table_counts_the_comparisons_of_all_protocols(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    variants = {name: {'changes': {'steps': 10 + name}} for name in range(3)}
    variants = {f'v{name}': entry for name, entry in variants.items()}
    grid = make_grid(tmp_path, variants=variants, baseline='v0', family='condition')
    for run, protocol in zip(grid.runs, (4, 4, 8)):
        hits = 1 if run.variant == 'v0' else 7
        fake_result(tmp_path, run, hits, protocol=f'speaker_folds({protocol})')
    found = rows.make_rows(grid, tmp_path)
    assert [row['p_holm'] for row in found[1:]] == [2 * row['p'] for row in found[1:]]
    tables.write_tables(found, grid, '', tmp_path)
    monkeypatch.setattr(pages.store, 'read_grid', lambda folder: grid)
    monkeypatch.setattr(pages.store, 'summary', lambda *_: '')
    text = pages.make_paired_table(tmp_path, 'clean')
    assert text.count('under the same condition (2), ') == text.count('Holm: p corrected') == 2
