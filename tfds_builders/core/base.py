"""The builder shared by all corpora; the folder of a corpus holds only what differs."""

import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from ser_jax.audio import containers, finding, log_mel, mp3, reading
from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd, mel_matrix
from ser_jax.data.records import (
    DIMENSIONS,
    EMOTIONS,
    GENDERS,
    INDEX_FILE,
    METADATA_FILE,
    RECORD_VERSION,
    SPLIT,
    similar_labels,
    similar_speakers,
)
from ser_jax.runtime.errors import UserError
from tfds_builders.core import pool, shards, tables, utterance
from tfds_builders.core.folders import file_notes, open_end_notes, with_files
from tfds_builders.core.shards import TEXTS, Shard, record_fields
from tfds_builders.core.utterance import Problem, Utterance

# Limits the memory: the records of a shard are held until it is written.
UTTERANCES_PER_SHARD = 1000
BYTES_PER_SHARD = 2**28  # of audio files


@dataclasses.dataclass(frozen=True)
class Listing:
    """The utterances of a corpus folder.

    Attributes:
        utterances: utterances found, in the order of the records.
        published: utterances published by the owner, in the owner's order, as far as their names are known; without paths.
        notes: remarks for the user, one sentence each.
        label_files: patterns of files with labels, relative to the folder, also of those that it may hold and does not;
            new, edited and removed ones are noticed when the corpus is opened.
        n_published: number of published utterances where more exist than are known by name; 0 = unknown.
        remarks: id of an utterance without a file -> the file that may be meant.
    """

    utterances: list[Utterance]
    published: Sequence[Utterance] = ()
    notes: tuple[str, ...] = ()
    label_files: tuple[str, ...] = ()
    n_published: int = 0
    remarks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def explained(self, problem: Problem) -> Problem:
        """A problem with its remark."""
        remark = self.remarks.get(problem.id)
        return Problem(problem.id, f'{problem.reason} ({remark})') if remark else problem

    @property
    def n_missing(self) -> int:
        """Number of published utterances that were not found, known by name or not."""
        return max(len(self.missing), self.n_published - len(self.utterances))

    @property
    def missing(self) -> list[Utterance]:
        """Published utterances that are known by name and were not found."""
        found = {item.id for item in self.utterances}
        return [item for item in self.published if item.id not in found]

    @property
    def total(self) -> int | None:
        """Number of published utterances; None = unknown."""
        return max(len(self.published), self.n_published) or None


def list_labelled(
    rows: Sequence[Utterance],
    files: Mapping[str, pathlib.Path],
    corpus: str,
    nothing: UserError,
    label_files: tuple[str, ...] = (),
    n_published: int = 0,
) -> Listing:
    """The listing of a corpus whose utterances are known, of which a folder holds some.

    Args:
        rows: the utterances, without paths.
        files: result of `folders.audio_files`.
        corpus: name in the note on foreign files.
        nothing: raised where there is no recording of them, see `folders.nothing_found`.
        label_files, n_published: see `Listing`.
    """
    found = with_files(rows, files)
    if not found:
        raise nothing
    notes = file_notes(files, [item.id for item in found], corpus)
    return Listing(found, rows, tuple(notes), label_files, n_published)


class CorpusBuilder(tfds.core.ShardBasedBuilder):
    """Builds the records of one corpus.

    Derived from TFDS' `ShardBasedBuilder`, not `GeneratorBasedBuilder`: it keeps the order (row r of the index is
    record r), streams, and needs no TensorFlow, which the latter's shuffler imports beyond 1 GB (9 h of speech).

    A corpus' `Builder` defines the upper-case attributes and `list_utterances`, nothing else.
    """

    VERSION = tfds.core.Version(RECORD_VERSION)
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS' convention)
        tfds.core.BuilderConfig(name='log_mel', description='log-mel spectrograms'),
        tfds.core.BuilderConfig(name='waveform', description='16 kHz int16 samples'),
    ]

    # The default task: its classes, its protocol, and published folds as lists of test speakers.
    LABELS: Sequence[str] = ()
    # Emotions merged into another one unless the task names them, such as 'excited' into 'happy'.
    MERGED: Mapping[str, str] = {}
    PROTOCOL: str | None = 'leave_one_speaker_out()'
    FOLDS: Sequence[Sequence[str]] | None = None
    SYNTHETIC = False
    # Published utterances by emotion ('' = no label), where they are not known by name.
    COUNTS: Mapping[str, int] = {}
    SAMPLE_RATE: int | None = None  # of the published files, Hz
    # (utterance, sample rate) -> int16 [S]; importable by name, since it runs in other processes.
    LOAD: Callable[[Utterance, int], np.ndarray] = staticmethod(utterance.load_file)
    NEEDS_FOLDER = True
    # Whether a table names the recordings; other ones in the folder do not count.
    NAMED_BY_TABLE = False
    # Address of a public zip or tar, and whether it holds a single folder with all the rest.
    DOWNLOAD: str | None = None
    PACKED_IN_FOLDER = False
    # One line: the source of the corpus and the layout of its folder. Part of error messages; read by TFDS.
    MANUAL_DOWNLOAD_INSTRUCTIONS = ''

    @classmethod
    def list_utterances(cls, folder: pathlib.Path | None, **options) -> Listing:
        """Lists the utterances below `folder` (None for a synthesised corpus).

        Raises:
            UserError: no utterance of the corpus found, or unusable labels.
        """
        raise NotImplementedError

    @classmethod
    def task(cls, listing: Listing, vocabulary: Sequence[str]) -> dict:
        """`labels`, `protocol`, `folds` of the default task; overridden where they depend on the listing."""
        return {'labels': list(cls.LABELS), 'protocol': cls.PROTOCOL, 'folds': cls.FOLDS}

    @classmethod
    def vocabulary(cls, listing: Listing, **options) -> tuple[str, ...]:
        """Names of the emotion codes."""
        return EMOTIONS

    @classmethod
    def code_hash(cls) -> str:
        """SHA-256 of the code that determines the records: the corpus' modules, this one, records, front end."""
        folder = pathlib.Path(inspect.getfile(cls)).parent
        files = [*sorted(folder.glob('*.py')), pathlib.Path(__file__)]
        files += [
            pathlib.Path(m.__file__)
            for m in (shards, tables, utterance, containers, finding, log_mel, mp3, reading)
        ]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def __init__(
        self,
        *,
        listing: Listing | None = None,
        front_end: FrontEnd = DEFAULT_FRONT_END,
        options: dict | None = None,
        strict: bool = False,
        workers: int | None = None,
        num_shards: int | None = None,
        extra: dict | None = None,
        **kwargs,
    ):
        """Args:
        listing: the utterances, from `list_utterances`; None = listed from TFDS' manual_dir by the build.
        front_end: log-mel parameters.
        options: options of the corpus (csv_corpus: map, own_labels).
        strict: whether the first unusable file stops the build.
        workers: processes; None = one per core, one for small corpora.
        num_shards: number of shards; None = one per thousand utterances or 256 MB of audio.
        extra: further fields of metadata.json.
        **kwargs: TFDS' own (data_dir, config, version).
        """
        self.listing = listing
        self.front_end = front_end
        self.options = options or {}
        self.strict = strict
        self.workers = workers
        self.num_shards = num_shards
        self.extra = extra or {}
        self.names = self.vocabulary(listing, **self.options) if listing else EMOTIONS
        self.rows: list[dict] = []
        self.skipped: list[Problem] = []
        super().__init__(file_format='array_record', **kwargs)

    @property
    def representation(self) -> str:
        """'log_mel' or 'waveform'."""
        return self.builder_config.name

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        # Arrays as bytes are read 40 times faster than as lists of numbers.
        if self.representation == 'log_mel':
            shape, dtype = (None, self.front_end.n_mels), np.float32
        else:
            shape, dtype = (None,), np.int16
        fields = {
            'id': features.Text(),
            self.representation: features.Tensor(shape=shape, dtype=dtype, encoding='bytes'),
            'emotion': features.ClassLabel(names=list(self.names)),
            'gender': features.ClassLabel(names=list(GENDERS)),
            'duration': np.float32,
            'frames': np.int32,
            'audio_sha256': features.Text(),
        }
        fields |= {name: np.float32 for name in DIMENSIONS}
        fields |= {name: features.Text() for name in TEXTS}
        return self.dataset_info_from_configs(
            features=features.FeaturesDict(fields), disable_shuffling=True
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict:
        if self.listing is None:
            folder = pathlib.Path(dl_manager.manual_dir) if self.NEEDS_FOLDER else None
            self.listing = self.list_utterances(folder)
        items = self.listing.utterances
        count = self.num_shards or _default_shards(items)
        bounds = [round(len(items) * k / count) for k in range(count + 1)]
        parts = [items[start:stop] for start, stop in itertools.pairwise(bounds)]
        if self._on_beam:
            settings = self.LOAD, self.front_end, tuple(self.names), self.representation
            folder = str(self.data_dir)
            made = [Shard(n, tuple(part), *settings, folder) for n, part in enumerate(parts)]
            return {SPLIT: made}
        recordings = pool.pool_map(
            utterance.record,
            items,
            (self.LOAD, self.front_end, mel_matrix(self.front_end)),
            workers=self.workers,
            description=self.name,
        )
        # The shards are written one after the other: they share one stream.
        pairs = zip(items, recordings)
        return {SPLIT: [lambda part=part: self._shard(pairs, len(part)) for part in parts]}

    def _shard(self, pairs: Iterator, size: int) -> Iterator[tuple[str, dict]]:
        """Yields the records of the next `size` utterances and keeps their index rows."""
        for _ in range(size):
            item, recording = next(pairs)
            if isinstance(recording, Problem):
                problem = self.listing.explained(recording)
                if self.strict:
                    raise UserError(
                        f'{item.path or item.id}: {problem.reason} (--strict stops here)'
                    )
                self.skipped.append(problem)
                continue
            fields, row = record_fields(item, recording, self.names, self.front_end.sample_rate)
            yield item.id, {**fields, self.representation: getattr(recording, self.representation)}
            self.rows.append(row)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        self._on_beam = bool(download_config and download_config.beam_runner)
        super()._download_and_prepare(dl_manager, download_config)
        # TFDS renames the folder into place after this returns.
        folder = pathlib.Path(self.data_dir)
        if self._on_beam:
            count = len(self.info.splits[SPLIT].shard_lengths)
            index, skipped = shards.collect_rows(folder, count)
            self.skipped = [self.listing.explained(problem) for problem in skipped]
            for path in folder.glob('*.shard_infos.json'):  # left by TFDS, on Beam only
                path.unlink()
        else:
            index = shards.build_index(self.rows) if self.rows else {}
        if not index:
            raise UserError(
                f'none of the {len(self.skipped)} utterances of {self.name} can be used; '
                f'the first, {self.skipped[0].id}: {self.skipped[0].reason}'
            )
        np.savez(folder / INDEX_FILE, **index)
        text = json.dumps(self._metadata(index), indent=1, ensure_ascii=False)
        (folder / METADATA_FILE).write_text(text + '\n', encoding='utf-8')

    def _metadata(self, index: dict[str, np.ndarray]) -> dict:
        listing = self.listing
        warnings, notes = shards.duplicate_remarks(index, self.names)
        front_end = dataclasses.asdict(self.front_end)
        return {
            'representation': self.representation,
            'record_version': RECORD_VERSION,
            'synthetic': self.SYNTHETIC,
            'vocabulary': list(self.names),
            **self.task(listing, self.names),
            'merged': dict(self.MERGED),
            'front_end': front_end,
            'corpus_hash': shards.corpus_hash(index, self.names, front_end),
            'builder_hash': self.code_hash(),
            'utterances': len(index['id']),
            'published': listing.total,
            'missing': listing.n_missing,
            'skipped': [dataclasses.asdict(problem) for problem in self.skipped],
            'warnings': [
                *similar_speakers(index['speaker'].tolist()),
                *similar_labels(self.names),
                *warnings,
            ],
            'notes': [*listing.notes, *open_end_notes(listing.utterances), *notes],
            'options': self.options,
            **self.extra,
        }


def _default_shards(items: Sequence[Utterance]) -> int:
    size = sum(os.path.getsize(item.path) for item in items if os.path.isfile(item.path))
    return max(1, -(-len(items) // UTTERANCES_PER_SHARD), -(-size // BYTES_PER_SHARD))
