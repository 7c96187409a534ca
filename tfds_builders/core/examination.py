"""Compares a corpus folder with what its owner published, without building anything."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ser_jax.audio.screening import CLIPPED_SHARE
from ser_jax.data.records import DIMENSIONS, similar_labels, similar_speakers
from tfds_builders.core import catalogue, pool
from tfds_builders.core.base import Listing
from tfds_builders.core.folders import open_end_notes
from tfds_builders.core.shards import duplicate_remarks
from tfds_builders.core.utterance import Measurement, Problem, Utterance, measure

# DC offset from which a recording gets a note, 1 = full scale.
_OFFSET = 1e-2


@dataclasses.dataclass(frozen=True)
class Examination:
    """The content of a corpus folder.

    Attributes:
        corpus, folder: name and folder of the corpus.
        found: number of utterances found.
        published: number of published utterances; None = unknown (csv corpora, folders).
        missing: number of published utterances that were not found; `missing_names` as far as they are known.
        unusable: file and reason of each utterance that cannot be used.
        emotions: emotion ('' = no label) -> [usable utterances, published utterances or None].
        task: the same for the default task; None without one.
        task_labels: classes of the default task.
        speakers, sessions, sample_rates: usable utterances by each.
        rated: usable utterances with a rating of each dimension.
        seconds: duration of all usable audio.
        warnings: names of speakers or labels that differ in spelling only, contradictory labels of identical audio, and too
            few speakers or emotions to train on.
        notes: further remarks for the user, one sentence each.
    """

    corpus: str
    folder: str
    found: int
    published: int | None
    missing: int
    missing_names: list[str]
    unusable: list[dict[str, str]]
    emotions: dict[str, list[int | None]]
    task: list[int | None] | None
    task_labels: list[str]
    speakers: dict[str, int]
    sessions: dict[str, int]
    sample_rates: dict[int, int]
    rated: dict[str, int]
    seconds: float
    warnings: list[str]
    notes: list[str]

    @property
    def well(self) -> bool:
        """Whether every published utterance is there and can be used."""
        return not self.missing and not self.unusable

    def as_json(self) -> dict[str, Any]:
        """All fields, and `well`."""
        return dataclasses.asdict(self) | {'well': self.well}


def examine(
    name: str,
    manual_dir: str | None = None,
    *,
    options: dict | None = None,
    workers: int | None = None,
) -> Examination | None:
    """Lists a corpus folder and reads all its audio.

    Args:
        name: name of the corpus.
        manual_dir: folder of the corpus; None = `$SER_JAX_MANUAL_DIR/<corpus>`.
        options: options of csv corpora.
        workers: processes; None = one per core.

    Returns:
        The examination; None for a synthesised corpus.

    Raises:
        UserError: unknown corpus, missing folder, or no utterance of the corpus in it.
    """
    builder = catalogue.builder_class(name)
    if not builder.NEEDS_FOLDER:
        return None
    folder = catalogue.find_folder(name, manual_dir)
    if folder is None:
        raise catalogue.not_preparable(name)
    listing = catalogue.list_corpus(name, folder, **(options or {}))
    results = list(
        pool.pool_map(
            measure, listing.utterances, (builder.LOAD, 16000), workers=workers, description=name
        )
    )
    pairs = list(zip(listing.utterances, results))
    bad = [
        (item, listing.explained(result)) for item, result in pairs if isinstance(result, Problem)
    ]
    good = [item for item, result in pairs if isinstance(result, Measurement)]
    audio = [result for result in results if isinstance(result, Measurement)]
    emotions = _emotions(builder, listing, good)
    contradictions, duplicates = _duplicates(good, audio)
    return Examination(
        corpus=name,
        folder=str(folder),
        found=len(listing.utterances),
        published=listing.total,
        missing=listing.n_missing,
        missing_names=[item.id for item in listing.missing],
        unusable=[{'file': item.path or item.id, 'reason': result.reason} for item, result in bad],
        emotions=emotions,
        task=_task(builder, emotions),
        task_labels=list(builder.LABELS),
        speakers=_counted(item.speaker for item in good),
        sessions=_counted(item.session for item in good if item.session),
        sample_rates=_counted(sound.sample_rate for sound in audio),
        rated={
            field: sum(getattr(item, field) == getattr(item, field) for item in good)
            for field in DIMENSIONS
        },
        seconds=sum(sound.seconds for sound in audio),
        warnings=[
            *similar_speakers(item.speaker for item in good),
            *similar_labels(item.emotion for item in good),
            *contradictions,
            *_too_few(good),
        ],
        notes=[
            *listing.notes,
            *open_end_notes(good),
            *_audio_notes(audio, builder.SAMPLE_RATE),
            *duplicates,
            *_leftovers(folder),
        ],
    )


def _too_few(good: Sequence[Utterance]) -> list[str]:
    """Why no system can be trained on the labelled utterances; empty for corpora without labels."""
    labelled = [item for item in good if item.emotion]
    speakers = {item.speaker for item in labelled if item.speaker}
    emotions = {item.emotion for item in labelled}
    found = []
    if labelled and len(speakers) < 3:
        found.append(
            f'{len(speakers)} known speaker(s): training, validation and test need 3 speakers, no_validation 2'
        )
    if len(emotions) == 1:
        found.append(f'one emotion, {emotions.pop()}: training needs two')
    return found


def _counted(values) -> dict:
    return dict(sorted(collections.Counter(values).items()))


def _emotions(builder, listing: Listing, good: Sequence[Utterance]) -> dict:
    """Emotion -> [usable, published or None]."""
    have, wanted = collections.Counter(item.emotion for item in good), builder.COUNTS
    # An incomplete list of labels does not give the published counts.
    if not wanted and len(listing.published) >= max(1, listing.n_published):
        wanted = collections.Counter(item.emotion for item in listing.published)
    return {name: [have[name], wanted.get(name)] for name in sorted({*have, *wanted})}


def _task(builder, emotions: Mapping[str, list]) -> list[int | None] | None:
    if not builder.LABELS:
        return None
    counts = [
        pair for name, pair in emotions.items() if builder.MERGED.get(name, name) in builder.LABELS
    ]
    published = [wanted for _, wanted in counts]
    known = published and None not in published
    return [sum(have for have, _ in counts), sum(published) if known else None]


def _audio_notes(audio: Sequence[Measurement], sample_rate: int | None) -> list[str]:
    """Faults that leave a recording usable."""
    names = lambda chosen: ', '.join(chosen[:3]) + ', …' * (len(chosen) > 3)
    notes = []
    clipped = [sound.id for sound in audio if sound.clipped > CLIPPED_SHARE]
    if clipped:
        notes.append(
            f'{len(clipped)} recordings have more than {CLIPPED_SHARE:.1%} of their samples at the limit (clipped): {names(clipped)}'
        )
    offset = [sound.id for sound in audio if sound.offset > _OFFSET]
    if offset:
        notes.append(
            f'{len(offset)} recordings have an offset of more than {_OFFSET:.0%} of full scale: {names(offset)}'
        )
    other = [sound.id for sound in audio if sample_rate and sound.sample_rate != sample_rate]
    if other:
        notes.append(
            f'{len(other)} files are not at the {sample_rate} Hz that the owner distributes: {names(other)}'
        )
    return notes


def _duplicates(
    good: Sequence[Utterance], audio: Sequence[Measurement]
) -> tuple[list[str], list[str]]:
    """Warnings and notes of `duplicate_remarks`."""
    names = sorted({item.emotion for item in good} - {''})
    fields = {
        'id': [sound.id for sound in audio],
        'audio_sha256': [sound.sha256 for sound in audio],
        'emotion': [names.index(item.emotion) if item.emotion else -1 for item in good],
        'speaker': [item.speaker for item in good],
    }
    return duplicate_remarks(fields, names)


def _leftovers(folder: pathlib.Path) -> list[str]:
    count = sum(1 for _ in folder.rglob('._*'))
    return [f'{count} files named ._… (left by macOS) are skipped'] if count else []
