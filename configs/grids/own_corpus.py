"""Baselines and systems on a corpus of one's own, one seed: openSMILE, probes on frozen Whisper tiny.en, MTL-AUG.

python -m ser_jax.grid --config=configs/grids/own_corpus.py:csv_corpus/mine

After the corpus, `settings=ravdess` takes RAVDESS's settings instead of EMO-DB's. openSMILE needs the extra [opensmile], whose licence
forbids commercial use.
"""


def get_grid(corpus: str) -> dict:
    """Settings of systems are not chosen on the corpus. The baseline is the probe on clean recordings."""
    if 'settings=' not in corpus:
        corpus += ',settings=emodb'
    mtl_aug = 'configs/mtl_aug.py'
    return {
        'config': 'configs/probe.py',
        'variants': {
            'opensmile': {'argument': f'{corpus},opensmile'},
            'probe': {'argument': corpus},
            'probe_views': {'argument': f'{corpus},views'},
            'mtl_aug_on_frames': {'config': mtl_aug, 'argument': f'{corpus},whisper_tiny'},
            'mtl_aug_from_scratch': {'config': mtl_aug, 'argument': corpus},
            'single_task_from_scratch': {'config': mtl_aug, 'argument': f'{corpus},single_task'},
        },
        'baseline': 'probe',
        'family': 'condition',
    }
