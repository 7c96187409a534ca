"""The page of a run: its sections, self-contained, with all text escaped."""

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run
from runs_on_disk import make_predictions as predictions
from runs_on_disk import write_run as lay

from ser_jax import report
from ser_jax.prepare import open_prepared
from ser_jax.reporting.html.page import worst_errors, write_page
from ser_jax.runs.finished import read_card
from ser_jax.runs.predictions import Predictions, read_predictions, write_predictions
from ser_jax.runtime import files
from ser_jax.runtime.errors import UserError

EVIL = (
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "'&amp;<b>\x00",
    '</style><a>',
)
VOID = {'meta', 'img', 'br', 'hr', 'input', 'link', 'source', 'wbr'}
SECTIONS = (
    'Confusion matrices',
    'Speakers',
    'Other conditions',
    'Calibration',
    'Learning curves',
    'Map of utterances',
    'Worst errors',
)
ROBUST = ROOT / 'results' / 'mtl_aug'


class Page(HTMLParser):
    """Collects the tags, attributes, headings and text of a page; checks that tags are nested."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.headings = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        self.open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ['h2']:
            self.headings.append(data)
        if self.open[-1:] not in (['style'], ['script']):
            self.words.append(data)


def read(path):
    """Parses a page and checks what holds for every page."""
    text = path.read_text(encoding='utf-8')
    page = Page(text)
    assert not {'script', 'img', 'iframe', 'object', 'embed', 'link', 'a'} & set(page.tags)
    assert 'http://' not in text
    assert 'https://' not in text
    assert 'url(' not in text
    assert '@import' not in text
    ids = [value for _, name, value in page.attributes if name == 'id']
    assert len(set(ids)) == len(ids)
    for _, name, value in page.attributes:
        assert not name.startswith('on')
        assert name != 'href' or value[1:] in ids
        assert name != 'src' or value.startswith('data:audio/wav;base64,')
    (policy,) = [v for _, name, v in page.attributes if name == 'content' and 'default-src' in v]
    assert "default-src 'none'" in policy
    assert 'script-src' not in policy
    assert page.tags.count('html') == page.tags.count('body') == 1
    return page


@pytest.fixture(scope='module')
def waveforms(beeps):
    """The beeps prepared as waveforms in the same folder."""
    return open_prepared(
        'csv_corpus/beeps',
        data_dir=beeps['data_dir'],
        manual_dir=f'{beeps["manual_dir"]}/beeps',
        representation='waveform',
    )


@pytest.fixture(scope='module')
def finished(beeps, waveforms, tmp_path_factory):
    """A smoke run with conditions: (workdir, command)."""
    workdir = tmp_path_factory.mktemp('page') / 'run'
    words = (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        '--config.conditions=(\'noise("white", 5)\', \'noise("white", 20)\')',
        f'--workdir={workdir}',
    )
    result = run(*words)
    assert result.returncode == 0, result.stderr
    return workdir, words


def test_a_finished_run_has_its_page(finished):
    page = read(finished[0] / 'report' / 'report.html')
    assert tuple(page.headings) == SECTIONS
    text = ' '.join(page.words)
    card = json.loads((finished[0] / 'results.json').read_text())
    for value in (
        f'{100 * card["conditions"]["clean"]["uar"]:.1f} %',
        'leave_one_speaker_out(), 1 of 6 folds',
        'real speech',
        card['device'],
        card['commit'][:10] or 'unknown',
        'passed: no speaker, audio or id in two splits',
        (finished[0] / 'command.txt').read_text().strip(),
        'UAR against SNR, dB',
    ):
        assert value in text
    assert (finished[0] / 'report' / 'report.html').stat().st_size < 2_000_000


def test_rewriting_the_page_keeps_the_results(finished):
    workdir, words = finished
    path, card = workdir / 'report' / 'report.html', (workdir / 'results.json').read_bytes()
    page = path.read_bytes()
    path.unlink()
    assert run(*words).returncode == 0  # complete: only prints
    assert path.read_bytes() == page
    path.unlink()
    result = run(*words, '--mode=evaluate')
    assert result.returncode == 0, result.stderr
    assert path.read_bytes() == page
    assert (workdir / 'results.json').read_bytes() == card


def test_numbers_in_the_figures(finished):
    """Counts of the matrix, one point per evaluation and per utterance."""
    workdir, _ = finished
    found, labels = read_predictions(workdir / 'predictions' / 'clean.csv')
    text = (workdir / 'report' / 'report.html').read_text()
    picture = lambda label: text.partition(f'aria-label="{label}"')[2].partition('</svg>')[0]
    numbers = re.findall(r'>(\d+)</text>', picture('clean'))
    counts = np.bincount(found.label * len(labels) + found.prediction, minlength=len(labels) ** 2)
    assert [int(number) for number in numbers[: counts.size]] == counts.tolist()
    rows = list(csv.DictReader((workdir / 'report' / 'embedding.csv').open()))
    assert {row['id'] for row in rows if row['side'] == 'test'} == set(found.id)
    legend, ticks = len(labels), 0  # the axes of a map have no ticks
    assert picture(f'{len(rows)} utterances by emotion').count('<use') == len(rows) + legend + ticks
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    for line in lines:
        if 'validation_uar' in line:
            title = (
                f'<title>fold_01, step {line["step"]}: {100 * line["validation_uar"]:.4g}</title>'
            )
            assert title in picture('Validation UAR')


def test_what_a_pointer_shows(tmp_path):
    """Titles of bars and points, and lines of chance."""
    write_page(tmp_path / 'page.html', [ROBUST / 'emodb/full/seed0'])
    text = (tmp_path / 'page.html').read_text()
    card = read_card(ROBUST / 'emodb/full/seed0')['conditions']
    show = lambda name: f'UAR {100 * card[name]["uar"]:.1f} %'
    for title in (
        f'rain 5: {show("noise_rain_5db")} [',
        f'telephone: {show("telephone")}, 95 % interval [',
        '03: UAR ',
        'confidence ',
    ):
        assert f'<title>{title}' in text
    clean = f'{100 * card["clean"]["uar"]:.1f}'
    assert text.count(f'Dashed: clean, {clean} %; dotted: chance, 25.0 %.') == 3
    assert 'Dotted: chance, 25.0 %.' in text


def evil_run(folder):
    """A run with markup in its ids, speakers, labels, command, config, metrics and map."""
    labels = list(EVIL[:3])
    one = predictions(0, labels=labels)
    found = Predictions(
        [f'{EVIL[n % 4]}{n}' for n in range(len(one.id))],
        [EVIL[n % 2] for n in range(len(one.id))],
        [EVIL[n % 3] for n in range(len(one.id))],
        one.label,
        one.probabilities,
    )
    fields = {
        'system': EVIL[0],
        'corpus': EVIL[1].replace('/', ''),
        'protocol': EVIL[2],
        'config': dict.fromkeys(EVIL, EVIL[3]),
        'commit': EVIL[0],
        'versions': {EVIL[0]: EVIL[1]},
        'device': EVIL[1],
        'attack_checks': [{'check': EVIL[0], 'holds': True}],
        'trained_on': list(EVIL),
    }
    conditions = (
        'clean',
        f'noise_{EVIL[0]}_5db'.replace('/', ''),
        'noise_rain_5db',
        f'cross_{EVIL[1]}'.replace('/', ''),
    )
    lay(folder, found, labels=labels, conditions=('clean',), **fields)
    card = json.loads((folder / 'results.json').read_text())
    card['conditions'] = dict.fromkeys(conditions, card['conditions']['clean'])
    card['calibration'] = {'clean': {'temperature': 1.5, 'ece_calibrated': 0.0456}}
    files.write_json(folder / 'results.json', card)
    (folder / 'command.txt').write_text('\n'.join(EVIL))
    rows = [{'fold': EVIL[n % 2], 'step': n, 'loss': 1.0, 'validation_uar': 0.5} for n in range(6)]
    rows.append({'fold': '\ud800', 'step': 9, 'loss': float('nan')})
    (folder / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n{"fold": "cut')
    (folder / 'report').mkdir()
    with (folder / 'report' / 'embedding.csv').open('w') as file:
        table = csv.writer(file)
        table.writerow(['id', 'side', 'emotion', 'speaker', 'gender', 'x', 'y'])
        table.writerows([text, 'test', text, text, text, 0, 0] for text in EVIL)
    return folder


def test_nothing_becomes_markup(tmp_path):
    path = tmp_path / 'page.html'
    write_page(path, [evil_run(tmp_path / '<script>run')])
    page = read(path)
    assert tuple(page.headings) == SECTIONS
    text = ' '.join(page.words)
    assert EVIL[0] in text
    assert EVIL[1] in text
    assert '\x00' not in text
    assert '4.6 % with a temperature fitted on the validation speakers' in text
    written = path.read_text()
    assert '<script' not in written
    assert '<img' not in written


def test_real_results_compared(tmp_path, capsys):
    path = tmp_path / 'made' / 'page.html'
    sides = [str(ROBUST / f'emodb/{name}/seed0') for name in ('full', 'single_task')]
    words = [f'--workdir={sides[0]}', f'--against={sides[1]}', '--replicates=300']
    assert report.main(words) == 0
    plain = capsys.readouterr()
    assert report.main([*words, f'--html={path}']) == 0
    assert capsys.readouterr() == plain  # the page does not change what is printed
    page = read(path)
    assert page.headings[:2] == ['Runs', 'Comparison: clean']
    assert page.headings.count('Calibration') == 2
    assert 'Learning curves' not in page.headings  # results/ has no metrics
    text = ' '.join(page.words)
    (line,) = [line for line in plain.out.splitlines() if line.startswith('one seed each')]
    _, _, _, a, b, difference, low, high, p = line.split()
    for number in (a, b, difference, f'{low} {high}', p):
        assert number in text
    for title in ('SNR, dB', 'epsilon, standardised log-mel'):
        assert text.count(f'UAR against {title}') == 2
    assert path.stat().st_size < 500_000


def test_seeds_are_joined(tmp_path, capsys):
    seeds = [str(lay(tmp_path / str(seed), predictions(seed), seed)) for seed in range(2)]
    path = tmp_path / 'page.html'
    report.main(['--workdir', *seeds, f'--html={path}', '--replicates=200'])
    assert 'averaged posterior' in capsys.readouterr().out
    page = read(path)
    assert page.headings[:2] == ['Runs', 'Over seeds: clean']


def test_audio_is_embedded_only_on_request(finished, waveforms, tmp_path):
    pages = [tmp_path / name for name in ('silent.html', 'loud.html')]
    for path, more in zip(pages, ([], ['--audio'])):
        assert report.main([f'--workdir={finished[0]}', f'--html={path}', *more]) == 0
    silent, loud = map(read, pages)
    assert 'audio' not in silent.tags
    sources = [value for tag, name, value in loud.attributes if (tag, name) == ('audio', 'src')]
    found, _ = read_predictions(finished[0] / 'predictions' / 'clean.csv')
    rows = worst_errors(found)
    assert len(sources) == len(rows) > 0
    for source, name in zip(sources, found.id[rows]):
        stored = io.BytesIO(base64.b64decode(source.partition(',')[2]))
        wave, rate = soundfile.read(stored, dtype='int16')
        (row,) = np.flatnonzero(waveforms.index['id'] == name)
        np.testing.assert_array_equal(wave, waveforms.source()[row])
        assert rate == 16000


def test_faults_are_one_line(finished, tmp_path, waveforms):
    page = tmp_path / 'page.html'
    with pytest.raises(SystemExit, match='error: --audio embeds'):
        report.main([f'--workdir={finished[0]}', '--audio'])
    other = lay(tmp_path / 'other', predictions(0), corpus='nowhere')
    with pytest.raises(SystemExit, match='error: --audio: nowhere is not prepared'):
        report.main([f'--workdir={other}', f'--html={page}', '--audio'])
    copy = shutil.copytree(finished[0], tmp_path / 'copy')
    write_predictions(copy / 'predictions' / 'clean.csv', predictions(0), ['a', 'b', 'c'])
    with pytest.raises(UserError, match=r'holds 60 utterances, but results\.json has'):
        write_page(page, [copy])
    card = json.loads((copy / 'results.json').read_text())
    card['conditions']['clean']['n'] = 60
    files.write_json(copy / 'results.json', card)
    with pytest.raises(UserError, match='lacks wav/'):
        write_page(page, [copy], audio=True)
    assert not page.exists()
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write the page'):
        write_page(tmp_path / 'file' / 'page.html', [finished[0]])


def test_worst_errors_are_wrong_and_confident():
    label, first = np.array([0, 1, 0, 1]), np.array([0.9, 0.6, 0.2, 0.3])
    wrong = Predictions(list('abcd'), ['f'] * 4, ['s'] * 4, label, np.stack([first, 1 - first], 1))
    assert wrong.id[worst_errors(wrong)].tolist() == ['c', 'b']
    rated = Predictions(
        list('abc'), ['f'] * 3, ['s'] * 3, [0, 0, 0], np.eye(3)[:3], [1, 2, 3], [1.5, 4, 3]
    )
    assert rated.id[worst_errors(rated)].tolist() == ['b', 'a', 'c']


def test_speakers_are_shown_without_their_corpus(tmp_path):
    one = predictions(0)
    speakers = [f'csv_corpus/mine/f{row % 5}' for row in range(60)]
    found = Predictions(one.id, one.fold, speakers, one.label, one.probabilities)
    folder = lay(tmp_path / 'run', found)
    write_page(tmp_path / 'page.html', [folder])
    text = (tmp_path / 'page.html').read_text()
    for cell in ('<td>f1</td>', '<title>f1: UAR ', '<td>f0 f1 f2 f3 f4</td>'):
        assert cell in text
    assert 'csv_corpus' not in text


def test_a_run_without_test_shows_its_validation(tmp_path):
    fold = {'fold': 'fold_01', 'validation_speakers': ['c/00'], 'n': 12, 'uar': 0.515}
    validation = {'uar': 0.515, 'folds': [fold]}
    runs = [
        lay(tmp_path / str(seed), predictions(seed), seed, conditions=(), validation=validation)
        for seed in range(2)
    ]
    path = tmp_path / 'page.html'
    for some in (runs[:1], runs):
        write_page(path, some)
        page = read(path)
        assert page.headings == ['Runs'] * (len(some) > 1)
        assert page.words.count('51.5 %') == len(some)
        assert page.words.count('no test speaker was read') == len(some)


def test_ratings_have_no_calibration(tmp_path):
    one = predictions(0)
    rng = np.random.default_rng(0)
    rating = rng.uniform(1, 5, len(one.id))
    said = rating + rng.normal(0, 0.3, len(one.id))
    rated = Predictions(one.id, one.fold, one.speaker, one.label, one.probabilities, rating, said)
    tasks = {'tasks': {'arousal': ['angry', 'happy', 'sad']}}
    folder = lay(tmp_path / 'run', rated, conditions=('clean_arousal',), **tasks)
    path = tmp_path / 'page.html'
    write_page(path, [folder])
    page = read(path)
    assert page.headings == ['Confusion matrices', 'Speakers', 'Worst errors']
    ccc = json.loads((tmp_path / 'run' / 'results.json').read_text())['conditions']['clean_arousal']
    assert f'{ccc["ccc"]:.3f}' in page.words
    assert one.id[np.argmax(np.abs(rated.predicted_rating - rated.rating))] in page.words


def test_a_large_corpus_makes_no_large_page(tmp_path):
    folder = tmp_path / 'run'
    lay(folder, predictions(0, n_speakers=200, each=60))
    rng = np.random.default_rng(0)
    (folder / 'report').mkdir()
    with (folder / 'report' / 'embedding.csv').open('w') as file:
        table = csv.writer(file)
        table.writerow(['id', 'side', 'emotion', 'speaker', 'gender', 'x', 'y'])
        for number, (x, y) in enumerate(rng.normal(size=(30_000, 2))):
            table.writerow([number, 'train', number % 4, number % 200, 'male', x, y])
    path = tmp_path / 'page.html'
    write_page(path, [folder])
    page = read(path)
    assert 'Map of utterances' in page.headings
    assert 'Drawn: 4000 of 30000, at random.' in ' '.join(page.words)
    assert path.stat().st_size < 2_000_000
