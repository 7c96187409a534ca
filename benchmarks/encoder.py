"""Forward pass and training step of pretrained encoders, compared with PyTorch: python -m benchmarks.encoder [--out=FILE]

Whisper tiny and a wav2vec 2.0 of base size with random weights, 16 utterances of 3.7 s, from the waveform; transformers in PyTorch eager
and torch.compile, with its default attention, without dropout. A training step is the gradient of all parameters and an update by AdamW. Both libraries
start from the same parameters and must compute the same frames before anything is timed, in alternating rounds. Needs the extra
[parity].
"""

import argparse
import functools
import pathlib
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from benchmarks import timing
from benchmarks.encoder_parity import ours_of
from ser_jax.audio.log_mel import FrontEnd, mel_matrix
from ser_jax.models.encoders.pretrained import FAMILIES

_RATE = 1e-5  # learning rate


class TorchWhisper(torch.nn.Module):
    """transformers' Whisper encoder behind its log-mel, for utterances of one length."""

    def __init__(self, encoder: torch.nn.Module, samples: int):
        super().__init__()
        self.encoder = encoder
        front_end = FrontEnd(
            n_fft=400, win_length=400, n_mels=encoder.config.num_mel_bins, fmin=0.0
        )
        self.register_buffer('mel', torch.from_numpy(mel_matrix(front_end).T.copy()))
        self.register_buffer('window', torch.hann_window(400))
        self.frames = -(-samples // 160)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Maps [B, S] to the frames of the last layer [B, T, D]."""
        waveform = torch.nn.functional.pad(waveform, (0, 400))
        spectrum = torch.stft(
            waveform, 400, 160, window=self.window, return_complex=True, pad_mode='reflect'
        )
        power = spectrum[..., : self.frames].abs() ** 2
        log = torch.log10(torch.clamp(self.mel @ power, min=1e-10))
        features = (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8) + 4) / 4
        return self.encoder(features).last_hidden_state


class TorchWav2Vec2(torch.nn.Module):
    """transformers' wav2vec 2.0 behind the normalisation of the waveform, for utterances of one length."""

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Maps [B, S] to the frames of the last layer [B, T, D]."""
        variance, mean = torch.var_mean(waveform, dim=1, correction=0, keepdim=True)
        return self.encoder((waveform - mean) / torch.sqrt(variance + 1e-7)).last_hidden_state


def make_pair(name: str, samples: int, **options) -> tuple:
    """(our module, our parameters, PyTorch module) with the same random weights.

    Args:
        name: 'whisper_tiny' or 'wav2vec2_base'.
        samples: length of the utterances.
        options: `dtype`, `remat`, `lora_rank` of our module.
    """
    import transformers

    torch.manual_seed(0)
    if name == 'whisper_tiny':
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = transformers.WhisperConfig(max_source_positions=-(-samples // 320))
        encoder = WhisperEncoder(config).eval()
        theirs = TorchWhisper(encoder, samples)
    else:
        config = transformers.Wav2Vec2Config(layerdrop=0.0, apply_spec_augment=False)
        encoder = transformers.Wav2Vec2Model(config).eval()
        theirs = TorchWav2Vec2(encoder)
    family = FAMILIES[config.model_type]
    module = family.from_config(config.to_dict(), {'do_normalize': True}, **options)
    return module, ours_of(module, encoder), theirs.eval()


def our_ways(module, params, batch: np.ndarray) -> dict[str, Callable[[], object]]:
    """Our forward pass and training step, compiled."""
    waveform = jnp.asarray(batch)
    samples = jnp.full(len(batch), batch.shape[1], jnp.int32)
    apply = lambda params: module.apply({'params': params}, waveform, samples)[0][-1]
    forward = jax.jit(apply)
    optimiser = optax.adamw(_RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        gradient = jax.grad(lambda p: jnp.mean(jnp.square(apply(p))))(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = [jax.tree.map(jnp.array, params), optimiser.init(params)]

    def train():
        state[:] = jax.block_until_ready(step(*state))

    params = jax.device_put(params)
    return {'forward': lambda: jax.block_until_ready(forward(params)), 'step': train}


def torch_ways(module, batch: np.ndarray, compiled: bool) -> dict[str, Callable[[], object]]:
    """The same in PyTorch."""
    waveform = torch.from_numpy(batch)
    run = torch.compile(module) if compiled else module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=1e-4)

    def forward():
        with torch.inference_mode():
            return run(waveform)

    def train():
        optimiser.zero_grad()
        run(waveform).square().mean().backward()
        optimiser.step()

    return {'forward': forward, 'step': train}


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--encoders', default='whisper_tiny,wav2vec2_base')
    parser.add_argument('--utterances', type=int, default=16)
    parser.add_argument('--seconds', type=float, default=3.7)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--without', default='', help='comma-separated: torch, compile, step')
    parser.add_argument('--out', type=pathlib.Path)
    options = parser.parse_args()
    without = options.without.split(',')
    samples = int(options.seconds * 16000)
    rng = np.random.default_rng(0)
    batch = rng.normal(0, 0.1, (options.utterances, samples)).astype(np.float32)
    rows = []
    for name in options.encoders.split(','):
        module, params, theirs = make_pair(name, samples)
        ways = {'ser_jax': our_ways(module, params, batch)}
        if 'torch' not in without:
            ways['PyTorch eager'] = torch_ways(theirs, batch, False)
            ours = np.asarray(ways['ser_jax']['forward']())
            expected = ways['PyTorch eager']['forward']().numpy()
            difference = np.abs(ours - expected).max() / np.abs(expected).max()
            assert difference < 1e-4, f'{name}: the frames differ by {difference:.1e}'
            if 'compile' not in without:
                ways['PyTorch torch.compile'] = torch_ways(theirs, batch, True)
        for what in ('forward', 'step'):
            if what in without:
                continue
            runs = {library: way[what] for library, way in ways.items()}
            timing.alternate(runs, 2)  # compiles
            seconds = timing.alternate(runs, options.rounds)
            for library, values in seconds.items():
                pairs = zip(values, seconds['ser_jax'], strict=True)
                row = {
                    'encoder': name,
                    'what': what,
                    'library': library,
                    'seconds': statistics.median(values),
                    'times_ser_jax': statistics.median(v / ours for v, ours in pairs),
                }
                rows.append(row)
                print(
                    f'{name:14} {what:8} {library:22} {1000 * row["seconds"]:9.1f} ms   x {row["times_ser_jax"]:.2f}',
                    flush=True,
                )
    timing.write(options.out, rows=rows, torch=torch.__version__)


if __name__ == '__main__':
    main()
