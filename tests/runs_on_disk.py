"""Reads, compares and writes run directories; the short training that several files interrupt and resume."""

import json

import numpy as np
import orbax.checkpoint as ocp
from cards import bare_card

from ser_jax.evaluation import summary
from ser_jax.runs.predictions import Predictions, write_predictions
from ser_jax.runtime import files

STEPS, EVERY = 60, 20  # steps of the short training, and between its validations
LABELS = ['angry', 'happy', 'sad']


def command(beeps, workdir, *more):
    """A short training on the beeps; all that give it the same steps share a compiled program."""
    return (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        f'--workdir={workdir}',
        f'--config.steps={STEPS}',
        f'--config.eval_every={EVERY}',
        '--config.patience=20',
        '--config.optimiser.learning_rate=0.02',  # high on purpose: validation also gets worse
        *more,
    )


def parameters(workdir, fold='fold_01'):
    """The best parameters of a fold, by path."""
    folder = workdir / 'checkpoints' / fold / 'best'
    manager = ocp.CheckpointManager(folder.absolute())
    tree = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())
    flat = {}

    def walk(node, path):
        for name, value in node.items():
            if isinstance(value, dict):
                walk(value, f'{path}/{name}')
            else:
                flat[f'{path}/{name}'] = np.asarray(value)

    walk(tree, '')
    return flat


def assert_same(found, expected, folds=('fold_01',)):
    """Compares everything that is reproducible in two runs."""
    cards = [json.loads((folder / 'results.json').read_text()) for folder in (found, expected)]
    for card in cards:
        card.pop('cost')
    assert cards[0] == cards[1]
    names = [f'predictions/{path.name}' for path in (expected / 'predictions').glob('*.csv')]
    for name in ('metrics.jsonl', *names):
        assert (found / name).read_text() == (expected / name).read_text(), name
    for fold in folds:
        one, two = parameters(found, fold), parameters(expected, fold)
        assert one.keys() == two.keys()
        for name, value in two.items():
            np.testing.assert_array_equal(one[name], value, err_msg=f'{fold} {name}')


def make_predictions(seed, n_speakers=5, skill=0.3, each=12, labels=LABELS):
    """Predictions that are mostly right, on the same utterances for every seed and skill."""
    n = n_speakers * each
    truth = np.arange(n) % len(labels)
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(len(labels)), n)
    probabilities[np.arange(n), truth] += skill
    speaker = [f'c/{row // each:02d}' for row in range(n)]
    return Predictions(
        [f'wav/{row:03d}' for row in range(n)],
        [f'fold_{name[2:]}' for name in speaker],
        speaker,
        truth,
        probabilities / probabilities.sum(1, keepdims=True),
    )


def write_run(folder, found, seed=0, labels=LABELS, conditions=('clean',), **changes):
    """Writes the files of a finished run; returns the folder as text."""
    rates = summary.summarise(found, labels, n_bootstrap=50)
    fields = {'corpus': 'c', 'commit': 'a' * 40, 'seed': seed, 'cost': {'train_seconds': 1.0}}
    fields |= {'conditions': dict.fromkeys(conditions, rates)}
    files.write_json(folder / 'results.json', bare_card(labels, **fields | changes))
    for condition in conditions:
        write_predictions(folder / f'predictions/{condition}.csv', found, labels)
    return str(folder)
