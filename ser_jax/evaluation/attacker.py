"""Runs attacks on utterances: batches, compiled steps, and the models that attacks are made on."""

import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.experimental import multihost_utils

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data import batches
from ser_jax.data.folds import Fold
from ser_jax.data.tasks import Task
from ser_jax.evaluation.recordings import Waveforms
from ser_jax.models import forward
from ser_jax.models.build import stored_model
from ser_jax.models.forward import outputs_of, standardised
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import ResultCard
from ser_jax.runs.workdir import run_fingerprint
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json
from ser_jax.training.experiment import Experiment
from ser_jax.transforms import attacks


class SourceRun:
    """The run on whose models transferred attacks are made: `config.attack_source`, with the same folds.

    Args:
        experiment: of the attacked run.

    Attributes:
        model: its network.
        fingerprint: tells its models from those of another run.

    Raises:
        UserError: no such run, or one of another corpus, protocol or set of classes.
    """

    def __init__(self, experiment: Experiment):
        config, self._experiment = experiment.config, experiment
        if not config.attack_source:
            raise UserError(
                'conditions transfer_… need a run to be made on: name its workdir in config.attack_source'
            )
        self._workdir = Path(config.attack_source).expanduser().absolute()
        try:
            stored = read_json(self._workdir / 'config.json', CONFIG | {'reported': [str]})
            card = read_json(self._workdir / 'results.json', ResultCard)
        except FileNotFoundError as error:
            raise UserError(
                f'config.attack_source: {self._workdir} holds no finished run'
            ) from error
        except UserError as error:
            raise UserError(f'config.attack_source: {error}') from error
        mine = (
            experiment.corpus.metadata['corpus_hash'],
            list(experiment.labels),
            experiment.protocol,
            {task.name: task.kind for task in experiment.reported},
            {task.name: list(task.classes) for task in experiment.reported},
        )
        told = stored['tasks']
        kinds = {name: told[name]['kind'] for name in stored['reported'] if name in told}
        theirs = (card['corpus_hash'], card['labels'], card['protocol'], kinds, card.get('tasks'))
        if theirs != mine:
            raise UserError(
                f'config.attack_source: the run in {self._workdir} has another corpus, protocol, set of classes or tasks'
            )
        self.fingerprint = run_fingerprint(self._workdir)
        self.model = stored_model(stored, {task.name: task.outputs for task in experiment.reported})
        for fold in experiment.folds:  # before anything is trained
            self._parameters(fold, experiment.constants(fold.train))

    def variables(self, fold: Fold, own: dict) -> dict:
        """Its parameters of a fold, with the normalisation of the attacked model, whose input is attacked."""
        constants = jax.device_get(own['constants'])
        stored = self._parameters(fold, constants) | {'constants': constants}
        return devices.replicate(stored, self._experiment.mesh)

    def _parameters(self, fold: Fold, constants: dict) -> dict:
        folder = self._workdir / 'checkpoints' / fold.name / 'best'
        if not folder.is_dir():
            raise UserError(f'config.attack_source: {self._workdir} has no model of {fold.name}')
        stored = Checkpoints(folder, read_only=True).restore()
        if not all(
            np.allclose(constants[name], stored['constants'][name], atol=1e-4)
            for name in ('mean', 'std')
        ):
            raise UserError(
                f'config.attack_source: {fold.name} of {self._workdir} was trained on other utterances'
            )
        return jax.device_get(stored)


class Attacker:
    """Attacks on one kind of input, made on one network and suffered by the experiment's.

    Args:
        experiment: of the attacked run.
        source: network that the attack is made on.
        kind: 'standardised' (what the network sees) or 'waveform'.
    """

    def __init__(self, experiment: Experiment, source: nn.Module, kind: str):
        self._experiment, self._kind = experiment, kind
        placement = devices.DataParallel(experiment.mesh, experiment.config.parallelism)
        tasks = experiment.reported
        attack = make_attack_step(source, tasks, kind, experiment.front_end)
        predict = forward.make_predict_step(
            experiment.model, tasks, devices.AXIS, kind, experiment.front_end
        )
        self._attack = placement.compile(attack, returns_rows=True)
        self._predict = placement.compile(predict)

    def predict(
        self,
        attack: attacks.Attack,
        variables: dict,
        source: dict,
        rows: np.ndarray,
        waveforms: Waveforms | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Attacks utterances and asks the experiment's network what they are now.

        Args:
            attack: parsed call.
            variables: of the attacked network.
            source: of the network that the attack is made on.
            rows: [N] of the corpus.
            waveforms: of the corpus, for that kind.

        Returns:
            (task -> what `inference.predict` returns; for waveforms the mean 'perturbation_snr_db').
        """
        experiment = self._experiment
        utterances = experiment.utterances(rows)
        size = experiment.config.eval_batch_size
        answers = {
            task.name: np.zeros((len(rows), task.outputs), np.float32)
            for task in experiment.reported
        }
        ratios = np.full(len(rows), np.nan)
        constants = jax.device_get(variables['constants'])
        for longest, positions in batches.buckets(utterances.lengths, size):
            mine = positions[devices.local_rows(size)]
            host = {
                'length': utterances.lengths[mine],
                'seed': self._seeds(attack, rows[mine]),
            }
            for task in experiment.reported:
                labels = utterances.labels
                if task.kind == 'regression':
                    labels = utterances.ratings
                host[f'label_{task.name}'] = labels[task.target][mine]
            if waveforms is None:
                arrays = [batches.pad(utterances[position], longest) for position in mine]
                host['x'] = (np.stack(arrays) - constants['mean']) / constants['std']
                host['own'] = host['length']
            else:
                signals = [waveforms[rows[position]] for position in mine]
                samples = longest
                if experiment.front_end:  # as many as `longest` frames may stand for
                    samples = longest * experiment.front_end.hop_length - 1
                host['x'] = np.stack([batches.pad(signal, samples) for signal in signals])
                host['own'] = np.array([len(signal) for signal in signals], np.int32)
            batch = devices.to_devices(host, experiment.mesh)
            moved = self._moved(attack, source, batch, waveforms is not None)
            inputs = {self._kind: moved, 'length': batch['length']}
            result = self._predict(variables, inputs)
            for name, array in result.items():
                answers[name][positions] = np.asarray(array.addressable_shards[0].data)
            if waveforms is not None:
                local = _local(attacks.perturbation_snr(batch['x'], moved, batch['own']))
                ratios[positions] = multihost_utils.process_allgather(local, tiled=True)
        finite = np.isfinite(ratios)
        facts = {'perturbation_snr_db': float(ratios[finite].mean())} if finite.any() else {}
        return answers, facts

    def _seeds(self, attack: attacks.Attack, rows: np.ndarray) -> np.ndarray:
        """One number an utterance: systems, seeds and epsilons begin at the same random points."""
        ids = self._experiment.corpus.index['id'][rows]
        return np.array([zlib.crc32(f'{attack.name} {name}'.encode()) for name in ids], np.uint32)

    def _moved(self, attack, source, batch, waveform: bool) -> jax.Array:
        """The attacked inputs [B, …]."""
        x = batch['x']
        own = jnp.arange(x.shape[1]) < batch['own'][:, None]
        extremes = (-1.0, 1.0) if waveform else (-np.inf, np.inf)
        ask = {name: batch[name] for name in batch if name.startswith(('label_', 'length'))}

        def step(x, lower, upper, size):
            sizes = jnp.full_like(batch['seed'], size, dtype=jnp.float32)
            moving = {'x': x, 'lower': lower, 'upper': upper, 'size': sizes}
            return self._attack(source, moving | ask)['x']

        def loss(x):
            still = {'x': x, 'lower': x, 'upper': x, 'size': jnp.zeros(len(x))}
            return self._attack(source, still | ask)['loss']

        problem = attacks.Problem(
            x,
            step,
            loss,
            keys=jax.vmap(jax.random.key)(batch['seed']),
            mask=own.reshape(*own.shape, *[1] * (x.ndim - 2)),
            lowest=extremes[0],
            highest=extremes[1],
        )
        return attacks.ATTACKS[attack.name][0](problem, *attack.arguments)


def _local(array: jax.Array) -> np.ndarray:
    """This process's rows of a global array, in order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def make_attack_step(
    model: nn.Module, tasks: tuple[Task, ...], kind: str, front_end: FrontEnd | None
) -> Callable:
    """Builds `attack_step(variables, batch) -> {'x', 'loss'}`: one step uphill for each row.

    Args:
        model: the network that is attacked.
        tasks: those whose summed losses are climbed: cross-entropy, or the squared error of a standardised rating.
        kind, front_end: see `network_input`; the kind is that of 'x'.

    Returns:
        The step. Its batch has 'x' and its bounds 'lower' and 'upper' [B, ...], 'size' [B] (equal), 'length' int [B] and
        'label_<task>' [B], int, −1 = none, or a rating, NaN = none; it returns the moved 'x' and the 'loss' [B] that x had
        before.
    """

    def attack_step(variables, batch):
        def loss(x):
            outputs = outputs_of(model, variables, batch, x, kind, front_end)
            each = 0.0
            for task in tasks:
                labels, output = batch[f'label_{task.name}'], outputs[task.name]
                if task.kind == 'regression':
                    scale = variables['constants']['ratings'][task.name]
                    # NaN before the square, not after: its gradient would be NaN, too.
                    error = jnp.where(
                        jnp.isfinite(labels), standardised(labels, scale) - output[:, 0], 0.0
                    )
                    each += error**2
                else:
                    own = optax.softmax_cross_entropy_with_integer_labels(output, labels)
                    each += jnp.where(labels >= 0, own, 0.0)
            return each.sum(), each

        gradient, each = jax.grad(loss, has_aux=True)(batch['x'])
        size = batch['size'].reshape(-1, *[1] * (batch['x'].ndim - 1))
        x = attacks.ascend(batch['x'], lambda _: gradient, batch['lower'], batch['upper'], size)
        return {'x': x, 'loss': each}

    return attack_step
