"""Serves a page on this machine that predicts recordings: python -m ser_jax.demo

--workdir     a finished run of ser_jax.main, whose final model is used; may be given several times; default: the general
              model that comes with ser_jax

Needs the extra [demo]. The page is served to this machine only, and nothing is sent anywhere. Recordings lie in a temporary
folder, each for ten minutes at most; the folder is removed at the end.
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the page is closed, and its recordings are deleted')

import argparse
import contextlib
import functools
import html
import os
import shutil
import sys
import tempfile
import threading
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

import ser_jax
from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, set_compilation_cache, try_lock

if TYPE_CHECKING:
    import gradio

    from ser_jax.serving.predictor import Predictor
    from ser_jax.serving.results import Prediction, Timeline

_PREFIX, _LOCK = 'ser_jax_demo_', '.lock'  # of the temporary folder
_KEPT = (60, 600)  # seconds between checks of the age of uploads, and greatest age
_LARGEST = '1gb'  # upload: more than an hour of stereo at 48 kHz
_MOST_SEGMENTS = 200  # rows of the table
_NARROW = 6  # percent of the strip in which no label fits
_EMPTY = '<p class="hint">Record, upload or choose an example.</p>'
_CSS = """
.answer p { margin: .3em 0 }
.answer p.best { font-size: 1.6em; font-weight: 600; margin-top: 0 }
.answer .flag { border-left: 4px solid #d55e00; padding-left: .6em }
.answer table { width: 100%; border: 0; border-collapse: collapse; margin: .4em 0 1em }
.answer tr { border: 0; border-bottom: 1px solid var(--border-color-primary) }
.answer th, .answer td { border: 0; padding: .2em .8em .2em 0; text-align: left; vertical-align: middle; font-size: 1em }
.answer .number { text-align: right }
.answer .number, .answer .time { white-space: nowrap }
.answer .bars td { width: 1% }
.answer .bars td:last-child { width: auto }
.answer .bar { height: .8em; border-radius: 2px }
.answer .strip { position: relative; height: 2em; border: 1px solid var(--border-color-primary); margin-bottom: .2em }
.answer .strip div { position: absolute; top: 0; bottom: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  text-align: center; color: white; font-size: .8em; line-height: 2.4em }
.answer .ends { display: flex; justify-content: space-between; font-size: .8em }
.answer .segments { max-height: 20em; overflow-y: auto }
"""


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command until a signal ends it."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.demo',
        description=docstring(__file__).partition(':')[0],
        epilog='The page is served to this machine only; recordings are deleted at the end.',
    )
    parser.add_argument(
        '--workdir',
        action='append',
        metavar='DIR',
        help='a finished run of ser_jax.main, whose final model is used; may be given several times; default: the general '
        'model that comes with ser_jax',
    )
    options = parser.parse_args(arguments)
    set_compilation_cache()
    logging.set_verbosity(logging.ERROR)  # hides warnings of Orbax that do not matter here
    _remove_abandoned()
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    tidy = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        with signals.on_stop(tidy), open(os.path.join(folder, 'new'), 'w') as lock:
            if try_lock(lock):  # not on Windows, where an open file cannot be renamed
                os.rename(lock.name, os.path.join(folder, _LOCK))  # others find it locked
            print('loading the model …', file=sys.stderr, flush=True)
            _import_gradio(folder)  # before models are loaded
            url = serve(
                make_page(
                    {name: ser_jax.load(name) for name in options.workdir or ['general']}, folder
                )
            )
            print(f'Open {url} (Ctrl-C ends the demo).', flush=True)
            threading.Event().wait()
    except UserError as error:
        sys.exit(f'error: {error}')
    finally:
        tidy()
    return 0


def _remove_abandoned() -> None:
    """Removes the folders of demos that were killed before they could."""
    for path in Path(tempfile.gettempdir()).glob(f'{_PREFIX}*/{_LOCK}'):
        with contextlib.suppress(OSError), path.open('r+') as lock:
            if try_lock(lock):
                shutil.rmtree(path.parent, ignore_errors=True)


def _import_gradio(folder: str | os.PathLike) -> types.ModuleType:
    """Imports Gradio, without telemetry and with a folder for all temporary files of this process."""
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when Gradio is imported
    os.environ['GRADIO_TEMP_DIR'] = os.path.join(folder, 'uploads')
    tempfile.tempdir = str(folder)
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the demo needs Gradio ({error}): pip install -e '.[demo]'") from error
    return gradio


def make_page(models: Mapping[str, 'Predictor'], folder: str | os.PathLike) -> 'gradio.Blocks':
    """Builds the page.

    Args:
        models: name -> model.
        folder: empty folder for uploads and all other temporary files of this process.

    Returns:
        The page, to be served by `serve`.

    Raises:
        UserError: Gradio is not installed.
    """
    gradio = _import_gradio(folder)
    examples = _write_examples(Path(folder))
    with gradio.Blocks(title='ser_jax', analytics_enabled=False, delete_cache=_KEPT) as page:
        gradio.Markdown(
            '# Emotion of a recording\n'
            'Computed on this machine; nothing is sent anywhere. Labels are what actors played or listeners heard, not what '
            'a person feels: not for decisions about people.'
        )
        with gradio.Row():
            with gradio.Column():
                model = gradio.Dropdown(
                    list(models), value=next(iter(models)), label='Model', visible=len(models) > 1
                )
                recording = gradio.Audio(
                    sources=['upload', 'microphone'],
                    type='filepath',
                    label='Recording',
                    buttons=[],
                    editable=False,
                )
                gradio.Markdown('Synthetic examples, only for models trained on synthetic speech:')
                # gradio.Examples would offer copies that are deleted like uploads.
                with gradio.Row():
                    buttons = [
                        gradio.Button(path.stem, size='sm', min_width=80) for path in examples
                    ]
            with gradio.Column():
                answer = gradio.HTML(_EMPTY, elem_classes='answer', padding=False)

        for button, path in zip(buttons, examples):
            button.click(functools.partial(str, path), None, recording, api_name=path.stem)

        def predict(name: str, path: str | None) -> str:
            return show(models[name], path)

        gradio.on(
            [recording.change, model.change],
            predict,
            [model, recording],
            answer,
            api_name='predict',
        )
    return page


def serve(page: 'gradio.Blocks') -> str:
    """Serves a page to this machine in threads; returns its address."""
    _, url, _ = page.launch(
        server_name='127.0.0.1',
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=_LARGEST,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        css=_CSS,
    )
    return url


def _write_examples(folder: Path) -> list[Path]:
    """Writes a synthetic recording of each emotion, noise and silence."""
    import numpy as np
    import soundfile

    from ser_jax.prepare import synthetic_utterances

    rng = np.random.default_rng(0)
    found = synthetic_utterances()
    found['noise'] = rng.normal(0, 3000, 32000).astype(np.int16)
    found['silence'] = np.zeros(32000, np.int16)
    paths = [folder / f'{name}.wav' for name in found]
    for path, samples in zip(paths, found.values()):
        soundfile.write(path, samples, 16000)
    return paths


def show(predictor: 'Predictor', path: str | None) -> str:
    """Predicts a recording.

    Args:
        predictor: a loaded model.
        path: file of any kind; None if none is chosen.

    Returns:
        HTML: labels, probabilities, flags and segments, or what is wrong with the file.
    """
    if path is None:
        return _EMPTY
    try:
        if not os.path.exists(path):
            raise UserError('The recording was deleted after ten minutes: choose it again.')
        prediction = predictor.predict(path)
        classifies = any(task.kind == 'classification' for task in predictor.tasks)
        timeline = predictor.timeline(path) if classifies else None
    except UserError as error:
        name, reason = Path(path).name, getattr(error, 'reason', '')
        return f'<p class="flag">{html.escape(f"{name}: {reason}" if reason else str(error))}</p>'
    return _answer(predictor, prediction) + (_segments(timeline) if timeline else '')


def _answer(predictor: 'Predictor', prediction: 'Prediction') -> str:
    """Labels, flags in words, and probabilities."""
    from ser_jax.audio.screening import FLAGS
    from ser_jax.runtime.text import percent

    doubts = [FLAGS[flag] for flag in prediction.flags]
    if predictor.synthetic:
        doubts.append('the model is trained on synthetic speech: not meaningful for real speech')
    if predictor.uncalibrated:
        doubts.append(predictor.uncalibrated)
    parts = []
    for task in predictor.tasks:
        best, probabilities = prediction.best(task), prediction.probabilities(task) or {}
        colours = _colours(probabilities)
        label = 'no label' if best is None else f'{best:g} of 1–5' if not probabilities else best
        several = f'{task.name}: ' if len(predictor.tasks) > 1 else ''
        parts.append(f'<p class="best">{html.escape(several + label)}</p>')
        rows = [
            f'<tr><td>{html.escape(name)}</td><td class="number">{percent(value)} %</td><td>'
            f'<div class="bar" style="width: {100 * value:.1f}%; background: {colours[name]}"></div></td></tr>'
            for name, value in probabilities.items()
        ]
        parts.append(f'<table class="bars">{"".join(rows)}</table>' if rows else '')
    parts[1:1] = [f'<p class="flag">{html.escape(_sentence(doubt))}</p>' for doubt in doubts]
    return ''.join(parts)


def _segments(timeline: 'Timeline') -> str:
    """A strip of the segments over time, and their table."""
    from ser_jax.runtime.text import percent

    if not timeline.segments:
        return ''
    bars, rows, colours = [], [], _colours(timeline.task.classes)
    for one in timeline.segments:
        left, width = (100 * x / timeline.duration for x in (one.start, one.end - one.start))
        colour, label = colours[one.label], html.escape(one.label)
        times = f'{one.start:.1f}–{one.end:.1f} s'
        bars.append(
            f'<div title="{label}, {times}" style="left: {left:.2f}%; width: {width:.2f}%; background: {colour}">{label if width > _NARROW else ""}</div>'
        )
        rows.append(
            f'<tr><td class="time">{times}</td><td>{label}</td><td class="number">{percent(one.confidence)} %</td>'
            f'<td>{", ".join(one.flags)}</td></tr>'
        )
    more = len(rows) - _MOST_SEGMENTS
    return (
        f'<p>Over time</p><div class="strip">{"".join(bars)}</div>'
        f'<div class="ends"><span>0 s</span><span>{timeline.duration:.1f} s</span></div>'
        '<div class="segments"><table><tr><th>time</th><th>label</th><th class="number">confidence</th><th></th></tr>'
        f'{"".join(rows[:_MOST_SEGMENTS])}</table></div>' + (f'<p>and {more} more</p>' * (more > 0))
    )


def _colours(classes: Collection[str]) -> dict[str, str]:
    """Class -> its colour, as on pages."""
    from ser_jax.reporting.figures import COLOURS, class_numbers

    return {name: COLOURS[number % len(COLOURS)] for name, number in class_numbers(classes).items()}


def _sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    return text[:1].upper() + text[1:] + '.'


if __name__ == '__main__':
    sys.exit(main())
