"""Prepares a corpus: from its name to its prepared folder."""

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence

from ser_jax.audio.finding import file_states
from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.records import (
    DEFAULT_DATA_DIR,
    METADATA_FILE,
    REPRESENTATIONS,
    SOURCES_FILE,
    corpus_folder,
    is_prepared,
)
from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import file_sha256, library_path, waiting_lock, write_checksums
from tfds_builders.core.catalogue import builder_class, find_folder, list_corpus, not_preparable
from tfds_builders.core.utterance import grouped

# Notes to print; the others are counted.
_MAX_NOTES = 10
_MAX_PROBLEMS = 20  # of one kind
_REPLACED = 'replaced'  # the previous records, in the scratch folder


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
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
    rebuild: bool = False,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> pathlib.Path:
    """Prepares a corpus unless it is prepared already.

    Everything is written to a scratch folder below `data_dir` and renamed into place at the end, under a lock:
    a build killed at any point leaves the previous state, and of two concurrent builds the second one waits.

    Args:
        name: name of the corpus.
        manual_dir: folder of the corpus; None = `$SER_JAX_MANUAL_DIR/<corpus>`, else a download where it is public.
        data_dir: root of the prepared corpora; None = the default.
        representation: 'log_mel' or 'waveform'.
        front_end: log-mel parameters.
        options: options of csv corpora: `map`, `own_labels`.
        strict: whether the first unusable file stops the build.
        workers: processes; None = one per core, one for small corpora.
        num_shards: number of shards; None = see `CorpusBuilder`.
        beam_runner: runner of Apache Beam, such as 'DirectRunner'; None = without Beam.
        beam_options: options of the runner, such as '--project=mine'.
        rebuild: whether to rebuild a corpus whose sources, options or code have changed.
        log: receives the progress and summary lines.

    Returns:
        The prepared folder.

    Raises:
        UserError: unknown corpus, nothing to prepare it from, unwritable data_dir, or an unusable file with `strict`.
    """
    beam = _beam_config(beam_runner, beam_options)
    if beam and strict:
        raise UserError('--strict needs to see the files in order: leave out --beam_runner')
    folder = find_folder(name, manual_dir)
    root = library_path(data_dir or DEFAULT_DATA_DIR)
    target = corpus_folder(name, data_dir=root, representation=representation)
    builder_type = builder_class(name)
    absent = folder is None and builder_type.NEEDS_FOLDER
    scratch = root / '.building' / f'{name.replace("/", "-")}-{representation}'
    if (
        absent
        and not builder_type.DOWNLOAD
        and not (is_prepared(target) or is_prepared(scratch / _REPLACED))
    ):
        raise _missing(name, representation, root)  # before anything is written
    settings = {
        'front_end': front_end,
        'options': options or {},
        'strict': strict,
        'workers': workers,
        'num_shards': num_shards,
        'config': representation,
    }
    try:
        waiting = f'another process is preparing {name}: waiting for it'
        with waiting_lock(scratch.with_name(f'{scratch.name}.lock'), lambda: log(waiting)):
            tidy = functools.partial(_tidy, scratch, target)
            tidy()  # after a killed build
            if rebuild or not is_prepared(target):
                try:
                    with signals.on_stop(tidy):
                        if absent:
                            folder = _download(name, representation, root, log)
                        _build(name, folder, scratch, target, settings, log, beam, absent)
                finally:
                    tidy()
    except OSError as error:
        place = str(error.filename or root)
        if not place.startswith(str(root)) and not str(root).startswith(place):
            raise
        dangling = any(path.is_symlink() and not path.exists() for path in (root, *root.parents))
        reason = 'a link that leads nowhere' if dangling else error.strerror or error
        raise UserError(f'cannot write below {root} ({reason}): name another data_dir') from error
    return target


def _beam_config(runner: str | None, options: Sequence[str]) -> dict:
    """Arguments of TFDS' DownloadConfig; UserError: Beam is not installed, or options without a runner."""
    if not runner:
        if options:
            raise UserError('--beam_options need a --beam_runner')
        return {}
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--beam_runner needs Apache Beam: pip install 'ser_jax[beam]'") from error
    return {'beam_runner': runner, 'beam_options': PipelineOptions(list(options))}


def _download(
    name: str, representation: str, root: pathlib.Path, log: Callable[[str], None]
) -> pathlib.Path:
    """Downloads a public corpus and returns its folder."""
    missing, builder_type = _missing(name, representation, root), builder_class(name)
    if not builder_type.DOWNLOAD:
        raise missing
    from tfds_builders.core import downloads

    return downloads.fetch(builder_type, root / 'downloads', missing, log)


def _missing(name: str, representation: str, root: pathlib.Path) -> UserError:
    others = [
        other
        for other in REPRESENTATIONS
        if is_prepared(corpus_folder(name, data_dir=root, representation=other))
    ]
    return not_preparable(name, representation, *others[:1])


def _build(
    name: str,
    folder: pathlib.Path | None,
    scratch: pathlib.Path,
    target: pathlib.Path,
    settings: dict,
    log: Callable[[str], None],
    beam: dict,
    downloaded: bool,
):
    """Builds into `scratch` and moves the result to `target`, unless `target` is up to date."""
    import tensorflow_datasets as tfds

    builder_type = builder_class(name)
    listing = list_corpus(name, folder, **settings['options'])
    labels = _label_files(folder, listing.label_files)
    sources = _sources(builder_type, folder, listing)
    if downloaded:  # not edited, and perhaps deleted to make room
        sources['manual_dir'] = ''
    state = (
        listing,
        labels,
        sources,
        builder_type.code_hash(),
        settings['front_end'],
        settings['options'],
    )
    fingerprint = hashlib.sha256(repr(state).encode()).hexdigest()
    shards = settings['num_shards'] or _shards(target)
    is_current = is_prepared(target) and _metadata(target).get('fingerprint') == fingerprint
    if is_current and shards == _shards(target):
        log(f'{name} ({settings["config"]}) is prepared already in {target}')
        return
    log(f'preparing {name} ({settings["config"]}): {len(listing.utterances)} utterances')
    extra = {
        'name': name,
        'fingerprint': fingerprint,
        'label_files': labels,
    }
    builder = builder_type(listing=listing, extra=extra, data_dir=scratch, **settings)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # two lines of TFDS about unknown sizes
        builder.download_and_prepare(
            download_dir=scratch / 'downloads',
            download_config=tfds.download.DownloadConfig(**beam) if beam else None,
        )
    built = pathlib.Path(builder.data_dir)
    # To notice later edits. ASCII: file names need not be valid text.
    (built / SOURCES_FILE).write_text(json.dumps(sources), encoding='ascii')
    write_checksums(built)
    target.parent.mkdir(parents=True, exist_ok=True)
    with signals.postponed():  # otherwise neither folder might be left
        if target.exists():
            os.rename(target, scratch / _REPLACED)
        os.rename(built, target)
    for line in summary(name, _metadata(target), target):
        log(line)


def _tidy(scratch: pathlib.Path, target: pathlib.Path) -> None:
    """Removes the scratch folder; if a build ended between its two renames, restores the corpus that it replaces."""
    replaced = scratch / _REPLACED
    if replaced.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(replaced, target)
    shutil.rmtree(scratch, ignore_errors=True)


def _shards(folder: pathlib.Path) -> int:
    """Number of shards of a prepared corpus."""
    return len(list(folder.glob('*.array_record-*')))


def summary(name: str, metadata: dict, folder: pathlib.Path) -> Iterator[str]:
    """Yields the lines of the summary: utterances built, missing and skipped, and notes."""
    kind = ', SYNTHETIC speech' if metadata['synthetic'] else ''
    total = f' of {metadata["published"]} published' if metadata['published'] else ''
    yield f'{name}{kind}: {metadata["utterances"]}{total} utterances in {folder}'
    if metadata['missing']:
        yield f'warning: {metadata["missing"]} published utterances of {name} are not there'
    skipped = metadata['skipped']
    if skipped:
        yield f'warning: skipped {len(skipped)} unusable files:'
        pairs = [(problem['id'], problem['reason']) for problem in skipped]
        yield from (f'  {line}' for line in grouped(pairs, _MAX_PROBLEMS))
    yield from (f'warning: {warning}' for warning in metadata['warnings'])
    yield from (f'note: {note}' for note in metadata['notes'][:_MAX_NOTES])
    if len(metadata['notes']) > _MAX_NOTES:
        yield f'note: … and {len(metadata["notes"]) - _MAX_NOTES} more notes in metadata.json'


def _metadata(folder: pathlib.Path) -> dict:
    return json.loads((folder / METADATA_FILE).read_text(encoding='utf-8'))


def _label_files(folder: pathlib.Path, patterns: Sequence[str]) -> dict[str, str | None]:
    """File -> SHA-256 of the files with labels, and pattern -> None: other files that match it are new."""
    files = dict.fromkeys(patterns)
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.name.startswith('.'):
                files[path.relative_to(folder).as_posix()] = file_sha256(path)
    return files


def _sources(builder_type, folder: pathlib.Path | None, listing) -> dict:
    """The content of `sources.json`: the folder, its recordings with size and time, and whether all below it count."""
    if folder is None:
        return {'manual_dir': '', 'scanned': False, 'recordings': {}}
    names = None
    if builder_type.NAMED_BY_TABLE:
        names = [os.path.relpath(item.path, folder) for item in listing.utterances]
    return {
        'manual_dir': str(folder.absolute()),
        'scanned': names is None,
        'recordings': file_states(folder, names),
    }
