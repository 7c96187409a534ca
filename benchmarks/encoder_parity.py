"""Parity of the pretrained encoders with transformers: python -m benchmarks.encoder_parity [--cases=TEXT] [--docs]

Needs the extra [parity]. A case compares our padded batch, garbage in the padding, with transformers (float32, eager attention, evaluation
mode), one unpadded utterance at a time, both with the same random weights. Reported are the largest difference of a layer's frames,
relative to the largest value of that layer, and that of the gradient of a parameter, relative to the largest gradient of the model.
With SER_JAX_ENCODER (a folder with Whisper tiny.en) and SER_JAX_MANUAL_DIR (real speech) the real weights are compared too, with
transformers in float64. --docs writes the table to docs/encoders.md.
"""

import argparse
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import librosa
import numpy as np
import torch
import transformers
from flax import traverse_util
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ser_jax.audio.reading import read_audio
from ser_jax.encoding.extraction import Extractor, windows
from ser_jax.models.encoders import weights
from ser_jax.models.encoders.pretrained import load_encoder

DOCS = Path(__file__).resolve().parent.parent / 'docs' / 'encoders.md'
_LENGTHS = (400, 24001, 8003, 17777)  # samples: the shortest, odd ones, very different ones


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration to compare.

    Attributes:
        family: `model_type`.
        variant: distinguishing settings.
        size: 'small', 'deep' (12 small layers), 'base' or 'large' (as published).
        settings: fields of the config.
        gradient: whether gradients are compared too.
        lengths: samples of the utterances.
    """

    family: str
    variant: str
    size: str
    settings: Mapping[str, Any]
    gradient: bool = True
    lengths: tuple[int, ...] = _LENGTHS

    @property
    def name(self) -> str:
        """E.g. 'hubert-group-small'."""
        return f'{self.family}-{self.variant.partition(",")[0].replace(" ", "_")}-{self.size}'


@dataclasses.dataclass(frozen=True)
class Result:
    """What a comparison found.

    Attributes:
        hidden: largest relative difference of a layer's frames.
        gradient: largest relative difference of a gradient; None if not compared.
    """

    hidden: float
    gradient: float | None


def _cases() -> list[Case]:
    small = {'hidden_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4}
    small |= {'intermediate_size': 80, 'conv_dim': [32] * 7}
    base = {'hidden_size': 768, 'num_hidden_layers': 12, 'num_attention_heads': 12}
    large = {'hidden_size': 1024, 'num_hidden_layers': 24, 'num_attention_heads': 16}
    base['intermediate_size'], large['intermediate_size'] = 3072, 4096
    group = {'feat_extract_norm': 'group', 'do_stable_layer_norm': False, 'conv_bias': False}
    layer = {'feat_extract_norm': 'layer', 'do_stable_layer_norm': True, 'conv_bias': True}
    norms = {'group norm, post-norm': group, 'layer norm, pre-norm': layer}
    cases = [
        Case(family, variant, 'small', small | norm)
        for family in ('wav2vec2', 'hubert', 'wavlm')
        for variant, norm in norms.items()
    ]
    short = (8003, 16000)
    cases += [
        Case('hubert', 'no projection norm', 'small', small | {'feat_proj_layer_norm': False}),
        Case('wav2vec2', 'group norm, post-norm', 'deep', small | {'num_hidden_layers': 12}),
        Case('wav2vec2', 'group norm, post-norm', 'base', base | group, lengths=short),
        Case('hubert', 'group norm, post-norm', 'base', base | group, False, short),
        Case('wavlm', 'group norm, post-norm', 'base', base | group, False, short),
        Case('wav2vec2', 'layer norm, pre-norm', 'large', large | layer, False, short),
        Case('hubert', 'layer norm, pre-norm', 'large', large | layer, False, short),
        Case('wavlm', 'layer norm, pre-norm', 'large', large | layer, False, short),
    ]
    sizes = ('d_model', 'encoder_layers', 'encoder_attention_heads', 'encoder_ffn_dim')
    whisper = lambda *values, bands: {**dict(zip(sizes, values)), 'num_mel_bins': bands}
    cases += [
        Case('whisper', '80 bands', 'small', whisper(48, 2, 4, 96, bands=80)),
        Case('whisper', '128 bands', 'small', whisper(48, 2, 4, 96, bands=128)),
        Case('whisper', '80 bands', 'deep', whisper(48, 12, 4, 96, bands=80)),
        Case('whisper', '80 bands', 'base', whisper(512, 6, 8, 2048, bands=80), lengths=short),
        Case(
            'whisper',
            '128 bands',
            'large',
            whisper(1280, 32, 20, 5120, bands=128),
            False,
            short,
        ),
    ]
    return cases


CASES = {case.name: case for case in _cases()}


def make_reference(case: Case) -> nn.Module:
    """transformers' encoder with random weights, in evaluation mode.

    Vectors are random too: biases of 0 and scales of 1, transformers' initial values, would hide errors.
    """
    torch.manual_seed(0)
    options = {'attn_implementation': 'eager'}
    if case.family == 'whisper':
        model = WhisperEncoder(transformers.WhisperConfig(**case.settings, **options))
    else:
        classes = {'wav2vec2': 'Wav2Vec2', 'hubert': 'Hubert', 'wavlm': 'WavLM'}
        name = classes[case.family]
        config = getattr(transformers, f'{name}Config')(**case.settings, **options)
        model = getattr(transformers, f'{name}Model')(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if max(parameter.shape) == parameter.numel():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def reference_states(model: torch.nn.Module, waveform: np.ndarray) -> list[torch.Tensor]:
    """The frames of every layer for one unpadded utterance, float32 [S].

    Returns:
        Tensors [T, D], numbered as ours: 0 the input of the layers, i the output of layer i, last the final norm, if any.
    """
    whisper = isinstance(model, WhisperEncoder)
    encoder = model if whisper else model.encoder
    states = []
    first = lambda value: value[0] if isinstance(value, tuple) else value
    hooks = [
        encoder.layers[0].register_forward_pre_hook(
            lambda _, inputs, named: states.append(first(inputs or (named['hidden_states'],))),
            with_kwargs=True,
        ),
        *(
            layer.register_forward_hook(lambda _, inputs, output: states.append(first(output)))
            for layer in encoder.layers
        ),
    ]
    dtype = next(model.parameters()).dtype
    if whisper:
        last = _whisper(model, torch.tensor(whisper_features(model, waveform), dtype=dtype))
    else:
        x = torch.tensor(waveform, dtype=dtype)
        x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-7)
        last = model(x[None]).last_hidden_state
    for hook in hooks:
        hook.remove()
    if whisper or model.config.do_stable_layer_norm:
        states.append(last)
    return [state[0] for state in states]


def whisper_features(model: torch.nn.Module, waveform: np.ndarray) -> np.ndarray:
    """Log-mel [1, F, T] of an utterance followed by zeros, cut to its own frames, with the floor of these frames.

    By transformers' extractor; for a model in float64 by librosa in float64, as the extractor rounds to float32.
    """
    bands, frames = model.config.num_mel_bins, -(-len(waveform) // 160)
    if next(model.parameters()).dtype == torch.float64:
        mel = librosa.filters.mel(sr=16000, n_fft=400, n_mels=bands, dtype=np.float64)
        signal = np.pad(waveform.astype(np.float64), (0, 400))
        spectrum = librosa.stft(signal, n_fft=400, hop_length=160, pad_mode='reflect')
        log = np.log10(np.maximum(mel @ np.abs(spectrum[:, :frames]) ** 2, 1e-10))
        features = (log[None] + 4) / 4
    else:
        # 31 s: zeros follow an utterance of 30 s too.
        extractor = transformers.WhisperFeatureExtractor(bands, chunk_length=31)
        features = extractor(waveform, sampling_rate=16000, return_tensors='np').input_features
        features = features[:, :, :frames]
    return np.maximum(features, features.max() - 2.0)  # (maximum − 8 + 4) / 4


def _whisper(model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """transformers' encoder at natural length."""
    # It refuses other lengths than twice this, whose setter refuses halves.
    vars(model.config)['max_source_positions'] = features.shape[-1] / 2
    whole = model.embed_positions
    model.embed_positions = torch.nn.Embedding.from_pretrained(
        whole.weight[: -(-features.shape[-1] // 2)]
    )
    try:
        return model(features).last_hidden_state
    finally:
        model.embed_positions = whole


def our_params(module: nn.Module, model: torch.nn.Module, tensors=None) -> dict:
    """Our parameters from those of a model of transformers.

    Args:
        module: our module of the same config.
        model: transformers' encoder.
        tensors: name -> tensor to take instead of the model's state, e.g. gradients.
    """
    tensors = dict(model.state_dict()) if tensors is None else tensors
    family = 'whisper' if isinstance(model, WhisperEncoder) else model.config.model_type
    names = weights.encoder_tensors(tensors, family, Path())
    arrays = {name: tensors[full].detach().float().numpy() for name, full in names.items()}
    return weights.parameters(module, weights.Checkpoint(Path(), {}, None, arrays))


def random_waveforms(lengths: Sequence[int]) -> list[np.ndarray]:
    """Noise whose level changes every 50 ms, float32 [S] each."""
    rng = np.random.default_rng(0)
    levels = [np.repeat(rng.uniform(0.01, 0.3, n // 800 + 1), 800)[:n] for n in lengths]
    return [(level * rng.standard_normal(len(level))).astype(np.float32) for level in levels]


def padded(waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A batch [B, S] with garbage in the padding, and the lengths [B]."""
    samples = np.array([len(waveform) for waveform in waveforms], np.int32)
    batch = np.random.default_rng(1).normal(0, 10, (len(samples), samples.max() + 777))
    for row, waveform in enumerate(waveforms):
        batch[row, : len(waveform)] = waveform
    return batch.astype(np.float32), samples


def largest_difference(ours, expected) -> float:
    """The largest absolute difference of two arrays, relative to the largest absolute value of the second."""
    return float(np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max())


def compare(case: Case) -> Result:
    """Compares our module with transformers, see the head of this file."""
    model = make_reference(case)
    config = model.config.to_dict() | {'model_type': case.family}
    module = weights.encoder_class(case.family).from_config(config, {'do_normalize': True})
    waveforms = random_waveforms(case.lengths)
    batch, samples = padded(waveforms)
    params = our_params(module, model)
    with torch.set_grad_enabled(case.gradient):
        expected = [reference_states(model, waveform) for waveform in waveforms]
    # The gradient is that of a random linear function of all frames of all layers.
    rng = np.random.default_rng(2)
    factors = [[rng.standard_normal(x.shape).astype(np.float32) for x in row] for row in expected]

    def function(params):
        states, mask = module.apply({'params': params}, batch, samples)
        total = sum(
            jnp.sum(states[layer][row, : len(factor)] * factor)
            for row, of_layers in enumerate(factors)
            for layer, factor in enumerate(of_layers)
        )
        return total, (states, mask)

    if case.gradient:
        (_, (states, mask)), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(params)
    else:
        _, (states, mask) = jax.jit(function)(params)
    assert len(states) == len(expected[0]) == module.outputs
    assert mask.sum(axis=1).tolist() == [len(row[0]) for row in expected]
    hidden = max(
        largest_difference(states[layer][row, : len(x)], x.detach().numpy())
        for row, of_layers in enumerate(expected)
        for layer, x in enumerate(of_layers)
    )
    if not case.gradient:
        return Result(hidden, None)
    sum(
        (x * torch.from_numpy(factor)).sum()
        for row, of_layers in zip(expected, factors)
        for x, factor in zip(row, of_layers)
    ).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    gradients = zeros | {name: tensor for name, tensor in found.items() if tensor is not None}
    theirs = traverse_util.flatten_dict(our_params(module, model, gradients))
    ours = traverse_util.flatten_dict(gradient)
    largest = max(np.abs(array).max() for array in theirs.values())
    difference = max(np.abs(np.asarray(ours[path]) - theirs[path]).max() for path in theirs)
    return Result(hidden, float(difference / largest))


def _in_windows(model: torch.nn.Module, module: nn.Module, waveform: np.ndarray) -> list:
    """`reference_states` of a recording of any length, cut as `encoding.extraction` does it; arrays [T, D]."""
    parts = [
        [x[window.skip :] for x in reference_states(model, waveform[window.start : window.stop])]
        for window in windows(len(waveform), module)
    ]
    return [torch.cat(layer).numpy() for layer in zip(*parts)]


def compare_real(folder: str | Path, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Compares Whisper's real weights, for recordings of any length, with transformers in float64.

    Returns:
        'ser_jax' and 'transformers', both in float32 -> largest relative difference to float64, [recordings, layers].
    """
    encoder = load_encoder(folder)
    config = weights.read_checkpoint(folder).config
    names = {field.name for field in dataclasses.fields(transformers.WhisperConfig)}
    settings = {name: value for name, value in config.items() if name in names}
    model = WhisperEncoder(transformers.WhisperConfig(**settings, attn_implementation='eager'))
    tensors = weights.read_checkpoint(folder).tensors
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    model.eval()
    found = {'ser_jax': [], 'transformers': []}
    with torch.inference_mode():
        for waveform, frames in zip(waveforms, Extractor(encoder)(waveforms)):
            single = _in_windows(model.float(), encoder.module, waveform)
            exact = _in_windows(model.double(), encoder.module, waveform)
            found['ser_jax'].append(list(map(largest_difference, frames, exact)))
            found['transformers'].append(list(map(largest_difference, single, exact)))
    return {name: np.array(rows) for name, rows in found.items()}


def main() -> None:
    """Prints the table, or writes it to the docs."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--cases', default='', help='part of the names of the cases; default all')
    parser.add_argument('--docs', action='store_true', help=f'write the table to {DOCS.name}')
    options = parser.parse_args()
    lines = [
        '| family | variant | size | largest difference of a layer | of a gradient |',
        '|---|---|---|---|---|',
    ]
    for name, case in CASES.items():
        if options.cases not in name:
            continue
        result = compare(case)
        gradient = '–' if result.gradient is None else f'{result.gradient:.0e}'
        lines.append(
            f'| {case.family} | {case.variant} | {_size(case)} | {result.hidden:.0e} | {gradient} |'
        )
        print(lines[-1], flush=True)
    folder, speech = (os.environ.get(name) for name in ('SER_JAX_ENCODER', 'SER_JAX_MANUAL_DIR'))
    if folder and speech and not options.cases:
        lines += ['', *_real_table(folder, real_speech(speech))]
        print('\n'.join(lines[-4:]))
    versions = (
        f'transformers {transformers.__version__}, torch {torch.__version__}, jax {jax.__version__}'
    )
    lines += ['', f'{versions}; `python -m benchmarks.encoder_parity --docs`.']
    if options.docs:
        text = DOCS.read_text(encoding='utf-8')
        table = '<!-- parity -->\n' + '\n'.join(lines) + '\n<!-- end parity -->'
        text = re.sub(r'<!-- parity -->.*<!-- end parity -->', lambda _: table, text, flags=re.S)
        DOCS.write_text(text, encoding='utf-8')


def _size(case: Case) -> str:
    settings = case.settings
    layers = settings.get('encoder_layers', settings.get('num_hidden_layers'))
    return f'{case.size}, {layers} × {settings.get("d_model", settings.get("hidden_size"))}'


def real_speech(manual_dir: str) -> list[np.ndarray]:
    """Recordings of `REAL_LENGTHS`, float32 [S]: utterances of EMO-DB (German) and RAVDESS (English), one after the other."""
    german = sorted((Path(manual_dir) / 'emodb').rglob('*.wav'))
    english = sorted((Path(manual_dir) / 'ravdess').rglob('*.flac'))
    speech = []
    for number, length in enumerate(REAL_LENGTHS):
        files = (german if number % 2 else english)[40 * number :]
        parts, total = [], 0
        while total < length:
            parts.append(read_audio(files[len(parts)]).astype(np.float32) / 32768)
            total += len(parts[-1])
        speech.append(np.concatenate(parts)[:length])
    return speech


REAL_LENGTHS = (8000, 39999, 61234, 160000, 480000, 640000)  # samples, 0.5 to 40 s


def _real_table(folder: str, waveforms: Sequence[np.ndarray]) -> list[str]:
    found = compare_real(folder, waveforms)
    layers = range(found['ser_jax'].shape[1])
    head = 'Whisper tiny.en, real weights and speech, 0.5 to 40 s: largest difference to float64'
    return [
        f'| {head} | ' + ' | '.join(f'layer {layer}' for layer in layers) + ' |',
        '|---' * (len(layers) + 1) + '|',
        *(
            f'| {name}, float32 | ' + ' | '.join(f'{v:.0e}' for v in rows.max(axis=0)) + ' |'
            for name, rows in found.items()
        ),
    ]


if __name__ == '__main__':
    main()
