"""The general model: which probe on frozen Whisper tiny.en carries over to a corpus unseen in training; one seed.

python -m ser_jax.grid --config=configs/grids/general.py     (needs emodb, ravdess, nemo)

Every corpus is tested after training on each of the others, and after training on both. The choice for a corpus looks at the runs
on the others only: that corpus neither trains nor is tested in them. probe_noise_views was added
after the others had been tested. MTL-AUG on frames was given up after two of nine rounds: it was behind and slow.
"""

_CORPORA = 'emodb', 'ravdess', 'nemo'
_CHANGES = {
    'labels': ('angry', 'happy', 'neutral', 'sad'),
    'protocol': 'leave_corpus_out()',
    'balanced_draws': True,
    'final': False,
}
_CONDITIONS = {'conditions': ('telephone', "noise('pink', 5)", 'gain(-20)')}


def _setting(tested: str, trained: tuple[str, ...]) -> dict:
    conditions = _CONDITIONS if len(trained) > 1 else {}
    changes = {**_CHANGES, 'labelled': trained, **conditions}
    return {'argument': f'{tested},no_validation,settings=emodb', 'changes': changes}


def get_grid() -> dict:
    """Settings are TESTED_from_TRAINED; the baseline is the probe on clean recordings."""
    rounds = []
    for tested in _CORPORA:
        others = tuple(name for name in _CORPORA if name != tested)
        rounds += [(tested, others), *((tested, (name,)) for name in others)]
    return {
        'config': 'configs/probe.py',
        'settings': {
            f'{tested}_from_{"_".join(trained)}': _setting(tested, trained)
            for tested, trained in rounds
        },
        'variants': {
            'probe': {},
            'probe_views': {'argument': 'views'},
            # Without the views of one kind: slower, faster, limited band, room.
            'probe_noise_views': {
                'argument': 'views',
                'changes': {
                    'augmentations': (
                        'noise(0, 25)',
                        'gain(-25, 10) + filter_augment(12)',
                        'speed(0.8, 1.25) + filter_augment(12) + gain(-25, 10) + noise(5, 25)',
                    )
                },
            },
        },
        'seeds': (0,),
        'baseline': 'probe',
        'family': 'condition',
    }
