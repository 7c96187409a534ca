"""MSP-IMPROV (Busso et al. 2017): English, 12 actors in 6 dyadic sessions, emotions and dimensions, 8438 turns; licensed."""

import pathlib
import re

from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found, read_text
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    'A': 'angry',
    'H': 'happy',
    'S': 'sad',
    'N': 'neutral',
    'O': 'other',
    'X': '',  # the raters did not agree
}
_RATING = r'((?:\d+(?:\.\d+)?)|NaN)'
# UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:2.600000; V:1.800000; D:3.800000 ; N:3.800000;
_TURN = re.compile(
    r'UTD-IMPROV-((S\d\d)[AHSN]-([FM])0([1-6])-([PRST])-[FM]{2}\d+)\.avi\s*;\s*([A-Z])\s*;'
    + ''.join(rf'\s*{name}:\s*{_RATING}\s*;' for name in 'AVDN')
    + r'\s*',
    re.ASCII,
)
_LABELS = ('Evalution.txt', 'Evaluation.txt')  # as spelled in the release, and in some copies
_SCRIPTED = 'RS'  # read, and improvised towards the sentence: the spoken sentence is known


class Builder(CorpusBuilder):
    """Builder of MSP-IMPROV: `session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav`.

    Parts of a name: sentence and acted emotion, speaker (F or M and the session), P natural, R read, S and T
    improvised, speaker and listener. Labels are the means over the raters in `Evalution.txt`; the lines of single
    raters are not read.
    """

    LABELS = ('angry', 'happy', 'neutral', 'sad')
    PROTOCOL = 'leave_one_session_out()'
    PUBLISHED = 8438
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'ask for a licence at https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html; the folder must hold '
        'session1/ to session6/ and Evalution.txt'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the turns of the label file that have a recording."""
        texts = [folder / name for name in _LABELS if (folder / name).is_file()]
        if len(texts) != 1:
            raise UserError(
                f'{folder} must hold one of {" and ".join(_LABELS)}, the labels of MSP-IMPROV; it holds '
                f'{"both" if texts else "neither"}'
            )
        rows, files = list(_turns(texts[0]).values()), audio_files(folder, 'session*/*/*/*')
        example = folder / 'session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav'
        nothing = nothing_found('MSP-IMPROV turn', folder, example)
        corpus = 'the labelled turns of MSP-IMPROV'
        return list_labelled(rows, files, corpus, nothing, _LABELS, cls.PUBLISHED)


def _turns(path: pathlib.Path) -> dict[str, Utterance]:
    """The turns of the label file by id, in its order."""
    turns = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.startswith('UTD-IMPROV'):
            continue
        match = _TURN.fullmatch(line)
        if not match:
            raise UserError(
                f'{path}, line {number}: a turn must read UTD-IMPROV-….avi; emotion; A:…; V:…; D:…; N:…;'
            )
        name, sentence, letter, session, kind, code, *ratings = match.groups()
        if code not in _EMOTIONS:
            raise UserError(f'{path}, line {number}: MSP-IMPROV has no emotion {code!r}')
        arousal, valence, dominance, _ = map(float, ratings)
        turn = Utterance(
            id=f'session{session}/{name[:4]}/{kind}/MSP-IMPROV-{name}',
            emotion=_EMOTIONS[code],
            arousal=arousal,
            valence=valence,
            dominance=dominance,
            speaker=f'msp_improv/{letter}0{session}',
            session=session,
            script=sentence if kind in _SCRIPTED else '',
            language='en',
            gender={'F': 'female', 'M': 'male'}[letter],
        )
        if turn.id in turns:
            raise UserError(f'{path}, line {number}: {name} has labels already')
        turns[turn.id] = turn
    return turns
