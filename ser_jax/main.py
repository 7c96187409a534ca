"""Trains and evaluates a system: python -m ser_jax.main --config=FILE.py[:CORPUS[,OPTION...]]

python -m ser_jax.main --config=configs/mtl_aug.py                          synthetic speech, two minutes
python -m ser_jax.main --config=configs/mtl_aug.py:demo_speech,smoke        the same in seconds: does it run?
python -m ser_jax.main --config=configs/mtl_aug.py:emodb,single_task --config.seed=1
python -m ser_jax.main --config=configs/mtl_aug.py:emodb '--config.folds=(1, 4)' --workdir=runs/two_folds

--config      a config file; behind the colon a corpus, and options that set several fields at once. An
              option that does not exist is answered with those that do: --config=FILE.py:demo_speech,help
--config.X    changes field X of the config, e.g. --config.optimiser.learning_rate=3e-4, or with quotes
              "--config.labels=('angry', 'sad')". All fields and options: configs/README.md
--workdir     the run's folder; default runs/<config>-<corpus>-<options>-seed<k>. The same folder
              again resumes the run, or, when it is complete, prints its results
--mode        train (and evaluate), or evaluate a finished run again; default train

A corpus that is not prepared is prepared first: from the folder $SER_JAX_MANUAL_DIR/<corpus>, else
downloaded, where its owner lets everybody.

The workdir holds results.json (numbers and all they depend on), predictions/, report/ (figures, report.html),
metrics.jsonl and events/ (curves), checkpoints/, config.json and command.txt.

Other commands, each with --help:
python -m ser_jax.predict         what a trained model says of recordings
python -m ser_jax.export          the trained model as one file, for other programs
python -m ser_jax.report          shows finished runs, or compares two systems
python -m ser_jax.grid            many runs, and their table
python -m tfds_builders.doctor    is a corpus complete and readable?
python -m tfds_builders.build     prepares a corpus
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.listen('the same command goes on from the last checkpoint')

import os
import shlex
import sys
import traceback
import warnings
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ser_jax.runtime.errors import UserError, faults_told, printable
from ser_jax.runtime.files import keep_compiled, local_path

_CONFIG = config_flags.DEFINE_config_file('config', None, 'see above')
_WORKDIR = flags.DEFINE_string('workdir', None, 'see above')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate'], 'see above')


@faults_told()
def main(_: list[str]) -> None:
    """Runs what the flags say."""
    logging.set_verbosity(logging.ERROR)  # JAX and Orbax tell much that is of no use here
    warnings.formatwarning = lambda message, *_: f'warning: {printable(str(message))}\n'
    config = _CONFIG.value
    keep_compiled(config.data.data_dir)
    if config.parallel_runs > 1 and 'device_count' not in os.environ.get('XLA_FLAGS', ''):
        # On a CPU each run gets a device, which is a core; without effect on accelerators.
        os.environ.setdefault('JAX_NUM_CPU_DEVICES', str(config.parallel_runs))
    try:
        workdir = local_path(_WORKDIR.value or default_workdir(config))
        # Slow to import: not before the flags are right.
        import jax

        from ser_jax import train
        from ser_jax.reporting import text
        from ser_jax.reporting.html import page
        from ser_jax.runs.result_card import read_card

        run = train.train_and_evaluate if _MODE.value == 'train' else train.evaluate
        before = read_card(workdir)
        card = run(config, workdir)
        if jax.process_index() == 0:
            if card != before:  # else this command has made nothing of it
                (workdir / 'command.txt').write_text(command(sys.argv) + '\n')
            page.write_page(workdir / 'report' / 'report.html', [workdir])
            print(f'{text.card_table(card)}\nEverything about this run: {workdir}', flush=True)
    except UserError as error:
        sys.exit(f'error: {error}')


def command(argv: list[str]) -> str:
    """The command line without what only says where things lie."""
    where = ('--workdir', '--config.data.data_dir', '--config.data.manual_dir', '--mode')
    words = [shlex.quote(word) for word in argv[1:] if not word.startswith(where)]
    return ' '.join(['python -m ser_jax.main', *words])


def default_workdir(config) -> Path:
    """The folder `runs/<config>-<corpus>-<options>-seed<k>`."""
    words = [config.system, config.corpus.replace('/', '_'), *config.options, f'seed{config.seed}']
    return Path('runs', '-'.join(words))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it ends the program with one line and exit code 2."""
    if any(word in ('-h', '-help', '--help') for word in argv[1:]):
        print(__doc__.strip())
        sys.exit(0)
    config_file = ''
    try:
        for word, following in zip(argv[1:], [*argv[2:], '']):
            if word in ('--config', '-config') or word.startswith(('--config=', '-config=')):
                config_file = (word.partition('=')[2] or following).partition(':')[0]
                if not config_file.endswith('.py') or not Path(config_file).is_file():
                    raise UserError(f'--config={config_file}: no such config file')
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f'unexpected argument {rest[1]!r}: everything is said with --flags')
        if not config_file:
            raise UserError('--config is required, e.g. --config=configs/mtl_aug.py')
        return rest
    except (UserError, flags.Error) as error:
        problem = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if _raised_in(error, config_file):
            raise
        # ml_collections' way of refusing --config.X=Y: its message, without quotes and line breaks
        problem = ' '.join(
            str(error).replace('\\n', ' ').translate(str.maketrans('', '', '\\"\'')).split()
        )
        problem = f'no such field of the config: {problem}'
    print(f'error: {problem}', file=sys.stderr)
    sys.exit(2)


def _raised_in(error: BaseException, file: str) -> bool:
    """Whether an error comes from inside a file: then it is that file's bug, not the command line's."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).absolute() == Path(file).absolute() for frame in frames)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
