"""Four corpora in four languages: one model per source, tested on the others; three seeds.

python -m ser_jax.grid --config=configs/grids/cross_corpus.py     (needs emodb, ravdess, nemo, urdu)

German, English, Polish and Urdu; the four emotions that all of them share. Also writes matrix.md and matrix.png.
"""

_CORPORA = ('emodb', 'ravdess', 'nemo', 'urdu')
_LABELS = ('angry', 'happy', 'neutral', 'sad')
_ADAPTED = {'target_statistics': True, 'few_shot': (0, 5, 10, 15), 'few_shot_speakers': (0, 0.25)}


def _train_on(*corpora: str, **more) -> dict:
    return {
        'argument': f'{corpora[0]},no_validation',
        'changes': {
            'labels': _LABELS,
            'protocol': 'whole_corpus()',
            'labelled': corpora[1:],
            'test_corpora': tuple(name for name in _CORPORA if name not in corpora),
            **_ADAPTED,
            **more,
        },
    }


def get_grid() -> dict:
    """Settings are the sources: each corpus, and three together."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            **{name: _train_on(name) for name in _CORPORA},
            # More utterances: more steps.
            'emodb+ravdess+nemo': _train_on('emodb', 'ravdess', 'nemo', steps=2400),
        },
        'variants': {'full': {}, 'single_task': {'argument': 'single_task'}},
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
