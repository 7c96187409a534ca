"""Data parallelism: one mesh over all devices of all processes, and the two ways of running a step on it."""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ser_jax.errors import UserError

AXIS = 'data'  # the mesh axis over which batches are split


def start_processes() -> None:
    """Joins the other processes of a multi-host run, when the environment describes one.

    Must run before any device is touched. Reads JAX_COORDINATOR_ADDRESS (host:port),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; without the first of them there is one process.
    """
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    if address and not jax.distributed.is_initialized():
        try:
            count, number = (int(os.environ[n]) for n in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'))
        except (KeyError, ValueError) as error:
            raise UserError(
                'with JAX_COORDINATOR_ADDRESS set, JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers'
            ) from error
        jax.distributed.initialize(address, count, number)


def make_mesh() -> Mesh:
    """A one-dimensional mesh over every device, the devices of one process side by side.

    `jax.make_mesh` orders devices by their place in the network, which on several hosts would tear
    apart the contiguous rows that each process loads (`local_rows`).
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def local_rows(batch_size: int) -> slice:
    """The rows of a global batch that this process loads."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Splits this process's rows of a batch over its devices.

    Args:
        batch: arrays [rows of this process, ...].
        mesh: of `make_mesh`.

    Returns:
        Global arrays [rows of all processes, ...], split along the first axis.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def replicate(tree, mesh: Mesh):
    """Puts a tree of host arrays on every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(
            sharding, np.asarray(leaf), np.shape(leaf)
        ),
        tree,
    )


def data_parallel(
    function: Callable, mesh: Mesh, parallelism: str, *, donate: bool = False
) -> Callable:
    """Runs `function(state, batch)` on every device's rows of the batch.

    `function` sees the whole state and its own rows, may use collectives over `AXIS`, and must
    return the same values on every device.

    Args:
        function: per-device function of (state, batch).
        mesh: of `make_mesh`.
        parallelism: 'jit' (jit of shard_map) or 'pmap' (in maintenance since JAX 0.8, kept for those who need it).
        donate: let the result reuse the memory of `state`.

    Returns:
        A compiled function of (replicated state, batch split by `to_devices`).
    """
    donated = (0,) if donate else ()
    if parallelism == 'jit':
        # check_vma=False: gradients stay per device until our own psum, exactly as under pmap.
        mapped = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)
    mapped = jax.pmap(
        function,
        AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=mesh.devices.ravel().tolist(),
        donate_argnums=donated,
    )
    devices = jax.local_device_count()

    def call(state, batch):
        rows = {name: np.asarray(jax.device_get(array)) for name, array in batch.items()}
        rows = {
            name: a.reshape(devices, a.shape[0] // devices, *a.shape[1:])
            for name, a in rows.items()
        }
        return mapped(state, rows)

    return call
