"""Orbax checkpoints that survive being killed: the latest and the best, each with its own checksum.

A single manager that keeps the best deletes the latest as soon as the score falls, so each kind has
a manager of its own; it keeps the checkpoint before as well, in case a save is cut short. A
checkpoint counts only once its `sha256.json` lies beside it: Orbax itself does not notice a flipped
byte.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ser_jax.errors import UserError

_MANIFEST = 'sha256.json'
_BESIDE = 'beside.npz'


class Checkpoints:
    """The checkpoint of one kind ('latest' or 'best') in one folder.

    Args:
        directory: where the steps lie, made if missing.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._put_unfinished_aside()
        multihost_utils.sync_global_devices(f'checkpoints {directory}')
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            enable_async_checkpointing=False,
            create=False,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def _put_unfinished_aside(self) -> None:
        """What was never finished must not be taken for a checkpoint; nobody knows its step any more."""
        for folder in self.directory.iterdir():
            if folder.name.isdigit() and not (folder / _MANIFEST).exists():
                os.replace(folder, _empty(folder.with_name(f'unfinished_{folder.name}')))

    @property
    def step(self) -> int | None:
        """Step of the checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, tree, beside: dict[str, np.ndarray] | None = None) -> None:
        """Writes `tree` as the checkpoint of `step`; the previous one goes only after that.

        Args:
            step: training steps made.
            tree: arrays, the same on every process.
            beside: arrays of any shapes, for `read_beside`.

        Raises:
            RuntimeError: Orbax declined to save.
        """
        if self._manager.latest_step() == step:
            return  # resumed between two checkpoints of one step: it holds these very values
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
        try:
            recorded = json.loads((folder / _MANIFEST).read_text())
        except ValueError:
            recorded = {_MANIFEST: 'unreadable'}
        found = _digests(folder)
        damaged = sorted(name for name in recorded if found.get(name) != recorded[name])
        if damaged:
            raise UserError(
                f'checkpoint {folder} is damaged ({damaged[0]}): delete the folder '
                f'{self.directory.parent}, and results.json if it is there, and start again to train '
                'this fold anew'
            )
        if template is None:
            device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            stored = ocp.StandardCheckpointer().metadata(folder / 'default').item_metadata
            template = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
                stored.tree,
            )
        return self._manager.restore(step, args=ocp.args.StandardRestore(template))

    def read_beside(self) -> dict[str, np.ndarray]:
        """What was saved beside the checkpoint; `restore` tells whether it is damaged."""
        path = self.directory / str(self.step) / _BESIDE
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def keep_newest(self) -> None:
        """Deletes all but the newest checkpoint: the fold is finished."""
        if jax.process_index() == 0:
            for folder in self.directory.iterdir():
                if folder.name != str(self.step):
                    shutil.rmtree(folder)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and not path.name.startswith(_MANIFEST)
    }
