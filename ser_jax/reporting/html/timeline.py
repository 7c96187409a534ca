"""Page of timelines: charts and a player of each recording, with a cursor that moves with the sound."""

import base64
import hashlib
import io
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ser_jax.audio.overview import make_overview
from ser_jax.audio.reading import read_blocks
from ser_jax.audio.screening import FLAGS
from ser_jax.reporting import figures
from ser_jax.reporting.html.rendering import Drawing, read, render
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.text import duration, percent
from ser_jax.serving.results import HYSTERESIS, WINDOW_SECONDS, Timeline, shared_flags

if TYPE_CHECKING:
    from ser_jax.serving.predictor import Predictor

_RATE = 16000
# Seconds up to which a recording is embedded (10 MB in FLAC), and all of a page together.
_EMBEDDED, _EMBEDDED_TOGETHER = 600, 3600
_MOST_RECORDINGS = 100
_DETECTORS = {'silero': 'Silero VAD', 'energy': 'its level'}


def write_page(
    path: Path, timelines: Sequence[tuple[Path, Timeline]], predictor: 'Predictor'
) -> None:
    """Writes the page of some recordings.

    Args:
        path: HTML file to write.
        timelines: (recording, timeline) pairs.
        predictor: the model.

    Raises:
        UserError: no recordings or too many, a file that cannot be written, or a recording that cannot be read again.
    """
    check_page(path, len(timelines))
    draw, room, shown = Drawing(), _EMBEDDED_TOGETHER, []
    for recording, timeline in timelines:
        embedded = timeline.duration <= min(_EMBEDDED, room)
        room -= timeline.duration if embedded else 0
        shown.append(_recording(recording, timeline, path, embedded, draw))
    script = read('player.js')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    files = " 'self' file:" if any(one['linked'] for one in shown) else ''
    task, detector = timelines[0][1].task, timelines[0][1].detector
    page = render(
        'timeline.html.j2',
        policy=f"{files}; script-src 'sha256-{digest}'",
        title=shown[0]['name'] if len(shown) == 1 else f'{len(shown)} recordings: {task.name}',
        synthetic=predictor.synthetic,
        notes=[predictor.uncalibrated] if predictor.uncalibrated else [],
        about=f'Model {predictor.model}. Speech is found by {_DETECTORS[detector]}, and predicted in windows of up to '
        f'{WINDOW_SECONDS:g} s. The label changes where another class leads by {100 * HYSTERESIS:g} percentage points.',
        classes=task.classes,
        recordings=shown,
        axis=figures.TIME_AXIS,
        flag_texts=FLAGS,
        script=script,
    )
    try:
        write_atomically(path, page)
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error


def check_page(path: Path, count: int) -> None:
    """Refuses a name that is not one of a page, a number of recordings that no page has, and a folder that cannot be written to.

    Args:
        path: HTML file to write.
        count: number of recordings.

    Raises:
        UserError: see above.
    """
    if path.suffix.lower() not in ('.html', '.htm'):  # it may be a recording, which would be lost
        raise UserError(f'--html={path}: the name of a page ends with .html')
    if not 0 < count <= _MOST_RECORDINGS:
        raise UserError(f'a page has 1 to {_MOST_RECORDINGS} recordings, not {count}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(
            f'cannot write the page {path}: a folder, or in a folder without permission'
        )


def _recording(recording: Path, timeline: Timeline, page: Path, embedded: bool, draw) -> dict:
    """The variables of the template for a recording, which is read again."""
    sound = io.BytesIO() if embedded else None
    blocks = _copied(read_blocks(recording, _RATE), sound)
    overview = make_overview(blocks, round(timeline.duration * _RATE))
    figure = figures.timeline_figure(timeline, overview)
    if embedded:
        linked, source = '', 'data:audio/flac;base64,' + base64.b64encode(sound.getvalue()).decode()
    else:
        linked = os.path.relpath(recording, page.parent)
        source = urllib.parse.quote(os.fsencode(Path(linked).as_posix()))
    by_class = dict.fromkeys(timeline.task.classes, 0.0)
    for one in timeline.segments:
        by_class[one.label] += one.end - one.start
    return {
        'name': str(recording),
        'duration': duration(timeline.duration),
        'length': timeline.duration,
        'seconds': [f'{value:.1f}' for value in by_class.values()],
        'segments': [
            (
                one.label,
                f'{one.start:.2f}',
                f'{one.end:.2f}',
                percent(one.confidence),
                ', '.join(one.flags),
            )
            for one in timeline.segments
        ],
        'flags': shared_flags(timeline.windows) if timeline.windows else timeline.flags,
        'source': source,
        'linked': linked,
        'drawn': bool(timeline.windows),
        'width': round(72 * figure.get_figwidth()),
        'svg': draw(f'{timeline.task.name} over time', figure)['svg'],
    }


def _copied(blocks: Iterable[np.ndarray], sound: io.BytesIO | None) -> Iterator[np.ndarray]:
    """Yields blocks unchanged, and writes them to a FLAC file."""
    if sound is None:
        yield from blocks
        return
    import soundfile

    with soundfile.SoundFile(sound, 'w', _RATE, 1, 'PCM_16', format='FLAC') as file:
        for block in blocks:
            file.write(block)
            yield block
