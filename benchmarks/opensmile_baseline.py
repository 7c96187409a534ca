"""openSMILE ComParE functionals and a support vector machine: python -m benchmarks.opensmile_baseline CORPUS

Folds of the corpus' default protocol; all speakers that are not tested train; standardised on the training speakers; RBF kernel, C = 1
(scikit-learn's default, not tuned), with and without class weights; predictions pooled. Needs the extra [bench] and the corpus in both
representations (`python -m tfds_builders.build CORPUS --representation=both`).
"""

import json
from importlib.metadata import version

import numpy as np

from benchmarks import timing
from ser_jax.data.folds import make_folds
from ser_jax.data.labels import labels_of
from ser_jax.metrics import rates, significance
from ser_jax.prepare import open_prepared


def functionals(corpus, rows: np.ndarray) -> np.ndarray:
    """ComParE 2016 functionals of utterances, [N, 6373]."""
    import opensmile

    smile = opensmile.Smile(
        opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals, num_workers=2
    )
    source = corpus.source()
    return np.concatenate(
        [smile.process_signal(source[row] / np.float32(32768), 16000).to_numpy() for row in rows]
    )


def main() -> None:
    """Prints the UAR and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('corpus')
    parser.add_argument('--data_dir')
    options = parser.parse_args()
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    corpus = open_prepared(options.corpus, data_dir=options.data_dir, representation='waveform')
    names = tuple(corpus.metadata['labels'])
    labels = labels_of(corpus, np.arange(len(corpus)), 'emotion', names)
    rows = np.flatnonzero(labels >= 0)
    features = dict(zip(rows.tolist(), functionals(corpus, rows)))
    folds = make_folds(
        corpus.index,
        corpus.metadata['protocol'],
        rows=rows,
        folds=corpus.metadata['folds'],
        validation=False,
    )
    result = {
        'corpus': corpus.name,
        'corpus_hash': corpus.metadata['corpus_hash'],
        'protocol': corpus.metadata['protocol'],
        'n': len(rows),
        'versions': {name: version(name) for name in ('opensmile', 'scikit-learn')},
    }
    for name, weights in (('svc', None), ('svc_balanced', 'balanced')):
        predicted = np.full(len(corpus), -1)
        for fold in folds:
            machine = make_pipeline(StandardScaler(), SVC(class_weight=weights))
            machine.fit([features[row] for row in fold.train.tolist()], labels[fold.train])
            predicted[fold.test] = machine.predict([features[row] for row in fold.test.tolist()])
        confusion = rates.confusion_matrix(labels[rows], predicted[rows], len(names))
        speakers = corpus.index['speaker'][rows]
        by_speaker = rates.confusion_by_speaker(labels[rows], predicted[rows], speakers, len(names))
        interval = significance.interval(significance.bootstrap_uar(by_speaker[None])[0][:, 0])
        result[name] = {
            'uar': float(rates.uar(confusion)),
            'uar_ci95': interval,
            'wa': float(rates.wa(confusion)),
            'recall': dict(zip(names, rates.recall(confusion).tolist())),
        }
        low, high = interval
        print(
            f'{corpus.name}, {name}: n {len(rows)}, UAR {100 * result[name]["uar"]:.1f} % '
            f'[{100 * low:.1f}, {100 * high:.1f}], WA {100 * result[name]["wa"]:.1f} %'
        )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
