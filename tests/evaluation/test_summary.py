"""Summaries of predictions, the console table, and the README's tables of result cards."""

import dataclasses
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, load
from sklearn import metrics as oracle

from ser_jax.evaluation import summary
from ser_jax.metrics import rates, significance
from ser_jax.reporting.text import card_table
from ser_jax.runs import result_card
from ser_jax.runs.predictions import Predictions, pool, read_predictions, write_predictions
from ser_jax.runtime import files
from ser_jax.runtime.errors import UserError

LABELS = ['angry', 'happy', 'neutral', 'sad']


def predictions(seed=0, n_folds=5, each=30, n_classes=4, corpus='emodb'):
    """Predictions better than chance; fold f tests speaker f."""
    rng = np.random.default_rng(seed)
    n = n_folds * each
    label = rng.integers(n_classes, size=n)
    probabilities = rng.dirichlet(np.ones(n_classes), n)
    probabilities[np.arange(n), label] += 0.3
    fold = np.repeat(np.arange(1, n_folds + 1), each)
    return Predictions(
        [f'wav/{row:04d}' for row in range(n)],
        [f'fold_{number:02d}' for number in fold],
        [f'{corpus}/{number:02d}' for number in fold],
        label,
        probabilities / probabilities.sum(1, keepdims=True),
    )


def take(whole, rows):
    """Some rows of predictions."""
    fields = [field.name for field in dataclasses.fields(whole)]
    return Predictions(*(getattr(whole, name)[rows] for name in fields))


def card(seed=0, labels=LABELS, conditions=None, **changes):
    """A made-up result card."""
    whole = predictions(seed, n_classes=len(labels))
    fields = {
        'system': 'mtl_aug',
        'config_hash': 'c0ffee',
        'config': {},
        'corpus': 'emodb',
        'trained_on': ['emodb'],
        'corpus_hash': 'beef',
        'synthetic': False,
        'labels': labels,
        'tasks': {'emotion': labels},
        'protocol': 'leave_one_speaker_out()',
        'n_folds': (5, 5),
        'commit': 'c0ffee',
        'versions': {'jax': '1'},
        'device': '1 × cpu (2 cores, X)',
        'seed': seed,
        'n_params': 1_104_123,
        'conditions': {
            'clean': summary.summarise(whole, labels, n_bootstrap=500),
            **(conditions or {}),
        },
        'leak_check': {'speakers': 0, 'audio': 0, 'ids': 0, 'scripts': 10},
        'cost': {
            'train_seconds': 100.0 + 20 * seed,
            'compile_seconds': 20.1,
            'utterances_per_second': 212.3,
            'peak_memory_mb': 812.2,
            'data_wait_fraction': 0.012,
        },
    }
    return result_card.make_card(**fields | changes)


def test_summary_equals_scikit_learn():
    whole = predictions()
    found = summary.summarise(whole, LABELS)
    truth, predicted = whole.label, whole.probabilities.argmax(1)
    assert found['n'] == 150
    assert found['uar'] == pytest.approx(oracle.balanced_accuracy_score(truth, predicted))
    assert found['wa'] == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert found['macro_f1'] == pytest.approx(oracle.f1_score(truth, predicted, average='macro'))
    assert found['confusion'] == oracle.confusion_matrix(truth, predicted).tolist()
    recalls = oracle.recall_score(truth, predicted, average=None)
    assert found['recall'] == pytest.approx(dict(zip(LABELS, recalls)))
    lower, upper = found['uar_ci95']
    assert lower < found['uar'] < upper
    assert [fold['fold'] for fold in found['folds']] == [f'fold_{n:02d}' for n in range(1, 6)]
    second = found['folds'][1]
    rows = whole.fold == 'fold_02'
    assert second['test_speakers'] == ['emodb/02']
    assert second['uar'] == pytest.approx(
        oracle.balanced_accuracy_score(truth[rows], predicted[rows])
    )
    assert second['wa'] == pytest.approx(oracle.accuracy_score(truth[rows], predicted[rows]))
    json.dumps(found, allow_nan=False)
    # Pooled: not the mean over folds, and independent of the order of the utterances.
    assert found['uar'] != pytest.approx(np.mean([fold['uar'] for fold in found['folds']]))
    parts = [take(whole, whole.fold == name) for name in np.unique(whole.fold)[::-1]]
    assert summary.summarise(pool(parts), LABELS)['uar_ci95'] == found['uar_ci95']


def test_undefined_rates_are_none():
    whole = predictions(n_folds=1, each=20)
    alone = take(whole, whole.label != 2)
    found = summary.summarise(alone, LABELS)
    assert found['recall']['neutral'] is None
    assert found['uar_ci95'] == [None, None]
    unknown = dataclasses.replace(whole, speaker=np.full(20, ''))
    found = summary.summarise(unknown, LABELS)
    assert found['folds'][0]['test_speakers'] == []
    assert None not in found['uar_ci95']


def test_predictions_that_are_not_finite_are_refused():
    whole = predictions()
    whole.probabilities[3, 1] = np.nan
    with pytest.raises(UserError, match=r'1 of 150 .* not finite, e\.g\. of wav/0003'):
        summary.summarise(whole, LABELS)


def test_json_is_plain_and_written_whole(tmp_path):
    path = tmp_path / 'new' / 'results.json'
    content = {
        'a': np.float32(0.5),
        'b': [np.nan, np.int64(3)],
        'c': np.eye(2),
        'd': np.bool_(True),
    }
    files.write_json(path, content)
    plain = {'a': 0.5, 'b': [None, 3], 'c': [[1.0, 0.0], [0.0, 1.0]], 'd': True}
    assert json.loads(path.read_text()) == plain
    with pytest.raises(TypeError):
        files.write_json(path, {'a': object()})
    assert json.loads(path.read_text()) == plain
    assert [entry.name for entry in path.parent.iterdir()] == ['results.json']


def test_card_has_the_expected_fields():
    made = card()
    assert list(made) == [
        'system', 'config_hash', 'commit', 'versions', 'device', 'corpus', 'trained_on', 'corpus_hash',
        'synthetic', 'labels', 'tasks', 'protocol', 'n_folds', 'seed', 'n_params', 'conditions', 'leak_check', 'cost', 'config',
    ]  # fmt: skip
    assert list(made['conditions']['clean']) == [
        'n', 'uar', 'uar_ci95', 'redrawn', 'wa', 'macro_f1', 'recall', 'confusion', 'folds',
    ]  # fmt: skip


def test_table_of_a_tested_run():
    made = card()
    text = card_table(made)
    clean = made['conditions']['clean']
    assert text.splitlines()[0] == (
        'mtl_aug on emodb (real speech), leave_one_speaker_out(), 5 of 5 folds, seed 0'
    )
    lower, upper = (f'{100 * bound:.1f}' for bound in clean['uar_ci95'])
    assert re.search(rf'UAR +{100 * clean["uar"]:.1f} % +\[{lower}, {upper}\].* 5 speakers', text)
    assert re.search(r'chance +25.0 %  4 classes, n = 150', text)
    assert re.search(rf'WA +{100 * clean["wa"]:.1f} %', text)
    row = clean['confusion'][1]
    counts = ' +'.join(map(str, row))
    assert re.search(rf'happy +{sum(row)} +{100 * clean["recall"]["happy"]:.1f} +{counts}\n', text)
    third = clean['folds'][2]
    assert re.search(rf'fold_03 +03 +30 +{100 * third["uar"]:.1f} +{100 * third["wa"]:.1f}\n', text)
    for words in (
        'leak check',
        '10 scripts',
        'training 1 min 40 s',
        '212 utterances/s',
        '1,104,123',
    ):
        assert words in text
    assert 'SYNTHETIC speech' in card_table(card(synthetic=True, corpus='demo_speech'))


def test_table_is_never_wider_than_100_columns():
    names = [f'a rather long emotion {number}' for number in range(12)]
    noisy = {'noise_rain_' + 'x' * 60: summary.summarise(predictions(), LABELS, n_bootstrap=9)}
    made = card(labels=names, conditions=noisy, system='mtl_aug,' + 'long_option,' * 9)
    for fold in made['conditions']['clean']['folds']:
        fold['test_speakers'] = [f'csv_corpus/mine/somebody_{number}' for number in range(40)]
    lines = card_table(made).splitlines()
    assert max(map(len, lines)) <= 100
    text = '\n'.join(lines)
    assert sum(map(len, re.findall('x{3,}', text))) == 60  # broken into lines, but not cut
    for word in (*(f'somebody_{number}' for number in range(40)), *names):
        assert word in text


def test_table_without_test_shows_validation_only():
    folds = [
        {'fold': 'fold_01', 'validation_speakers': ['emodb/08', 'emodb/10'], 'n': 60, 'uar': 0.8},
        {'fold': 'fold_02', 'validation_speakers': ['emodb/09', 'emodb/11'], 'n': 60, 'uar': 0.9},
    ]
    made = card(validation=summary.summarise_validation(folds))
    made['conditions'] = {}
    text = card_table(made)
    assert re.search(r'UAR +85.0 % +mean over 2 folds, .* selected; no test speaker was read', text)
    assert re.search(r'fold_02 +09 11 +60 +90.0\n', text)
    assert 'WA' not in text
    assert 'interval' not in text
    # Beside a test result the validation is one line.
    tested = card_table(card(validation=summary.summarise_validation(folds)))
    assert re.search(r'validation UAR +85.0 % +mean over 2 folds, .* selected\n', tested)
    assert 'fold_02  02' in tested


def test_table_of_one_speaker_has_no_interval():
    whole = predictions(n_folds=1)
    made = card()
    made['conditions'] = {'clean': summary.summarise(whole, LABELS)}
    assert 'no interval: a single speaker' in card_table(made)
    assert '5 of 5 folds,' in card_table(made)


# results/make_tables.py


@pytest.fixture(scope='module')
def make_tables():
    """The script as a module."""
    return load('results/make_tables.py')


README = 'before\n<!-- table: GROUP -->\nold\n<!-- end table -->\nafter\n'


@pytest.fixture
def results(tmp_path):
    """Three seeds of one system, one of another, and a README."""
    for seed in range(3):
        add_run(tmp_path, f'full{seed}', card(seed))
    add_run(tmp_path, 'demo', card(7, system='other', corpus='demo_speech', synthetic=True))
    (tmp_path / 'README.md').write_text(README.replace('GROUP', 'emodb4'))
    return tmp_path


def add_run(root, name, made):
    """Lays a run's folder down as a finished run leaves it."""
    folder = root / 'emodb4' / name
    files.write_json(folder / 'results.json', made)
    (folder / 'command.txt').write_text(f'python -m ser_jax.main --config.seed={made["seed"]}\n')


def options(results, *more):
    """Command-line arguments."""
    return ['--readme', str(results / 'README.md'), '--results', str(results), *more]


def test_tables_are_written_and_checked(make_tables, results):
    assert make_tables.main(options(results, '--check')) == 1
    assert make_tables.main(options(results)) == 0
    assert make_tables.main(options(results, '--check')) == 0
    text = (results / 'README.md').read_text()
    assert text.startswith('before\n<!-- table: emodb4 -->\n| system |')
    assert text.endswith('<!-- end table -->\nafter\n')
    assert 'old' not in text.splitlines()
    rows = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('|')]
    header, _, demo, full = rows
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
    assert 'the mean of the bounds over the seeds' in text


def test_a_page_shows_the_first_variants_matrices_without_labels_of_the_target(
    make_tables, tmp_path
):
    def matrix(variant, way):
        return f'**{variant}, {way}** (UAR in percent)\n\n| a |\n| --- |\n| {variant} {way} |\n'

    ways = ('as it is', 'target statistics', 'few shot 5')
    text = '\n'.join(matrix(variant, way) for way in ways for variant in ('full', 'base'))
    (tmp_path / 'g').mkdir()
    (tmp_path / 'g' / 'matrix.md').write_text(f'# Grid g\n\n6 of 6 runs.\n\n{text}')
    page = make_tables.fill('<!-- table: g -->\n<!-- end table -->\n', tmp_path)
    expected = matrix('full', ways[0]) + '\n' + matrix('full', ways[1])
    assert page == f'<!-- table: g -->\n{expected}<!-- end table -->\n'


def test_runs_of_several_tasks_have_a_column_each(make_tables):
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
    lines = make_tables.make_task_table(runs).splitlines()
    rows = [dict(zip(lines[0].split(' | '), line.split(' | '))) for line in lines[2:5]]
    names = [
        '| net, one network for arousal, valence',
        '| net, a network a task',
        '| net,small, a network a task',
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
    with pytest.raises(make_tables.CardError, match='different seeds'):
        make_tables.make_task_table(
            [
                *runs,
                run(0, 'valence', system='net,valence,small'),
                run(1, 'valence', system='net,valence,small'),
            ]
        )


GRID = """# Grid x

3 of 4 runs are finished. Baseline: full. Code: commit abc.

| setting | condition | variant | n | seeds | UAR % (mean ± std) | difference | p (Holm) |
| --- | --- | --- | --- | --- | --- | --- | --- |
| emodb | clean | full | 339 | 0, 1 | 81.0 ± 0.5 | – | – |
| emodb | pgd | full | 339 | 0, 1 | 11.0 ± 0.5 | – | – |
| emodb | clean | no_gender | 339 | 0 | 80.0 | -1.0 [-2.0, +0.1] | 0.5000 |

What the columns mean; Holm: of this table (3).

A check failed.
"""


def test_the_lines_of_a_grid_under_one_condition(make_tables, results):
    group = results / 'emodb4'
    (group / 'table.md').write_text(GRID)
    readme = results / 'README.md'
    readme.write_text(README.replace('GROUP', 'emodb4.clean'))
    assert make_tables.main(options(results)) == 0
    assert readme.read_text().splitlines()[2:-2] == [
        'clean, n = 339. 3 of 4 runs are finished. Baseline: full. Code: commit abc.',
        '',
        '| variant | seeds | UAR % (mean ± std) | difference | p (Holm) |',
        '| --- | --- | --- | --- | --- |',
        '| full | 0, 1 | 81.0 ± 0.5 | – | – |',
        '| no_gender | 0 | 80.0 | -1.0 [-2.0, +0.1] | 0.5000 |',
        '',
        "What the columns mean; Holm: of the grid's whole table (3).",
        '',
        'A check failed.',
    ]
    readme.write_text(README.replace('GROUP', 'emodb4.fgsm'))
    assert make_tables.main(options(results)) == 1


def filled(make_tables, root, table):
    """The first lines of a table that the runs below a folder make; None where they make none."""
    readme = root / 'README.md'
    readme.write_text(README.replace('GROUP', table))
    failed = make_tables.main(options(root))
    return None if failed else readme.read_text().splitlines()[2:6]


def test_the_errors_of_the_variants_of_a_grid(make_tables, tmp_path, capsys):
    def add(folder, seed, *confusion, **changes):
        made = card(seed, **changes)
        recall = dict.fromkeys(('angry', 'happy', 'sad')[: len(confusion)], 0.5)
        made['conditions']['clean'] |= {'recall': recall, 'confusion': confusion}
        add_run(tmp_path, folder, made)

    rest = [0, 10, 0], [0, 0, 0]  # no utterance is sad
    add('emodb-full-seed0', 0, [8, 2, 0], *rest)
    add('emodb-full-seed1', 1, [6, 4, 0], *rest)
    add('emodb-single_task-seed0', 0, [9, 0, 1], *rest)
    assert filled(make_tables, tmp_path, 'emodb4.confusions') == [
        '| variant | seeds | angry as happy | angry as sad |',
        '| --- | --- | --- | --- |',
        '| full | 0, 1 | 30.0 ± 14.1 | 0.0 ± 0.0 |',
        '| single_task | 0 | 0.0 | 10.0 |',
    ]
    for message, folder, confusion, changes in (
        ('not called SETTING-VARIANT-seedK', 'full-seed2', ([8, 2, 0], *rest), {}),
        ('other classes', 'emodb-full-seed2', ([8, 2], [0, 1]), {}),
        ('another config than', 'emodb-full-seed2', ([8, 2, 0], *rest), {'config_hash': 'x'}),
        ('another corpus', 'emodb-full-seed2', ([8, 2, 0], *rest), {'corpus_hash': 'x'}),
    ):
        add(folder, 2, *confusion, **changes)
        assert filled(make_tables, tmp_path, 'emodb4.confusions') is None
        assert message in capsys.readouterr().err
        shutil.rmtree(tmp_path / 'emodb4' / folder)


def test_what_each_part_adds(make_tables, tmp_path, capsys):
    truth = predictions(0)
    uars, counts = {}, {}  # (variant, condition) -> UAR of each seed; confusions by speaker
    for number, variant in enumerate(dict.fromkeys(sum(make_tables.PARTS.values(), ()))):
        for seed in range(2):
            made = card(seed, system=variant)
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
                run = dataclasses.replace(truth, probabilities=drawn)
                path = f'emodb4/emodb-{variant}-seed{seed}/predictions/{condition}.csv'
                write_predictions(tmp_path / path, run, LABELS)
                made['conditions'][condition] = made['conditions']['clean']
                uar = oracle.balanced_accuracy_score(truth.label, drawn.argmax(1))
                uars.setdefault((variant, condition[:8]), []).append(100 * uar)
                by_speaker = rates.confusion_by_speaker(
                    truth.label, drawn.argmax(1), truth.speaker, len(LABELS)
                )
                counts.setdefault((variant, condition[:8]), []).append(by_speaker)
            add_run(tmp_path, f'emodb-{variant}-seed{seed}', made)
    for found in (uars, counts):
        found |= {(v, 'attack'): [*found[v, 'fgsm_0.1'], *found[v, 'pgd_0.1']] for v, _ in found}
    readme = tmp_path / 'README.md'
    readme.write_text(README.replace('GROUP', 'emodb4.parts'))
    assert make_tables.main(options(tmp_path)) == 0
    head, _, *rows = (
        line.strip('| ').split(' | ') for line in readme.read_text().splitlines()[2:10]
    )
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
    for number, ((part, (a, b)), row) in enumerate(
        zip(make_tables.PARTS.items(), rows, strict=True)
    ):
        assert row[:2] == [part, f'{a} - {b}']
        for kind, cell in zip(kinds, row[2:], strict=True):
            difference = np.mean(uars[a, kind]) - np.mean(uars[b, kind])
            low, high = significance.compare(counts[a, kind], counts[b, kind]).interval
            p = significance.holm(
                [
                    significance.compare(counts[c, kind], counts[d, kind]).p
                    for c, d in make_tables.PARTS.values()
                ]
            )[number]
            expected = f'{difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], p {p:.2g}'
            assert cell == expected
    shutil.rmtree(tmp_path / 'emodb4' / 'emodb-full-seed1')
    assert filled(make_tables, tmp_path, 'emodb4.parts') is None
    assert 'its variants have different seeds' in capsys.readouterr().err
    shutil.rmtree(tmp_path / 'emodb4' / 'emodb-full-seed0')
    assert filled(make_tables, tmp_path, 'emodb4.parts') is None
    assert 'no run of full' in capsys.readouterr().err


def test_agreement_of_runs_by_recording(make_tables, tmp_path):
    truth = take(predictions(0), np.arange(6))
    truth = dataclasses.replace(truth, label=[0, 0, 0, 0, 1, 2])
    for seed, predicted in enumerate(([0, 0, 1, 1, 1, 3], [0, 1, 1, 3, 1, 0], [0, 0, 0, 1, 1, 3])):
        whole = dataclasses.replace(truth, probabilities=np.eye(4)[predicted])
        path = f'emodb4/emodb-full-seed{seed}/predictions/clean.csv'
        write_predictions(tmp_path / path, whole, LABELS)
        add_run(tmp_path, f'emodb-full-seed{seed}', card(seed))
    readme = tmp_path / 'README.md'
    readme.write_text(README.replace('GROUP', 'emodb4.agreement'))
    assert make_tables.main(options(tmp_path)) == 0
    assert readme.read_text().splitlines()[2:-2] == [
        '| emotion | recordings | all right | half or more | fewer | none | heard as |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| angry | 4 | 1 | 1 | 1 | 1 | happy 2 |',
        '| happy | 1 | 1 | 0 | 0 | 0 | – |',
        '| neutral | 1 | 0 | 0 | 0 | 1 | sad 1 |',
        '| sad | 0 | 0 | 0 | 0 | 0 | – |',
        '',
        make_tables.AGREEMENT_CAPTION.format(3),
    ]


def test_confusion_by_speaker(make_tables, tmp_path):
    drawn = [predictions(seed) for seed in (0, 5)]
    truth = drawn[0]
    for seed, one in enumerate(drawn):
        path = f'emodb4/emodb-full-seed{seed}/predictions/clean.csv'
        kept = dataclasses.replace(truth, probabilities=one.probabilities)
        write_predictions(tmp_path / path, kept, LABELS)
        add_run(tmp_path, f'emodb-full-seed{seed}', card(seed))
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
    readme = tmp_path / 'README.md'
    readme.write_text(README.replace('GROUP', 'emodb4.speakers'))
    assert make_tables.main(options(tmp_path)) == 0
    head, _, *rows = (
        line.strip('| ').split(' | ')
        for line in readme.read_text().splitlines()
        if line.startswith('|')
    )
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
    for seed, predicted in enumerate(([0, 0, 0, 1], [0, 0, 1, 1])):
        path = f'emodb4/emodb-full-seed{seed}/predictions/clean.csv'
        kept = dataclasses.replace(truth, probabilities=np.eye(4)[predicted])
        write_predictions(tmp_path / path, kept, LABELS)
    assert make_tables.main(options(tmp_path)) == 0
    rows = [line for line in readme.read_text().splitlines() if line.startswith('|')]
    assert rows[2:] == [
        '| unknown | 2 | 0.0 | 2 | 25.0 | 87.5 |',
        '| all | 2 | 0.0 | 2 | 25.0 | 87.5 |',
    ]


def test_the_means_of_a_matrix_of_corpora(make_tables, tmp_path, capsys):
    def add(setting, variant, seed, **rates):
        made = card(seed)
        made['conditions'] = {
            name: {'uar': uar, 'corpus': name.split('_')[1]} for name, uar in rates.items()
        }
        add_run(tmp_path, f'{setting}-{variant}-seed{seed}', made)

    for seed, gain in ((0, 0.0), (1, 0.2)):
        add('emodb', 'full', seed, cross_urdu=0.4 + gain, cross_urdu_few_shot_5=0.6)
        add('emodb+nemo', 'full', seed, cross_urdu=0.5 + gain, cross_urdu_few_shot_5=0.6)
        add('emodb', 'single', seed, cross_urdu=0.3, cross_urdu_few_shot_5=0.7)
        add('emodb+nemo', 'single', seed, cross_urdu=0.7, cross_urdu_few_shot_5=0.5)
    readme = tmp_path / 'README.md'
    readme.write_text(README.replace('GROUP', 'emodb4.ways'))
    assert make_tables.main(options(tmp_path)) == 0
    assert readme.read_text().splitlines()[2:6] == [
        '| way | pairs | seeds | full | single | full is best | single is best |',
        '| --- | --- | --- | --- | --- | --- | --- |',
        '| as it is | 2 | 0, 1 | 55.0 ± 14.1 | 50.0 ± 0.0 | 1 | 1 |',
        '| few shot 5 | 2 | 0, 1 | 60.0 ± 0.0 | 60.0 ± 0.0 | 1 | 1 |',
    ]
    shutil.rmtree(tmp_path / 'emodb4' / 'emodb-full-seed1')
    assert filled(make_tables, tmp_path, 'emodb4.ways') is None
    assert 'different pairs or seeds' in capsys.readouterr().err


def test_what_was_tried_on_validation_speakers(make_tables, tmp_path, capsys):
    def add(variant, seed, clean, *corrupted, **changes):
        conditions = dict(zip(('telephone', 'gain_-20'), corrupted))
        validation = {'uar': clean, 'folds': [], 'conditions': conditions}
        made = card(seed, validation=validation, config={'eval_every': 9, 'steps': 9} | changes)
        made['conditions'] = {}  # no test speaker was read
        add_run(tmp_path, f'emodb-{variant}-seed{seed}', made)

    add('gain', 0, 0.8, 0.2, 0.6)
    add('gain', 1, 0.9, 0.4, 0.6)
    add('none', 0, 0.7, 0.1, 0.5)
    assert filled(make_tables, tmp_path, 'emodb4.tries') == [
        '| variant | seeds | clean | corrupted | telephone | gain_-20 |',
        '| --- | --- | --- | --- | --- | --- |',
        '| gain | 0, 1 | 85.0 ± 7.1 | 45.0 ± 7.1 | 30.0 ± 14.1 | 60.0 ± 0.0 |',
        '| none | 0 | 70.0 | 30.0 | 10.0 | 50.0 |',
    ]
    add('none', 1, 0.5)
    assert filled(make_tables, tmp_path, 'emodb4.tries') is None
    assert 'other classes or conditions' in capsys.readouterr().err
    add('none', 1, 0.5, 0.1, 0.1, eval_every=3)
    assert filled(make_tables, tmp_path, 'emodb4.tries') is None
    assert 'not judged at its last step' in capsys.readouterr().err


def test_a_changed_card_or_readme_fails_the_check(make_tables, results):
    make_tables.main(options(results))
    text = (results / 'README.md').read_text()
    number = re.search(r'\d+\.\d ±', text)[0]
    (results / 'README.md').write_text(text.replace(number, '99.9 ±'))
    assert make_tables.main(options(results, '--check')) == 1
    make_tables.main(options(results))
    add_run(results, 'full3', card(3))
    assert make_tables.main(options(results, '--check')) == 1


@pytest.mark.parametrize('fault', ['seed', 'n', 'command', 'json', 'validation', 'marker', 'group'])
def test_faulty_results_are_one_line(make_tables, results, capsys, fault):
    run = results / 'emodb4' / 'full0'
    made = json.loads((run / 'results.json').read_text())
    if fault == 'seed':
        made['seed'] = 1
    elif fault == 'n':
        made['conditions']['clean']['n'] = 149
    elif fault == 'validation':
        made['conditions'] = {}
    (run / 'results.json').write_text(json.dumps(made))
    if fault == 'command':
        (run / 'command.txt').unlink()
    elif fault == 'json':
        (run / 'results.json').write_text('{')
    elif fault in ('marker', 'group'):
        text = README.replace('<!-- end table -->', '') if fault == 'marker' else README
        (results / 'README.md').write_text(text)
    before = (results / 'README.md').read_text()
    assert make_tables.main(options(results)) == 1
    error = capsys.readouterr().err
    assert error.startswith('make_tables: ')
    assert error.count('\n') == 1
    assert (results / 'README.md').read_text() == before


def test_readme_matches_the_cards(make_tables):
    readme = ROOT / 'README.md'
    if not readme.exists() or '<!-- table: ' not in readme.read_text(encoding='utf-8'):
        pytest.skip('the README has no table yet')
    assert make_tables.main(['--check']) == 0


def rounded(content):
    """JSON with its numbers to nine digits: another processor may add up in another order."""
    return json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 9))


@pytest.mark.parametrize(
    'path',
    sorted((ROOT / 'results').glob('*/*/results.json')),
    ids=lambda path: '-'.join(path.parts[-3:-1]),
)
def test_stored_cards_follow_from_stored_predictions(path):
    made = json.loads(path.read_text())
    for name, stored in made['conditions'].items():
        found, labels = read_predictions(path.parent / 'predictions' / f'{name}.csv')
        assert labels == stored.get('labels', made['labels'])
        again = summary.summarise(found, labels)
        assert rounded(again) == rounded({name: stored[name] for name in again})


def test_leaks_are_printed():
    leaking = card(0) | {'leak_check': {'speakers': 3, 'audio': 0, 'ids': 0, 'scripts': 8}}
    assert 'FAILED: 3 speakers in two splits; 8 scripts' in card_table(leaking)
    assert 'passed: no speaker, audio or id in two splits' in card_table(card(0))
