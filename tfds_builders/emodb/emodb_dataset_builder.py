"""EMO-DB (Burkhardt et al., Interspeech 2005): German, 10 actors, 7 emotions, 535 utterances."""

import pathlib

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import file_sha256
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, file_notes
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
        files = audio_files(folder, 'wav/*')
        found = {name: path for name, path in files.items() if name in published}
        if not found:
            raise UserError(
                f'no EMO-DB utterance in {folder}: expected {folder}/wav/03a01Fa.wav and so on'
            )
        notes = file_notes(files, found, 'EMO-DB')
        originals = {name: path for name, path in found.items() if path.suffix == '.wav'}
        changed = [name for name, path in originals.items() if file_sha256(path) != published[name]]
        if changed:
            notes.append(f"{len(changed)} wav files differ from the owner's: {changed[0]}, …")
        utterances = [cls._utterance(name, path) for name, path in found.items()]
        return Listing(utterances, [cls._utterance(name) for name in published], tuple(notes))

    @staticmethod
    def _utterance(name: str, path: pathlib.Path | str = '') -> Utterance:
        code = name.split('/')[1]
        speaker, script, emotion = code[:2], code[2:5], code[5]
        return Utterance(
            id=name,
            path=str(path),
            emotion=_EMOTIONS[emotion],
            speaker=f'emodb/{speaker}',
            script=script,
            language='de',
            gender='male' if speaker in _MEN else 'female',
        )
