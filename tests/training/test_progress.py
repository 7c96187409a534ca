"""Progress of a whole run: estimates on a made-up clock, the line on a terminal, lines in a log."""

import io
import os
import re

import pytest

from ser_jax.training import progress as module
from ser_jax.training.progress import Progress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, 'time', clock)
    return clock


def made(parts=('fold_01', 'fold_02', 'final'), tested=('fold_01', 'fold_02'), **options):
    """The progress of a run with 100 steps a part, none of which is trained."""
    return Progress(parts, dict.fromkeys(parts, 100), tested, batch_size=8, **options)


def train(progress, clock, part, last=100, seconds=1.0):
    """Reports every tenth step, the last one with a validation; compiling takes a minute."""
    progress.say(part, 'compiling')
    clock.now += 60
    for step in range(0, last + 1, 10):
        clock.now += 10 * seconds if step else 0
        validation = {'validation_uar': 0.5} if step == last else {}
        progress.step(part, max(step, 1), 100, {'loss': 1.5, **validation})


def etas(text):
    return re.findall(r'ETA (\S+)', text)


def test_the_estimate_covers_folds_final_model_and_tests(clock, capsys):
    progress = made(conditions=True)
    train(progress, clock, 'fold_01')
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'fold_01 (1/2)  compiling'
    assert lines[1] == 'fold_01 (1/2)  step 1/100  1:00 elapsed  loss 1.500'
    assert (
        lines[-1]
        == 'fold_01 (1/2)  step 100/100  2:40 elapsed, ETA 3:22 + tests  validation UAR 50.0 %  loss 1.500  8 utterances/s'
    )
    progress.finish('fold_01')
    with progress.testing('fold_01'):
        clock.now += 50
    train(progress, clock, 'fold_02')
    text = capsys.readouterr().err
    assert 'fold_02 (2/2)  step 100/100' in text
    assert '+ tests' not in text
    assert etas(text)[-1] == '2:31'  # 100 steps of the final model, and a test
    progress.finish('fold_02')
    with progress.testing('fold_02'):
        clock.now += 50
    train(progress, clock, 'final')
    text = capsys.readouterr().err
    assert 'final model  step 100/100' in text
    assert etas(text)[-1] == '0:00'


def test_folds_that_wait_are_expected_to_stop_as_early(clock, capsys):
    progress = made(tested=())
    train(progress, clock, 'fold_01', last=50)
    assert etas(capsys.readouterr().err)[-1] == '4:15'
    progress.finish('fold_01')
    train(progress, clock, 'fold_02', last=10)
    assert etas(capsys.readouterr().err)[-1] == '2:25'  # 90 steps, half of 100


def test_a_log_has_few_lines(clock, capsys):
    progress = made()
    for step in range(1, 1001):
        clock.now += 0.1
        if progress.due():
            progress.step('fold_01', step, 1000, {'loss': 1.0})
    assert len(capsys.readouterr().err.splitlines()) == 4  # the first, and one every half minute
    progress.step(
        'fold_01', 1001, 2000, {'loss': 1.0, 'validation_uar': 0.5, 'validation_ccc': 0.25}
    )
    assert 'validation UAR 50.0 %  CCC 0.250' in capsys.readouterr().err


def test_a_terminal_has_one_line(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr('sys.stderr', terminal)
    monkeypatch.setattr('shutil.get_terminal_size', lambda: os.terminal_size((60, 20)))
    with made() as progress:
        train(progress, clock, 'fold_01')
        with progress.testing('fold_01'):
            for number in range(1, 4):
                clock.now += 2.5
                progress.test('fold_01', number, 3, 'noise_white_5db')
    text = terminal.getvalue()
    assert text.count('\n') == 1
    assert text.endswith('\n')
    rewritten = text.rstrip().split('\r\x1b[K')[1:]
    assert len(rewritten) == 1 + 11 + 3
    assert all(len(line) < 60 for line in rewritten)
    assert rewritten[-1].startswith('fold_01 (1/2)  testing 3/3  2:48 elapsed, ETA ')


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0, '0:00'), (59.7, '1:00'), (3599, '59:59'), (3661, '1:01:01')]
)
def test_clock(seconds, text):
    assert module._clock(seconds) == text
