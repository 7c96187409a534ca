"""The report command: single runs, seeds, comparisons, and their faults."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from runs_on_disk import LABELS
from runs_on_disk import make_predictions as predictions
from runs_on_disk import write_run as lay
from sklearn.metrics import balanced_accuracy_score

from ser_jax import report
from ser_jax.evaluation import compare, summary
from ser_jax.metrics import rates as metrics
from ser_jax.metrics import significance
from ser_jax.reporting.text import comparison_table
from ser_jax.runs import finished
from ser_jax.runs.predictions import read_predictions, write_predictions
from ser_jax.runtime.errors import UserError

EMODB = [str(ROOT / f'results/emodb/mtl_aug-seed{seed}') for seed in range(3)]
SINGLE = [str(ROOT / f'results/emodb/mtl_aug-single_task-seed{seed}') for seed in range(3)]


@pytest.fixture
def runs(tmp_path):
    """Workdirs of two systems: (A with three seeds, B with two)."""
    a = [lay(tmp_path / f'a{seed}', predictions(seed, skill=0.35), seed) for seed in range(3)]
    other = {'system': 'mtl_aug,single_task', 'config_hash': 'dead'}
    b = [lay(tmp_path / f'b{seed}', predictions(9 + seed), seed, **other) for seed in range(2)]
    return a, b


def shown(capsys, *arguments):
    """(stdout, stderr) of a successful command."""
    assert report.main(arguments) == 0
    printed = capsys.readouterr()
    assert all(len(line) <= 100 for line in printed.out.splitlines())
    return printed.out, printed.err


def refused(capsys, *arguments):
    """The error message of a failing command, one line."""
    with pytest.raises(SystemExit) as stop:
        report.main(arguments)
    line = stop.value.code  # text: printed on stderr, exit status 1
    assert line.startswith('error: ')
    assert '\n' not in line
    assert capsys.readouterr().out == ''
    return line.removeprefix('error: ')


def compared(a, b, **options):
    """The comparison of two single runs."""
    return compare.compare_runs([a], [b], replicates=200, **options)


def test_comparison_over_seeds(runs, capsys):
    a, b = runs
    options = ('--against', *b, '--format=json', '--replicates=2000')
    out, _ = shown(capsys, f'--workdir={a[0]}', *a[1:], *options)
    found = json.loads(out)
    sides = [
        np.stack([read_predictions(f'{f}/predictions/clean.csv')[0].probabilities
                  for f in side]).astype(float)
        for side in (a, b)
    ]  # fmt: skip
    one = predictions(0)
    rates = [
        [balanced_accuracy_score(one.label, seed.argmax(1)) for seed in side] for side in sides
    ]
    for name, own in zip('ab', rates):
        assert found[name]['uar_by_seed'] == pytest.approx(own)
        assert found[name]['uar_std'] == pytest.approx(np.std(own, ddof=1))
    mean, posterior = found['mean_over_seeds'], found['averaged_posterior']
    assert mean['uar_a'] == pytest.approx(np.mean(rates[0]))
    assert mean['difference'] == pytest.approx(np.mean(rates[0]) - np.mean(rates[1]))
    averaged = [balanced_accuracy_score(one.label, side.mean(0).argmax(1)) for side in sides]
    assert [posterior['uar_a'], posterior['uar_b']] == pytest.approx(averaged)
    assert posterior['difference'] == pytest.approx(averaged[0] - averaged[1])
    assert posterior['difference'] != pytest.approx(mean['difference'])
    count = lambda predicted: metrics.confusion_by_speaker(one.label, predicted, one.speaker, 3)
    for result, pair in (
        (mean, [[seed.argmax(1) for seed in side] for side in sides]),
        (posterior, [[side.mean(0).argmax(1)] for side in sides]),
    ):
        expected = significance.compare(*([count(said) for said in side] for side in pair), 2000)
        assert result['ci95'] == pytest.approx(expected.interval)
        assert result['p'] == expected.p
    context = {'n': 60, 'n_speakers': 5, 'n_unknown_speaker': 0, 'replicates': 2000, 'redrawn': 0}
    context |= {'corpus': 'c', 'synthetic': False, 'condition': 'clean', 'labels': LABELS}
    context |= {'p_exact': True, 'smallest_p': 1 / 16, 'protocol': 'leave_one_speaker_out()'}
    assert {name: found[name] for name in context} == context
    assert (found['a']['system'], found['a']['seeds']) == ('mtl_aug', [0, 1, 2])
    assert (found['b']['system'], found['b']['seeds']) == ('mtl_aug,single_task', [0, 1])


def test_comparison_table(runs, capsys):
    a, b = runs
    result = compare.compare_runs(a, b, replicates=300)
    out, err = shown(capsys, '--workdir', *a, f'--against={b[0]}', b[1], '--replicates=300')
    for words in (
        f'A mtl_aug, seeds 0, 1, 2, commit {"a" * 10} ',
        'B mtl_aug,single_task, seeds 0, 1,',
        'c (real speech), leave_one_speaker_out(), 5 of 5 folds, condition clean 60 utterances, 5 speakers, 3 classes: angry happy sad ',
        '300 replicates, the same draw for A and B; 0 draws lacked a class',
        'too narrow',
        'in all 32 ways; with 5 speakers no p is below 0.0625',
    ):
        assert words in ' '.join(out.split())
    for name, title in (
        ('mean_over_seeds', 'mean over seeds ± std'),
        ('averaged_posterior', 'averaged posterior'),
    ):
        row = result[name]
        low, high = (f'{100 * bound:+.1f}' for bound in row['ci95'])
        spread = [f'{100 * row[f"uar_{side}"]:.1f}' for side in 'ab']
        if name == 'mean_over_seeds':
            spread = [
                f'{mean} ± {100 * result[side]["uar_std"]:.1f}' for mean, side in zip(spread, 'ab')
            ]
        cells = [title, *spread, f'{100 * row["difference"]:+.1f}']
        cells += [f'[{low}, {high}]', f'{row["p"]:.3g}']
        assert re.search(' +'.join(map(re.escape, cells)) + '\n', out)
    assert err == (
        'warning: 3 seeds against 2: a mean of fewer varies more, an averaged posterior gains with every seed\n'
    )


def test_default_condition_without_the_emotion(tmp_path, capsys):
    names = ('clean_arousal', 'clean_valence')
    a, b = (lay(tmp_path / str(seed), predictions(seed), seed, conditions=names) for seed in (0, 1))
    out, _ = shown(capsys, f'--workdir={a}', f'--against={b}')
    assert 'condition clean_arousal' in out
    out, _ = shown(capsys, f'--workdir={a}', b)
    assert 'condition clean_arousal' in out
    out, _ = shown(capsys, f'--workdir={a}', b, '--condition=clean_valence')
    assert 'condition clean_valence' in out


def test_single_seeds_are_one_row(runs, capsys):
    (a, *_), (b, *_) = runs
    out, err = shown(capsys, f'--workdir={a}', f'--against={b}', '--replicates=200')
    assert 'one seed each' in out
    assert 'averaged' not in out
    assert '±' not in out
    assert err == ''
    found = compared(a, b)
    assert found['mean_over_seeds'] == found['averaged_posterior']


def test_identical_systems_and_the_order_of_rows(runs):
    (a, *_), (b, *_) = runs
    same = compared(a, a)
    for name in ('mean_over_seeds', 'averaged_posterior'):
        assert (same[name]['difference'], same[name]['ci95'], same[name]['p']) == (0, [0, 0], 1)
    before = compared(a, b)
    path = f'{a}/predictions/clean.csv'
    with open(path) as file:
        header, *lines = file
    with open(path, 'w') as file:
        file.writelines([header, *lines[::-1]])
    assert compared(a, b) == before


def test_real_results(capsys):
    """The full system against the single task on EMO-DB, from results/."""
    out, err = shown(capsys, '--workdir', *EMODB, '--against', *SINGLE)
    assert err == ''
    assert 'emodb (real speech), leave_one_speaker_out(), 10 of 10 folds, condition clean' in out
    assert '339 utterances, 10 speakers, 4 classes: angry happy neutral sad' in out
    assert re.search(
        r'mean over seeds ± std +85\.1 ± 0\.9 +84\.4 ± 0\.9 +\+0\.7 +\[-1\.\d, \+3\.\d\] +0\.645\n',
        out,
    )
    assert re.search(
        r'averaged posterior +86\.3 +85\.3 +\+1\.0 +\[-1\.\d, \+3\.\d\] +0\.531\n', out
    )
    assert 'in all 1024 ways' in out
    assert 'no p is below' not in out
    cards = [finished.read_card(folder) for folder in EMODB]
    found = compare.over_seeds(EMODB, replicates=200)
    assert found['a']['uar_by_seed'] == pytest.approx(
        [card['conditions']['clean']['uar'] for card in cards]
    )


def change(field, value):
    """A function that changes one field of predictions in place."""

    def apply(found):
        getattr(found, field)[7] = value
        return found

    return apply


@pytest.mark.parametrize(
    ('edit', 'fields', 'message'),
    [
        (None, {'corpus': 'd'}, 'cannot pair {a} with {b}: their corpora are c and d'),
        (change('id', 'wav/x'), {}, 'cannot pair {a} with {b}: they tested other utterances, 1 only'
         ' the former (e.g. wav/007), 1 only the latter (e.g. wav/x)'),
        (change('label', 2), {}, 'cannot pair {a} with {b}: 1 of 60 utterances have another label, '
         'e.g. wav/007: happy and sad'),
        (change('speaker', ''), {}, 'cannot pair {a} with {b}: 1 of 60 utterances have another '
         'speaker, e.g. wav/007: c/00 and unknown'),
        (None, {'labels': ['angry', 'happy', 'bored']},
         'cannot pair {a} with {b}: their classes are angry happy sad and angry happy bored'),
        (change('id', 'wav/006'), {}, '{b}/predictions/clean.csv holds wav/006 twice'),
        (None, {'conditions': ['noise']}, '{b} has no condition clean; it has noise (--condition names one)'),
    ],
)  # fmt: skip
def test_unpairable_runs(tmp_path, capsys, edit, fields, message):
    a = lay(tmp_path / 'a', predictions(0))
    found = edit(predictions(1)) if edit else predictions(1)
    b = lay(tmp_path / 'b', found, **fields)
    line = refused(capsys, f'--workdir={a}', f'--against={b}')
    assert line == message.format(a=a, b=b)


def test_unusable_folders(tmp_path, capsys, runs):
    (a, *_), (b, *_) = runs
    against = lambda *folders: refused(capsys, f'--workdir={a}', '--against', *folders)
    assert (
        against(str(tmp_path / 'no')) == f'{tmp_path}/no holds no results.json: not a finished run'
    )
    made = tmp_path / 'made'
    made.mkdir()
    for text, words in (
        ('{', 'not what ser_jax writes'),
        ('[]', 'the whole is []'),
        ('{"system": "x"}', 'lacks config_hash'),
    ):
        (made / 'results.json').write_text(text)
        assert words in against(str(made))
    assert against(b, b) == f'{b} and {b} are both seed 0'
    assert against(b, lay(made, predictions(3), 1)) == (
        f'{b} and {made} are not seeds of one system: their system is mtl_aug,single_task and mtl_aug'
    )
    lay(made, predictions(3), 1, system='mtl_aug,single_task', config_hash='d00d')
    assert 'their config_hash is dead and d00d' in against(b, str(made))
    (made / 'predictions/clean.csv').unlink()
    assert f'cannot read predictions from {made}/predictions/clean.csv' in against(str(made))
    found = predictions(3)
    lay(made, found)
    found.probabilities[4, 0] = np.nan
    write_predictions(made / 'predictions/clean.csv', found, LABELS)
    assert 'the probabilities of wav/004 are not finite' in against(str(made))
    fold = {'fold': 'fold_01', 'validation_speakers': ['c/1'], 'n': 9, 'uar': 0.5}
    lay(made, predictions(3), conditions=(), validation={'uar': 0.5, 'folds': [fold]})
    assert 'no condition clean; it has no other either: no test' in against(str(made))
    few = refused(capsys, f'--workdir={a}', '--replicates=20')
    assert few == '--replicates=20: an interval needs at least 100 replicates'


def test_errors_are_one_line_with_status_1(tmp_path):
    command = [sys.executable, '-m', 'ser_jax.report', f'--workdir={tmp_path}', '--against=x']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f'error: {tmp_path} holds no results.json: not a finished run\n'
    assert done.stdout == ''


def test_reporting_needs_no_jax(tmp_path):
    """Neither the modules of ser_jax.reporting nor the command import JAX."""
    code = f"""if True:
        import importlib, pkgutil, sys
        from ser_jax import report, reporting
        for module in pkgutil.walk_packages(reporting.__path__, 'ser_jax.reporting.'):
            importlib.import_module(module.name)
        options = ['--replicates=100', '--html={tmp_path}/page.html']
        report.main(['--workdir', {EMODB[0]!r}, '--against', {SINGLE[0]!r}, *options])
        sys.exit('jax' in sys.modules)
    """
    assert (
        subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True).returncode == 0
    )


def test_help_comes_before_slow_imports():
    start = time.perf_counter()
    command = [sys.executable, '-X', 'importtime', '-m', 'ser_jax.report', '--help']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert time.perf_counter() - start < 2
    assert done.returncode == 0
    assert '--against' in done.stdout
    assert not re.search(r'\| +(jax|numpy)$', done.stderr, re.MULTILINE)


def test_warnings_of_differing_cards(tmp_path):
    a = lay(tmp_path / 'a', predictions(0))
    b = lay(
        tmp_path / 'b',
        predictions(1),
        protocol='speaker_folds(5)',
        corpus_hash='cafe',
        commit='b' * 40 + '+changes',
        device='x',
    )
    assert compared(a, b)['warnings'] == [
        f'the runs differ in corpus_hash: beef ({a}), cafe ({b})',
        f'the runs differ in protocol: leave_one_speaker_out() ({a}), speaker_folds(5) ({b})',
        f'the runs differ in commit: {"a" * 40} ({a}), {"b" * 40}+changes ({b})',
        f'code with uncommitted changes was run in {b}',
    ]
    assert compared(a, a)['warnings'] == []


def test_cross_corpus_conditions_pair_systems_trained_on_other_corpora(tmp_path):
    crossed = {'conditions': ('clean', 'cross_urdu')}
    a = lay(tmp_path / 'a', predictions(0), **crossed)
    b = lay(tmp_path / 'b', predictions(1), corpus='d', trained_on=['d'], **crossed)
    found = compared(a, b, condition='cross_urdu')
    assert found['warnings'] == []
    assert (found['a']['trained_on'], found['b']['trained_on']) == (['c'], ['d'])
    text = comparison_table(found)
    assert 'trained on d, seed 0' in text
    assert 'folds' not in text  # of the training corpus, irrelevant here
    with pytest.raises(UserError, match='corpora are c and d'):
        compared(a, b)


def test_config_differences_are_shown(tmp_path):
    a = lay(tmp_path / 'a', predictions(0), config={'steps': 5, 'labelled_share': 0.1})
    b = lay(tmp_path / 'b', predictions(1), config={'steps': 5, 'labelled_share': 1.0})
    text = comparison_table(compared(a, b))
    assert 'A only: labelled_share 0.1\n' in text
    assert 'B only: labelled_share 1.0\n' in text
    assert 'steps' not in text


@pytest.mark.parametrize(
    ('condition', 'field'),
    [
        ('noise_rain_5db', 'test_noise_corpus'),
        ('noise_babble3_5db', 'babble_corpus'),
        ('transfer_pgd_0.1', 'attack_models'),
        ('cross_urdu_few_shot_5', 'few_shot_steps'),
    ],
)
def test_warnings_of_differing_conditions(tmp_path, condition, field):
    crossed = {'conditions': ('clean', condition)}
    a = lay(tmp_path / 'a', predictions(0), **crossed, tested_with={field: 'x'})
    b = lay(tmp_path / 'b', predictions(1), **crossed, tested_with={field: 'y'})
    (warning,) = compared(a, b, condition=condition)['warnings']
    assert warning.startswith(f'the runs differ in {field}: ')
    assert compared(a, b)['warnings'] == []


@pytest.mark.parametrize(
    ('condition', 'inputs'),
    [
        ('noise_white_5db', ({'test_noise_corpus': 'x'}, {'test_noise_corpus': 'y'})),
        (
            'transfer_pgd_0.1',
            [
                {'attack_models': f'abc seed {seed} c0ffee', 'attack_source': f'runs/seed{seed}'}
                for seed in (0, 1)
            ],
        ),
    ],
)
def test_no_warning_of_what_a_condition_does_not_depend_on(tmp_path, condition, inputs):
    a, b = (
        lay(tmp_path / name, predictions(0), conditions=('clean', condition), tested_with=tested)
        for name, tested in zip('ab', inputs)
    )
    assert compared(a, b, condition=condition)['warnings'] == []


def test_speakers_few_many_unknown_and_one(tmp_path, capsys):
    def table(**options):
        found = [predictions(seed, **options) for seed in (0, 1)]
        a, b = (lay(tmp_path / name, one) for name, one in zip('ab', found))
        out, _ = shown(capsys, f'--workdir={a}', f'--against={b}', '--replicates=200')
        return ' '.join(out.split())

    many = table(n_speakers=24)
    assert 'in 200 random ways and as observed' in many
    assert 'no p is below' not in many
    assert 'too narrow' not in many
    alone = table(n_speakers=1)
    assert 'interval none: a single speaker' in alone
    assert 'with 1 speaker no p is below 1;' in alone
    # Each of five speakers has three utterances, one a class: no draw can lack one. With one
    # utterance each, most do.
    assert '; 0 draws lacked a class' in table(each=3)
    again = re.search(r'; (\d+) draws lacked a class', table(each=1))
    # Classes 0 1 2 0 1: P(a draw of five holds all) = 1 - 2 (3/5)^5 - (4/5)^5 + 2 (2/5)^5 + (1/5)^5.
    share = 1 - 2 * 0.6**5 - 0.8**5 + 2 * 0.4**5 + 0.2**5
    assert int(again[1]) == pytest.approx(200 * (1 - share) / share, abs=60)

    found = [predictions(seed, each=1, n_speakers=12) for seed in (0, 1)]
    for one in found:
        one.speaker[:] = ''
    a, b = (lay(tmp_path / name, one) for name, one in zip('ab', found))
    result = compared(a, b)
    assert (result['n_speakers'], result['n_unknown_speaker']) == (0, 12)
    out, _ = shown(capsys, f'--workdir={a}', f'--against={b}', '--replicates=200')
    assert '0 speakers, 12 utterances of unknown speakers, each as its own cluster,' in out


def test_synthetic_speech_is_named(tmp_path, capsys):
    a = lay(tmp_path / 'a', predictions(0), synthetic=True)
    assert 'c (SYNTHETIC speech)' in shown(capsys, f'--workdir={a}', f'--against={a}')[0]


def test_cards_and_seeds_without_another_system(runs, capsys):
    a, _ = runs
    one, _ = shown(capsys, f'--workdir={a[0]}')
    assert one.startswith(
        'mtl_aug on c (real speech), leave_one_speaker_out(), 5 of 5 folds, seed 0'
    )
    assert 'mean over seeds' not in one
    out, _ = shown(capsys, f'--workdir={a[0]}', f'--workdir={a[1]}', a[2], '--replicates=500')
    assert one.strip() in out
    assert out.count('leak check') == 3
    found = json.loads(shown(capsys, '--workdir', *a, '--format=json', '--replicates=500')[0])
    assert [card['seed'] for card in found['cards']] == [0, 1, 2]
    over = found['over_seeds']
    uar = [card['conditions']['clean']['uar'] for card in found['cards']]
    assert over['mean_over_seeds']['uar'] == pytest.approx(np.mean(uar))
    assert over['a']['uar_std'] == pytest.approx(np.std(uar, ddof=1))
    for result in (over['mean_over_seeds'], over['averaged_posterior']):
        assert result['ci95'][0] < result['uar'] < result['ci95'][1]
    low, high = (100 * bound for bound in over['mean_over_seeds']['ci95'])
    row = f'{100 * np.mean(uar):.1f} ± {100 * np.std(uar, ddof=1):.1f}  [{low:.1f}, {high:.1f}]'
    assert re.search('mean over seeds ± std +' + re.escape(row), out)
    posterior = f'{100 * over["averaged_posterior"]["uar"]:.1f}'
    assert re.search(rf'averaged posterior +{posterior} +\[', out)
    assert over['averaged_posterior']['uar'] > np.mean(uar)


def test_conditions_and_validation(tmp_path, capsys):
    folder = lay(tmp_path / 'a', predictions(0), conditions=('clean', 'noise_rain_5db'))
    out, _ = shown(capsys, f'--workdir={folder}', '--condition=noise_rain_5db')
    assert 'condition noise_rain_5db' in out
    gender = lay(tmp_path / 'b', predictions(0), conditions=('clean_gender',))
    line = refused(capsys, f'--workdir={gender}', '--condition=clean')
    assert line == f'{gender} has no condition clean; it has clean_gender (--condition names one)'
    line = refused(capsys, f'--workdir={folder}', '--condition=fog')
    there = 'it has clean, noise_rain_5db (--condition names one)'
    assert line == f'{folder} has no condition fog; {there}'
    folds = [{'fold': 'fold_01', 'validation_speakers': ['c/01'], 'n': 60, 'uar': 0.8}]
    seeds = []
    for seed, uar in enumerate((0.8, 0.9)):
        validation = summary.summarise_validation([{**folds[0], 'uar': uar}])
        validation['conditions'] = {'noise_fire_crackling_5db': uar - 0.5} | (
            {'mu_law': 0.3} if seed else {}
        )
        fields = {'validation': validation, 'conditions': ()}
        seeds.append(lay(tmp_path / f'v{seed}', predictions(0), seed, **fields))
    out, _ = shown(capsys, '--workdir', *seeds)
    clean, corrupted = out.splitlines()[-2:]
    assert re.fullmatch(r'validation UAR, clean +85\.0 ± 7\.1 %  mean over 2 seeds ± std', clean)
    assert re.fullmatch(
        r'validation UAR, noise_fire_crackling_5db  35\.0 ± 7\.1 %  mean over .*', corrupted
    )


CANONICAL = ['neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised']


@pytest.mark.parametrize(
    'labels', [LABELS, CANONICAL, CANONICAL[1:], [f'{"very " * 6}{k}' for k in range(9)]]
)
def test_no_name_of_a_class_is_cut(tmp_path, capsys, labels):
    found = predictions(0, each=24, labels=labels)
    out, _ = shown(capsys, f'--workdir={lay(tmp_path / "run", found, labels=labels)}')
    head, *rows = out[out.index('\ntrue ') + 1 :].splitlines()
    columns = head.partition('recall %')[2].split()[: len(labels)]
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    fits = sum(map(len, labels)) < 70
    assert columns == (labels if fits else numbers)
    for number, label, row in zip(numbers, labels, rows):
        assert row.startswith(f'{label} ' if fits else f'{number} {label} ')
