"""The confusion matrix picture: a PNG of its own size, coloured by rows, written in one piece."""

import matplotlib.image
import numpy as np
import pytest

from ser_jax.reporting import figures
from ser_jax.reporting.figures import attention_figure, confusion_matrix_figure, robustness_figure

NAMES = ('neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgusted', 'surprised')


def picture(tmp_path, confusion, labels):
    path = tmp_path / 'report' / 'confusion.png'
    confusion_matrix_figure(confusion, labels, 'title\nsubtitle', path)
    assert [entry.name for entry in path.parent.iterdir()] == ['confusion.png']
    return matplotlib.image.imread(path)[..., :3]


@pytest.mark.parametrize('n_classes', [2, 4, 8])
def test_is_large_enough_to_read(tmp_path, n_classes):
    image = picture(tmp_path, np.eye(n_classes, dtype=int) * 30, NAMES[:n_classes])
    assert image.shape[0] > 130 * n_classes
    dark = (image.sum(2) < 1.2).mean()
    assert dark > 0.3 * (0.6 / n_classes)  # the diagonal is dark


def test_colour_is_per_row(tmp_path):
    """A rare class that is always right is as dark as a frequent one."""
    even = picture(tmp_path, [[90, 10], [10, 90]], NAMES[:2])
    skewed = picture(tmp_path, [[900, 100], [1, 9]], NAMES[:2])
    dark = [(image.sum(2) < 1.2).mean() for image in (even, skewed)]
    assert dark[0] == pytest.approx(dark[1], rel=0.1)


def test_class_without_utterances_and_long_names(tmp_path):
    image = picture(tmp_path, [[3, 1], [0, 0]], ['a very long class name', 'other'])
    assert np.isfinite(image).all()


def test_attention_lies_under_the_waveform(tmp_path):
    rng = np.random.default_rng(0)
    weights = np.zeros((2, 30))
    weights[0, :20], weights[1, 5] = 1 / 20, 1.0
    path = tmp_path / 'attention.png'
    attention_figure(
        [rng.normal(size=3680), rng.normal(size=5280)],
        {'arousal': weights, 'valence': weights},
        sample_rate=16000,
        frame=640,
        hop=160,
        titles=['one', 'two'],
        heading='made up',
        path=path,
    )
    image = matplotlib.image.imread(path)[..., :3]
    blue = (image[..., 2] > image[..., 0] + 0.3) & (image[..., 1] > 0.3)  # the first task's colour
    left, right = np.split(blue.any(0)[: image.shape[1] // 2 * 2], 2)
    assert left.sum() > 5 * right.sum() > 0  # everywhere alike, or in one frame of thirty


def test_robustness_of_several_systems(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: drawn.append(figure))
    point = lambda x, rate: (x, rate, (rate - 0.1, None))
    panels = {
        'rain: SNR, dB': {'a': [point(0, 0.4), point(20, 0.8)], 'b': [point(20, 0.7)]},
        'corruption': {
            'a': [point('telephone', 0.3), point('mu_law', 0.9)],
            'b': [point('mu_law', 0.8)],
        },
        'fgsm: epsilon': {'a': [point(0.03, 0.5), point(0.01, 0.6)]},
    }
    robustness_figure(panels, {'a': 0.9, 'clean': 0.8}, 'two systems', tmp_path / 'x.png')
    noise, single, attack = (axes for axes in drawn[0].axes if axes.get_visible())
    levels = lambda axes: [
        [*bars.lines[0].get_xdata()] for bars in axes.containers
    ]  # of a series each
    assert levels(noise) == [[0, 20], [20]]
    assert [*noise.get_xticks()] == [0, 20]
    assert [label.get_text() for label in attack.get_xticklabels()] == ['0.01', '0.03']
    # Single conditions: at their names, the systems beside each other, and no line from one to the next.
    assert [label.get_text() for label in single.get_xticklabels()] == ['telephone', 'mu_law']
    (first, second), (other,) = levels(single)
    assert abs(first - 0) < 0.5
    assert abs(second - 1) < 0.5
    assert 0.1 < other - second < 0.5
    assert [bars.lines[0].get_linestyle() for bars in single.containers] == ['None', 'None']
    colours = lambda axes: [bars.lines[0].get_color() for bars in axes.containers]
    assert colours(noise) == colours(single)
    assert colours(noise)[0] != colours(noise)[1]
