"""DEMAND (Thiemann et al., ICA 2013): noise of 18 places, 5 minutes each; the first of 16 channels."""

import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_PLACES = (
    *('DKITCHEN', 'DLIVING', 'DWASHING'),
    *('NFIELD', 'NPARK', 'NRIVER'),
    *('OHALLWAY', 'OMEETING', 'OOFFICE'),
    *('PCAFETER', 'PRESTO', 'PSTATION'),
    *('SCAFE', 'SPSQUARE', 'STRAFFIC'),
    *('TBUS', 'TCAR', 'TMETRO'),
)


class Builder(CorpusBuilder):
    """Builder of DEMAND: `TBUS/ch01.wav`. The place, such as `tbus`, is the record's `script`: the type of noise."""

    PROTOCOL = None
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download one or more places (TBUS_16k.zip, …) from https://zenodo.org/records/1227121 and unpack them into one '
        'folder (it holds TBUS/ch01.wav)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the first channel of each place found."""
        files = audio_files(folder, '*/ch01*')
        utterances = [
            Utterance(id=f'{place}/ch01', path=str(files[f'{place}/ch01']), script=place.lower())
            for place in _PLACES
            if f'{place}/ch01' in files
        ]
        if not utterances:
            raise nothing_found('DEMAND noise', folder, folder / 'TBUS/ch01.wav')
        return Listing(utterances, n_published=len(_PLACES))
