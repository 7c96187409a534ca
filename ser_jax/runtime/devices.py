"""Devices: processes of a multi-host run, mesh, and placement of a step.

A placement spreads each batch over all devices (`DataParallel`), or gives each of several runs a device of its own
(`ParallelRuns`). Both `compile` a per-device function of (state, batch), `pack` the states of the runs, move their batches
`to_devices`, and slice one run out of a result (`run_of`).
"""

import os
import warnings
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ser_jax.runtime.errors import UserError

AXIS = 'data'  # the mesh axis over which batches are split
_EXCHANGE_EVERY = 10
# Seconds without a heartbeat after which a process counts as dead; the others then end, too.
_DEAD_AFTER = 30


def start_processes() -> None:
    """Joins the other processes of a multi-host run, when the environment describes one.

    Must run before any device is touched. With SER_JAX_PROCESSES=auto, and where TPU_WORKER_HOSTNAMES names several
    hosts, JAX asks the platform for them (TPU slices, Slurm, Open MPI). Else reads JAX_COORDINATOR_ADDRESS
    (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID; without the first of them there is one process.

    Raises:
        UserError: SER_JAX_PROCESSES=auto on no such platform, or an incomplete JAX_COORDINATOR_ADDRESS.
    """
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    if jax.distributed.is_initialized():
        return
    # The service would take over SIGTERM, which `signals` handles.
    jax.config.update('jax_enable_preemption_service', False)
    if address:
        try:
            count, number = (int(os.environ[n]) for n in ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'))
        except (KeyError, ValueError) as error:
            raise UserError(
                'with JAX_COORDINATOR_ADDRESS set, JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers'
            ) from error
        jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=_DEAD_AFTER)
    elif _platform_knows():
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=_DEAD_AFTER)
        except ValueError as error:
            raise UserError(
                f'SER_JAX_PROCESSES=auto, but JAX finds no other processes here: {error}'
            ) from error


def check_devices() -> None:
    """Finds the devices, after `start_processes`.

    Raises:
        UserError: there is none of the wanted platform, or JAX computes in 64 bits.
    """
    if jax.config.jax_enable_x64:
        raise UserError('ser_jax computes in 32 bits: unset JAX_ENABLE_X64 (jax_enable_x64)')
    try:
        jax.devices()
    # The second is what a wanted platform without a plugin leads to.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition('(set JAX_PLATFORMS')[0].strip()
        wanted = jax.config.jax_platforms
        problem = (
            f'JAX finds no device (JAX_PLATFORMS={wanted})' if wanted else 'JAX finds no device'
        )
        raise UserError(
            f'{problem}: {reason or "no plugin for this platform is installed"}; unset JAX_PLATFORMS to use what there is, '
            'or set it to cpu'
        ) from error


def _platform_knows() -> bool:
    hosts = os.environ.get('TPU_WORKER_HOSTNAMES', '')
    return os.environ.get('SER_JAX_PROCESSES') == 'auto' or ',' in hosts


def on_cpu() -> bool:
    """Whether programs run on CPUs."""
    return jax.default_backend() == 'cpu'


def is_main_process() -> bool:
    """Whether this is process 0; touches no device where there is one process."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def any_process(wanted: bool, step: int) -> bool:
    """Whether `wanted` is true in any process; all processes must call it, and get the same result.

    Args:
        wanted: value of this process.
        step: the same in all processes. An exchange keeps the devices waiting: with several processes it takes place every
            tenth step only, and the result is False in between.
    """
    if jax.process_count() == 1:
        return wanted
    return step % _EXCHANGE_EVERY == 0 and bool(
        multihost_utils.process_allgather(np.asarray(wanted)).any()
    )


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
    """Splits this process's rows of a batch, [rows of this process, ...], over its devices.

    Returns global arrays [rows of all processes, ...], split along the first axis.
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


class DataParallel:
    """One run at a time, its batches split over all devices of a mesh.

    Args:
        mesh: device mesh, see `make_mesh`.
        parallelism: 'jit' (jit of shard_map) or 'pmap' (in maintenance since JAX 0.8, kept for those who need it).
    """

    runs = 1

    def __init__(self, mesh: Mesh, parallelism: str = 'jit'):
        self.mesh = mesh
        self._parallelism = parallelism

    def compile(
        self, function: Callable, *, donate: bool = False, returns_rows: bool = False
    ) -> Callable:
        """Runs `function(state, batch)` on every device's rows of the batch.

        `function` sees the whole state and its own rows, may use collectives over `AXIS`, and must
        return the same values on every device, or rows of a batch.

        Args:
            function: per-device function of (state, batch).
            donate: let the result reuse the memory of `state`.
            returns_rows: the result is split like the batch.

        Returns:
            A compiled function of (replicated state, batch split by `to_devices`).
        """
        donated = (0,) if donate else ()
        if self._parallelism == 'jit':
            # check_vma=False: gradients stay per device until our own psum, exactly as under pmap.
            mapped = jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
                out_specs=PartitionSpec(AXIS) if returns_rows else PartitionSpec(),
                check_vma=False,
            )
            return jax.jit(mapped, donate_argnums=donated)
        mapped = jax.pmap(
            function,
            AXIS,
            in_axes=(None, 0),
            out_axes=0 if returns_rows else None,
            devices=self.mesh.devices.ravel().tolist(),
            donate_argnums=donated,
        )
        devices = self.mesh.size  # pmap is for one process

        def call(state, batch):
            rows = {name: np.asarray(jax.device_get(array)) for name, array in batch.items()}
            rows = {
                name: a.reshape(devices, a.shape[0] // devices, *a.shape[1:])
                for name, a in rows.items()
            }
            result = mapped(state, rows)
            if returns_rows:
                result = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), result)
            return result

        return call

    def pack(self, states: list):
        """The state of the one run, as a compiled function takes it."""
        return states[0]

    def to_devices(self, batches: list[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
        """Splits the rows of this process over its devices."""
        return to_devices(batches[0], self.mesh)

    def run_of(self, tree, number: int):
        """Slices one run out of a result: here the whole result."""
        return tree


class ParallelRuns:
    """Several runs side by side in one program, each whole on one device; no device waits for another.

    Args:
        runs: number of runs, a multiple of the devices.

    Attributes:
        mesh: the first device, for everything that is not done for all runs at once.
    """

    def __init__(self, runs: int):
        # A run's own collectives go over the second axis, of size 1.
        self._mesh = Mesh(np.array(jax.devices()).reshape(-1, 1), ('runs', AXIS))
        self.mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,), axis_types=(AxisType.Auto,))
        self.runs = runs

    def compile(
        self, function: Callable, *, donate: bool = False, returns_rows: bool = False
    ) -> Callable:
        """Runs `function(state, batch)` for every run; all that it takes and returns has a leading axis [runs]."""
        del returns_rows  # everything is split by runs
        each = jax.vmap(function)
        if self.runs == self._mesh.size:
            # vmap over one run would still make its convolutions grouped ones, which are slow on CPU.
            each = lambda state, batch: jax.tree.map(
                lambda x: x[None], function(*jax.tree.map(lambda x: x[0], (state, batch)))
            )
        spread = PartitionSpec('runs')
        mapped = jax.shard_map(
            each,
            mesh=self._mesh,
            in_specs=(spread, spread),
            out_specs=spread,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=(0,) if donate else ())

    def pack(self, states: list):
        """Stacks the states of up to `runs` runs; copies of the last one fill the places left."""
        return self._stack(jax.device_get(states))

    def to_devices(self, batches: list[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
        """Stacks the batches of up to `runs` runs; copies of the last one fill the places left."""
        return self._stack(batches)

    def _stack(self, trees: list):
        trees = [*trees, *[trees[-1]] * (self.runs - len(trees))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        return jax.device_put(stacked, NamedSharding(self._mesh, PartitionSpec('runs')))

    def run_of(self, tree, number: int):
        """Slices one run out of a result, onto the host."""
        return jax.tree.map(lambda leaf: leaf[number], jax.device_get(tree))


def make_placement(
    parallelism: str, runs: int, batch_sizes: Mapping[str, int]
) -> DataParallel | ParallelRuns:
    """Where the training of a run takes place.

    Args:
        parallelism: 'jit' or 'pmap'.
        runs: folds trained side by side (`config.parallel_runs`).
        batch_sizes: field of the config -> rows of a batch that all devices share.

    Raises:
        UserError: the devices cannot share the batches or the runs.
    """
    n_devices = jax.device_count()
    if parallelism == 'pmap' and jax.process_count() > 1:
        raise UserError("config.parallelism='pmap' runs in one process only; use 'jit'")
    if runs == 1:
        for name, size in batch_sizes.items():
            if size % n_devices:
                raise UserError(
                    f'config.{name} is {size}, which {n_devices} devices cannot share equally'
                )
        return DataParallel(make_mesh(), parallelism)
    if jax.process_count() > 1 or parallelism == 'pmap':
        raise UserError('config.parallel_runs above 1 needs one process and config.parallelism=jit')
    if runs % n_devices:
        raise UserError(
            f'config.parallel_runs is {runs}, which {n_devices} devices cannot share equally'
        )
    if runs > n_devices and on_cpu():
        warnings.warn(
            f'config.parallel_runs={runs} on {n_devices} CPU device(s) is slower than one run after the other: set '
            f'JAX_NUM_CPU_DEVICES={runs} before JAX starts',
            stacklevel=2,
        )
    return ParallelRuns(runs)
