"""Augments log-mel batches on the device; the operation drawn is the utterance's augmentation type, a free label.

All functions work on raw natural-log mel [B, T, F] (not normalised), are pure functions of the key, and give every
example the same draw on any number of devices. An operation is a function `name(keys, batch, *arguments) -> changed
fields` applied to the whole batch; `augment` keeps its result for the utterances that drew it.

Length and digital silence must not reveal the type. Therefore every utterance, clean ones included, is cropped to the
length that the highest speed would leave, and gets a background at a random level far below the speech. The one
exception is `band_limit`: its stop band may fall silent, as on telephones.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models.layers import example_keys, frames_mask
from ser_jax.runtime.call_strings import parse_chain
from ser_jax.runtime.errors import UserError
from ser_jax.transforms import augmentations, waveform_augmentations
from ser_jax.transforms.mel_noise import add_background, mel_bands, noise_texture


class Operation(NamedTuple):
    """One augmentation type: calls applied one after the other.

    Attributes:
        text: the call string, for messages and tables.
        calls: ((name, arguments), …).
    """

    text: str
    calls: tuple[tuple[str, tuple], ...]


# Speed rereads the source and mixup the clean log-mels: both would undo earlier operations.
_ORDER = {'speed': 0, 'mixup': 1}


# On frames of an encoder: changes of the waveform, computed beforehand (`encoding.views`), then these.
FRAME_OPERATIONS = ('mixup', 'spec_mask')


def parse_operations(
    texts: Sequence[str], representation: str = 'log_mel'
) -> tuple[Operation, ...]:
    """Parses `config.augmentations`.

    Args:
        texts: call strings such as 'speed(0.9, 1.1)'; 'speed(0.9, 1.1) + spec_mask(2, 0.1, 0.1)' is one type that
            applies both.
        representation: representation of the network's input, 'log_mel', 'waveform' or 'encoded'.

    Returns:
        One `Operation` a string.

    Raises:
        UserError: unknown augmentation, wrong arguments, an order that would undo an operation, or a repeated type.
    """
    known = augmentations.OPERATIONS
    last = FRAME_OPERATIONS if representation == 'encoded' else ()
    if representation != 'log_mel':
        known = waveform_augmentations.OPERATIONS | {name: known[name] for name in last}
    operations = []
    for text in texts:
        calls = parse_chain(text, 'augmentation')
        for name, arguments in calls:
            if name not in known:
                raise UserError(
                    f'augmentation {name!r} in {text!r} does not exist; there are '
                    f'{", ".join(known)}'
                )
            is_valid, requirement = known[name]
            names = list(inspect.signature(is_valid).parameters)
            if len(arguments) != len(names):
                raise UserError(
                    f'augmentation {name!r} in {text!r} takes {len(names)} number{"s" * (len(names) != 1)}: '
                    f'{name}({", ".join(names)})'
                )
            numbers = all(type(argument) in (int, float) for argument in arguments)
            if not numbers or not is_valid(*arguments):
                raise UserError(f'augmentation {name!r} in {text!r}: {requirement}')
        order = [_ORDER.get(name, 2) + 3 * (name in last) for name, _ in calls]
        if order != sorted(order) or len({name for name, _ in calls}) < len(calls):
            raise UserError(
                f'augmentation {text!r}: each operation once, speed first, then '
                + (
                    'other changes of the waveform, mixup, spec_mask'
                    if last
                    else 'mixup, then the others'
                )
            )
        if calls in [operation.calls for operation in operations]:
            raise UserError(f'augmentation {text!r} occurs twice: types must differ')
        operations.append(Operation(text, calls))
    return tuple(operations)


def _highest_speed(operations: Sequence[Operation]) -> float:
    """The highest speed, at least 1: input frames needed for one output frame."""
    highest = [arguments[1] for op in operations for name, arguments in op.calls if name == 'speed']
    return max([1.0, *highest])


def input_frames(operations: Sequence[Operation], frames: int) -> int:
    """Frames the host must deliver (where the utterance has them) for `frames` after augmentation."""
    speed = _highest_speed(operations)
    return int(np.ceil(frames * speed)) + (2 if speed > 1 else 0)


def augment(
    rng: jax.Array,
    batch: dict,
    operations: Sequence[Operation],
    *,
    frames: int,
    clean_share: float | None = None,
    axis_name: str | None = None,
    front_end: FrontEnd = FrontEnd(),  # noqa: B008 (frozen)
) -> dict:
    """Draws one of clean, operation 1, operation 2, … for each utterance and applies it.

    Args:
        rng: key, the same on every device.
        batch: 'log_mel' [B, T_in, F] raw log-mel, T_in = `input_frames(operations, frames)`; 'length' int32 [B];
            'emotion' float32 [B, K], zeros where missing; 'emotion_mask' bool [B]; optionally 'noise' [B, T_in, F], log-mel
            of recorded noise that replaces the coloured noise of `noise`; other fields are passed through.
        operations: parsed augmentations; none: cropping only.
        frames: T.
        clean_share: probability of clean; None: as likely as each operation.
        axis_name: mapped axis the batch is spread over, or None.
        front_end: parameters of the log-mels.

    Returns:
        The batch without 'noise', with 'log_mel' and 'clean_log_mel' [B, T, F] (the same speed, mixture and gain, without
        noise, masks and filters), 'length' int32 [B], 'emotion' and 'emotion_mask' after mixup, and
        'augmentation_type' int32 [B] (0 = clean).
    """
    size = batch['log_mel'].shape[0]
    keys = jax.vmap(lambda key: jax.random.split(key, 4 + len(operations)))(
        example_keys(rng, size, axis_name)
    )
    work = dict(batch, source=batch['log_mel'], source_length=batch['length'])
    work['axis_name'], work['floor'] = axis_name, np.log(front_end.floor)

    length = batch['length'] / _highest_speed(operations)
    work['length'] = jnp.clip(length.astype(jnp.int32), 1, frames)
    starts = batch['length'] - work['length'] + 1
    start = (jax.vmap(jax.random.uniform)(keys[:, 0]) * starts).astype(jnp.int32)
    work['log_mel'] = augmentations.take_frames(work['source'], start[:, None] + jnp.arange(frames))
    work['bands'] = mel_bands(work['source'].shape[-1], front_end.fmin, front_end.fmax)
    if operations:
        work['texture'] = noise_texture(keys[:, 1], work['log_mel'].shape, work['bands'])
        work['log_mel'], work['background'] = add_background(keys[:, 2], work)
    work['clean_log_mel'] = work['log_mel']
    # One number for the whole global batch: row i mixes with row i + shift.
    work['partner_shift'] = jax.random.randint(jax.random.fold_in(rng, 2**31 - 1), (), 1, 2**16)

    draw = jax.vmap(jax.random.uniform)(keys[:, 3])
    clean = 1.0 / (1 + len(operations)) if clean_share is None else clean_share
    each = (1.0 - clean) / max(len(operations), 1)
    kind = jnp.where(draw < clean, 0, 1 + jnp.floor((draw - clean) / max(each, 1e-9)))
    kind = jnp.clip(kind, 0, len(operations)).astype(jnp.int32)

    result = dict(work)
    for i, operation in enumerate(operations):
        changed = dict(work)
        for j, (name, arguments) in enumerate(operation.calls):
            call_keys = jax.vmap(jax.random.fold_in, (0, None))(keys[:, 4 + i], j)
            changed.update(getattr(augmentations, name)(call_keys, changed, *arguments))
        for field in ('log_mel', 'clean_log_mel', 'emotion', 'emotion_mask'):
            if changed[field] is not work[field]:
                chosen = (kind == i + 1).reshape(-1, *[1] * (result[field].ndim - 1))
                result[field] = jnp.where(chosen, changed[field], result[field])

    mask = frames_mask(result['length'], frames)[..., None]
    fields = {
        'log_mel': jnp.where(mask, result['log_mel'], 0.0),
        'clean_log_mel': jnp.where(mask, result['clean_log_mel'], 0.0),
        'length': result['length'],
        'emotion': result['emotion'],
        'emotion_mask': result['emotion_mask'],
        'augmentation_type': kind,
    }
    return {**{k: v for k, v in batch.items() if k != 'noise'}, **fields}


def augment_frames(
    rng: jax.Array,
    batch: dict,
    operations: Sequence[Operation],
    *,
    axis_name: str | None = None,
) -> dict:
    """Applies mixup and masks to frames of an encoder, where an utterance's augmentation type has them.

    The type was drawn when the batch was made, with the view of the waveform that it stands for.

    Args:
        rng: key, the same on every device.
        batch: 'encoded' [B, T, F]; 'clean_log_mel' [B, T, bands], if there is one; 'length' int32 [B]; 'emotion' float32 [B, K],
            zeros where missing; 'emotion_mask' bool [B]; 'augmentation_type' int32 [B] (0 = clean); other fields are passed
            through.
        operations: parsed augmentations.
        axis_name: mapped axis the batch is spread over, or None.

    Returns:
        The batch with these fields changed; frames are 0 in padding.
    """
    fields = [name for name in ('encoded', 'clean_log_mel') if name in batch]
    sizes = np.cumsum([batch[name].shape[-1] for name in fields])
    x = jnp.concatenate([batch[name] for name in fields], axis=-1)
    keys = jax.vmap(lambda key: jax.random.split(key, max(len(operations), 1)))(
        example_keys(rng, len(x), axis_name)
    )
    # One number for the whole global batch: row i mixes with row i + shift.
    shift = jax.random.randint(jax.random.fold_in(rng, 2**31 - 1), (), 1, 2**16)
    work = {name: batch[name] for name in ('length', 'emotion', 'emotion_mask')}
    work |= {'clean_log_mel': x, 'partner_shift': shift, 'axis_name': axis_name}
    result = {'x': x, 'emotion': batch['emotion'], 'emotion_mask': batch['emotion_mask']}
    for i, operation in enumerate(operations):
        changed = dict(result, x=x)
        for name, arguments in operation.calls:
            if name == 'mixup':
                mixed = augmentations.mixup(keys[:, i], work, *arguments)
                changed = {'x': mixed.pop('clean_log_mel'), **mixed}
            elif name == 'spec_mask':
                masked = augmentations.mask_features(
                    keys[:, i], changed['x'][..., : sizes[0]], batch['length'], *arguments
                )
                changed['x'] = jnp.concatenate([masked, changed['x'][..., sizes[0] :]], axis=-1)
        if any(name in FRAME_OPERATIONS for name, _ in operation.calls):
            for name in result:
                chosen = (batch['augmentation_type'] == i + 1).reshape(
                    -1, *[1] * (result[name].ndim - 1)
                )
                result[name] = jnp.where(chosen, changed[name], result[name])
    mask = frames_mask(batch['length'], x.shape[1])[..., None]
    parts = jnp.split(jnp.where(mask, result.pop('x'), 0.0), sizes[:-1], axis=-1)
    return {**batch, **dict(zip(fields, parts)), **result}


def augment_waveforms(
    rng: jax.Array, batch: dict, operations: Sequence[Operation], *, axis_name: str | None = None
) -> dict:
    """Changes each waveform by the operation of its augmentation type, which was drawn when the batch was made.

    Args:
        rng: key, the same on every device.
        batch: 'waveform' float32 [B, S]; 'length' int32 [B], samples; 'augmentation_type' int32 [B] (0 = clean); other fields
            are passed through.
        operations: parsed augmentations.
        axis_name: mapped axis the batch is spread over, or None.

    Returns:
        The batch with these waveforms and lengths changed; what is beyond S samples is cut.
    """
    x, size = batch['waveform'], batch['waveform'].shape[1]

    def change(operation: Operation | None, key, waveform, samples):
        if operation is None:
            return waveform, samples
        longest = waveform_augmentations.longest_samples(operation.calls, size)
        padded = jnp.pad(waveform, (0, longest - size))
        changed = waveform_augmentations.apply_calls(
            operation.calls, key[None], padded[None], samples[None]
        )
        return changed.waveform[0, :size], jnp.minimum(changed.samples[0], size)

    branches = [functools.partial(change, operation) for operation in (None, *operations)]
    rows = batch['augmentation_type'], example_keys(rng, len(x), axis_name), x, batch['length']
    # One utterance after the other: of the operations only the one that was drawn is computed.
    x, length = jax.lax.map(lambda row: jax.lax.switch(row[0], branches, *row[1:]), rows)
    return {**batch, 'waveform': x, 'length': length}


def unchanged(rng: jax.Array, batch: dict) -> dict:
    """Stands in for `augment` where inputs are not augmented (waveforms): adds 'augmentation_type', int32 [B], all 0."""
    del rng
    return batch | {'augmentation_type': jnp.zeros_like(batch['length'])}
