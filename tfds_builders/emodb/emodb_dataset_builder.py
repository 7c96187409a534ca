"""EMO-DB (Burkhardt et al., Interspeech 2005): German, 10 actors, 7 emotions, 535 utterances."""

import dataclasses
import pathlib

from ser_jax.runtime.files import file_sha256
from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    'W': 'angry',
    'L': 'bored',
    'E': 'disgusted',
    'A': 'fearful',
    'F': 'happy',
    'T': 'sad',
    'N': 'neutral',
}
_MEN = ('03', '10', '11', '12', '15')


def _published() -> dict[str, str]:
    """id -> SHA-256 of the owner's wav file, for all 535."""
    text = pathlib.Path(__file__).with_name('checksums.sha256').read_text()
    pairs = [line.split() for line in text.splitlines()]
    return {name.removesuffix('.wav'): digest for digest, name in pairs}


class Builder(CorpusBuilder):
    """Builder of EMO-DB: `wav/03a01Fa.wav` = speaker 03, text a01, emotion F, version a."""

    SAMPLE_RATE = 16000
    LABELS = ('angry', 'happy', 'neutral', 'sad')
    PROTOCOL = 'leave_one_speaker_out()'
    DOWNLOAD = 'http://emodb.bilderbar.info/download/download.zip'
    MANUAL_DOWNLOAD_INSTRUCTIONS = f'download {DOWNLOAD} and unpack it (it holds the folder wav/)'

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists `wav/*.wav` (or flac)."""
        published = _published()
        rows, files = [_utterance(name) for name in published], audio_files(folder, 'wav/*')
        nothing = nothing_found('EMO-DB utterance', folder, folder / 'wav/03a01Fa.wav')
        listing = list_labelled(rows, files, 'EMO-DB', nothing)
        originals = [item for item in listing.utterances if item.path.endswith('.wav')]
        changed = [item.id for item in originals if file_sha256(item.path) != published[item.id]]
        note = f"{len(changed)} wav files differ from the owner's: {', '.join(changed[:1])}, …"
        return dataclasses.replace(listing, notes=(*listing.notes, *[note] * bool(changed)))


def _utterance(name: str) -> Utterance:
    code = name.split('/')[1]
    speaker, script, emotion = code[:2], code[2:5], code[5]
    return Utterance(
        id=name,
        emotion=_EMOTIONS[emotion],
        speaker=f'emodb/{speaker}',
        script=script,
        language='de',
        gender='male' if speaker in _MEN else 'female',
    )
