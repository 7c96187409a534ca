"""The corpora that have a builder, and their folders."""

import importlib
import os
import pathlib
import re
import unicodedata

from ser_jax.data.records import default_manual_dir
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path

_USER_CORPORA = ('csv_corpus', 'folder')  # followed by a name: csv_corpus/<name>
_USER_NAME = re.compile(rf'({"|".join(_USER_CORPORA)})/[A-Za-z0-9][A-Za-z0-9_.-]*')


def corpus_names() -> list[str]:
    """Names of all corpora with a builder: the folders of this package."""
    here = pathlib.Path(__file__).parent.parent
    names = sorted(path.parent.name for path in here.glob('*/*_dataset_builder.py'))
    return [f'{name}/<name>' if name in _USER_CORPORA else name for name in names]


def _allowed(text: str) -> str:
    """A similar name of allowed characters: 'méin korpus' -> 'mein_korpus'."""
    plain = unicodedata.normalize('NFKD', text).encode('ascii', 'ignore').decode()
    return re.sub(r'[^A-Za-z0-9.-]+', '_', plain).strip('_.-') or 'mine'


def builder_class(name: str):
    """The `Builder` of a corpus.

    Raises:
        UserError: unknown corpus, with the known ones; or a name with other characters, with those allowed.
    """
    if name not in corpus_names() and not _USER_NAME.fullmatch(name):
        kind = name.partition('/')[0]
        if kind in _USER_CORPORA:
            raise UserError(
                f'unknown corpus {name!r}: the name after {kind}/ begins with a letter or digit and holds only A-Z a-z 0-9 _ . -, such '
                f'as {kind}/{_allowed(name.partition("/")[2])}'
            )
        raise UserError(f'unknown corpus {name!r}: one of {", ".join(corpus_names())}')
    package = name.split('/')[0]
    return importlib.import_module(f'tfds_builders.{package}.{package}_dataset_builder').Builder


def find_folder(name: str, manual_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder that a corpus is read from; None where there is none. UserError: the given manual_dir is not a folder."""
    if not builder_class(name).NEEDS_FOLDER:
        return None
    folder = local_path(manual_dir) if manual_dir else default_manual_dir(name)
    if folder is None:
        return None
    if not folder.is_dir():
        if manual_dir:
            raise UserError(f'manual_dir {folder} of {name} is not a folder')
        return None
    return folder


def list_corpus(name: str, folder: pathlib.Path | None, **options):
    """`Listing` of a corpus; csv corpora take their name, a prefix of their speakers, as an option."""
    if name.startswith('csv_corpus/'):
        options['name'] = name
    return builder_class(name).list_utterances(folder, **options)


def not_preparable(name: str, representation: str = 'log_mel', prepared: str = '') -> UserError:
    """The error for a missing corpus: one line with its source, the place to put it, and a representation that is prepared."""
    command = f'python -m tfds_builders.build {name} --manual_dir=FOLDER'
    if representation != 'log_mel':
        command += f' --representation={representation}'
    if prepared:
        return UserError(
            f'{name} is prepared as {prepared} only, but its {representation} records are needed: run {command}, '
            'where FOLDER holds the recordings'
        )
    place = name.rpartition('/')[2]
    wanted = default_manual_dir(name)
    put = f'put it in {wanted}' if wanted else f'set SER_JAX_MANUAL_DIR to the folder above {place}'
    return UserError(
        f'{name} is not prepared and not here: {builder_class(name).MANUAL_DOWNLOAD_INSTRUCTIONS}; then {put}, '
        f'or run {command}'
    )
