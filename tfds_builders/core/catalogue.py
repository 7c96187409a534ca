"""Which corpora there are builders for, and where their folders are."""

import importlib
import os
import pathlib
import re

from ser_jax.data.records import default_manual_dir
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path

_NAMED = ('csv_corpus', 'folder')  # corpora of the user's own, which have a name behind these
_OWN_NAME = re.compile(rf'({"|".join(_NAMED)})/[A-Za-z0-9][A-Za-z0-9_.-]*')


def corpus_names() -> list[str]:
    """The corpora there are builders for: the folders of this package."""
    here = pathlib.Path(__file__).parent.parent
    names = sorted(path.parent.name for path in here.glob('*/*_dataset_builder.py'))
    return [f'{name}/<name>' if name in _NAMED else name for name in names]


def builder_class(name: str):
    """The `Builder` of a corpus.

    Raises:
        UserError: there is no such corpus; lists those there are.
    """
    if name not in corpus_names() and not _OWN_NAME.fullmatch(name):
        raise UserError(f'unknown corpus {name!r}: one of {", ".join(corpus_names())}')
    package = name.split('/')[0]
    return importlib.import_module(f'tfds_builders.{package}.{package}_dataset_builder').Builder


def find_folder(name: str, manual_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder a corpus is read from; None where none is named or needed.

    Raises:
        UserError: it was named but is not there.
    """
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
    """`Listing` of a corpus; csv corpora learn their name, which prefixes their speakers."""
    if name.startswith('csv_corpus/'):
        options['name'] = name
    return builder_class(name).list_utterances(folder, **options)


def not_preparable(name: str, representation: str = 'log_mel', prepared: str = '') -> UserError:
    """The one line that says where a missing corpus comes from and where to put it.

    Args:
        name: the corpus.
        representation: that is missing.
        prepared: one that is there, or ''.
    """
    command = f'python -m tfds_builders.build {name} --manual_dir=FOLDER'
    if representation != 'log_mel':
        command += f' --representation={representation}'
    if prepared:
        return UserError(
            f'{name} is prepared as {prepared} only, but its {representation} records are needed: run {command}, where FOLDER '
            'holds the recordings'
        )
    place = name.rpartition('/')[2]
    wanted = default_manual_dir(name)
    put = f'put it in {wanted}' if wanted else f'set SER_JAX_MANUAL_DIR to the folder above {place}'
    return UserError(
        f'{name} is not prepared and not here: {builder_class(name).MANUAL_DOWNLOAD_INSTRUCTIONS}; then {put}, '
        f'or run {command}'
    )
