"""LibriSpeech (Panayotov et al., ICASSP 2015): read English speech without emotion labels."""

import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, nothing_found, read_text
from tfds_builders.core.utterance import Utterance

# Utterances of each part (openslr.org/12).
_PARTS = {
    'dev-clean': 2703,
    'dev-other': 2864,
    'test-clean': 2620,
    'test-other': 2939,
    'train-clean-100': 28539,
    'train-clean-360': 104014,
    'train-other-500': 148688,
}
_SPEAKERS = 'SPEAKERS.TXT'
_GENDERS = {'F': 'female', 'M': 'male'}


class Builder(CorpusBuilder):
    """Builder of LibriSpeech: `train-clean-100/19/198/19-198-0001.flac` = part, speaker, chapter, utterance.

    Any subset of the parts. Without emotion labels: for `config.unlabelled`, and for the tasks speaker and gender.
    """

    PROTOCOL = None
    SAMPLE_RATE = 16000
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download one or more parts (train-clean-100.tar.gz, …) from https://www.openslr.org/12 and unpack '
        'them into one folder LibriSpeech/ (it holds SPEAKERS.TXT and train-clean-100/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the flac files of all parts found."""
        files = {}
        parts = [part for part in _PARTS if (folder / part).is_dir()]
        for part in parts:
            files |= audio_files(folder, f'{part}/*/*/*')
        if not files:
            example = folder / 'train-clean-100/19/198/19-198-0001.flac'
            raise nothing_found('LibriSpeech utterance', folder, example)
        notes, genders = [f'parts: {", ".join(parts)}'], {}
        if (folder / _SPEAKERS).is_file():
            genders = _read_genders(folder / _SPEAKERS)
        else:
            notes.append(f'no {_SPEAKERS}: genders are unknown')
        utterances = [_utterance(name, path, genders) for name, path in files.items()]
        expected = sum(_PARTS[part] for part in parts)
        return Listing(
            utterances, notes=tuple(notes), label_files=(_SPEAKERS,), n_published=expected
        )


def _read_genders(path: pathlib.Path) -> dict[str, str]:
    """Speaker -> gender from lines such as `19   | F | train-clean-100  | 25.19 | Kara Shallenberg`."""
    genders = {}
    for line in read_text(path).splitlines():
        fields = [field.strip() for field in line.split('|')]
        if not line.startswith(';') and len(fields) > 1 and fields[1] in _GENDERS:
            genders[fields[0]] = _GENDERS[fields[1]]
    return genders


def _utterance(name: str, path: pathlib.Path, genders: dict[str, str]) -> Utterance:
    _, speaker, chapter, _ = name.split('/')
    return Utterance(
        id=name,
        path=str(path),
        speaker=f'librispeech/{speaker}',
        session=chapter,
        language='en',
        gender=genders.get(speaker, ''),
    )
