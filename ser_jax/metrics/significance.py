"""Whether one system is better than another: paired statistics of the UAR (and intervals of the CCC), in NumPy.

Utterances of one speaker are not independent, so whole speakers are drawn and swapped, never single
utterances. Confusion matrices per speaker `[S, K, K]` hold all that is needed for it, and turn
thousands of replicates into one matrix product. A side of a comparison is a stack of them
`[R, S, K, K]`: one system trained with R seeds, whose UAR is the mean over the seeds.
"""

import dataclasses

import numpy as np

from ser_jax.metrics import rates

# Replicates are computed in blocks of so many numbers, so that thousands of speakers do not fill
# the memory.
_BLOCK = 4_000_000
# Where fewer than one draw in so many holds every class, there is no bootstrap.
_PATIENCE = 100


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference of two systems on the same utterances; rates are fractions.

    Attributes:
        uar_a: pooled UAR of A, mean over its seeds.
        uar_b: the same of B.
        difference: `uar_a - uar_b`.
        interval: (lower, upper) of the difference; NaN where there is none.
        redrawn: bootstrap draws that lacked a class and were made again.
        p: two-sided p-value of "A and B may be swapped".
        exact: whether p counts every possible swap, not a random choice of them.
    """

    uar_a: float
    uar_b: float
    difference: float
    interval: tuple[float, float]
    redrawn: int
    p: float
    exact: bool


def _counts(confusions):
    """Hits [R, S, K] and occurrences [S, K], of the classes that occur at all."""
    confusions = np.asarray(confusions)
    if confusions.ndim != 4 or confusions.shape[2] != confusions.shape[3]:
        raise ValueError(f'confusion matrices are [R, S, K, K], not {confusions.shape}')
    occurrences = confusions.sum(-1)
    if np.any(occurrences != occurrences[0]):
        raise ValueError('the systems were not tested on the same utterances')
    present = occurrences[0].sum(0) > 0
    hits = np.diagonal(confusions, axis1=2, axis2=3)
    return hits[..., present].astype(float), occurrences[0][:, present].astype(float)


def bootstrap_uar(confusions, replicates: int = 10_000, seed: int = 0) -> tuple[np.ndarray, int]:
    """Pooled UARs of systems on speakers drawn with replacement, as many as there are.

    Every system sees the same draw, so that differences of the columns are paired (Efron &
    Tibshirani 1993, chapter 8: the unit that was sampled is the unit that is drawn). A draw that
    lacks a class has another UAR than the rest, over fewer classes; it is made again.

    Args:
        confusions: counts of R systems per speaker, int [R, S, K, K], tested on the same
            utterances. A class that no speaker has is left out.
        replicates: B.
        seed: of the draws; the same seed and the same labels give the same draws.

    Returns:
        (UAR float [B, R], number of draws made again). NaN with fewer than two speakers, of whose
        spread nothing is known, and where not even one draw in a hundred holds every class.

    Raises:
        ValueError: other shapes, or systems tested on different utterances.
    """
    hits, occurrences = _counts(confusions)
    n_systems, n_speakers, n_classes = hits.shape
    undefined = np.full((replicates, n_systems), np.nan)
    if n_speakers < 2:
        return undefined, 0
    statistics = np.concatenate([occurrences, *hits], axis=1)  # [S, (1 + R) K]
    rng = np.random.default_rng(seed)
    scores, missing, redrawn = [], replicates, 0
    while missing:
        block = min(missing, max(1, _BLOCK // n_speakers))
        drawn = rng.integers(n_speakers, size=(block, n_speakers))
        drawn += n_speakers * np.arange(block)[:, None]
        times = np.bincount(drawn.ravel(), minlength=block * n_speakers)
        times = times.reshape(block, n_speakers).astype(float)
        sums = (times @ statistics).reshape(block, 1 + n_systems, n_classes)
        sums = sums[(sums[:, 0] > 0).all(1)]
        scores.append((sums[:, 1:] / sums[:, :1]).mean(-1))
        missing -= len(sums)
        redrawn += block - len(sums)
        if redrawn > _PATIENCE * replicates:
            return undefined, redrawn
    return np.concatenate(scores), redrawn


def bootstrap_ccc(sums, replicates: int = 10_000, seed: int = 0) -> np.ndarray:
    """CCCs of a system on speakers drawn with replacement, as many as there are.

    Args:
        sums: of `metrics.concordance_sums`, float [S, 6].
        replicates: B.
        seed: of the draws.

    Returns:
        float [B]; NaN with fewer than two speakers.
    """
    count = len(sums)
    if count < 2:
        return np.full(replicates, np.nan)
    rng, scores = np.random.default_rng(seed), []
    for start in range(0, replicates, size := max(1, _BLOCK // count)):
        drawn = rng.multinomial(
            count, np.full(count, 1 / count), size=min(size, replicates - start)
        )
        scores.append(rates.ccc_of_sums(drawn @ sums))
    return np.concatenate(scores)


def permutation_p(a, b, replicates: int = 10_000, seed: int = 0) -> tuple[float, bool]:
    """Two-sided p-value of the difference in UAR when A and B are swapped speaker by speaker.

    Were A and B equally good, each speaker's predictions could as well be the other system's: the
    paired randomisation test (Fisher 1935; for classifiers Noreen 1989), with the speaker as its
    unit, so that it speaks of new speakers and not of these utterances only. A swap leaves the
    labels as they are, so the difference is a sum over speakers, and a swap turns a sign in it.
    Every swap is tried where there are no more than `replicates`; else random ones, and the one
    observed counts as one of them (Phipson & Smyth 2010).

    Args:
        a: counts of system A per seed and speaker, int [R, S, K, K].
        b: the same of B, int [R', S, K, K].
        replicates: number of random swaps.
        seed: of the random swaps.

    Returns:
        (p, whether it is exact). With S speakers p is at least 2^-(S-1), or 1 / (replicates + 1).

    Raises:
        ValueError: other shapes, or systems tested on different utterances.
    """
    hits, occurrences = _counts(np.concatenate([a, b]))
    n_speakers, n_classes = occurrences.shape
    weights = 1 / (n_classes * occurrences.sum(0))
    gains = (hits[: len(a)].mean(0) - hits[len(a) :].mean(0)) @ weights  # [S], sum = difference
    # Sums that are equal but for rounding count as equal; UARs differ by far more.
    observed = abs(gains.sum()) - 1e-12
    exact = 2**n_speakers <= replicates
    total = 2**n_speakers if exact else replicates
    rng = np.random.default_rng(seed)
    extreme = 0
    size = max(1, _BLOCK // n_speakers)
    for start in range(0, total, size):
        block = min(size, total - start)
        if exact:
            swapped = np.arange(start, start + block)[:, None] >> np.arange(n_speakers) & 1
        else:
            swapped = rng.integers(2, size=(block, n_speakers), dtype=np.int8)
        extreme += int((abs((1.0 - 2.0 * swapped) @ gains) >= observed).sum())
    return (extreme / total if exact else (extreme + 1) / (total + 1)), exact


def compare(a, b, replicates: int = 10_000, seed: int = 0, level: float = 0.95) -> Comparison:
    """Compares two systems tested on the same utterances.

    The interval is the percentile interval of `bootstrap_uar`, p that of `permutation_p`. Seeds are
    taken as they are: neither says anything of another seed.

    Args:
        a: counts of system A per seed and speaker, int [R, S, K, K].
        b: the same of B, int [R', S, K, K].
        replicates: of the bootstrap, and of the permutation where it is not exact.
        seed: of both.
        level: coverage of the interval, 0–1.

    Returns:
        The comparison.

    Raises:
        ValueError: other shapes, or systems tested on different utterances.
    """
    both = np.concatenate([a, b])
    side_a, side_b = slice(len(a)), slice(len(a), None)
    hits, occurrences = _counts(both)
    uar = (hits.sum(1) / occurrences.sum(0)).mean(-1)  # [R + R']
    drawn, redrawn = bootstrap_uar(both, replicates, seed)
    differences = drawn[:, side_a].mean(1) - drawn[:, side_b].mean(1)
    p, exact = permutation_p(a, b, replicates, seed)
    uar_a, uar_b = float(uar[side_a].mean()), float(uar[side_b].mean())
    return Comparison(uar_a, uar_b, uar_a - uar_b, interval(differences, level), redrawn, p, exact)


def interval(values, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates.

    Args:
        values: one number per replicate, float [B].
        level: coverage, 0–1.

    Returns:
        (lower, upper); NaN where a value is.
    """
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def holm(p_values) -> np.ndarray:
    """Holm's step-down correction (1979): p-values of a family of tests, fit to be read together.

    Args:
        p_values: float [M], 0–1.

    Returns:
        Adjusted p-values, float [M], in the order given: rejecting those below alpha keeps the
        chance of any false rejection at alpha, whatever the dependence between the tests.

    Raises:
        ValueError: not a list of numbers from 0 to 1.
    """
    p_values = np.asarray(p_values, float)
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        raise ValueError(f'p-values are a list of numbers from 0 to 1, not {p_values}')
    order = np.argsort(p_values, kind='stable')
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
