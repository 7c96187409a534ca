"""Speed of prediction on a folder of recordings: python -m benchmarks.prediction --workdir=DIR FOLDER [--out=FILE]

Measures files to probabilities (decoding, features or pretrained encoder, network) and to segments on all cores, without
compilation, and openSMILE's ComParE functionals (no classifier) if the package opensmile is installed. Rounds alternate;
x real time = seconds of audio per second; ratios are medians over the rounds, each relative to openSMILE in the same round.
"""

import importlib.util
import os
import pathlib
import statistics

import soundfile

from benchmarks import timing
from ser_jax.serving.files import find_files, predict_files, timeline_files
from ser_jax.serving.predictor import load

_OPENSMILE = 'openSMILE ComParE'


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--workdir', required=True, help='a finished run of ser_jax.main')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--limit', type=int, default=1000, help='maximum number of files')
    parser.add_argument('folder', type=pathlib.Path)
    options = parser.parse_args()

    files = list(find_files([options.folder]))[: options.limit]
    seconds = sum(soundfile.info(path).duration for path in files)
    predictor = load(options.workdir)
    ways = {'ser_jax.predict': lambda: list(predict_files(predictor, files))}
    if any(task.kind == 'classification' for task in predictor.tasks):
        ways['ser_jax.predict --segments'] = lambda: list(timeline_files(predictor, files))
    if importlib.util.find_spec('opensmile'):
        import opensmile

        functionals = opensmile.Smile(
            opensmile.FeatureSet.ComParE_2016,
            opensmile.FeatureLevel.Functionals,
            num_workers=os.cpu_count(),
        )
        ways[_OPENSMILE] = lambda: functionals.process_files([str(path) for path in files])
    for way in [way for name, way in ways.items() if name != _OPENSMILE]:
        way()  # compiles
    times = timing.alternate(ways, options.rounds)
    rows = {name: seconds / statistics.median(values) for name, values in times.items()}
    print(f'{len(files)} files, {seconds / 60:.1f} min, in {options.folder}')
    for name, speed in rows.items():
        print(f'{name:26} {speed:8.0f} x real time')
    smile, ratios = times.pop(_OPENSMILE, None), {}
    for name, values in times.items() if smile else ():
        ratios[name] = statistics.median(other / own for other, own in zip(smile, values))
        print(f'{name:26} {ratios[name]:8.2f} x openSMILE')
    results = {'times_real_time': rows, 'times_opensmile': ratios}
    timing.write(options.out, model=predictor.model, files=len(files), seconds=seconds, **results)


if __name__ == '__main__':
    main()
