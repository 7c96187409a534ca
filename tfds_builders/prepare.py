"""From the name of a corpus to its prepared folder; used by `build` and at the first opening of a corpus."""

import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator

from ser_jax.corpora import (
    DEFAULT_DATA_DIR,
    METADATA_FILE,
    REPRESENTATIONS,
    corpus_folder,
    default_manual_dir,
    expand,
    is_prepared,
)
from ser_jax.errors import UserError
from ser_jax.features import DEFAULT_FRONT_END, FrontEnd

_NAMED = ('csv_corpus', 'folder')  # corpora of the user's own, which have a name behind these
_OWN_NAME = re.compile(rf'({"|".join(_NAMED)})/[A-Za-z0-9][A-Za-z0-9_.-]*')
# More names than this are counted, not listed.
_LISTED = 10


def corpus_names() -> list[str]:
    """The corpora there are builders for: the folders of this package."""
    here = pathlib.Path(__file__).parent
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
    folder = expand(manual_dir) if manual_dir else default_manual_dir(name)
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


def prepare(
    name: str,
    *,
    manual_dir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    representation: str = 'log_mel',
    front_end: FrontEnd = DEFAULT_FRONT_END,
    options: dict | None = None,
    strict: bool = False,
    workers: int | None = None,
    num_shards: int | None = None,
    rebuild: bool = False,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> pathlib.Path:
    """Prepares a corpus unless it is prepared already.

    Everything is written to a scratch folder below `data_dir` and renamed into place at the end, under a lock:
    a build killed at any point leaves what was there before, and two builds at once do the work once.

    Args:
        name: the corpus.
        manual_dir: its folder; None = `$SER_JAX_MANUAL_DIR/<corpus>`, else a download where that is public.
        data_dir: root of the prepared corpora; None = the default.
        representation: 'log_mel' or 'waveform'.
        front_end: log-mel parameters.
        options: of csv corpora: `map`, `own_labels`.
        strict: stop at the first unusable file.
        workers: processes; None = as many as pay.
        num_shards: files the records are spread over; None = see `CorpusBuilder`.
        rebuild: whether to build again where sources, options or code have changed since.
        log: takes the lines of the summary.

    Returns:
        The prepared folder.

    Raises:
        UserError: see `ser_jax.corpora.open_corpus`; also an unwritable data_dir, strict mode's stop.
    """
    folder = find_folder(name, manual_dir)
    root = expand(data_dir or DEFAULT_DATA_DIR)
    target = corpus_folder(name, data_dir=root, representation=representation)
    scratch = root / '.building' / f'{name.replace("/", "-")}-{representation}'
    settings = {
        'front_end': front_end,
        'options': options or {},
        'strict': strict,
        'workers': workers,
        'num_shards': num_shards,
        'config': representation,
    }
    try:
        with _lock(scratch.with_name(f'{scratch.name}.lock'), name, log):
            if rebuild or not is_prepared(target):
                shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
                try:
                    if folder is None and builder_class(name).NEEDS_FOLDER:
                        folder = _download(name, representation, root, log)
                    _build(name, folder, scratch, target, settings, log)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        place = str(error.filename or root)
        if not place.startswith(str(root)) and not str(root).startswith(place):
            raise
        raise UserError(
            f'cannot write below {root} ({error.strerror or error}): name another data_dir'
        ) from error
    return target


def _download(
    name: str, representation: str, root: pathlib.Path, log: Callable[[str], None]
) -> pathlib.Path:
    """The folder of a corpus that may be had without asking."""
    builder_type = builder_class(name)
    others = [
        other
        for other in REPRESENTATIONS
        if is_prepared(corpus_folder(name, data_dir=root, representation=other))
    ]
    missing = not_preparable(name, representation, *others[:1])
    if not builder_type.DOWNLOAD:
        raise missing
    from tfds_builders import downloads

    return downloads.fetch(builder_type, root / 'downloads', missing, log)


def _build(
    name: str,
    folder: pathlib.Path | None,
    scratch: pathlib.Path,
    target: pathlib.Path,
    settings: dict,
    log: Callable[[str], None],
):
    """Builds into `scratch` and moves the result to `target`, unless the same is there already."""
    import tensorflow_datasets as tfds

    from tfds_builders.index import label_hashes

    builder_type = builder_class(name)
    listing = list_corpus(name, folder, **settings['options'])
    fingerprint = _fingerprint(
        listing, builder_type.code_hash(), settings['front_end'], settings['options']
    )
    shards = settings['num_shards'] or _shards(target)
    same = is_prepared(target) and _metadata(target).get('fingerprint') == fingerprint
    if same and shards == _shards(target):
        log(f'{name} ({settings["config"]}) is prepared already in {target}')
        return
    log(f'preparing {name} ({settings["config"]}): {len(listing.utterances)} utterances')
    extra = {
        'name': name,
        'fingerprint': fingerprint,
        'label_files': label_hashes(folder, listing.label_files),
    }
    builder = builder_type(listing=listing, extra=extra, data_dir=scratch, **settings)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS' own two lines, about unknown sizes
        builder.download_and_prepare(download_dir=scratch / 'downloads')
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, scratch / 'replaced')
    os.rename(builder.data_dir, target)
    for line in summary(name, _metadata(target), target):
        log(line)


def _shards(folder: pathlib.Path) -> int:
    """How many files of records there are."""
    return len(list(folder.glob('*.array_record-*')))


def summary(name: str, metadata: dict, folder: pathlib.Path) -> Iterator[str]:
    """The lines that tell what was built, what was not, and why."""
    kind = ', SYNTHETIC speech' if metadata['synthetic'] else ''
    total = f' of {metadata["published"]} published' if metadata['published'] else ''
    yield f'{name}{kind}: {metadata["utterances"]}{total} utterances in {folder}'
    if metadata['missing']:
        yield f'warning: {metadata["missing"]} published utterances of {name} are not there'
    skipped = metadata['skipped']
    if skipped:
        yield f'warning: skipped {len(skipped)} unusable files:'
        yield from (f'  {problem["id"]}: {problem["reason"]}' for problem in skipped)
    yield from (f'note: {note}' for note in metadata['notes'][:_LISTED])
    if len(metadata['notes']) > _LISTED:
        yield f'note: … and {len(metadata["notes"]) - _LISTED} more notes in metadata.json'


def _metadata(folder: pathlib.Path) -> dict:
    return json.loads((folder / METADATA_FILE).read_text(encoding='utf-8'))


def _fingerprint(listing, code_hash: str, front_end: FrontEnd, options: dict) -> str:
    """Tells whether building again would give the same: sources (by size and time), code, parameters."""
    files = []
    for item in listing.utterances:
        stat = os.stat(item.path) if item.path and os.path.exists(item.path) else None
        files.append((item, stat and (stat.st_size, stat.st_mtime_ns)))
    state = repr((files, listing.notes, code_hash, dataclasses.asdict(front_end), options))
    return hashlib.sha256(state.encode()).hexdigest()


@contextlib.contextmanager
def _lock(path: pathlib.Path, name: str, log: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock file that the system releases whenever the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: nothing to hold two builds apart
        yield
        return
    with open(path, 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f'another process is preparing {name}: waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
