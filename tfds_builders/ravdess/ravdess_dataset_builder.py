"""RAVDESS speech, audio only (Livingstone and Russo, PLoS ONE 2018): English, 24 actors, 8 emotions, 1440 utterances."""

import dataclasses
import itertools
import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    '01': 'neutral',
    '02': 'calm',
    '03': 'happy',
    '04': 'sad',
    '05': 'angry',
    '06': 'fearful',
    '07': 'disgusted',
    '08': 'surprised',
}
# Test actors of the published speaker-disjoint folds: Ma et al., 'EmoBox', Interspeech 2024.
_FOLDS = (
    ('01', '11', '20', '21'),
    ('04', '10', '12', '14'),
    ('08', '09', '19', '23'),
    ('03', '05', '07', '24'),
    ('02', '15', '16', '18'),
    ('06', '13', '17', '22'),
)


def _published() -> tuple[str, ...]:
    """Ids of all 1440: emotion, intensity (neutral has one), statement, repetition of each actor."""
    names = []
    for actor, emotion in itertools.product(range(1, 25), _EMOTIONS):
        intensities = ('01',) if emotion == '01' else ('01', '02')
        for rest in itertools.product(intensities, ('01', '02'), ('01', '02')):
            code = '-'.join(('03', '01', emotion, *rest, f'{actor:02d}'))
            names.append(f'Actor_{actor:02d}/{code}')
    return tuple(names)


class Builder(CorpusBuilder):
    """Builder of RAVDESS: `Actor_01/03-01-06-01-02-01-01.wav`.

    The seven numbers: modality 03 (audio), channel 01 (speech), emotion, intensity, statement, repetition, actor
    (odd = man). Silence at the ends is not trimmed.
    """

    LABELS = tuple(_EMOTIONS.values())
    PROTOCOL = 'published_folds()'
    FOLDS = tuple(tuple(f'ravdess/{actor}' for actor in fold) for fold in _FOLDS)
    SAMPLE_RATE = 48000
    DOWNLOAD = 'https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip'
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f'download {DOWNLOAD} and unpack it (it holds the folders Actor_01/ to Actor_24/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists `Actor_*/*.wav` (or flac)."""
        rows = [_utterance(name) for name in _published()]
        files, example = audio_files(folder, 'Actor_*/*'), 'Actor_01/03-01-01-01-01-01-01.wav'
        nothing = nothing_found('RAVDESS utterance', folder, folder / example)
        listing = list_labelled(rows, files, 'RAVDESS speech', nothing)
        if not any(folder.glob('audio_speech_actors_*/Actor_*')):
            return listing
        note = 'this looks like the copy on Kaggle, which holds every actor twice; the inner folder is skipped'
        return dataclasses.replace(listing, notes=(*listing.notes, note))


def _utterance(name: str) -> Utterance:
    _, _, emotion, _, statement, _, actor = name.split('/')[1].split('-')
    return Utterance(
        id=name,
        emotion=_EMOTIONS[emotion],
        speaker=f'ravdess/{actor}',
        script=statement,
        language='en',
        gender='male' if int(actor) % 2 else 'female',
    )
