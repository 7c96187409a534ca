"""White-box and transferred attacks on utterances: batches, compiled steps, and the models that attacks are made on."""

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
from ser_jax.data.batches import padded_batches
from ser_jax.data.folds import Fold
from ser_jax.data.tasks import Task
from ser_jax.evaluation.recordings import Waveforms
from ser_jax.models.build import stored_model
from ser_jax.models.encoders.pretrained import EncoderInput, load_input
from ser_jax.models.forward import forward, make_predict_step, normalise, standardised
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import ResultCard
from ser_jax.runs.workdir import run_fingerprint
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json
from ser_jax.training.experiment import Experiment
from ser_jax.transforms import attacks
from ser_jax.transforms.conditions import Attack


class SourceRun:
    """The run on whose models transferred attacks are made, with the same folds.

    Args:
        experiment: dataset and program of the attacked run.
        workdir: `config.attack_source`.

    Attributes:
        model: network of the run.
        front_end: see `forward.network_input`.
        fingerprint: identifies its models.

    Raises:
        UserError: no such run, or one of another corpus, protocol or set of classes.
    """

    def __init__(self, experiment: Experiment, workdir: str):
        self._mesh, dataset = experiment.program.mesh, experiment.dataset
        if not workdir:
            raise UserError(
                'conditions transfer_… need a run to be made on: name its workdir in config.attack_source'
            )
        self._workdir = Path(workdir).expanduser().absolute()
        try:
            stored = read_json(self._workdir / 'config.json', CONFIG | {'reported': [str]})
            card = read_json(self._workdir / 'results.json', ResultCard)
        except FileNotFoundError as error:
            raise UserError(
                f'config.attack_source: {self._workdir} holds no finished run'
            ) from error
        except UserError as error:
            raise UserError(f'config.attack_source: {error}') from error
        own = (
            dataset.corpus.metadata['corpus_hash'],
            list(dataset.labels),
            dataset.protocol,
            {task.name: task.kind for task in dataset.reported},
            {task.name: list(task.classes) for task in dataset.reported},
        )
        tasks = stored['tasks']
        kinds = {name: tasks[name]['kind'] for name in stored['reported'] if name in tasks}
        source = (card['corpus_hash'], card['labels'], card['protocol'], kinds, card.get('tasks'))
        encoder = self._encoder(experiment)
        if card.get('encoder', {}).get('identity') != encoder:
            raise UserError(
                f'config.attack_source: the run in {self._workdir} sees another encoder, or none'
            )
        if source != own:
            raise UserError(
                f'config.attack_source: the run in {self._workdir} has another corpus, protocol, set of classes or tasks'
            )
        self.fingerprint = run_fingerprint(self._workdir)
        self.model = stored_model(stored, {task.name: task.outputs for task in dataset.reported})
        self.front_end = experiment.program.front_end
        if isinstance(self.front_end, EncoderInput):
            self.front_end = load_input(stored['encoder'], stored.get('fine_tune'))
        for fold in dataset.folds:  # before anything is trained
            self._parameters(fold, experiment.statistics(fold.train))

    @staticmethod
    def _encoder(experiment: Experiment) -> str | None:
        encoder = experiment.program.encoder
        return encoder.encoder.identity if encoder else None

    def variables(self, fold: Fold, attacked: dict) -> dict:
        """Its parameters of a fold, with the normalisation of the attacked model, whose input is attacked."""
        constants = jax.device_get(attacked['constants'])
        stored = self._parameters(fold, constants) | {'constants': constants}
        if isinstance(self.front_end, EncoderInput):
            stored['encoder'] = self.front_end.encoder.params
        return devices.replicate(stored, self._mesh)

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
    """Attacks on one kind of input, made on one network and evaluated on the experiment's.

    Args:
        experiment: dataset and program of the attacked run.
        source, front_end: network that the attack is made on, and what it sees, see `forward.network_input`.
        kind: 'standardised' (the network's input) or 'waveform'.
    """

    def __init__(
        self,
        experiment: Experiment,
        source: nn.Module,
        front_end: FrontEnd | EncoderInput | None,
        kind: str,
    ):
        self._experiment, self._kind = experiment, kind
        program, tasks = experiment.program, experiment.dataset.reported
        attack = make_attack_step(source, tasks, kind, front_end)
        predict = make_predict_step(program.model, tasks, devices.AXIS, kind, program.front_end)
        self._attack = program.on_all_devices().compile(attack, returns_rows=True)
        self._predict = program.on_all_devices().compile(predict)

    def predict(
        self,
        attack: Attack,
        variables: dict,
        source: dict,
        rows: np.ndarray,
        waveforms: Waveforms | None,
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Attacks utterances and predicts what results.

        Args:
            attack: parsed call.
            variables: parameters of the attacked network.
            source: parameters of the network that the attack is made on.
            rows: [N] of the corpus.
            waveforms: waveforms of the corpus, for that kind.

        Returns:
            (task -> predictions as `inference.predict` returns them; for waveforms the mean 'perturbation_snr_db').
        """
        dataset, program = self._experiment.dataset, self._experiment.program
        utterances = dataset.utterances(rows)
        lengths, size = utterances.lengths, program.eval_batch_size
        outputs = {
            task.name: np.zeros((len(rows), task.outputs), np.float32) for task in dataset.reported
        }
        ratios = np.full(len(rows), np.nan)
        arrays, padded = utterances, lambda longest: longest
        if waveforms is not None:
            arrays = _Rows(waveforms, rows)
            if program.encoder:
                lengths = np.array([len(arrays[k]) for k in range(len(rows))], np.int32)
            elif program.front_end:  # as many samples as `longest` frames may stand for
                padded = lambda longest: longest * program.front_end.hop_length - 1
        constants = jax.device_get(variables['constants'])
        local = devices.local_rows(size)
        for positions, own, x in padded_batches(arrays, lengths, size, rows=local, padded=padded):
            batch = {'x': x, 'length': lengths[own], 'seed': self._seeds(attack, rows[own])}
            for task in dataset.reported:
                regression = task.kind == 'regression'
                labels = utterances.ratings if regression else utterances.labels
                batch[f'label_{task.name}'] = labels[task.target][own]
            if waveforms is None:
                batch['x'] = normalise(x, constants)
                batch['own'] = batch['length']
            else:
                batch['own'] = np.array([len(arrays[position]) for position in own], np.int32)
            batch = devices.to_devices(batch, program.mesh)
            attacked = self._attacked(attack, source, batch, waveforms is not None)
            inputs = {self._kind: attacked, 'length': batch['length']}
            for name, array in self._predict(variables, inputs).items():
                outputs[name][positions] = np.asarray(array.addressable_shards[0].data)
            if waveforms is not None:
                snr = _local(attacks.perturbation_snr(batch['x'], attacked, batch['own']))
                ratios[positions] = multihost_utils.process_allgather(snr, tiled=True)
        finite = np.isfinite(ratios)
        facts = {'perturbation_snr_db': float(ratios[finite].mean())} if finite.any() else {}
        return outputs, facts

    def _seeds(self, attack: Attack, rows: np.ndarray) -> np.ndarray:
        """One seed an utterance: all systems, seeds and epsilons start at the same random points."""
        ids = self._experiment.dataset.corpus.index['id'][rows]
        return np.array([zlib.crc32(f'{attack.name} {name}'.encode()) for name in ids], np.uint32)

    def _attacked(self, attack, source, batch, waveform: bool) -> jax.Array:
        """The attacked inputs [B, …]."""
        x = batch['x']
        mask = jnp.arange(x.shape[1]) < batch['own'][:, None]
        lowest, highest = (-1.0, 1.0) if waveform else (-np.inf, np.inf)
        labels = {name: batch[name] for name in batch if name.startswith(('label_', 'length'))}

        def step(x, lower, upper, size):
            sizes = jnp.full_like(batch['seed'], size, dtype=jnp.float32)
            moving = {'x': x, 'lower': lower, 'upper': upper, 'size': sizes}
            return self._attack(source, moving | labels)['x']

        def loss(x):
            still = {'x': x, 'lower': x, 'upper': x, 'size': jnp.zeros(len(x))}
            return self._attack(source, still | labels)['loss']

        problem = attacks.Problem(
            x,
            step,
            loss,
            keys=jax.vmap(jax.random.key)(batch['seed']),
            mask=mask.reshape(*mask.shape, *[1] * (x.ndim - 2)),
            lowest=lowest,
            highest=highest,
        )
        return attacks.ATTACKS[attack.name](problem, *attack.arguments)


class _Rows:
    """Some waveforms of a corpus by position."""

    def __init__(self, waveforms: Waveforms, rows: np.ndarray):
        self._waveforms, self._rows = waveforms, rows

    def __getitem__(self, position: int) -> np.ndarray:
        return self._waveforms[self._rows[position]]


def _local(array: jax.Array) -> np.ndarray:
    """The rows of this process of a global array, in order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def make_attack_step(
    model: nn.Module,
    tasks: tuple[Task, ...],
    kind: str,
    front_end: FrontEnd | EncoderInput | None,
) -> Callable:
    """Builds `attack_step(variables, batch) -> {'x', 'loss'}`: one step uphill for each row.

    Args:
        model: network that is attacked.
        tasks: tasks whose summed losses are climbed: cross-entropy, or the squared error of a standardised rating.
        kind, front_end: see `forward.network_input`; the kind is that of 'x'.

    Returns:
        The step. Its batch has 'x' and its bounds 'lower' and 'upper' [B, ...], 'size' [B] (equal), 'length' int [B] and
        'label_<task>' [B], int, −1 = none, or a rating, NaN = none; it returns the moved 'x' and the 'loss' [B] that x had
        before.
    """

    def attack_step(variables, batch):
        def loss(x):
            outputs = forward(model, variables, x, batch['length'], kind, front_end)
            total = 0.0
            for task in tasks:
                labels, output = batch[f'label_{task.name}'], outputs[task.name]
                if task.kind == 'regression':
                    scale = variables['constants']['ratings'][task.name]
                    # NaN before the square, not after: its gradient would be NaN, too.
                    error = jnp.where(
                        jnp.isfinite(labels), standardised(labels, scale) - output[:, 0], 0.0
                    )
                    total += error**2
                else:
                    entropy = optax.softmax_cross_entropy_with_integer_labels(output, labels)
                    total += jnp.where(labels >= 0, entropy, 0.0)
            return total.sum(), total

        gradient, before = jax.grad(loss, has_aux=True)(batch['x'])
        size = batch['size'].reshape(-1, *[1] * (batch['x'].ndim - 1))
        x = attacks.ascend(batch['x'], lambda _: gradient, batch['lower'], batch['upper'], size)
        return {'x': x, 'loss': before}

    return attack_step
