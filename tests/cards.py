"""Made-up predictions and result cards, and runs stored as in results/."""

import dataclasses
from pathlib import Path

import numpy as np

from ser_jax.evaluation import summary
from ser_jax.runs import result_card, stored
from ser_jax.runs.predictions import Predictions, write_predictions
from ser_jax.runtime import files

LABELS = ['angry', 'happy', 'neutral', 'sad']


def predictions(seed=0, n_folds=5, each=30, n_classes=4, corpus='emodb'):
    """Predictions better than chance; fold f tests speaker f."""
    rng = np.random.default_rng(seed)
    n = n_folds * each
    label = rng.integers(n_classes, size=n)
    probabilities = rng.dirichlet(np.ones(n_classes), n)
    probabilities[np.arange(n), label] += 0.3
    fold = np.repeat(np.arange(1, n_folds + 1), each)
    return Predictions(
        [f'wav/{row:04d}' for row in range(n)],
        [f'fold_{number:02d}' for number in fold],
        [f'{corpus}/{number:02d}' for number in fold],
        label,
        probabilities / probabilities.sum(1, keepdims=True),
    )


def take(whole, rows):
    """Some rows of predictions."""
    fields = [field.name for field in dataclasses.fields(whole)]
    return Predictions(*(getattr(whole, name)[rows] for name in fields))


def bare_card(labels=LABELS, **fields):
    """A result card with some fields, the others made up."""
    defaults = {
        'system': 'mtl_aug',
        'config_hash': 'c0ffee',
        'config': {},
        'corpus': 'emodb',
        'corpus_hash': 'beef',
        'synthetic': False,
        'labels': labels,
        'tasks': {'emotion': labels},
        'protocol': 'leave_one_speaker_out()',
        'n_folds': (5, 5),
        'commit': 'c0ffee',
        'versions': {'jax': '1'},
        'device': '1 × cpu (2 cores, X)',
        'seed': 0,
        'n_params': 1_104_123,
        'leak_check': {'speakers': 0, 'audio': 0, 'ids': 0, 'scripts': 10},
    }
    trained_on = [fields.get('corpus', defaults['corpus'])]
    return result_card.make_card(**defaults | {'trained_on': trained_on} | fields)


def card(seed=0, labels=LABELS, conditions=None, **changes):
    """A made-up result card with results on clean speech."""
    clean = summary.summarise(predictions(seed, n_classes=len(labels)), labels, n_bootstrap=500)
    fields = {
        'seed': seed,
        'trained_on': ['emodb'],
        'conditions': {'clean': clean, **(conditions or {})},
        'cost': {
            'train_seconds': 100.0 + 20 * seed,
            'compile_seconds': 20.1,
            'utterances_per_second': 212.3,
            'peak_memory_mb': 812.2,
            'data_wait_fraction': 0.012,
        },
    }
    return bare_card(labels, **fields | changes)


def store(folder, runs):
    """Stores runs: name -> (card, condition -> predictions)."""
    command = 'python -m ser_jax.main --config.seed={}'
    made = {
        name: stored.StoredRun(
            made, command.format(made['seed']), {key: (one, LABELS) for key, one in tested.items()}
        )
        for name, (made, tested) in runs.items()
    }
    stored.write(folder, made)


def unpack(path: Path, folder: Path) -> Path:
    """Writes a stored run as a run directory."""
    kept, name = stored.find(path)
    card = kept.card(name)
    files.write_json(folder / 'results.json', card)
    for condition in card['conditions']:
        predictions, labels = kept.predictions(name, condition)
        write_predictions(folder / 'predictions' / f'{condition}.csv', predictions, labels)
    return folder
