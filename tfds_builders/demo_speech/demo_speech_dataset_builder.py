"""demo_speech: a SYNTHETIC, speech-like corpus, so that every command works without data."""

import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.utterance import Utterance
from tfds_builders.demo_speech import synthesiser, voices


class Builder(CorpusBuilder):
    """Builder of demo_speech: 24 speakers x 4 emotions x 4 texts = 384 utterances."""

    LABELS = voices.EMOTIONS
    PROTOCOL = 'speaker_folds(4)'
    SYNTHETIC = True
    NEEDS_FOLDER = False
    LOAD = staticmethod(synthesiser.load)

    @classmethod
    def list_utterances(cls, folder: pathlib.Path | None = None) -> Listing:
        """Lists all utterances; needs no folder."""
        utterances = []
        for name in voices.SPEAKERS:
            speaker = voices.speaker(name)
            for script in voices.scripts(speaker.language):
                for emotion in voices.EMOTIONS:
                    _, (arousal, valence, dominance) = voices.prosody(name, emotion, script)
                    utterances.append(
                        Utterance(
                            id=f'{name}/{script}_{emotion}',
                            emotion=emotion,
                            arousal=arousal,
                            valence=valence,
                            dominance=dominance,
                            speaker=f'demo_speech/{name}',
                            script=script,
                            language=speaker.language,
                            gender=speaker.gender,
                        )
                    )
        return Listing(utterances, utterances)
