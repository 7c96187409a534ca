"""Metrics of a run: metrics.jsonl and TensorBoard events."""

import json
import time
from pathlib import Path
from typing import Any

import jax

from ser_jax.runtime.files import write_atomically


class MetricLog:
    """Metrics of a run, one JSON object per line, and the same as TensorBoard events.

    Nothing in the file depends on the clock: two runs of one config write the same.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / 'metrics.jsonl'
        self._events = workdir / 'events'
        self._write = jax.process_index() == 0
        self._writers: dict[str, Any] = {}

    def rows(self, fold: str) -> list[dict[str, Any]]:
        """The rows of a fold, in order."""
        if not self._path.exists():
            return []
        rows = [
            json.loads(line) for line in self._path.read_text().splitlines() if line.endswith('}')
        ]
        return [row for row in rows if row['fold'] == fold]

    def forget(self, fold: str, after: int) -> None:
        """Drops the rows of a fold after a step, where training resumes."""
        if not self._write or not self._path.exists():
            return
        lines = [line for line in self._path.read_text().splitlines() if line.endswith('}')]
        kept = [
            line for line in lines if (r := json.loads(line))['fold'] != fold or r['step'] <= after
        ]
        write_atomically(self._path, ''.join(line + '\n' for line in kept))

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row, {'fold', 'step', name: value, …}, and its events."""
        if not self._write:
            return
        with self._path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        fold = row['fold']
        values = {name: value for name, value in row.items() if name not in ('fold', 'step')}
        if fold not in self._writers:
            self._writers[fold] = _Events(self._events / fold, row['step'])
        self._writers[fold].write(row['step'], values)

    def close(self) -> None:
        """Flushes the events."""
        for writer in self._writers.values():
            writer.close()


class _Events:
    """A file of TensorBoard events, written synchronously: the thread of `SummaryWriter` would hide a full disk.

    Args:
        folder: folder of the file.
        step: first step; events of this and later steps that were written before are void.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter  # slow to import

        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / 'events'))
        self._write(step, session_log={'status': 'START'})

    def _write(self, step: int, **content) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
        self._file.flush()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends the values of a step."""
        scalars = [{'tag': name, 'simple_value': value} for name, value in values.items()]
        self._write(step, summary={'value': scalars})

    def close(self) -> None:
        self._file.close()
