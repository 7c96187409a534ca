"""Run directory: layout, ownership lock, and checks that it belongs to a run."""

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from ser_jax.config import compared
from ser_jax.runs.result_card import read_card
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.schema import read_json

# In corpora.json: before the path of a file with the lists of `fixed_lists`; the key of the encoder's identity.
LISTS, ENCODER = 'lists: ', 'the pretrained encoder'
_LOCK = '.lock'  # names the process that is at work, or was last


def run_fingerprint(workdir: str | Path) -> str | None:
    """Identifies the models of a finished run; None where there is none."""
    card = read_card(Path(workdir).expanduser())
    return card and f'{card["config_hash"]} seed {card["seed"]} {card["commit"]}'


def summary_file(workdir: Path, fold: str) -> Path:
    """Path of the summary of a fold; it is written when the training of the fold has ended."""
    return workdir / 'checkpoints' / fold / 'summary.json'


def read_summary(workdir: Path, fold: str) -> dict[str, Any]:
    """Reads the summary of a fold (`loop.train_folds`).

    Raises:
        FileNotFoundError: its training has not ended.
        UserError: the file is damaged.
    """
    path = summary_file(workdir, fold)
    try:
        return read_json(path, {'steps': int})
    except UserError as error:
        raise UserError(f'{error}: delete {path.parent}, and the fold is trained again') from error


def predictions_file(workdir: Path, fold: str, condition: str) -> Path:
    """Path of the predictions of a fold under a condition; `validation` and `validation_…`: of its validation utterances."""
    return workdir / 'predictions' / fold / f'{condition}.csv'


def pooled_file(workdir: Path, condition: str) -> Path:
    """Path of the predictions of all folds, or of another corpus, under a condition."""
    return workdir / 'predictions' / f'{condition}.csv'


def result_name(condition: str, task: str) -> str:
    """Name of the predictions and results of a task under a condition: `clean`, or `clean_arousal`."""
    return condition if task == 'emotion' else f'{condition}_{task}'


def is_up_to_date(predictions: list[Path], facts: Path, fingerprint: str) -> bool:
    """Whether predictions exist, and the fingerprint in their JSON file of facts is the given one."""
    if not all(path.exists() for path in (*predictions, facts)):
        return False
    try:
        return read_json(facts, {'fingerprint': str})['fingerprint'] == fingerprint
    except UserError:  # damaged: predicted again
        return False


def check_workdir(workdir: Path, config: dict[str, Any]) -> None:
    """Refuses a folder that cannot hold a run of a config in JSON form; writes nothing.

    Raises:
        UserError: it cannot be written to, or holds something else, such as the run of another config.
    """
    existing = next(path for path in (workdir, *workdir.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(
            f'cannot write to the workdir {workdir}: {existing} is not a writable folder'
        )
    stored = workdir / 'config.json'
    if stored.exists():
        try:
            found = read_json(stored, {str: object})
        except UserError as error:
            raise UserError(f'{error}: choose another --workdir') from error
        _refuse_other(workdir, compared(found), compared(config))
    elif workdir.exists() and any(
        path.name != _LOCK and path.suffix != '.tmp' for path in workdir.iterdir()
    ):
        raise UserError(
            f'workdir {workdir} holds files but no config.json: choose another --workdir'
        )


@contextlib.contextmanager
def claimed(workdir: Path, config: dict[str, Any], corpus_hashes: dict[str, str]) -> Iterator[None]:
    """Makes a run directory, or checks that the corpora of the run have not changed; locks it against other runs.

    Args:
        workdir: the folder, checked by `check_workdir`.
        config: config of the run in JSON form.
        corpus_hashes: name -> hash of every corpus in use.

    Raises:
        UserError: it cannot be written to, another process is at work there, or a corpus was prepared again with other
            contents.
    """
    path = workdir / 'corpora.json'
    with contextlib.ExitStack() as stack:
        try:
            if jax.process_index() == 0:
                stack.enter_context(_locked(workdir))
            if path.exists():
                refuse_changed(workdir, corpus_hashes)
            elif jax.process_index() == 0:
                write_atomically(workdir / 'config.json', json.dumps(config, indent=2))
                write_atomically(path, json.dumps(corpus_hashes, indent=2))
        except OSError as error:
            raise UserError(f'cannot write to the workdir {workdir}: {error.strerror}') from error
        multihost_utils.sync_global_devices('workdir')
        yield


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Holds a lock, which the system releases when the process ends in any way."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing to hold two runs apart
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / _LOCK).open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f'another run is at work in {workdir} ({file.read().strip()}): wait for it, or choose another --workdir'
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            print(
                f'warning: {workdir} cannot be locked: see that no other run works there',
                file=sys.stderr,
            )
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
        file.flush()
        yield


def refuse_changed(workdir: Path, corpus_hashes: dict[str, str | None]) -> None:
    """Refuses to resume or to show a run whose corpora have changed since.

    Args:
        workdir: run directory.
        corpus_hashes: name -> hash now, or None where the corpus is no longer prepared; also of lists of utterances (`LISTS`) and of the
            pretrained encoder (`ENCODER`).

    Raises:
        UserError: a corpus was prepared again with other contents, or `corpora.json` is damaged.
    """
    path = workdir / 'corpora.json'
    try:
        stored = read_json(path, {str: str})
    except (FileNotFoundError, UserError) as error:
        problem = error if isinstance(error, UserError) else f'{path} is missing'
        raise UserError(f'{problem}: choose another --workdir') from error
    for name, now in corpus_hashes.items():
        if name.startswith((LISTS, ENCODER)) and name not in stored:
            continue  # a run of an earlier version
        if now is not None and stored.get(name) != now:
            raise UserError(
                f'{name} has changed since the run in {workdir} began: choose another --workdir'
            )


def _refuse_other(workdir: Path, stored: dict[str, Any], mine: dict[str, Any]) -> None:
    absent = object()
    differences = [
        f'{name}: {stored.get(name, "absent")} there, {mine.get(name, "absent")} now'
        for name in sorted(stored | mine)
        if stored.get(name, absent) != mine.get(name, absent)
    ]
    if differences:
        shown = '; '.join(differences[:5]) + (
            f'; and {len(differences) - 5} more' if differences[5:] else ''
        )
        raise UserError(
            f'workdir {workdir} holds a run of another config ({shown}): choose another --workdir'
        )
