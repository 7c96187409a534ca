"""MUSAN (Snyder et al. 2015, arXiv 1510.08484): noise, music and speech, 2016 recordings, 109 hours."""

import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_PARTS = {'music': 660, 'noise': 930, 'speech': 426}


class Builder(CorpusBuilder):
    """Builder of MUSAN: `noise/free-sound/noise-free-sound-0000.wav`; `script` is the part, the type of noise.

    Any subset of the parts.
    """

    PROTOCOL = None
    DOWNLOAD = 'https://www.openslr.org/resources/17/musan.tar.gz'
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download musan.tar.gz from https://www.openslr.org/17 and unpack it (it holds musan/music/, musan/noise/, '
        'musan/speech/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the recordings of all parts found."""
        top = folder / 'musan' if (folder / 'musan').is_dir() else folder
        parts = [part for part in _PARTS if (top / part).is_dir()]
        utterances = [
            Utterance(id=name, path=str(path), script=part)
            for part in parts
            for name, path in audio_files(top, f'{part}/*/*').items()
        ]
        if not utterances:
            example = top / 'noise/free-sound/noise-free-sound-0000.wav'
            raise nothing_found('MUSAN recording', folder, example)
        expected = sum(_PARTS[part] for part in parts)
        notes = (f'parts: {", ".join(parts)}',)
        return Listing(utterances, notes=notes, n_published=expected)
