"""The pretrained encoders of transformers in PyTorch, for the comparisons of speed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.encoder import make_factors
from ser_jax.audio.log_mel import FrontEnd, mel_matrix


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


def make_encoder(config: Mapping[str, Any], samples: int) -> torch.nn.Module:
    """Builds an encoder with random weights, from the waveform to the last layer.

    Args:
        config: content of a `config.json`.
        samples: length of the utterances.

    Returns:
        The module; its `encoder` is transformers' own.
    """
    torch.manual_seed(0)
    settings = {name: value for name, value in config.items() if name != 'model_type'}
    if config['model_type'] == 'whisper':
        return TorchWhisper(WhisperEncoder(transformers.WhisperConfig(**settings)), samples).eval()
    settings.pop('max_source_positions', None)
    return TorchWav2Vec2(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**settings))).eval()


def make_ways(
    module: torch.nn.Module, batch: np.ndarray, rate: float, compiled: bool, bfloat16: bool = False
) -> dict[str, Callable[[], object]]:
    """Forward pass and training step, as `encoder.our_ways`, on the module's device.

    Args:
        module: result of `make_encoder`.
        batch: utterances of one length, float32 [B, S].
        rate: learning rate of AdamW.
        compiled: use `torch.compile`.
        bfloat16: products in bfloat16 (autocast).
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    device = parameters[0].device
    waveform = torch.from_numpy(batch).to(device)
    run = torch.compile(module) if compiled else module
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    rounded = lambda: torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)

    with torch.inference_mode():
        factors = make_factors(tuple(module(waveform[:1]).shape))
    factors = torch.from_numpy(np.repeat(factors, len(batch), axis=0)).to(device)

    def forward():
        with torch.inference_mode(), rounded():
            frames = run(waveform)
        wait()
        return frames

    def train():
        optimiser.zero_grad()
        with rounded():
            loss = (run(waveform) * factors).mean()
        loss.backward()
        optimiser.step()
        wait()

    return {'forward': forward, 'step': train}
