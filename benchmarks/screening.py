"""How often prediction would flag recordings: python -m benchmarks.screening FOLDER...

A folder of speech should have none called 'non_speech', one of noise all. Prints a row a folder, and of a folder with subfolders
one for each of these.
"""

import argparse
import collections
import pathlib

from ser_jax.audio import read_audio
from ser_jax.predict import find_files
from ser_jax.screening import FLAGS, screen


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folders', nargs='+', type=pathlib.Path, metavar='FOLDER')
    options = parser.parse_args()
    print(f'{"folder":32}{"files":>8}', *(f'{flag:>12}' for flag in FLAGS))
    for folder in options.folders:
        counts = collections.defaultdict(collections.Counter)
        for path in find_files([folder]):
            within = path.relative_to(folder).parts
            found = screen(read_audio(path))
            for name in {folder.name, '  ' + within[0] if within[1:] else folder.name}:
                counts[name].update(['files', *found])
        for name in sorted(counts, key=lambda name: (name.startswith(' '), name)):
            numbers = (f'{counts[name][flag]:12}' for flag in FLAGS)
            print(f'{name:32}{counts[name]["files"]:8}', *numbers)


if __name__ == '__main__':
    main()
