"""Trains and evaluates a system: python -m ser_jax.main --config=FILE.py[:CORPUS[,OPTION...]]

python -m ser_jax.main --config=configs/mtl_aug.py                          synthetic speech, two minutes
python -m ser_jax.main --config=configs/mtl_aug.py:demo_speech,smoke        the same, shrunk to seconds
python -m ser_jax.main --config=configs/mtl_aug.py:emodb,single_task --config.seed=1
python -m ser_jax.main --config=configs/mtl_aug.py:emodb '--config.folds=(1, 4)' --workdir=runs/two_folds

--config      config file; after the colon a corpus, and options that set several fields at once.
              --config=FILE.py:demo_speech,help lists the options; settings=CORPUS is the one to take the settings
              of another corpus. A corpus without settings takes those of emodb or ravdess, by its
              size, where they suit the system
--config.X    value of field X of the config, e.g. --config.optimiser.learning_rate=3e-4, or with quotes
              "--config.labels=('angry', 'sad')". All fields and options: configs/README.md
--workdir     run directory; default runs/<config>-<corpus>-<options>-seed<k>. An unfinished run in it is
              resumed; of a finished one the results are printed
--mode        train (and evaluate), or evaluate a finished run again; default train

A corpus that is not prepared is prepared first: from the folder $SER_JAX_MANUAL_DIR/<corpus>, or by a
download where its licence permits.

The run directory holds results.json (all results and what they depend on), predictions/, report/ (figures,
report.html), metrics.jsonl and events/ (curves), checkpoints/, config.json and command.txt.

Exit status: 0; 1 for an error, 2 for a wrong flag, each with one line on stderr; 130, 143 or 129 after
Ctrl-C, SIGTERM or SIGHUP, within 8 seconds and after a checkpoint: the same command resumes exactly.

Other commands, each with --help:
python -m ser_jax.predict         predictions of a trained model for recordings
python -m ser_jax.demo            a page on this machine that predicts recordings
python -m ser_jax.export          a trained model as files for other programs
python -m ser_jax.report          results of finished runs; compares two systems
python -m ser_jax.grid            many runs and their table
python -m ser_jax.encode          outputs of a pretrained encoder
python -m ser_jax.general         trains the general model again
python -m tfds_builders.doctor    checks that a corpus is complete and readable
python -m tfds_builders.build     prepares a corpus
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command resumes from the last checkpoint')

import os
import re
import shlex
import sys
import traceback
from pathlib import Path

import ml_collections
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.config import (
    RECIPE_SIZES,
    add_recipe,
    check_config,
    name_network,
    parse_config,
    recipe,
    unknown_field,
)
from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, library_path, set_compilation_cache
from ser_jax.runtime.schema import read_json

_CONFIG = config_flags.DEFINE_config_file('config', None, 'see above')
_WORKDIR = flags.DEFINE_string('workdir', None, 'see above')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate'], 'see above')


@report_errors()
def main(_: list[str]) -> None:
    """Trains or evaluates the run that the flags describe, and prints its results."""
    logging.set_verbosity(logging.ERROR)  # JAX and Orbax log much that does not help users
    config = _CONFIG.value
    set_compilation_cache(config.data.data_dir)
    if config.parallel_runs > 1 and 'device_count' not in os.environ.get('XLA_FLAGS', ''):
        # One CPU device, that is one core, for each run; without effect on accelerators.
        os.environ.setdefault('JAX_NUM_CPU_DEVICES', str(config.parallel_runs))
    try:
        given = _WORKDIR.value or default_workdir(config)
        workdir = library_path(given)
        config = _with_recipe(config, workdir)
        # Slow imports, hence after the flags have been checked.
        from ser_jax import train
        from ser_jax.reporting import text
        from ser_jax.reporting.html import page
        from ser_jax.runs.result_card import read_card
        from ser_jax.runtime import devices

        run = train.train_and_evaluate if _MODE.value == 'train' else train.evaluate
        before = read_card(workdir)
        card = run(config, workdir)
        if devices.is_main_process():
            if card != before:  # else an earlier command produced it
                (workdir / 'command.txt').write_text(command(sys.argv, given) + '\n')
            page.write_page(workdir / 'report' / 'report.html', [workdir])
            end = f'Report: {workdir}/report/report.html\nEverything about this run: {workdir}'
            print(f'{text.card_table(card)}\n{end}', flush=True)
    except UserError as error:
        sys.exit(f'error: {error}')


def command(argv: list[str], workdir: str | Path) -> str:
    """The command line that resumes a run in its workdir, or prints the results of a finished one."""
    arguments = _config_flags(argv)
    return shlex.join(['python', '-m', 'ser_jax.main', *arguments, f'--workdir={workdir}'])


def _config_flags(argv: list[str]) -> list[str]:
    """The arguments of a command line without --workdir and --mode."""
    arguments = []
    for argument, before in zip(argv[1:], argv):
        names = [text.lstrip('-') for text in (before, argument)]
        value = names[0] in ('workdir', 'mode')  # `--mode evaluate`, in two arguments
        if not value and names[1].partition('=')[0] not in ('workdir', 'mode'):
            arguments.append(argument)
    return arguments


def _with_recipe(config: ml_collections.ConfigDict, workdir: Path) -> ml_collections.ConfigDict:
    """Takes the settings that suit the size of the corpus, if it has none and the command line names none."""
    stored = workdir / 'config.json'
    if not recipe(config, 1) or (_MODE.value == 'evaluate' and not stored.exists()):
        return config
    if stored.exists():  # a run keeps its settings
        name = read_json(stored, {}).get('settings_of')
        if name not in RECIPE_SIZES:
            return config
    else:
        from ser_jax.data.labels import labels_of  # slow to import
        from ser_jax.prepare import open_prepared

        check_config(config)
        corpus = open_prepared(
            config.corpus,
            data_dir=config.data.data_dir,
            manual_dir=config.data.manual_dir or None,
            representation='log_mel' if config.representation == 'log_mel' else 'waveform',
            front_end=FrontEnd(**config.data.front_end),
        )
        names = tuple(config.labels or corpus.metadata['labels'])
        labels = labels_of(corpus, np.arange(len(corpus)), 'emotion', names)
        name = recipe(config, int((labels >= 0).sum()))
    return parse_config(add_recipe(_config_flags(sys.argv), name))


def default_workdir(config) -> Path:
    """The folder `runs/<config>-<corpus>-<options>-seed<k>`."""
    parts = [config.system, config.corpus.replace('/', '_'), *config.options, f'seed{config.seed}']
    return Path('runs', '-'.join(parts))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; an error in it ends the program with one line and exit status 2."""
    if not {'-h', '-help', '--help'}.isdisjoint(argv[1:]):
        print(docstring(__file__))
        sys.exit(0)
    given = config_file = ''
    try:
        for argument, following in zip(argv[1:], [*argv[2:], '']):
            flag, _, value = argument.partition('=')
            if flag in ('--config', '-config'):
                given = value or following
                config_file = given.partition(':')[0]
                if not config_file.endswith('.py') or not Path(config_file).is_file():
                    raise UserError(f'--config={config_file}: no such config file')
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f'unexpected argument {rest[1]!r}: only --flags are accepted')
        if not config_file:
            raise UserError('--config is required, e.g. --config=configs/mtl_aug.py')
        return rest
    except (UserError, flags.Error) as error:
        problem = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if _raised_in(error, config_file):
            raise
        problem = _refused_field(argv, given, error)
    print(f'error: {problem}', file=sys.stderr)
    sys.exit(2)


def _refused_field(argv: list[str], given: str, error: Exception) -> str:
    """Why ml_collections refuses --config.X=Y of a config that is given as `FILE.py:CORPUS,OPTION…`."""
    config = parse_config([f'--config={given}'])
    for argument in argv[1:]:
        flag = argument.partition('=')[0]
        if re.match(r'--?config\.', flag):
            problem = unknown_field(config, flag.partition('.')[2])
            if problem:
                return problem
    # Its message, without quotes and line breaks.
    plain = str(error).replace('\\n', ' ').translate(str.maketrans('', '', '\\"\''))
    return ' '.join(plain.split())


def _raised_in(error: BaseException, file: str) -> bool:
    """Whether an error was raised in a file: a bug of that file, not of the command line."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).absolute() == Path(file).absolute() for frame in frames)


if __name__ == '__main__':
    sys.argv = name_network(sys.argv)  # where ml_collections reads the flags of fields
    app.run(main, flags_parser=parse_flags)
