"""Augmentation operations on batches of raw natural-log mel [B, T, F].

An operation is a function `name(keys, batch, *arguments) -> changed fields`, applied to the whole batch with a random key per
utterance, as if every utterance had drawn it; `augment.augment` keeps its result for those that did. A new augmentation is one
function here and its line in `OPERATIONS`.

The batch holds the fields of `augment.augment` and 'source' [B, T_in, F] and 'source_length' [B], the log-mels as delivered by
the host; 'noise' [B, T_in, F] if there is a noise corpus; 'texture' and 'background' [B, T, F], see `mel_noise`; 'bands', the
`mel_noise.Bands`; 'floor', log of the front end's floor; 'partner_shift' [], the distance between the rows that mixup mixes;
'axis_name'.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import lax

from ser_jax.models.layers import frames_mask
from ser_jax.transforms.mel_noise import DB, add_mel_noise

_FILTER_BANDS = (3, 4, 5)  # possible numbers of bands of a filter
STOPPED_DB = (20.0, 60.0)  # attenuation outside a limited band

# Operation -> (test of its arguments, the requirement as text).
OPERATIONS = {
    'speed': (lambda lowest, highest: 0.5 <= lowest <= highest <= 2, '0.5 ≤ lowest ≤ highest ≤ 2'),
    'mixup': (lambda alpha: alpha > 0, 'alpha must be above 0'),
    'spec_mask': (
        lambda masks, time_share, band_share: (
            type(masks) is int and masks >= 1 and 0 <= time_share <= 1 and 0 <= band_share <= 1
        ),
        'a whole number of masks from 1, and shares from 0 to 1',
    ),
    'noise': (
        lambda lowest_snr, highest_snr: lowest_snr <= highest_snr,
        'lowest ≤ highest SNR, in dB',
    ),
    'gain': (lambda lowest, highest: -60 <= lowest <= highest <= 60, '-60 ≤ lowest ≤ highest ≤ 60'),
    'filter_augment': (lambda largest: 0 < largest <= 60, 'largest in dB, above 0, at most 60'),
    'band_limit': (lambda low, high: 20 <= low < high <= 8000, '20 ≤ low < high ≤ 8000, in Hz'),
}


def speed(keys: jax.Array, batch: dict, lowest: float, highest: float) -> dict:
    """Plays each utterance faster or slower by a factor in [lowest, highest], as resampling does (Ko et al. 2015).

    Compresses time and stretches the spectrum by the same factor: the band at f reads at f / factor (linear
    interpolation of the log-mel on both axes; the spectrum is mirrored beyond its ends).

    Args:
        lowest: smallest factor, 1 = unchanged.
        highest: largest factor.

    Returns:
        New 'log_mel', 'clean_log_mel'.
    """
    draw = functools.partial(jax.random.uniform, shape=(2,))
    uniform = jax.vmap(draw)(keys)
    factor = lowest * (highest / lowest) ** uniform[:, 0]
    frames, n_bands = batch['log_mel'].shape[1:]
    latest = jnp.maximum(batch['source_length'] - batch['length'] * factor, 0.0)
    position = (uniform[:, 1] * latest)[:, None] + jnp.arange(frames) * factor[:, None]
    last = batch['source_length'][:, None] - 1
    position = jnp.clip(position, 0.0, jnp.maximum(last, 0))
    before = jnp.floor(position).astype(jnp.int32)
    fraction = (position - before)[..., None]
    x = take_frames(batch['source'], before) * (1.0 - fraction)
    x = x + take_frames(batch['source'], jnp.minimum(before + 1, last)) * fraction

    bands = batch['bands']
    index = jnp.interp(bands.centres / factor[:, None], bands.extended, bands.extended_index)
    index = jnp.abs(index)
    index = (n_bands - 1) - jnp.abs((n_bands - 1) - index)
    weights = jax.nn.relu(
        1.0 - jnp.abs(index[:, :, None] - jnp.arange(n_bands))
    )  # [B, F_out, F_in]
    x = jnp.einsum('btf,bgf->btg', x, weights, precision=lax.Precision.HIGHEST)
    # The energy stays; the spectrum is `factor` times as wide.
    x = jnp.maximum(x - jnp.log(factor)[:, None, None], batch['floor'])
    x = jnp.logaddexp(x, batch['background'])
    return {'log_mel': x, 'clean_log_mel': x}


def mixup(keys: jax.Array, batch: dict, alpha: float) -> dict:
    """Mixes each utterance with another of the global batch (Zhang et al. 2018, arXiv 1710.09412).

    The utterance itself always has the larger share; the partner is looped to the utterance's length. Emotion targets
    are mixed in the same proportion, and masked if either emotion is missing.

    Args:
        alpha: parameter of Beta(alpha, alpha), the distribution of the share.

    Returns:
        New 'log_mel', 'clean_log_mel', 'emotion', 'emotion_mask'.
    """
    grid = np.linspace(0.0, 1.0, 513)
    quantiles = jnp.asarray(scipy.special.betaincinv(alpha, alpha, grid), jnp.float32)
    uniform = jax.vmap(jax.random.uniform)(keys)
    share = jnp.interp(uniform, jnp.asarray(grid, jnp.float32), quantiles)
    share = jnp.maximum(share, 1.0 - share)

    fields = {k: batch[k] for k in ('clean_log_mel', 'length', 'emotion', 'emotion_mask')}
    size = total = batch['length'].shape[0]
    first = 0
    if batch['axis_name'] is not None:
        axis = batch['axis_name']
        fields = jax.tree.map(lambda x: lax.all_gather(x, axis, tiled=True), fields)
        first, total = lax.axis_index(axis) * size, fields['length'].shape[0]
    shift = batch['partner_shift'] % max(total - 1, 1) + (total > 1) * 1
    row = (first + jnp.arange(size) + shift) % total
    partner = jax.tree.map(lambda x: x[row], fields)
    looped = jnp.arange(batch['clean_log_mel'].shape[1]) % partner['length'][:, None]
    other = take_frames(partner['clean_log_mel'], looped)

    mix = lambda a, b, s: s * a + (1.0 - s) * b
    x = mix(batch['clean_log_mel'], other, share[:, None, None])
    return {
        'log_mel': x,
        'clean_log_mel': x,
        'emotion': mix(batch['emotion'], partner['emotion'], share[:, None]),
        'emotion_mask': batch['emotion_mask'] & partner['emotion_mask'],
    }


def spec_mask(
    keys: jax.Array, batch: dict, masks: int, time_share: float, band_share: float
) -> dict:
    """SpecAugment-style masks in time and frequency (Park et al. 2019, arXiv 1904.08779).

    Masked cells hold the utterance's mean of the band with the fluctuation of noise: zeros or constants would reveal the
    mask.

    Args:
        masks: number of time masks and of frequency masks.
        time_share: longest time mask as a share of the utterance's length.
        band_share: widest frequency mask as a share of the bands.

    Returns:
        New 'log_mel'.
    """
    x, frames = batch['log_mel'], batch['log_mel'].shape[1]
    cells = _masked_cells(keys, x, batch['length'], masks, time_share, band_share)
    mean = _mean_frame(x, batch['length'])
    # Another part of the texture than the background's; above floor and background like everything else.
    fill = jnp.maximum(mean + jnp.roll(batch['texture'], frames // 2, axis=1), batch['floor'])
    return {'log_mel': jnp.where(cells, jnp.logaddexp(fill, batch['background']), x)}


def mask_features(
    keys: jax.Array,
    x: jax.Array,
    length: jax.Array,
    masks: int,
    time_share: float,
    feature_share: float,
) -> jax.Array:
    """`spec_mask` on frames of an encoder: masked cells hold the utterance's mean of the feature.

    Args:
        keys: [B].
        x: [B, T, F].
        length: int32 [B], real frames.
        masks: number of time masks and of masks of neighbouring features.
        time_share: longest time mask as a share of the utterance's length.
        feature_share: widest mask of features as a share of F.
    """
    cells = _masked_cells(keys, x, length, masks, time_share, feature_share)
    return jnp.where(cells, _mean_frame(x, length), x)


def _masked_cells(keys, x, length, masks, time_share, band_share) -> jax.Array:
    """Draws masks in time and frequency, bool [B, T, F]."""
    frames, n_bands = x.shape[1:]
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (4, masks)))(keys)
    length = length[:, None].astype(jnp.float32)

    def masked(
        size, axis_length, position
    ):  # [B, masks] sizes and relative positions -> bool [B, n]
        start = position * (axis_length - size)
        steps = jnp.arange(frames if axis_length is length else n_bands)[:, None]
        inside = (steps >= start[:, None]) & (steps < (start + size)[:, None])
        return jnp.any(inside, axis=-1)

    in_time = masked(uniform[:, 0] * time_share * length, length, uniform[:, 1])
    in_bands = masked(uniform[:, 2] * band_share * n_bands, float(n_bands), uniform[:, 3])
    return in_time[:, :, None] | in_bands[:, None, :]


def _mean_frame(x: jax.Array, length: jax.Array) -> jax.Array:
    """Mean over real frames, [B, 1, F]."""
    real = frames_mask(length, x.shape[1])[..., None]
    return jnp.sum(x * real, 1, keepdims=True) / length[:, None, None]


def noise(keys: jax.Array, batch: dict, lowest_snr: float, highest_snr: float) -> dict:
    """Adds noise in the mel-power domain at a random SNR over the active part of the utterance.

    Without a noise corpus the noise is coloured, from white to brown (power spectrum 1 / f^0…2), and fluctuates between
    frames like real noise.

    Args:
        lowest_snr: dB.
        highest_snr: dB.

    Returns:
        New 'log_mel'.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
    frames = batch['log_mel'].shape[1]
    bands = batch['bands']
    if 'noise' in batch:
        sound = batch['noise'][:, :frames]
    else:
        # Another part of the texture than the background's.
        sound = jnp.roll(batch['texture'], frames // 2, axis=1)
        slope = 2.0 * uniform[:, 1]
        sound = sound - slope[:, None, None] * jnp.log(bands.centres / 1000.0)
    snr = lowest_snr + (highest_snr - lowest_snr) * uniform[:, 0]
    clean, length = batch['clean_log_mel'], batch['length']
    return {'log_mel': add_mel_noise(batch['log_mel'], sound, snr, clean, length, bands)}


def gain(keys: jax.Array, batch: dict, lowest: float, highest: float) -> dict:
    """Makes each utterance louder or softer, background included, as another distance or microphone does.

    Args:
        lowest: dB.
        highest: dB.

    Returns:
        New 'log_mel', 'clean_log_mel' (the reconstruction is as loud as the input) and 'background'.
    """
    draw = lambda key: jax.random.uniform(key, (1, 1), minval=lowest, maxval=highest)
    return _apply_gain(batch, jax.vmap(draw)(keys), 'log_mel', 'clean_log_mel', 'background')


def filter_augment(keys: jax.Array, batch: dict, largest: float) -> dict:
    """Filters each utterance as another room, microphone or channel might (Nam et al. 2022, arXiv 2110.03282).

    Linear FilterAugment as in its authors' code: three to five frequency bands of random widths, each at least six mel
    bands wide, with random gains at their edges and linear interpolation between.

    Args:
        largest: bound of the uniform gains, ± dB.

    Returns:
        New 'log_mel' and 'background'.
    """
    mel_bands = np.arange(batch['log_mel'].shape[-1], dtype=np.float64)
    narrowest = min(6.0, mel_bands[-1] / _FILTER_BANDS[-1])
    curve = lambda key: random_curve(key, mel_bands, narrowest, largest)
    return _apply_gain(batch, jax.vmap(curve)(keys)[:, None, :], 'log_mel', 'background')


def random_curve(
    key: jax.Array, mels: jax.Array | np.ndarray, narrowest: float | jax.Array, largest: float
) -> jax.Array:
    """A random gain over frequency: piecewise linear over three to five random bands.

    Args:
        key: random key.
        mels: [F], ascending positions on the mel scale, from 0.
        narrowest: width of the narrowest band, at most a fifth of the scale.
        largest: bound of the uniform gains at the edges of the bands, ± dB.

    Returns:
        Gains [F], dB.
    """
    last = mels[-1]
    which, position_key, gain_key = jax.random.split(key, 3)
    positions = jax.random.uniform(position_key, (_FILTER_BANDS[-1] - 1,))
    gains = jax.random.uniform(gain_key, (_FILTER_BANDS[-1] + 1,), minval=-largest, maxval=largest)
    curves = []
    for bands in _FILTER_BANDS:
        spare = last - bands * narrowest
        inner = jnp.sort(positions[: bands - 1]) * spare + narrowest * np.arange(1, bands)
        edges = jnp.concatenate([jnp.zeros(1), inner, jnp.full(1, last)])
        curves.append(jnp.interp(mels, edges, gains[: bands + 1]))
    return jnp.stack(curves)[jax.random.randint(which, (), 0, len(curves))]


def band_limit(keys: jax.Array, batch: dict, low: float, high: float) -> dict:
    """Limits each utterance to a frequency band, as telephones, codecs and cheap microphones do.

    The edges are uniform over the mel bands and each falls off within one band; the rest is attenuated by 20 to 60 dB. It
    may reach the floor of the front end, as on telephones: the only augmentation that the floor reveals.

    Args:
        low: highest lower edge, Hz; the lowest is the lowest band.
        high: lowest upper edge, Hz; the highest is the highest band.

    Returns:
        New 'log_mel' and 'background'.
    """
    centres = batch['bands'].centres
    band = np.arange(len(centres))
    highest_lower, lowest_upper = (np.interp(edge, centres, band) for edge in (low, high))

    def curve(key):
        lower, upper, depth = jax.random.uniform(key, (3,))
        lower, upper = lower * highest_lower, lowest_upper + upper * (band[-1] - lowest_upper)
        outside = jnp.maximum(lower - band, band - upper)
        attenuation = STOPPED_DB[0] + depth * (STOPPED_DB[1] - STOPPED_DB[0])
        return -attenuation * jnp.clip(outside, 0, 1)

    return _apply_gain(batch, jax.vmap(curve)(keys)[:, None, :], 'log_mel', 'background')


def _apply_gain(batch: dict, decibels: jax.Array, *fields: str) -> dict:
    """Amplifies log-mels as if the sound had been louder before the front end added its floor."""
    floor = jnp.exp(batch['floor'])
    factor = jnp.exp(DB * decibels)
    power = lambda x: jnp.maximum(jnp.exp(x) - floor, 0.0) * factor
    return {name: jnp.log(power(batch[name]) + floor) for name in fields}


def take_frames(x: jax.Array, index: jax.Array) -> jax.Array:
    """Takes the frames of [B, T, F] at int [B, N], clipped to 0 … T - 1: [B, N, F]."""
    index = jnp.clip(index, 0, x.shape[1] - 1)
    return jnp.take_along_axis(x, index[:, :, None], axis=1)
