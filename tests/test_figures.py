"""The confusion matrix picture: a PNG of its own size, coloured by rows, written in one piece."""

import matplotlib.image
import numpy as np
import pytest

from ser_jax.figures import attention_figure, confusion_matrix_figure

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
