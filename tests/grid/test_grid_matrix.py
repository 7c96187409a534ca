"""The matrices of a grid that tests across corpora."""

import matplotlib.image

from ser_jax.grid import matrix


def row(setting, corpus, condition, uar, variant='full', low=None, difference=None, p=None):
    return {
        'setting': setting,
        'variant': variant,
        'condition': condition,
        'corpus': corpus,
        'synthetic': False,
        'seeds': [0],
        'chance': 0.25,
        'uar': uar,
        'uar_low': low,
        'uar_high': None if low is None else uar + 0.1,
        'difference': difference,
        'p_holm': p,
    }


ROWS = [
    row('b', 'a', 'cross_a', 0.4, low=0.3),
    row('a', 'a', 'clean', 0.9),
    row('a', 'b', 'cross_b', 0.5),
    row('a', 'csv_corpus/x', 'cross_csv_corpus_x', 0.25),
    row('a', 'b', 'cross_b_target_statistics', 0.6),
    row('a', 'b', 'cross_b_few_shot_5', 0.7, variant='base'),
]


def test_every_variant_and_way_has_its_matrix():
    panels = matrix.matrices(ROWS)
    found = {
        panel: {cell: row['uar'] for cell, row in cells.items()} for panel, cells in panels.items()
    }
    assert found == {
        ('full', 'as it is'): {
            ('b', 'a'): 0.4,
            ('a', 'a'): 0.9,
            ('a', 'b'): 0.5,
            ('a', 'csv_corpus/x'): 0.25,
        },
        ('full', 'target statistics'): {('a', 'b'): 0.6},
        ('base', 'few shot 5'): {('a', 'b'): 0.7},
    }


def test_a_grid_without_other_corpora_has_no_matrix():
    assert not matrix.matrices(ROWS[1:2])


def test_as_text():
    lines = matrix.as_markdown(matrix.matrices(ROWS)).splitlines()
    assert lines[0].startswith('**full, as it is** (UAR in percent')
    assert 'chance 25.0, real speech' in lines[0]
    assert lines[2:6] == [
        '| trained ↓ tested → | b | a | csv_corpus/x |',
        '| --- | --- | --- | --- |',
        '| b |  | 40.0 [30.0, 50.0] |  |',
        '| a | 50.0 | 90.0 | 25.0 |',
    ]


def test_differences_to_the_baseline():
    rows = [
        row('a', 'b', 'cross_b', 0.5, low=0.4, difference=0.0312, p=0.04),
        row('b', 'a', 'cross_a', 0.4, difference=-0.02, p=0.6),
        row('c', 'a', 'cross_a', 0.3),
    ]
    lines = matrix.as_markdown(matrix.matrices(rows)).splitlines()
    assert '(difference to the baseline, *: p < 0.05 after Holm)' in lines[0]
    assert lines[4:] == [
        '| a |  | 50.0 [40.0, 60.0] (+3.1*) |',
        '| b | 40.0 (-2.0) |  |',
        '| c | 30.0 |  |',
    ]


def test_picture(tmp_path):
    path = tmp_path / 'matrix.png'
    matrix.draw_matrices(matrix.matrices(ROWS), 'a grid', path)
    image = (255 * matplotlib.image.imread(path)[..., :3]).round().astype(int)
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3)}
    share = (0.9 - 0.25) / 0.75
    expected = [round(255 * (1 - slope * share)) for slope in (0.87, 0.55, 0.31)]
    assert any(max(abs(a - b) for a, b in zip(colour, expected)) <= 1 for colour in colours)
