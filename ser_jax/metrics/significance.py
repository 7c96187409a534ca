"""Bootstrap intervals and paired permutation tests over speakers, in NumPy.

Utterances of one speaker are not independent, so speakers, not utterances, are resampled and swapped. Confusion matrices by
speaker suffice for both: thousands of replicates are one matrix product. A system is given as `[R, S, K, K]`, R seeds by S
speakers; its UAR is the mean over seeds.
"""

import dataclasses

import numpy as np

from ser_jax.metrics import rates

# Numbers per block of replicates, which bounds memory with thousands of speakers.
_BLOCK = 4_000_000
# Largest number of repeated draws per replicate: beyond it hardly any draw has every class, and the bootstrap is undefined.
_MAX_REDRAWS = 100


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two systems compared on the same utterances; rates are fractions.

    Attributes:
        uar_a: pooled UAR of A, mean over its seeds.
        uar_b: pooled UAR of B, mean over its seeds.
        difference: `uar_a - uar_b`.
        interval: (lower, upper) of the difference; NaN if undefined.
        redrawn: bootstrap draws repeated because they lacked a class.
        p: two-sided p-value of the null hypothesis that A and B are exchangeable.
        exact: whether p counts every possible swap, not a random sample.
    """

    uar_a: float
    uar_b: float
    difference: float
    interval: tuple[float, float]
    redrawn: int
    p: float
    exact: bool


def detectable_difference(interval: tuple[float, float]) -> float:
    """The smallest true difference that a two-sided test at 5 % finds with 80 % power, for the spread of these speakers.

    2.80 standard errors (Cohen 1988, section 2.2, for a normal statistic), of which a 95 % interval is 3.92 wide.

    Args:
        interval: 95 % interval of the difference.
    """
    low, high = interval
    return (1.960 + 0.842) / (2 * 1.960) * (high - low)


def _counts(confusions):
    """Correct predictions [R, S, K] and occurrences [S, K] of the classes that occur."""
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
    """Bootstrap replicates of the pooled UAR over speakers (Efron & Tibshirani 1993, chapter 8).

    All systems share the draws, so differences of columns are paired. A draw without some class would average the recall of fewer
    classes; it is repeated.

    Args:
        confusions: counts of R systems per speaker, int [R, S, K, K], on the same utterances. Classes without utterances are
            ignored.
        replicates: number of replicates, B.
        seed: random seed; equal seeds and labels give equal draws.

    Returns:
        (UAR float [B, R], number of repeated draws). NaN with fewer than two speakers, and if not even one draw in a hundred has
        every class.

    Raises:
        ValueError: wrong shape, or systems tested on different utterances.
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
        if redrawn > _MAX_REDRAWS * replicates:
            return undefined, redrawn
    return np.concatenate(scores), redrawn


def bootstrap_ccc(sums, replicates: int = 10_000, seed: int = 0) -> np.ndarray:
    """Bootstrap replicates of the CCC over speakers.

    Args:
        sums: `rates.concordance_sums`, float [S, 6].
        replicates: number of replicates, B.
        seed: random seed.

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
    """Paired randomisation test of the difference in UAR, two-sided (Fisher 1935; for classifiers Noreen 1989).

    The predictions of A and B are swapped speaker by speaker: the inference is about new speakers, not these utterances only.
    The labels are unaffected, so the difference is a sum over speakers in which a swap changes a sign. All swaps are enumerated
    if there are at most `replicates`; else random ones are drawn and the observed one counted among them (Phipson & Smyth 2010).

    Args:
        a: counts of system A per seed and speaker, int [R, S, K, K].
        b: counts of system B, int [R', S, K, K].
        replicates: number of random swaps.
        seed: random seed.

    Returns:
        (p, whether it is exact). With S speakers p is at least 2^-(S-1), or 1 / (replicates + 1).

    Raises:
        ValueError: wrong shape, or systems tested on different utterances.
    """
    hits, occurrences = _counts(np.concatenate([a, b]))
    n_speakers, n_classes = occurrences.shape
    weights = 1 / (n_classes * occurrences.sum(0))
    gains = (hits[: len(a)].mean(0) - hits[len(a) :].mean(0)) @ weights  # [S], sum = difference
    # Tolerates rounding: distinct differences of UARs are far larger.
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

    Interval and p-value (`bootstrap_uar`, `permutation_p`) reflect speaker sampling, not seed variance.

    Args:
        a: counts of system A per seed and speaker, int [R, S, K, K].
        b: counts of system B, int [R', S, K, K].
        replicates: bootstrap replicates, and swaps of an inexact permutation test.
        seed: random seed of both.
        level: coverage of the percentile interval, 0–1.

    Raises:
        ValueError: wrong shape, or systems tested on different utterances.
    """
    both = np.concatenate([a, b])
    hits, occurrences = _counts(both)
    uar = (hits.sum(1) / occurrences.sum(0)).mean(-1)  # [R + R']
    drawn, redrawn = bootstrap_uar(both, replicates, seed)
    differences = drawn[:, : len(a)].mean(1) - drawn[:, len(a) :].mean(1)
    p, exact = permutation_p(a, b, replicates, seed)
    uar_a, uar_b = float(uar[: len(a)].mean()), float(uar[len(a) :].mean())
    return Comparison(uar_a, uar_b, uar_a - uar_b, interval(differences, level), redrawn, p, exact)


def interval(values, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates [B]: (lower, upper); NaN if any value is."""
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def holm(p_values) -> np.ndarray:
    """Holm's step-down correction (1979) for a family of tests.

    Args:
        p_values: float [M], 0–1.

    Returns:
        Adjusted p-values, float [M], in the given order. Rejecting those below alpha keeps the family-wise error rate at alpha,
        whatever the dependence between the tests.

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
