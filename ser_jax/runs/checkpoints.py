"""Orbax checkpoints that survive SIGKILL: latest and best, each with checksums.

A single manager that keeps the best checkpoint deletes the latest as soon as the score falls, so each kind has its own manager. It
also keeps the previous checkpoint, in case a save is interrupted. A checkpoint is valid only with its `sha256.json`, written last:
Orbax does not detect a flipped byte.
"""

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ser_jax.runtime.errors import UserError, printable

_MANIFEST = 'sha256.json'
_EXTRA = 'beside.npz'


class Checkpoints:
    """The newest two checkpoints of one kind ('latest' or 'best').

    Args:
        directory: folder of the steps, created if missing.
        read_only: whether to change nothing; the processes are then not synchronised.

    Raises:
        UserError: the path holds `[…]` or a backslash: Orbax would not find what it has written.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        for name in self.directory.parts[1:]:
            if re.search(r'\[.*\]|\\', name):
                raise UserError(f'{directory}: no checkpoint can be read below {name!r}: rename it')
        if read_only:
            return
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and not (folder / _MANIFEST).exists():
                    _set_aside(folder, 'unfinished')
        multihost_utils.sync_global_devices(f'checkpoints {directory}')

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Created on first use: it caches the steps that it finds."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            enable_async_checkpointing=False,
            create=False,
        )
        handler = ocp.StandardCheckpointHandler()
        return ocp.CheckpointManager(self.directory, item_handlers=handler, options=options)

    @property
    def step(self) -> int | None:
        """Step of the newest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def intact_steps(self) -> list[int]:
        """Steps of the undamaged checkpoints, newest first; warns of the others on stderr."""
        steps = []
        for folder in self.directory.iterdir():
            if not folder.name.isdigit():
                continue
            if damaged := _damaged_file(folder):
                if jax.process_index() == 0:
                    message = f'warning: checkpoint {folder} is damaged ({damaged})'
                    print(printable(message), file=sys.stderr, flush=True)
            else:
                steps.append(int(folder.name))
        return sorted(steps, reverse=True)

    def go_back_to(self, step: int) -> None:
        """Sets checkpoints of later steps aside; call before saving or restoring."""
        if jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and int(folder.name) > step:
                    _set_aside(folder, 'left')
        multihost_utils.sync_global_devices(f'back to {step} of {self.directory}')

    def save(self, step: int, tree, extra: dict[str, np.ndarray] | None = None) -> None:
        """Writes the checkpoint of a step, then deletes all but the newest two.

        Args:
            step: number of training steps made.
            tree: arrays, the same on every process.
            extra: arrays of any shapes, for `read_extra`.

        Raises:
            OSError: the disk is full.
            RuntimeError: Orbax declined to save.
        """
        if self._manager.latest_step() == step:
            return  # resumed at this step: the stored values are the same
        self._refuse_full_disk(tree)
        if not self._manager.save(step, args=ocp.args.StandardSave(tree), force=True):
            raise RuntimeError(f'Orbax did not save step {step} in {self.directory}')
        if jax.process_index() == 0:
            folder = self.directory / str(step)
            if extra:
                np.savez(folder / _EXTRA, **extra)
            _write_digests(folder)
        multihost_utils.sync_global_devices(f'checkpoint {step}')

    def _refuse_full_disk(self, tree) -> None:
        """Raises one clear error where Orbax would print a thousand lines."""
        needed = 2**19 + 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        disk = shutil.disk_usage(self.directory)
        if disk.total and disk.free < needed:  # some mounted buckets report 0 of 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))

    def restore(self, template=None):
        """Reads the checkpoint back.

        Args:
            template: tree of arrays or `jax.ShapeDtypeStruct` with the target shardings; None: nested
                dictionaries as stored, on the first device.

        Returns:
            A tree like `template`.

        Raises:
            UserError: no checkpoint, or a damaged one.
        """
        step = self.step
        if step is None:
            raise UserError(f'no checkpoint in {self.directory}')
        folder = self.directory / str(step)
        if damaged := _damaged_file(folder):
            raise UserError(
                f'checkpoint {folder} is damaged ({damaged}): delete the folder '
                f'{self.directory.parent}, and results.json if it is there, and start again to train '
                'this fold again'
            )
        if template is None:
            device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            stored = self._manager.item_metadata(step)
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                stored.tree,
            )
        return self._manager.restore(step, args=ocp.args.StandardRestore(template))

    def read_extra(self, step: int) -> dict[str, np.ndarray]:
        """Reads the `extra` arrays of a checkpoint, unchecked: see `intact_steps`."""
        path = self.directory / str(step) / _EXTRA
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def keep_newest(self) -> None:
        """Deletes all but the newest checkpoint."""
        step = self.step  # on every process: Orbax's manager waits for all of them
        if jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name != str(step):
                    shutil.rmtree(folder)


def _set_aside(folder: Path, reason: str) -> None:
    """Renames a folder so that it no longer counts as a checkpoint, replacing an earlier one."""
    aside = folder.with_name(f'{reason}_{folder.name}')
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)


def copy(source: Path, target: Path) -> None:
    """Copies the checkpoints of a folder, without the files in which Orbax names that folder."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns('commit_success.txt'))
    for folder in target.iterdir():
        _write_digests(folder)


def _damaged_file(folder: Path) -> str | None:
    """Name of the first file of a checkpoint that does not match its checksum; None if all match."""
    try:
        recorded = json.loads((folder / _MANIFEST).read_text())
        found = _digests(folder)
        return next((name for name in sorted(recorded) if found.get(name) != recorded[name]), None)
    except (OSError, ValueError, AttributeError, TypeError):  # unreadable checksums
        return _MANIFEST


def _write_digests(folder: Path) -> None:
    temporary = folder / (_MANIFEST + '.tmp')
    temporary.write_text(json.dumps(_digests(folder)))
    os.replace(temporary, folder / _MANIFEST)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not path.name.startswith(_MANIFEST)
    }
