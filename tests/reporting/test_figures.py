"""Figures: size, colours, positions, and the files of a run."""

import re

import matplotlib.image
import numpy as np
import pytest

from ser_jax.data.records import EMOTIONS
from ser_jax.evaluation.diagnostics import Attention, Codes, DecodedPath
from ser_jax.reporting import figures
from ser_jax.reporting.figures import (
    attention_figure,
    confusion_matrix_figure,
    robustness_figure,
    save_figure,
    to_svg,
)
from ser_jax.transforms.attacks import ATTACKS
from ser_jax.transforms.conditions import parse_conditions

NAMES = ('neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised')


def picture(tmp_path, confusion, labels):
    path = tmp_path / 'report' / 'confusion.png'
    save_figure(confusion_matrix_figure(confusion, labels, 'title\nsubtitle'), path)
    assert [entry.name for entry in path.parent.iterdir()] == ['confusion.png']
    return matplotlib.image.imread(path)[..., :3]


@pytest.mark.parametrize('n_classes', [2, 4, 8])
def test_is_large_enough_to_read(tmp_path, n_classes):
    image = picture(tmp_path, np.eye(n_classes, dtype=int) * 30, NAMES[:n_classes])
    assert image.shape[0] > 90 * n_classes
    blue = (image[..., 2] - image[..., 0] > 0.4).mean()
    assert blue > 0.3 * (0.6 / n_classes)  # the diagonal


def test_colour_is_per_row(tmp_path):
    """A rare class that is mostly right is as blue as a frequent one."""
    even = picture(tmp_path, [[90, 10], [10, 90]], NAMES[:2])
    skewed = picture(tmp_path, [[900, 100], [1, 9]], NAMES[:2])
    blue = [(image[..., 2] - image[..., 0] > 0.3).mean() for image in (even, skewed)]
    assert blue[0] > 0.1
    assert blue[1] == pytest.approx(blue[0], rel=0.1)


def test_class_without_utterances_and_long_names(tmp_path):
    image = picture(tmp_path, [[3, 1], [0, 0]], ['a very long class name', 'other'])
    assert np.isfinite(image).all()


@pytest.fixture
def attention():
    """Even weights, and a weight on one frame of thirty."""
    rng = np.random.default_rng(0)
    weights = np.zeros((2, 30))
    weights[0, :20], weights[1, 5] = 1 / 20, 1.0
    signals = [rng.normal(size=3680), rng.normal(size=5280)]
    tasks = {'arousal': weights, 'valence': weights}
    return Attention('fold_01', ['one', 'two'], signals, tasks, rate=16000, frame=640, hop=160)


def test_attention_lies_under_the_waveform(tmp_path, attention):
    path = tmp_path / 'attention.png'
    save_figure(attention_figure(attention, 'synthetic'), path)
    image = matplotlib.image.imread(path)[..., :3]
    blue = (image[..., 2] > image[..., 0] + 0.3) & (image[..., 1] > 0.3)  # the first task's colour
    left, right = np.split(blue.any(0)[: image.shape[1] // 2 * 2], 2)
    assert left.sum() > 5 * right.sum() > 0


def test_files_of_a_run(tmp_path, attention):
    rates = {'uar': 0.5, 'uar_ci95': [0.4, None], 'n': 4}
    clean = rates | {'recall': {'angry': 0.5, 'sad': 0.5}, 'confusion': [[1, 1], [1, 1]]}
    arousal = {'task': 'arousal'}
    card = {
        'system': 'mtl_aug',
        'corpus': 'c',
        'synthetic': True,
        'protocol': 'speaker_folds(4)',
        'n_folds': [1, 4],
        'seed': 0,
        'trained_on': ['c'],
        'conditions': {
            'clean': clean,
            'clean_arousal': clean | arousal,
            'noise_rain_5db': rates,
            'noise_rain_5db_arousal': rates | arousal,
            'cross_d': clean | {'corpus': 'd'},
        },
    }
    names = np.array(['a', 'b', 'a'])
    path = DecodedPath(('angry', 'sad'), np.random.default_rng(0).normal(size=(3, 9, 4)))
    codes = Codes('fold_01', np.eye(3)[:, :2], np.array([0.6, 0.4]), {'speaker': names}, path)
    figures.draw_run(card, tmp_path, attention=attention, codes=codes)
    expected = {'confusion_matrix', 'confusion_matrix_arousal', 'confusion_matrix_cross_d'}
    expected |= {'robustness', 'robustness_arousal', 'attention', 'codes', 'path'}
    assert {file.name for file in tmp_path.iterdir()} == {f'{name}.png' for name in expected}


def test_panels_of_conditions():
    texts = (
        "noise('rain', -5)",
        "noise('dog_bark', 2.5)",
        'babble(3, 0)',
        'telephone',
        'gain(-20)',
        'fgsm(0.00001)',
        'pgd(0.03, 40)',
        'pgd(0.01, 40)',
        'transfer_bim(0.1, 20)',
        'pgd_waveform(0.001, 20, 3)',
    )
    result = {'uar': 0.5, 'uar_ci95': [0.4, 0.6]}
    others = ('clean', 'clean_arousal', 'cross_emodb', 'cross_emodb_few_shot_5')
    panels = figures.robustness_panels(dict.fromkeys([*parse_conditions(texts), *others], result))
    levels = {
        heading: {name: [x for x, *_ in points] for name, points in series.items()}
        for heading, series in panels.items()
    }
    assert levels == {
        'corruption': {
            '': [
                *(
                    'telephone',
                    'gain, -20 dB',
                    'rain, -5 dB',
                    'dog_bark, 2.5 dB',
                    'babble of 3, 0 dB',
                ),
                'pgd_waveform, 20 steps, 3 starts, 0.001',
            ]
        },
        'epsilon, standardised log-mel': {
            'fgsm': [0.00001],
            'pgd, 40 steps': [0.01, 0.03],
            'transfer_bim, 20 steps': [0.1],
        },
    }
    for attack in ATTACKS:
        two = dict.fromkeys([f'{attack}_0.1', f'{attack}_0.2'], result)
        assert 'corruption' not in figures.robustness_panels(two)


def test_robustness_of_several_systems():
    point = lambda x, rate: (x, rate, (rate - 0.1, None))
    panels = {
        'rain: SNR, dB': {'a': [point(0, 0.4), point(20, 0.8)], 'b': [point(20, 0.7)]},
        'corruption': {
            'a': [point('telephone', 0.3), point('mu_law', 0.9)],
            'b': [point('mu_law', 0.8)],
        },
        'fgsm: epsilon': {'a': [point(0.03, 0.5), point(0.01, 0.6)]},
    }
    figure = robustness_figure(panels, {'a': 0.9, 'clean': 0.8}, 'two systems', chance=0.25)
    noise, single, attack = (axes for axes in figure.axes if axes.get_visible())
    dotted = [line for line in noise.lines if line.get_linestyle() == ':']
    assert [[*line.get_ydata()] for line in dotted] == [[25, 25]]
    levels = lambda axes: [[*bars.lines[0].get_xdata()] for bars in axes.containers]  # per series
    assert levels(noise) == [[0, 20], [20]]
    assert [*noise.get_xticks()] == [0, 20]
    assert [label.get_text() for label in attack.get_xticklabels()] == ['0.01', '0.03']
    # Single conditions: at their names, systems side by side, not connected.
    assert [label.get_text() for label in single.get_xticklabels()] == ['telephone', 'mu_law']
    (first, second), (other,) = levels(single)
    assert abs(first - 0) < 0.5
    assert abs(second - 1) < 0.5
    assert 0.1 < other - second < 0.5
    assert [bars.lines[0].get_linestyle() for bars in single.containers] == ['None', 'None']
    colours = lambda axes: [bars.lines[0].get_color() for bars in axes.containers]
    assert colours(noise) == colours(single)
    assert colours(noise)[0] != colours(noise)[1]


def test_numbers_of_classes():
    """An emotion keeps its number in every model; numbers differ and stay below the number of looks."""
    general = figures.class_numbers(['angry', 'happy', 'neutral', 'sad'])
    ravdess = figures.class_numbers(['neutral', 'calm', 'happy', 'sad', 'angry', 'fearful'])
    assert {name: ravdess[name] for name in general} == general
    mixed = figures.class_numbers(['b', 'sad', 'a', 'other'])
    assert mixed == {'b': 1, 'sad': 0, 'a': 2, 'other': 3}
    canonical = figures.class_numbers(EMOTIONS)
    assert sorted(canonical.values()) == [*range(len(EMOTIONS))]
    emodb = ['angry', 'bored', 'disgusted', 'fearful', 'happy', 'neutral', 'sad']
    assert sorted(figures.class_numbers(emodb).values()) == [*range(7)]  # in seven colours
    many = figures.class_numbers(['other', *map(str, range(figures.MOST_NAMES - 1))])
    assert sorted(many.values()) == [*range(figures.MOST_NAMES)]


def test_svg_for_a_page(tmp_path):
    """Ids and references of two copies differ by their prefix only; names are text; nothing is loaded."""
    names = ['<b>', '$x', "a'\x00"]
    draw = lambda: figures.bar_figure(
        names, [0.1, 0.5, 1.0], {'UAR %': ['1', '2', '3']}, chance=0.3
    )
    one, two = (to_svg(draw(), 'three "bars"', prefix) for prefix in ('f1-', 'f2-'))
    assert one.replace('"f1-', '"f2-').replace('#f1-', '#f2-') == two
    assert 'aria-label="three &quot;bars&quot;"' in one
    for text in ('&lt;b&gt;</text>', '>$x</text>', "a'�</text>", '<title>$x: UAR 2 %</title>'):
        assert text in one
    for absent in ('http', 'url(', 'DejaVu', '\x00', '#', 'date'):
        assert absent not in one.replace('"#f1-', '"')
    assert {'currentColor', 'var(--c0)', 'var(--soft)'} <= set(
        re.findall(r'[\w-]+\([\w-]+\)|currentColor', one)
    )
    colours = re.findall(r'(?:fill|stroke): ([^;"]+)', one)
    assert all(
        colour in ('none', 'currentColor') or colour.startswith('var(--') for colour in colours
    )


def test_titles_of_points():
    point = lambda x, rate: (x, rate, (rate - 0.1, rate + 0.1))
    panels = {'SNR, dB': {'rain': [point(-5, 0.4), point(20, 0.8)]}}
    svg = to_svg(robustness_figure(panels, {}), '', '')
    for words in ('rain -5: UAR 40.0 % [30.0, 50.0]', 'rain 20: UAR 80.0 % [70.0, 90.0]'):
        assert re.search(rf'<use [^>]*><title>{re.escape(words)}</title></use>', svg)
