"""Prepared records: vocabulary, layout on disk, and paths.

A prepared corpus is one folder, `<data_dir>/<name>/<representation>/<version>/`: ArrayRecord shards with TFDS' metadata,
`index.npz` (all record fields but the arrays, row r = record r), `metadata.json`, `sources.json` (the recordings that it
was prepared from, with size and time), and `checksums.json` of all of them. It is renamed into place when complete.
"""

import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import library_path, local_path

# One vocabulary for all corpora; class numbers in records are positions in it.
EMOTIONS = (
    'neutral',
    'calm',
    'happy',
    'sad',
    'angry',
    'fearful',
    'disgusted',
    'surprised',
    'bored',
    'excited',
    'frustrated',
    'other',
)
GENDERS = ('female', 'male')
DIMENSIONS = ('arousal', 'valence', 'dominance')
# Binary arousal and valence derived from categories: class -> emotions. As usual in cross-corpus work for the emotions of
# EMO-DB, our choice for the others. Emotions in neither class have no label.
EMOTIONS_OF = {
    'arousal_of_emotion': {
        'low': ('neutral', 'calm', 'sad', 'disgusted', 'bored'),
        'high': ('happy', 'angry', 'fearful', 'surprised', 'excited'),
    },
    'valence_of_emotion': {
        'negative': ('sad', 'angry', 'fearful', 'disgusted', 'bored', 'frustrated'),
        'positive': ('neutral', 'calm', 'happy', 'surprised', 'excited'),
    },
}

REPRESENTATIONS = ('log_mel', 'waveform')
SPLIT = 'utterances'  # TFDS' name of the one split
RECORD_VERSION = '1.0.0'  # version of the layout, the same for all corpora
DEFAULT_DATA_DIR = '~/.cache/ser_jax/records'
INDEX_FILE = 'index.npz'
# Texts that tables write for a missing value, in any case.
_MISSING = ('nan', 'na', 'n/a', '#n/a', '<na>', 'none', 'null', 'nil', '?', '-', '--', 'unknown')
METADATA_FILE = 'metadata.json'
SOURCES_FILE = 'sources.json'


def corpus_folder(
    name: str, *, data_dir: str | os.PathLike | None, representation: str
) -> pathlib.Path:
    """The folder of a prepared corpus, existing or not; raises UserError for an unknown representation."""
    if representation not in REPRESENTATIONS:
        raise UserError(
            f'unknown representation {representation!r}: one of {", ".join(REPRESENTATIONS)}'
        )
    return library_path(data_dir or DEFAULT_DATA_DIR) / name / representation / RECORD_VERSION


def default_manual_dir(name: str) -> pathlib.Path | None:
    """`$SER_JAX_MANUAL_DIR/<corpus>` (`$SER_JAX_MANUAL_DIR/<name>` for csv_corpus/<name> and folder/<name>); None if unset."""
    root = os.environ.get('SER_JAX_MANUAL_DIR')
    return local_path(root) / name.rpartition('/')[2] if root else None


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a folder holds a complete prepared corpus: index, metadata, and all shards that TFDS lists."""
    needed = (INDEX_FILE, METADATA_FILE, 'dataset_info.json')
    if not all((folder / name).is_file() for name in needed):
        return False
    try:
        info = json.loads((folder / 'dataset_info.json').read_text())
        shards = len(info['splits'][0]['shardLengths'])
    except (OSError, ValueError, KeyError, IndexError):
        return False
    return len(list(folder.glob(f'*-{SPLIT}.array_record-*-of-{shards:05d}'))) == shards


def prepared_hash(
    name: str, *, data_dir: str | os.PathLike | None, representation: str = 'log_mel'
) -> str | None:
    """The `corpus_hash` of a prepared corpus; None where it is not prepared."""
    folder = corpus_folder(name, data_dir=data_dir, representation=representation)
    if not is_prepared(folder):
        return None
    return json.loads((folder / METADATA_FILE).read_text(encoding='utf-8'))['corpus_hash']


def read_sources(folder: pathlib.Path) -> dict:
    """The content of `sources.json` in the folder of a prepared corpus; {} in older records. UserError: it is damaged."""
    path = folder / SOURCES_FILE
    if not path.exists():
        return {}
    try:
        sources = json.loads(path.read_text(encoding='utf-8'))
        states = [state for state in sources['recordings'].values() if state]
        kinds = isinstance(sources['manual_dir'], str), isinstance(sources['scanned'], bool)
        if all(kinds) and all(len(state) == 2 for state in states):
            return sources
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise UserError(
        f'{path} is damaged: delete the folder, and the same command prepares the corpus again'
    )


def noise_type(text: str) -> str:
    """The type of a noise recording as written in conditions: `Dog bark` -> `dog_bark`."""
    return re.sub(r'\W+', '_', text.strip().lower())


def known_name(text: str) -> str:
    """The name of a speaker, a session and so on; '' for one that stands for a missing value, such as 'nan' or '?'."""
    return '' if text.strip().lower() in _MISSING else text.strip()


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of two or more distinct names that differ in spelling only: case, leading zeros, quotes, separators, Unicode form."""
    groups = {}
    for name in sorted(set(names) - {''}):
        groups.setdefault(_plain_spelling(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain_spelling(name: str) -> str:
    """'"Anna_B"' -> 'anna b'; 'S_03' -> 's3'; '3.0' -> '3'."""
    name = ''.join(c for c in name if unicodedata.category(c) != 'Cf')  # such as zero-width blanks
    folder, slash, text = unicodedata.normalize('NFKC', name).casefold().rpartition('/')
    text = re.sub(r'[\s_-]+', ' ', text.strip('\'"`´‘’“”„«» '))
    text = re.sub(r'(?<=[^\W\d]) (?=\d)', '', text)
    text = re.sub(r'^(\d+)\.0+$', r'\1', text)
    return folder + slash + re.sub(r'(?<![\d.])0+(?=\d)', '', text)


def similar_labels(names: Iterable[str]) -> list[str]:
    """A warning for each group of labels that might be one class; see `similar_names`."""
    return [
        f'the labels {" and ".join(map(repr, group))} differ in spelling only and are {len(group)} classes: correct the table, '
        'or make them one with --map LABEL=NAME'
        for group in similar_names(names)
    ]


def split_speaker(speaker: str) -> tuple[str, str]:
    """The corpus of a speaker and the name there: 'csv_corpus/mine/f1' -> ('csv_corpus/mine', 'f1')."""
    corpus = re.match(r'(?:csv_corpus/)?[^/]+(?=/)', speaker)
    return (corpus[0], speaker[corpus.end() + 1 :]) if corpus else ('', speaker)


def similar_speakers(names: Iterable[str]) -> list[str]:
    """A warning for each group of speakers that might be one person; see `similar_names`."""
    warnings = []
    for group in similar_names(names):
        corpus = split_speaker(group[0])[0]
        shown = ' and '.join(repr(split_speaker(name)[1]) for name in group)
        warnings.append(
            f'speakers {shown}{f" of {corpus}" * bool(corpus)} differ in spelling only: if they are one person, who would be '
            'trained on and tested, give that person one name in the metadata'
        )
    return warnings
