"""The speakers, two artificial languages and emotional prosody of demo_speech: data and random draws.

Each draw is seeded by its name (speaker, script, utterance), so that each utterance can be made alone, in any process and
order.
"""

import dataclasses
import zlib

import numpy as np

EMOTIONS = ('angry', 'happy', 'neutral', 'sad')
SPEAKERS = tuple(f'{n:02d}' for n in range(1, 25))
SCRIPTS_PER_LANGUAGE = 4
LANGUAGES = ('x-demo-a', 'x-demo-b')

# Formants of an average man in Hz: Peterson and Barney, JASA 24 (1952), table II, schwa from tube theory.
VOWELS = {
    'a': (730, 1090, 2440),
    'e': (530, 1840, 2480),
    'i': (270, 2290, 3010),
    'o': (570, 840, 2410),
    'u': (300, 870, 2240),
    'ae': (660, 1720, 2410),
    'ih': (390, 1990, 2550),
    'uh': (440, 1020, 2240),
    'schwa': (500, 1500, 2500),
}


@dataclasses.dataclass(frozen=True)
class Consonant:
    """Formant targets (Hz), voicing 0-1, noise level 0-1 with its band (centre, width in Hz), closure first or not."""

    formants: tuple[int, int, int]
    voicing: float
    noise: float = 0.0
    band: tuple[int, int] = (3000, 2000)
    stop: bool = False


CONSONANTS = {
    'p': Consonant((300, 900, 2200), 0.0, 0.35, (900, 900), True),
    't': Consonant((300, 1700, 2600), 0.0, 0.5, (4200, 2500), True),
    'k': Consonant((300, 1900, 2400), 0.0, 0.5, (2000, 1200), True),
    'b': Consonant((250, 900, 2200), 0.15, 0.2, (900, 900), True),
    'd': Consonant((250, 1700, 2600), 0.15, 0.25, (4000, 2500), True),
    'g': Consonant((250, 1900, 2400), 0.15, 0.25, (2000, 1200), True),
    'm': Consonant((270, 1000, 2200), 0.35),
    'n': Consonant((270, 1500, 2400), 0.35),
    'l': Consonant((360, 1200, 2700), 0.5),
    'r': Consonant((400, 1200, 1600), 0.5),
    'w': Consonant((300, 700, 2200), 0.5),
    'j': Consonant((270, 2200, 3000), 0.5),
    's': Consonant((300, 1700, 2600), 0.0, 0.5, (5800, 1800)),
    'sh': Consonant((300, 1900, 2500), 0.0, 0.5, (3200, 1600)),
    'f': Consonant((300, 1100, 2300), 0.0, 0.2, (5000, 5000)),
    'x': Consonant((400, 1400, 2300), 0.0, 0.3, (1700, 1200)),
    'h': Consonant((500, 1500, 2500), 0.0, 0.2, (1500, 3000)),
}


@dataclasses.dataclass(frozen=True)
class Language:
    """Sounds and rhythm of an artificial language.

    Attributes:
        vowels, onsets, codas: sounds of the language.
        coda_share: share of closed syllables.
        reduction: length of an unstressed relative to a stressed syllable (1 = syllable-timed).
        syllables: minimum and maximum per utterance.
    """

    vowels: tuple[str, ...]
    onsets: tuple[str, ...]
    codas: tuple[str, ...]
    coda_share: float
    reduction: float
    syllables: tuple[int, int]


_LANGUAGES = {
    'x-demo-a': Language(
        ('a', 'e', 'i', 'o', 'u'),
        ('p', 't', 'k', 'm', 'n', 'l', 's', 'b', 'd'),
        ('n',),
        0.1,
        0.9,
        (7, 12),
    ),
    'x-demo-b': Language(
        ('ae', 'ih', 'uh', 'e', 'a'),
        ('s', 'sh', 'f', 'k', 'g', 'x', 'r', 'w', 'j', 'h', 't', 'd'),
        ('n', 's', 't', 'k', 'l', 'sh'),
        0.6,
        0.55,
        (6, 10),
    ),
}


@dataclasses.dataclass(frozen=True)
class Syllable:
    """Consonant, vowel, closing consonant or '', and whether it carries an accent."""

    onset: str
    vowel: str
    coda: str
    stressed: bool


@dataclasses.dataclass(frozen=True)
class Speaker:
    """Constant properties of a speaker; they vary more between speakers than between emotions.

    Attributes:
        gender: 'female' or 'male'.
        language: one of `LANGUAGES`.
        pitch: mean pitch, Hz.
        pitch_range: scales pitch movements; `rate` the speed; `tract` the formants.
        tilt: corner of the source spectrum, Hz; `open_quotient`, `breath` of the voice.
        jitter: relative perturbation of periods.
        level: dB; `noise_level` dB below speech; `room` seconds of decay; `channel` dB tilt over the band.
    """

    gender: str
    language: str
    pitch: float
    pitch_range: float
    rate: float
    tract: float
    tilt: float
    open_quotient: float
    breath: float
    jitter: float
    level: float
    noise_level: float
    room: float
    channel: float


@dataclasses.dataclass(frozen=True)
class Prosody:
    """Deviations of an utterance from its speaker's properties.

    Attributes:
        pitch: semitones; `pitch_range`, `rate`, `tilt`, `jitter`: factors in log2.
        breath, open_quotient: added.
        level: dB.
        accent: -1 pitch peaks early and falls, +1 rises late; `final`: semitones at the end.
        contrast: dB between stressed and unstressed syllables.
        smile: formants up, relative.
    """

    pitch: float
    pitch_range: float
    rate: float
    tilt: float
    jitter: float
    breath: float
    open_quotient: float
    level: float
    accent: float
    final: float
    contrast: float
    smile: float


# Directions after Scherer, Speech Communication 40 (2003), table 4, and Juslin and Laukka, Psychological
# Bulletin 129 (2003), table 7; sizes chosen so that no single cue decides.
_PROSODY = {
    'angry': Prosody(2.0, 0.6, 0.25, 1.2, 2.0, -0.03, -0.1, 1.5, -1.0, -9.0, 12.0, 0.0),
    'happy': Prosody(3.0, 1.2, 0.2, 0.4, -0.3, 0.0, 0.0, 1.0, 1.0, 9.0, 6.0, 0.07),
    'neutral': Prosody(0.0, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.1, -2.0, 2.0, 0.0),
    'sad': Prosody(-1.5, -1.2, -0.35, -1.3, 0.2, 0.1, 0.1, -1.5, 0.0, -1.0, -3.0, -0.02),
}
# Standard deviation of each cue within an emotion, in addition to the strength of acting.
_SCATTER = Prosody(1.0, 0.25, 0.10, 0.25, 0.3, 0.02, 0.03, 1.0, 0.3, 1.2, 1.0, 0.012)
# Arousal, valence, dominance on 1-5.
_RATINGS = {
    'angry': (4.2, 1.8, 4.2),
    'happy': (3.9, 4.3, 3.5),
    'neutral': (2.7, 3.0, 3.0),
    'sad': (1.9, 1.8, 2.0),
}


def rng(*what: str) -> np.random.Generator:
    """The random generator of a draw that is named by strings such as 'room', '03'."""
    return np.random.default_rng(zlib.crc32('/'.join(('demo_speech', *what)).encode()))


def speaker(name: str) -> Speaker:
    """Draws speaker '01' to '24'; neighbours, and every fourth, differ in gender and language (balanced folds)."""
    number = SPEAKERS.index(name)
    kind = (number // 4 + number) % 4
    female = kind % 2 == 0
    draw = rng('speaker', name)
    return Speaker(
        gender='female' if female else 'male',
        language=LANGUAGES[kind // 2],
        pitch=(205.0 if female else 118.0) * 2 ** draw.normal(0, 3 / 12),
        pitch_range=2 ** draw.normal(0, 0.3),
        rate=2 ** draw.normal(0, 0.2),
        tract=(1.16 if female else 1.0) * 2 ** draw.normal(0, 0.05),
        tilt=1400.0 * 2 ** draw.normal(0, 0.4),
        open_quotient=float(np.clip(draw.normal(0.62, 0.05), 0.5, 0.75)),
        breath=draw.uniform(0.01, 0.08),
        jitter=0.006 * 2 ** draw.normal(0, 0.5),
        level=draw.normal(0, 3.0),
        noise_level=draw.uniform(28, 45),
        room=draw.uniform(0.03, 0.25),
        channel=draw.normal(0, 3.0),
    )


def scripts(language: str) -> tuple[str, ...]:
    """Names of the texts of a language: 'a01' …; each speaker says each of them in each emotion."""
    return tuple(f'{language[-1]}{n:02d}' for n in range(1, SCRIPTS_PER_LANGUAGE + 1))


def syllables(script: str) -> list[Syllable]:
    """The syllables of a text, stress on every second one."""
    language = _LANGUAGES[f'x-demo-{script[0]}']
    draw = rng('script', script)
    result = []
    first = int(draw.integers(2))
    for n in range(draw.integers(*language.syllables, endpoint=True)):
        stressed = n % 2 == first
        reduced = language.reduction < 0.7 and not stressed
        vowel = 'schwa' if reduced else str(draw.choice(language.vowels))
        coda = str(draw.choice(language.codas)) if draw.random() < language.coda_share else ''
        result.append(Syllable(str(draw.choice(language.onsets)), vowel, coda, stressed))
    return result


def reduction(script: str) -> float:
    """Length of an unstressed relative to a stressed syllable in the language of a text."""
    return _LANGUAGES[f'x-demo-{script[0]}'].reduction


def prosody(name: str, emotion: str, script: str) -> tuple[Prosody, tuple[float, float, float]]:
    """The prosody of an utterance, and its ratings (arousal, valence, dominance) on 1-5, which follow the strength of acting."""
    draw = rng('utterance', name, emotion, script)
    strength = draw.uniform(0.8, 1.3)
    cues = {}
    for field in dataclasses.fields(Prosody):
        mean = getattr(_PROSODY[emotion], field.name)
        neutral = getattr(_PROSODY['neutral'], field.name)
        # Each utterance uses some cues more than others: no single one is reliable.
        use = strength * draw.uniform(0.6, 1.4)
        scatter = getattr(_SCATTER, field.name) * draw.normal()
        cues[field.name] = neutral + use * (mean - neutral) + scatter
    ratings = 3 + strength * (np.array(_RATINGS[emotion]) - 3) + draw.normal(0, 0.25, 3)
    return Prosody(**cues), tuple(float(value) for value in np.clip(ratings, 1, 5).round(2))
