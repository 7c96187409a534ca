"""IEMOCAP (Busso et al. 2008): English, 10 actors in 5 dyadic sessions, emotions and dimensions, 10039 turns; licensed."""

import pathlib
import re

from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found, read_text
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    'ang': 'angry',
    'hap': 'happy',
    'sad': 'sad',
    'neu': 'neutral',
    'exc': 'excited',
    'fru': 'frustrated',
    'fea': 'fearful',
    'sur': 'surprised',
    'dis': 'disgusted',
    'oth': 'other',
    'xxx': '',  # the raters did not agree
}
# [start - end] TAB turn TAB emotion TAB [valence, activation, dominance]
_NUMBER = r'(\d+(?:\.\d+)?)'
_TURN = re.compile(
    rf'\[{_NUMBER} - {_NUMBER}\]\s+((Ses0([1-5])[FM]_\w+)_([FM])\w+)\s+([a-z]{{3}})\s+'
    rf'\[{_NUMBER}, {_NUMBER}, {_NUMBER}\]\s*'
)
_LABELS = 'Session*/dialog/EmoEvaluation/*.txt'


class Builder(CorpusBuilder):
    """Builder of IEMOCAP: `Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav`.

    Labels are the turn lines of `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`; the lines of single raters and
    self-evaluations are not read. The last letter of a turn is the speaker: `Ses01F_impro01_M003` is the man of session 1.
    """

    LABELS = ('angry', 'happy', 'neutral', 'sad')
    MERGED = {'excited': 'happy'}  # noqa: RUF012 (TFDS' convention)
    PROTOCOL = 'leave_one_session_out()'
    PUBLISHED = 10039
    COUNTS = {  # noqa: RUF012
        'angry': 1103,
        'happy': 595,
        'excited': 1041,
        'sad': 1084,
        'neutral': 1708,
        'frustrated': 1849,
        'fearful': 40,
        'surprised': 107,
        'disgusted': 2,
        'other': 3,
        '': 2507,
    }
    SAMPLE_RATE = 16000
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'ask for a licence at https://sail.usc.edu/iemocap and unpack IEMOCAP_full_release.tar.gz (it holds '
        'IEMOCAP_full_release/Session1/ to Session5/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the turns of the label files that have a recording."""
        release = folder / 'IEMOCAP_full_release'
        release = release if release.is_dir() else folder
        texts = sorted(path for path in release.glob(_LABELS) if not path.name.startswith('.'))
        turns = {}
        for path in texts:
            for turn in _turns(path):
                if turn.id in turns:
                    raise UserError(f'{path}: {turn.id} has labels already')
                turns[turn.id] = turn
        nothing = nothing_found(
            'IEMOCAP turn',
            folder,
            release / 'Session1/dialog/EmoEvaluation/Ses01F_impro01.txt',
            release / 'Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav',
        )
        files = audio_files(release, 'Session*/sentences/wav/*/*')
        rows, corpus = list(turns.values()), 'the labelled turns of IEMOCAP'
        labels = (release / _LABELS).relative_to(folder).as_posix()
        return list_labelled(rows, files, corpus, nothing, (labels,), cls.PUBLISHED)


def _turns(path: pathlib.Path) -> list[Utterance]:
    """The turns of a label file, in its order."""
    turns = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.startswith('['):
            continue
        match = _TURN.fullmatch(line)
        if not match:
            raise UserError(
                f'{path}, line {number}: a turn must read [start - end], turn, emotion, [valence, activation, dominance]'
            )
        _, _, name, dialog, session, letter, code, *ratings = match.groups()
        if code not in _EMOTIONS:
            raise UserError(f'{path}, line {number}: IEMOCAP has no emotion {code!r}')
        valence, arousal, dominance = map(float, ratings)
        turns.append(
            Utterance(
                id=f'Session{session}/sentences/wav/{dialog}/{name}',
                emotion=_EMOTIONS[code],
                arousal=arousal,
                valence=valence,
                dominance=dominance,
                speaker=f'iemocap/{session}{letter}',
                session=session,
                script=dialog.partition('_')[2],
                language='en',
                gender={'F': 'female', 'M': 'male'}[letter],
            )
        )
    return turns
