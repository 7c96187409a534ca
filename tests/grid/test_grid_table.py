"""The table of a grid, from grid-up results: joined seeds, compared variants, notes."""

import csv
import dataclasses
import json
import re
import statistics

import matplotlib.image
import pytest
from conftest import ROOT
from grids import fake_result, make_grid

from ser_jax.evaluation import summary as evaluation
from ser_jax.grid import matrix, tables
from ser_jax.grid.rows import families, make_rows, read_csv
from ser_jax.metrics import significance
from ser_jax.runtime.errors import UserError


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return make_grid(
        tmp_path,
        settings={'s': {'argument': 'demo_speech'}, 't': {'argument': 'emodb'}},
        variants={
            'base': {'argument': 'single_task'},
            'full': {},
            'half': {'argument': 'augment_only'},
        },
        seeds=(0, 1),
        baseline='base',
    )


def test_a_row_joins_its_seeds_and_is_compared_with_the_baseline(tmp_path, grid):
    hits = {'base': 3, 'full': 7, 'half': 5}
    for run in grid.runs:
        fake_result(tmp_path, run, hits[run.variant] + run.seed)
    rows = make_rows(grid, tmp_path)
    assert [(row['setting'], row['variant']) for row in rows] == [
        (setting, variant) for setting in 'st' for variant in ('base', 'full', 'half')
    ]
    base, full, half = rows[:3]
    assert full['uar'] == pytest.approx((7 / 8 + 1) / 2)
    assert full['uar_std'] == pytest.approx(statistics.stdev([7 / 8, 1]))
    assert full['seeds'] == [0, 1]
    assert full['train_seconds'] == 15
    assert full['chance'] == pytest.approx(1 / 3)
    cards = [json.loads((tmp_path / f's/full/seed{k}/results.json').read_text()) for k in (0, 1)]
    lower = [card['conditions']['clean']['uar_ci95'][0] for card in cards]
    assert full['uar_low'] == pytest.approx(statistics.mean(lower))

    assert base['difference'] is base['p'] is base['p_holm'] is None
    assert full['difference'] == pytest.approx(full['uar'] - base['uar'])
    assert full['difference_low'] < full['difference'] < full['difference_high']
    assert 0 < full['p'] < half['p'] < 1
    family = [row['p'] for row in rows if row['p'] is not None]
    assert len(family) == 4
    expected = significance.holm(family)
    assert [row['p_holm'] for row in rows if row['p'] is not None] == pytest.approx(list(expected))

    each = dataclasses.replace(grid, family='condition')
    expected = [*significance.holm(family[:2]), *significance.holm(family[2:])]
    rows = make_rows(each, tmp_path)
    assert [row['p_holm'] for row in rows if row['p'] is not None] == pytest.approx(expected)
    for one, caption in ((grid, "of the grid's table (4)"), (each, 'under the same condition (2)')):
        tables.write_tables(rows, one, 'finished', tmp_path / one.family)
        text = (tmp_path / one.family / 'table.md').read_text()
        least = min(len(some) * some[0]['smallest_p'] for some in families(rows, one))
        assert re.search(
            f'every comparison {caption.replace("(", "[(]").replace(")", "[)]")}', text
        )
        assert f'never below {least:.2g}' in text


def test_the_order_of_the_utterances_plays_no_part(tmp_path, grid):
    for run in grid.runs:
        fake_result(tmp_path, run, 3 if run.variant == 'base' else 6)
    before = make_rows(grid, tmp_path)
    path = tmp_path / 's/full/seed0/predictions/clean.csv'
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(''.join([header, *lines[::-1]]))
    assert make_rows(grid, tmp_path) == before


def test_other_utterances_are_not_compared(tmp_path, grid):
    for run in grid.runs:
        fake_result(tmp_path, run, 4, n=24 if run.variant != 'full' else 21)
    _, full, half = make_rows(grid, tmp_path)[:3]
    assert full['difference'] is full['p'] is None
    assert 'other utterances' in full['not_compared']
    assert half['difference'] == 0
    tables.write_tables([full, half], grid, '', tmp_path)
    *_, last = (tmp_path / 'table.md').read_text().splitlines()
    assert last.startswith('- Not compared: s, full, clean: ')


def test_runs_of_other_code_are_named_by_their_folders_in_the_grid(tmp_path, grid):
    for run in grid.runs:
        commit = 'def' if run.seed and run.variant != 'half' else 'abc'
        fake_result(tmp_path, run, 4, commit=commit)
    _, full, half = make_rows(grid, tmp_path)[:3]
    assert full['warnings'] == []  # the baseline's seeds are of the same two
    expected = 'the runs differ in commit: abc (s/half/seed0), def (s/base/seed1)'
    assert half['warnings'] == [expected]


def test_the_figure_of_matrices_shows_differences_instead_of_the_baseline(
    tmp_path, grid, monkeypatch
):
    for run in grid.runs:
        fake_result(tmp_path, run, 4, conditions=('cross_c',))
    drawn = []
    monkeypatch.setattr(matrix, 'draw_matrices', lambda *arguments: drawn.append(arguments))
    for one in (grid, dataclasses.replace(grid, baseline=None)):
        tables.write_tables(make_rows(one, tmp_path), one, 'done', tmp_path)
        text = (tmp_path / 'matrix.md').read_text()
        assert all(f'**{name}, as it is**' in text for name in ('base', 'full', 'half'))
    (some, title, _), (every, untitled, _) = drawn
    assert [name for name, _ in some] == ['full', 'half']
    assert [name for name, _ in every] == ['base', 'full', 'half']
    assert title.endswith('done; differences to base')
    assert untitled.endswith('done')


def test_the_files_of_a_grid(tmp_path, grid):
    for run in grid.runs[:7]:  # the first seed of all, the second of one variant
        fake_result(tmp_path, run, 4, conditions=('clean', 'cross_d'))
    rows = make_rows(grid, tmp_path)
    assert len(rows) == 12
    tables.write_tables(rows, grid, '7 of 12 runs are finished', tmp_path)
    lines = (tmp_path / 'table.md').read_text().splitlines()
    assert '7 of 12 runs are finished' in lines[2]
    assert 'commit abc' in lines[2]
    table = [line for line in lines if line.startswith('|')]
    assert len(table) == 2 + len(rows)
    for line in table[2:]:
        assert 'c (SYNTHETIC)' in line
        protocol = 'trained on c |' if '| cross_d |' in line else 'speaker_folds(4), 1 of 4 folds |'
        assert f'| {protocol}' in line
        assert '1 × cpu' in line
        assert line.count('|') == table[0].count('|')
    (caption,) = [line for line in lines if 'Holm: p corrected' in line]
    assert 'validation' not in caption
    assert '(8), with these speakers never below 0.062' in caption  # 8 × 2 / 2^8

    assert 'Holm' in lines[-1]  # no note: the column of seeds shows that one variant has two
    for text, row in zip(rows_of(tmp_path / 'rows.csv'), rows, strict=True):
        assert float(text['uar']) == row['uar']
        assert text['seeds'] == str(row['seeds'])
        assert (text['corpus'], text['synthetic']) == ('c', 'true')
        assert text['p'] == ('' if row['p'] is None else str(row['p']))
    assert read_csv(tmp_path / 'rows.csv') == rows
    assert 'SYNTHETIC' in tables.as_text(rows)
    image = matplotlib.image.imread(tmp_path / 'table.png')
    colours = {tuple(pixel) for pixel in (255 * image[..., :3]).astype(int).reshape(-1, 3)}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colours  # every variant is there


def test_runs_that_only_validate(tmp_path, grid):
    validation = evaluation.summarise_validation(
        [{'fold': 'fold_01', 'validation_speakers': ['c/1'], 'n': 9, 'uar': 0.5}]
    )
    for run in grid.runs:
        fake_result(tmp_path, run, 4, conditions=(), validation=validation)
    rows = make_rows(grid, tmp_path)
    assert {(row['condition'], row['uar'], row['n'], row['p']) for row in rows} == {
        ('validation', 0.5, 9, None)
    }
    tables.write_tables(rows, grid, '', tmp_path)
    assert 'no test speaker was read.' in (tmp_path / 'table.md').read_text()


def test_a_figure_of_too_many_rows_is_not_drawn(tmp_path, grid, monkeypatch):
    for run in grid.runs:
        fake_result(tmp_path, run, 4)
    rows = make_rows(grid, tmp_path)
    for most, drawn in ((len(rows), True), (len(rows) - 1, False)):
        monkeypatch.setattr(tables, '_MOST_DRAWN', most)
        tables.write_tables(rows, grid, '', tmp_path)
        assert (tmp_path / 'table.png').exists() == drawn


def test_seeds_of_different_corpora_are_not_joined(tmp_path, grid):
    for run in grid.runs:
        fake_result(tmp_path, run, 4, corpus_hash=str(run.seed))
    with pytest.raises(UserError, match='s/base: its seeds differ in corpus_hash'):
        make_rows(grid, tmp_path)


def test_seeds_that_tested_other_utterances_are_not_joined(tmp_path, grid):
    for run in grid.runs:
        fake_result(tmp_path, run, 3, n=24 - 12 * run.seed)
    with pytest.raises(UserError, match='s/base: its seeds differ in n under clean'):
        make_rows(grid, tmp_path)
    for run in grid.runs:
        fake_result(tmp_path, run, 3, conditions=('clean', 'cross_x'))
        path = tmp_path / run.folder / 'results.json'
        card = json.loads(path.read_text())
        card['conditions']['cross_x'] |= {'corpus': 'x', 'corpus_hash': str(run.seed)}
        path.write_text(json.dumps(card))
    with pytest.raises(UserError, match='s/base: its seeds differ in corpus_hash under cross_x'):
        make_rows(grid, tmp_path)


def test_the_chance_line_is_that_of_the_drawn_conditions(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    grid = make_grid(tmp_path, settings={'s': {'changes': {'conditions': ('telephone',)}}})
    (run,) = grid.runs
    fake_result(tmp_path, run, 3, conditions=('clean', 'telephone', 'cross_x'))
    path = tmp_path / run.folder / 'results.json'
    card = json.loads(path.read_text())
    two = {'recall': {'angry': 0.5, 'sad': 0.5}, 'labels': ['angry', 'sad']}
    card['conditions']['cross_x'] |= two | {'corpus': 'x', 'confusion': [[1, 1], [1, 1]]}
    path.write_text(json.dumps(card))
    rows = make_rows(grid, tmp_path)
    assert rows[-1]['chance'] == 0.5
    drawn, draw = [], tables.figures.robustness_figure

    def spy(*arguments, chance):
        drawn.append(chance)
        return draw(*arguments, chance=chance)

    monkeypatch.setattr(tables.figures, 'robustness_figure', spy)
    tables.write_tables(rows, grid, '', tmp_path)
    assert drawn == [pytest.approx(1 / 3)]

    # Without these conditions and the other corpus, their files go.
    files = {'robustness_s.md', 'robustness_s.png', 'matrix.md', 'matrix.png'}
    (tmp_path / 'robustness_mine.md').write_text('my notes')
    assert files <= {path.name for path in tmp_path.iterdir()}
    tables.write_tables(rows[:1], grid, '', tmp_path)
    assert not files & {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / 'robustness_mine.md').exists()


def test_conditions_with_levels_are_drawn_as_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    asked = ("noise('pink', 5)", "noise('pink', 0)", 'fgsm(0.1)', 'telephone')
    grid = make_grid(
        tmp_path,
        settings={'s': {'argument': 'demo_speech', 'changes': {'conditions': asked}}},
        variants={'base': {'argument': 'single_task'}, 'full': {}},
    )
    names = ('clean', 'noise_pink_5db', 'noise_pink_0db', 'fgsm_0.1', 'telephone')
    for run in grid.runs:
        fake_result(tmp_path, run, 3, conditions=names if run.variant == 'full' else names[:3])
    rows = make_rows(grid, tmp_path)
    ((panels, references),) = tables.curves(rows, grid).values()
    assert references == {'base': 0.375, 'full': 0.375}  # 3 of 8
    found = {
        heading: {name: [point[0] for point in points] for name, points in series.items()}
        for heading, series in panels.items()
    }
    assert found == {
        'pink: SNR, dB': {'base': [0, 5], 'full': [0, 5]},
        'corruption': {'full': ['telephone', 'fgsm, 0.1']},
    }
    tables.write_tables(rows, grid, '', tmp_path)
    text = (tmp_path / 'robustness_s.md').read_text()
    assert '| SNR, dB | system | clean | 0 | 5 |\n| --- | --- | --- | --- | --- |\n' in text
    assert '| pink | base | 37.5 | 37.5 | 37.5 |\n| pink | full | 37.5 | 37.5 | 37.5 |\n' in text
    assert '\n| system | clean | telephone | fgsm, 0.1 |\n' in text
    assert '\n| full | 37.5 | 37.5 | 37.5 |\n' in text
    image = matplotlib.image.imread(tmp_path / 'robustness_s.png')
    colours = {tuple(pixel) for pixel in (255 * image[..., :3]).astype(int).reshape(-1, 3)}
    assert {(0, 114, 178), (213, 94, 0)} <= colours
    assert not (tmp_path / 'matrix.md').exists()


def rows_of(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))
