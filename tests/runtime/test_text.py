"""Formats of rates, durations and tables."""

from ser_jax.runtime.text import duration, interval, markdown_table, percent, text_table


def test_rates():
    assert [percent(value) for value in (0.1234, 1, None, float('nan'))] == [
        '12.3',
        '100.0',
        '–',
        '–',
    ]
    assert percent(0.01, signed=True) == '+1.0'
    assert interval((0.1, 0.25)) == '[10.0, 25.0]'
    assert interval((-0.1, 0.25), signed=True) == '[-10.0, +25.0]'
    assert interval((None, 0.25)) == '–'


def test_durations():
    assert [duration(s) for s in (8.44, 59.96, 185, 3599.7, 7620, None)] == [
        '8.4 s', '1 min 00 s', '3 min 05 s', '1 h 00 min', '2 h 07 min', '–'
    ]  # fmt: skip


def test_markdown():
    assert markdown_table(['a', 'b'], [[1, '–']]) == '| a | b |\n| --- | --- |\n| 1 | – |'


def test_columns_are_aligned():
    rows = [('name', 'n', 'note'), ('long name', 7, ''), ('x', 1234, 'why')]
    assert text_table(rows, texts=(0, 2)) == [
        'name          n  note',
        'long name     7',
        'x          1234  why',
    ]


def test_long_cells_are_broken_into_lines_and_never_cut():
    rows = [('fold', 'speakers', 'n'), ('1', 'anna-lena bert', 7), ('2', 'c' * 13, 8)]
    assert text_table(rows, texts=(0, 1), width=18) == [
        'fold  speakers   n',
        '1     anna-lena  7',
        '      bert',
        '2     ccccccccc  8',
        '      cccc',
    ]
