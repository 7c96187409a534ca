"""Grids: execution after failures and interruptions, skipping of finished runs, shares, the table."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, run, simulated
from grids import make_grid, write_grid

from ser_jax import train
from ser_jax.config import as_json, compared
from ser_jax.grid import __main__ as command
from ser_jax.grid import plan, runs
from ser_jax.runtime.errors import UserError

DEMO = 'configs/grids/demo.py'


@pytest.fixture(autouse=True)
def _in_the_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ((), '--config is required'),
        (('--config=configs/grids/nowhere.py',), 'no such grid file'),
        ((f'--config={DEMO}', '--nonsense'), '--nonsense'),
        ((f'--config={DEMO}', '--share=0/2'), '--share=0/2'),
        ((f'--config={DEMO}', '--share=3/2'), '--share=3/2'),
        ((f'--config={DEMO}', '--share=half'), '--share=half'),
    ],
)
def test_wrong_flags(capsys, flags, message):
    try:
        status = command.main(flags)
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr().err
    assert status == 2
    assert printed.startswith('error: ')
    assert message in printed
    assert printed.count('\n') == 1


def test_help_does_not_import_jax():
    script = (
        'import sys\nfrom ser_jax.grid import __main__ as grid\n'
        'try:\n    grid.main(["--help"])\n'
        'except SystemExit as error:\n    print(error.code, "jax" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert '--share' in done.stdout
    assert done.stdout.endswith('\n0 False\n'), done.stderr


# The grid's folder.


def test_a_folder_of_another_grid_is_refused(tmp_path):
    work = tmp_path / 'work'
    claim = lambda **content: runs.check_grid(work, make_grid(tmp_path, **content), write=True)
    two = {'full': {}, 'single': {'argument': 'demo_speech,single_task'}}
    claim(variants={'full': {}}, seeds=(0,))
    claim(variants=two, seeds=(0, 1))  # has grown
    claim(variants={name: {**two[name], 'changes': {'data.data_dir': '/x'}} for name in two}, seeds=(0, 1))  # fmt: skip
    with pytest.raises(UserError, match=r'demo_speech/full/seed1 is not in this one'):
        claim(variants=two, seeds=(0,))
    with pytest.raises(UserError, match='full/seed0: steps: 400 there, 5 now'):
        claim(variants={**two, 'full': {'changes': {'steps': 5}}}, seeds=(0, 1))
    (work / 'grid.json').write_text('{')
    with pytest.raises(UserError, match='not JSON'):
        claim()


def test_a_folder_that_cannot_be_the_grids(tmp_path, capsys):
    (tmp_path / 'thesis.tex').write_text('')
    for work in (tmp_path, tmp_path / 'thesis.tex'):
        assert command.main([f'--config={DEMO}', f'--workdir={work}', '--table']) == 1
        assert capsys.readouterr().err.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_list_and_table_write_nothing(tmp_path, capsys):
    for flag in ('--list', '--table'):
        assert command.main([f'--config={DEMO}', f'--workdir={tmp_path / "work"}', flag]) == 0
    assert not (tmp_path / 'work').exists()
    assert 'to do     demo_speech/full/seed1' in capsys.readouterr().out


# Jobs and shares.


@pytest.mark.parametrize('count', [1, 2, 3, 5])
def test_shares_partition_the_runs(tmp_path, count):
    def jobs(*flags):
        file = tmp_path / 'jobs'
        flags = (f'--config={DEMO}', f'--workdir={tmp_path / "work"}', f'--jobs={file}', *flags)
        assert command.main(flags) == 0
        return file.read_text().splitlines()

    shares = [jobs(f'--share={k}/{count}') for k in range(1, count + 1)]
    assert len(jobs()) == 4
    assert sorted(line for share in shares for line in share) == sorted(jobs())
    assert shares[0] == jobs()[::count]


# Execution of fake runs.


def fake_run(folder: str, script: str) -> SimpleNamespace:
    """A run whose command is a Python script; `here` is its folder."""
    text = f'import os, signal, sys, time\nfrom pathlib import Path\nhere = Path(sys.argv[1])\n{script}'
    config = plan.read_grid(DEMO).runs[0].config
    return SimpleNamespace(
        folder=folder,
        config=config,
        config_in=lambda workdir: config,
        command=lambda workdir: ['python', '-c', text, str(workdir / folder)],
    )


CARDS = ROOT / 'results' / 'demo' / 'cards.jsonl'
FINISH = f"""import json
here.mkdir(parents=True, exist_ok=True)
card = json.loads(Path({str(CARDS)!r}).read_text())["card"]
(here / "results.json").write_text(json.dumps(card))
"""


def test_finished_runs_are_skipped_and_failures_do_not_stop_the_others(tmp_path, capfd):
    scripts = {
        'a/seed0': FINISH + 'print("output")\nprint("step 1", file=sys.stderr)',
        'a/seed1': 'print("one line", file=sys.stderr)\nraise ValueError("broken")',
        'b/seed0': 'os.kill(os.getpid(), signal.SIGKILL)',
        'b/seed1': 'pass',
        'c/seed0': FINISH,
    }
    fakes = [fake_run(folder, script) for folder, script in scripts.items()]
    failures = runs.run_all(list(enumerate(fakes, 1)), tmp_path, 5)
    out, err = capfd.readouterr()
    assert list(failures) == ['a/seed1', 'b/seed0', 'b/seed1']
    log = tmp_path / 'a/seed1.log'
    assert failures['a/seed1'] == f'exit status 1: ValueError: broken (see {log})'
    assert failures['b/seed0'].startswith('killed by SIGKILL')
    assert 'results.json' in failures['b/seed1']
    assert [line.split()[0] for line in out.splitlines() if line.startswith('[')] == [
        f'[{number}/5]' for number in range(1, 6)
    ]
    assert '[1/5]  step 1\n' in err
    assert '[2/5, ' in err, 'no ETA'
    log = (tmp_path / 'a/seed0.log').read_text()
    assert log.startswith('$ python -c ')
    assert 'output\n' in log
    assert 'step 1\n' in log

    fakes[1] = fake_run('a/seed1', FINISH)
    again = runs.run_all(list(enumerate(fakes, 1)), tmp_path, 5)
    out, _ = capfd.readouterr()
    assert list(again) == ['b/seed0', 'b/seed1']
    assert out.startswith('2 of 5 runs are finished already\n')
    assert '[1/5]' not in out
    assert '[2/5]' in out


def test_a_condition_that_was_added_is_still_to_be_tested(tmp_path):
    one = fake_run('a/seed0', FINISH)
    assert runs.state(tmp_path, one) == 'to do'
    assert runs.run_all([(1, one)], tmp_path, 1) == {}
    assert runs.state(tmp_path, one) == 'finished'
    one.config.conditions = ('telephone',)
    assert runs.state(tmp_path, one) == 'begun'
    one.config.report_test = False  # tested on validation speakers
    assert runs.state(tmp_path, one) == 'begun'
    card = tmp_path / one.folder / 'results.json'
    content = json.loads(card.read_text())
    content['validation'] = {'uar': 0.5, 'folds': [], 'conditions': {'telephone': 0.5}}
    content['tested_with'] = train.tested_with(one.config)
    card.write_text(json.dumps(content))
    assert runs.state(tmp_path, one) == 'finished'
    one.config.reported = ('arousal', 'valence')  # validation conditions are not reported by task
    assert runs.state(tmp_path, one) == 'finished'


def test_the_grid_leaves_the_accelerator_to_its_runs(beeps, tmp_path):
    """A TPU belongs to one process at a time."""
    conditions = ('gain(-6)', 'pgd_waveform(0.001, 2)')
    changes = {'data.data_dir': beeps['data_dir'], 'conditions': conditions}
    changes |= {'labelled': ('csv_corpus/hums',)}
    config = write_grid(
        tmp_path / 'small.py',
        settings={'beeps': {'argument': 'csv_corpus/beeps,smoke', 'changes': changes}},
    )
    script = (
        'from ser_jax.grid import __main__ as grid, plan, runs\n'
        'from jax._src import xla_bridge\n'
        f'runs.check_data(plan.read_grid("{config}").runs)\n'
        f'grid.main(["--config={DEMO}", "--workdir={tmp_path / "work"}", "--table"])\n'
        'print(xla_bridge._backends)'
    )
    environment = {**os.environ, 'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    expected = '0 of 4 runs are finished; smoke tests, whose results mean nothing\n{}\n'
    assert done.stdout.endswith(expected), done.stderr


def test_an_interrupt_reaches_the_run_and_waits_for_it(tmp_path):
    script = (
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'try:\n'
        '    print(os.getpid(), file=sys.stderr, flush=True)\n    time.sleep(60)\n'
        'except KeyboardInterrupt:\n    sys.exit("saved")'
    )
    lines = []

    def show(line):
        lines.append(line)
        raise KeyboardInterrupt

    log = tmp_path / 'run.log'
    with pytest.raises(KeyboardInterrupt):
        runs.run_one(fake_run('run', script).command(tmp_path), log, show)
    assert log.read_text().endswith('\nsaved\n')
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0]), 0)


def test_a_run_that_ignores_the_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, '_GRACE', 0.2)
    script = (
        'signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
        'print(os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(60)'
    )
    lines = []

    def show(line):
        lines.append(line)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runs.run_one(fake_run('run', script).command(tmp_path), tmp_path / 'log', show)
    assert time.monotonic() - begin < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0]), 0)


# Real runs.


def test_a_grid_from_beginning_to_end(beeps, tmp_path):
    """One run by `--jobs`, one by the grid, one with an invalid config; started twice."""
    config = write_grid(
        tmp_path / 'small.py',
        settings={
            'beeps': {
                'argument': 'csv_corpus/beeps,smoke',
                'changes': {'data.data_dir': beeps['data_dir'], 'augmentations': ('mixup(0.2)',)},
            }
        },
        variants={
            'full': {},
            'broken': {'changes': {'objective': 'adversarial'}},
            'single_task': {'argument': 'single_task'},
        },
        baseline='single_task',
    )
    work = tmp_path / 'work'
    flags = ('ser_jax.grid', f'--config={config}', f'--workdir={work}')

    assert run(*flags, f'--jobs={tmp_path / "jobs"}').returncode == 0
    first, *others = (tmp_path / 'jobs').read_text().splitlines()
    assert len(others) == 2
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = {**os.environ, **simulated(1), 'PATH': path}
    job = subprocess.run(first, shell=True, cwd=ROOT, env=environment, capture_output=True)
    assert job.returncode == 0, job.stderr

    listed = run(*flags, '--list').stdout
    assert [line.split()[1] for line in listed.splitlines()] == ['finished', 'to', 'to']

    result = run(*flags)
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert '1 of 3 runs are finished already' in result.stdout
    assert f'[3/3] {others[1]}\n' in result.stdout, 'the command is printed before it begins'
    assert '[3/3]  fold_01 (1/1)  step 4/4' in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith('failed: beeps/broken/seed0: exit status 1: error: ')
    assert "config.objective is 'adversarial'" in last
    assert 'Everything about this run' in (work / 'beeps/single_task/seed0.log').read_text()
    table = (work / 'table.md').read_text()
    assert '2 of 3 runs are finished' in table
    assert '| beeps | clean | full | csv_corpus/beeps (real) |' in table
    assert (work / 'rows.csv').read_text().count('\n') == 3
    assert (work / 'table.png').stat().st_size > 0

    # main ran the planned configs.
    planned = json.loads((work / 'grid.json').read_text())
    for folder in ('beeps/full/seed0', 'beeps/single_task/seed0'):
        ran = json.loads((work / folder / 'config.json').read_text())
        assert compared(ran) == planned[folder]
    assert planned == {
        one.folder: compared(as_json(one.config)) for one in plan.read_grid(str(config)).runs
    }

    cards = {path: path.read_bytes() for path in work.rglob('results.json')}
    again = run(*flags)
    assert again.returncode == 1
    assert '2 of 3 runs are finished already' in again.stdout
    assert shlex.split(again.stdout.splitlines()[1])[0] == '[2/3]'
    assert cards == {path: path.read_bytes() for path in work.rglob('results.json')}
    assert run(*flags, '--table').returncode == 0


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'unlabelled': ('csv_corpus/buzz',)}, 'config.unlabelled: '),
        (
            {'test_corpora': ('emo-db',), 'final': True},
            "config.test_corpora: unknown corpus 'emo-db'",
        ),
        ({'conditions': ("noise('rain', 5)",)}, 'config.test_noise_corpus'),
        ({'protocol': 'speaker_folds(99)'}, 'k must be 2 to'),
        ({'conditions': ('babble(9, 5)',), 'babble_corpus': 'csv_corpus/hums'}, 'needs 9 voices'),
        (
            {'noise_corpus': 'csv_corpus/hums', 'noise_types': ('rain',)},
            "config.noise_types: csv_corpus/hums has no noise of the type 'rain'",
        ),
    ],
)
def test_corpora_are_opened_before_the_first_run(
    beeps, tmp_path, monkeypatch, capsys, changes, message
):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', beeps['manual_dir'])
    common = {'argument': 'csv_corpus/beeps', 'changes': {'data.data_dir': beeps['data_dir']}}
    config = write_grid(
        tmp_path / 'typo.py',
        settings={'beeps': common},
        variants={'full': {}, 'typo': {'changes': {'steps': 9} | changes}},
    )
    work = tmp_path / 'work'
    assert command.main([f'--config={config}', f'--workdir={work}']) == 1
    out, err = capsys.readouterr()
    assert out == ''
    *_, last = err.splitlines()  # after the lines of prepared corpora
    assert last.startswith('error: beeps/typo/seed0: ')
    assert message in last
    assert err.count('error') == 1
    assert not work.exists(), 'a corrected grid can use the folder'


@pytest.mark.slow
def test_the_demo_grid(tmp_path):
    result = run('ser_jax.grid', f'--config={DEMO}', f'--workdir={tmp_path / "work"}')
    assert result.returncode == 0, result.stderr
    assert '4 of 4 runs are finished' in result.stdout
