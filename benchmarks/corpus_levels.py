"""Levels of the recordings of corpora: python -m benchmarks.corpus_levels emodb ravdess nemo urdu

The level of a recording, in dBFS, is the root mean square over its 20 ms frames within 30 dB of the loudest one: silence does not count. Needs the corpora as waveforms (`python -m tfds_builders.build CORPUS --representation=both`).
"""

import json

import numpy as np

from benchmarks import timing
from ser_jax.data.labels import labels_of
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError

_FRAME = 320  # 20 ms at 16 kHz


def level(samples: np.ndarray) -> float:
    """The level of a recording, int16 [S] of at least 20 ms, in dBFS; raises UserError for digital silence."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME) / 32768
    powers = np.square(frames).mean(1)
    if not powers.any():
        raise UserError('a recording is digital silence: it has no level')
    return 10 * np.log10(powers[powers >= powers.max() / 1000].mean())


def main() -> None:
    """Prints mean and standard deviation of the level by corpus, and its mean by emotion; writes them to `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('corpora', nargs='+')
    parser.add_argument('--data_dir')
    options = parser.parse_args()
    result = {}
    try:
        for name in options.corpora:
            corpus = open_prepared(name, data_dir=options.data_dir, representation='waveform')
            source = corpus.source()
            labels = tuple(corpus.metadata['labels'])
            numbers = labels_of(corpus, np.arange(len(corpus)), 'emotion', labels)
            levels = np.array([level(source[row]) for row in range(len(corpus))])
            result[name] = {
                'corpus_hash': corpus.metadata['corpus_hash'],
                'recordings': len(levels),
                'mean_dbfs': round(float(levels.mean()), 1),
                'std_db': round(float(levels.std()), 1),
                'mean_dbfs_by_emotion': {
                    emotion: round(float(levels[numbers == number].mean()), 1)
                    for number, emotion in enumerate(labels)
                },
            }
            words = (
                '{}: {recordings} recordings, {mean_dbfs} ± {std_db} dBFS; {mean_dbfs_by_emotion}'
            )
            print(words.format(name, **result[name]))
    except UserError as error:
        parser.exit(1, f'corpus_levels: {error}\n')
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
