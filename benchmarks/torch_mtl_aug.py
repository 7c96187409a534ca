"""MTL-AUG in idiomatic PyTorch, with the parameters of the JAX model.

For utterances of equal length only: batch statistics and LSTM then need no mask, which favours PyTorch.
"""

import itertools
import math
from collections.abc import Mapping

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.setting import Setting, make_batch, make_constants

_STEP, _ROW = 4, 2


class SpatialDropout(nn.Module):
    """Dropout that shares its draw along the axes in `shared`."""

    def __init__(self, rate: float, shared: tuple[int, ...]):
        super().__init__()
        self.rate, self.shared = rate, shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        shape = [1 if i in self.shared else n for i, n in enumerate(x.shape)]
        return x * x.new_empty(shape).bernoulli_(1 - self.rate) / (1 - self.rate)


class AttentionPooling(nn.Module):
    """Attentive statistics: [B, T, D] → [B, 2D]."""

    def __init__(self, depth: int, features: int = 64):
        super().__init__()
        self.hidden = nn.Linear(depth, features)
        self.score = nn.Linear(features, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.score(torch.tanh(self.hidden(x))), dim=1)
        mean = (weights * x).sum(1)
        squares = (weights * x.square()).sum(1)
        return torch.cat([mean, torch.sqrt(torch.relu(squares - mean.square()) + 1e-4)], -1)


class TorchMtlAug(nn.Module):
    """The network of `ser_jax.models.mtl_aug` for full-length crops; `settings` is `config.model` without its name."""

    def __init__(self, heads: Mapping[str, int], settings: Mapping, bands: int = 80):
        super().__init__()
        channels = [_STEP * _ROW, *settings['channels']]
        self.blocks = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-3, momentum=0.05) for c in channels[1:])
        self.map_dropout = SpatialDropout(settings['map_dropout'], (2, 3))
        rows = bands // _ROW // 2 ** (len(channels) - 1)
        width = settings['frame_features']
        self.step = nn.Linear(channels[-1] * rows, width, bias=False)
        self.step_norm = nn.BatchNorm1d(width, eps=1e-3, momentum=0.05)
        self.step_dropout = SpatialDropout(settings['dropout'], (1,))
        self.blstm = nn.LSTM(
            width, settings['blstm_features'], batch_first=True, bidirectional=True
        )
        encoded, size = 2 * settings['blstm_features'], settings['embedding_features']
        self.attention = AttentionPooling(encoded)
        self.embedding = nn.Linear(2 * encoded, size)
        self.own_attention = nn.ModuleDict(
            {name: AttentionPooling(encoded) for name in heads if name != 'emotion'}
        )
        self.own_hidden = nn.ModuleDict(
            {name: nn.Linear(2 * encoded, size) for name in heads if name != 'emotion'}
        )
        self.heads = nn.ModuleDict({name: nn.Linear(size, n) for name, n in heads.items()})
        self.decoder_width = settings['decoder_channels']
        self.decoder_in = nn.Linear(encoded, bands // 4 * self.decoder_width)
        self.decoder = nn.Conv2d(self.decoder_width, 16, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(settings['dropout'])

    def forward(self, log_mel: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B, T, F] → logits of every head [B, K], 'reconstruction' [B, T, F]; T divisible by 4."""
        size, frames, bands = log_mel.shape
        x = log_mel.reshape(size, frames // _STEP, _STEP, bands // _ROW, _ROW)
        x = x.permute(0, 2, 4, 1, 3).reshape(size, _STEP * _ROW, frames // _STEP, bands // _ROW)
        for convolution, norm in zip(self.blocks, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(convolution(x))), (1, 2))
            x = self.map_dropout(x)
        x = x.permute(0, 2, 3, 1).reshape(size, frames // _STEP, -1)
        x = self.step(x)
        x = F.relu(self.step_norm(x.transpose(1, 2)).transpose(1, 2))
        encoded, _ = self.blstm(self.step_dropout(x))
        embedding = F.relu(self.embedding(self.dropout(self.attention(encoded))))
        outputs = {}
        for name, head in self.heads.items():
            if name == 'emotion':
                outputs[name] = head(self.dropout(embedding))
            else:
                own = self.own_attention[name](encoded)
                outputs[name] = head(F.relu(self.own_hidden[name](own)))
        y = F.relu(self.decoder_in(encoded))
        y = y.reshape(size, frames // 4, bands // 4, self.decoder_width).permute(0, 3, 1, 2)
        y = self.decoder(y)  # [B, 16, T / 4, F / 4]
        y = y.reshape(size, 4, 4, frames // 4, bands // 4).permute(0, 3, 1, 4, 2)
        outputs['reconstruction'] = y.reshape(size, frames, bands)
        return outputs


def load_flax(model: TorchMtlAug, params: Mapping) -> None:
    """Copies the parameters of the flax model, NumPy arrays, into the PyTorch one."""

    def put(parameter, array):
        array = torch.from_numpy(np.array(array, np.float32, order='C'))
        assert parameter.shape == array.shape, (parameter.shape, array.shape)
        with torch.no_grad():
            parameter.copy_(array)

    def linear(layer, leaf):
        put(layer.weight, leaf['kernel'].T)
        if layer.bias is not None:
            put(layer.bias, leaf['bias'])

    def attention(layer, leaf):
        linear(layer.hidden, leaf['hidden'])
        linear(layer.score, leaf['score'])

    for i, (convolution, norm) in enumerate(zip(model.blocks, model.norms, strict=True)):
        block = params[f'block_{i}']
        put(convolution.weight, block['kernel'].transpose(3, 2, 0, 1))
        put(norm.weight, block['norm']['scale'])
        put(norm.bias, block['norm']['bias'])
    linear(model.step, params['step'])
    put(model.step_norm.weight, params['step_norm']['scale'])
    put(model.step_norm.bias, params['step_norm']['bias'])
    # Both order the gates input, forget, candidate, output.
    for direction, suffix in enumerate(('', '_reverse')):
        blstm = params['blstm']
        put(getattr(model.blstm, f'weight_ih_l0{suffix}'), blstm['kernel_in'][direction].T)
        put(getattr(model.blstm, f'weight_hh_l0{suffix}'), blstm['kernel'][direction].T)
        put(getattr(model.blstm, f'bias_ih_l0{suffix}'), blstm['bias'][direction])
        put(getattr(model.blstm, f'bias_hh_l0{suffix}'), np.zeros_like(blstm['bias'][direction]))
    attention(model.attention, params['attention'])
    linear(model.embedding, params['embedding'])
    for name, head in model.heads.items():
        linear(head, params[f'{name}_head'])
        if name != 'emotion':
            attention(model.own_attention[name], params[f'{name}_attention'])
            linear(model.own_hidden[name], params[f'{name}_hidden'])
    linear(model.decoder_in, params['decoder_in'])
    put(model.decoder.weight, params['decoder_kernel'].transpose(3, 2, 0, 1))


class TorchTrainer:
    """The training step of `benchmarks.trainers.JaxTrainer` in PyTorch, on a GPU if JAX uses one.

    Args:
        setting: training setting.
        params: initial parameters, see `load_flax`.
        dropout: whether the configured dropout is used.
        bfloat16: the network under autocast, the rest is float32.
        compiled: with `torch.compile`.
    """

    def __init__(
        self,
        setting: Setting,
        params: Mapping,
        *,
        dropout: bool = True,
        bfloat16: bool = False,
        compiled: bool = False,
    ):
        device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
        self.model = TorchMtlAug(setting.heads, setting.model_settings(dropout=dropout))
        load_flax(self.model, params)
        self.model.to(device)
        self.network = torch.compile(self.model) if compiled else self.model
        decays = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        self.parameters = decays + others
        self.average = [p.detach().clone() for p in self.parameters]
        options = setting.optimiser
        self.optimiser = torch.optim.AdamW(
            [
                {'params': decays, 'weight_decay': options['weight_decay']},
                {'params': others, 'weight_decay': 0.0},
            ],
            lr=options['learning_rate'],
            foreach=True,
        )
        warmup = max(1, round(options['warmup'] * setting.steps))
        end = max(setting.steps, warmup + 1)

        def rate(n):
            decayed = min(max(n - warmup, 0) / (end - warmup), 1)
            return min(n / warmup, 0.01 + 0.99 * (1 + math.cos(math.pi * decayed)) / 2)

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, rate)
        self.setting = setting
        self.tasks = {name: task['weight'] for name, task in setting.tasks.items()}
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=bfloat16)
        constants, batch = make_constants(setting), make_batch(setting)
        put = lambda array: torch.from_numpy(array).to(device)
        self.mean, self.std = put(constants['mean']), put(constants['std'])
        self.class_weights = put(constants['class_weights']['emotion'])
        self.batch = {name: put(array) for name, array in batch.items() if name != 'length'}

    def run(self, n: int) -> float:
        """Trains n steps and returns the last loss."""
        options, batch = self.setting.optimiser, self.batch
        for _ in range(n):
            with self.autocast:
                outputs = self.network((batch['log_mel'] - self.mean) / self.std)
            outputs = {name: output.float() for name, output in outputs.items()}
            weights = batch['emotion'] @ self.class_weights
            emotion = F.cross_entropy(
                outputs['emotion'],
                batch['emotion'],
                label_smoothing=self.setting.label_smoothing,
                reduction='none',
            )
            shares = {
                'emotion': (emotion * weights).sum() / weights.sum(),
                'augmentation_type': F.cross_entropy(
                    outputs['augmentation_type'], batch['augmentation_type'].long()
                ),
                'reconstruction': F.mse_loss(
                    outputs['reconstruction'], (batch['clean_log_mel'] - self.mean) / self.std
                ),
            }
            loss = sum(weight * shares[name] for name, weight in self.tasks.items())
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, options['clip'])
            self.optimiser.step()
            self.schedule.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - options['average'])
        return float(loss.detach())
