"""Orbax checkpoints that survive being killed: the latest and the best, each with its own checksum.

A single manager that keeps the best deletes the latest as soon as the score falls, so each kind has
a manager of its own; it keeps the checkpoint before as well, in case a save is cut short. A
checkpoint counts only once its `sha256.json` lies beside it: Orbax itself does not notice a flipped
byte.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ser_jax.runtime.errors import UserError, printable

_MANIFEST = 'sha256.json'
_BESIDE = 'beside.npz'


class Checkpoints:
    """The checkpoints of one kind ('latest' or 'best') in one folder: the newest and the one before.

    Args:
        directory: where the steps lie, made if missing.
        read_only: whether to leave everything as it is; one process then needs no others.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        if read_only:
            return
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            # What was never finished must not be taken for a checkpoint; nobody knows its step any more.
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and not (folder / _MANIFEST).exists():
                    _put_aside(folder, 'unfinished')
        multihost_utils.sync_global_devices(f'checkpoints {directory}')

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made when it is first needed: it remembers which steps it found."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            enable_async_checkpointing=False,
            create=False,
        )
        handler = ocp.StandardCheckpointHandler()
        return ocp.CheckpointManager(self.directory, item_handlers=handler, options=options)

    @property
    def step(self) -> int | None:
        """Step of the checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def intact_steps(self) -> list[int]:
        """Steps of the checkpoints whose bytes are as they were written, the newest first; tells of the others on stderr."""
        steps = []
        for folder in self.directory.iterdir():
            if not folder.name.isdigit():
                continue
            if damaged := _damaged_file(folder):
                _say(f'checkpoint {folder} is damaged ({damaged})')
            else:
                steps.append(int(folder.name))
        return sorted(steps, reverse=True)

    def go_back_to(self, step: int) -> None:
        """Puts the checkpoints of later steps aside, before any is saved or restored."""
        if jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and int(folder.name) > step:
                    _put_aside(folder, 'left')
        multihost_utils.sync_global_devices(f'back to {step} of {self.directory}')

    def save(self, step: int, tree, beside: dict[str, np.ndarray] | None = None) -> None:
        """Writes `tree` as the checkpoint of `step`; the previous one goes only after that.

        Args:
            step: training steps made.
            tree: arrays, the same on every process.
            beside: arrays of any shapes, for `read_beside`.

        Raises:
            OSError: there is too little room on the disk.
            RuntimeError: Orbax declined to save.
        """
        if self._manager.latest_step() == step:
            return  # resumed between two checkpoints of one step: it holds these very values
        self._refuse_full_disk(tree)
        if not self._manager.save(step, args=ocp.args.StandardSave(tree), force=True):
            raise RuntimeError(f'Orbax did not save step {step} in {self.directory}')
        if jax.process_index() == 0:
            folder = self.directory / str(step)
            if beside:
                np.savez(folder / _BESIDE, **beside)
            temporary = folder / (_MANIFEST + '.tmp')
            temporary.write_text(json.dumps(_digests(folder)))
            os.replace(temporary, folder / _MANIFEST)
        multihost_utils.sync_global_devices(f'checkpoint {step}')

    def _refuse_full_disk(self, tree) -> None:
        """Orbax tells of it, too, in a thousand lines."""
        needed = 2**19 + 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        disk = shutil.disk_usage(self.directory)
        if disk.total and disk.free < needed:  # some mounted buckets say 0 of 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))

    def restore(self, template=None):
        """Reads the checkpoint back.

        Args:
            template: tree of arrays or `jax.ShapeDtypeStruct` with the shardings wanted; None: nested
                dictionaries as stored, on the first device.

        Returns:
            A tree like `template`.

        Raises:
            UserError: no checkpoint, or one whose bytes have changed since it was written.
        """
        step = self.step
        if step is None:
            raise UserError(f'no checkpoint in {self.directory}')
        folder = self.directory / str(step)
        if damaged := _damaged_file(folder):
            raise UserError(
                f'checkpoint {folder} is damaged ({damaged}): delete the folder '
                f'{self.directory.parent}, and results.json if it is there, and start again to train '
                'this fold anew'
            )
        if template is None:
            device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            stored = self._manager.item_metadata(step)
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                stored.tree,
            )
        return self._manager.restore(step, args=ocp.args.StandardRestore(template))

    def read_beside(self, step: int) -> dict[str, np.ndarray]:
        """What was saved beside the checkpoint of a step; `intact_steps` tells whether it is damaged."""
        path = self.directory / str(step) / _BESIDE
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def keep_newest(self) -> None:
        """Deletes all but the newest checkpoint: the fold is finished."""
        step = self.step  # asked on every process: Orbax' manager waits for all of them
        if jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name != str(step):
                    shutil.rmtree(folder)


def _put_aside(folder: Path, why: str) -> None:
    """Renames a folder, so that it is no checkpoint any more; another one of this name goes."""
    aside = folder.with_name(f'{why}_{folder.name}')
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)


def _damaged_file(folder: Path) -> str | None:
    """The name of a file of a checkpoint that is not what was written; None where all are."""
    try:
        recorded = json.loads((folder / _MANIFEST).read_text())
        found = _digests(folder)
        return next((name for name in sorted(recorded) if found.get(name) != recorded[name]), None)
    except (OSError, ValueError, AttributeError, TypeError):  # the list itself
        return _MANIFEST


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(f'warning: {printable(text)}', file=sys.stderr, flush=True)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not path.name.startswith(_MANIFEST)
    }
