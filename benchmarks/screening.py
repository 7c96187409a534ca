"""Counts the flags of recordings: python -m benchmarks.screening [--out=FILE] FOLDER...

'non_speech' should flag no recording of speech and every recording of noise. Prints a row for each folder and each
subfolder with recordings.
"""

import collections
import pathlib

from benchmarks import timing
from ser_jax.audio.reading import read_audio
from ser_jax.audio.screening import FLAGS, screen
from ser_jax.serving.files import find_files


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('folders', nargs='+', type=pathlib.Path, metavar='FOLDER')
    options = parser.parse_args()
    print(f'{"folder":40}{"files":>8}', *(f'{flag:>12}' for flag in FLAGS))
    counts = collections.defaultdict(collections.Counter)
    for folder in options.folders:
        for path in find_files([folder]):
            inside = path.parent.relative_to(folder.parent).as_posix()
            for name in {folder.name, inside}:
                counts[name].update(['files', *screen(read_audio(path))])
        for name in sorted(name for name in counts if name.split('/')[0] == folder.name):
            numbers = (f'{counts[name][flag]:12}' for flag in FLAGS)
            print(f'{name:40}{counts[name]["files"]:8}', *numbers, flush=True)
    timing.write(options.out, folders={name: dict(found) for name, found in counts.items()})


if __name__ == '__main__':
    main()
