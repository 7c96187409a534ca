"""The end-to-end network in idiomatic PyTorch, with the parameters of the JAX model.

For utterances of equal length only, without masks, which favours PyTorch.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

_FILTERS, _WIDTH, _POOL, _FRAME, _HOP, _CELLS = 40, 40, 10, 640, 160, 128
_MAPS, _POSITIONS = _FILTERS // _POOL, _FRAME // 2


class TorchEndToEnd(nn.Module):
    """The network of `ser_jax.models.end_to_end` at its published size, frame by frame."""

    def __init__(self, heads: Mapping[str, int], dropout: float = 0.1):
        super().__init__()
        self.convolution_1 = nn.Conv1d(1, _FILTERS, _WIDTH, padding='same')
        self.convolution_2 = nn.Conv1d(_FILTERS, _FILTERS, _WIDTH, padding='same')
        self.pool = nn.MaxPool1d(2)
        self.dropout = nn.Dropout(dropout)
        size = _MAPS * _POSITIONS
        each = lambda make: nn.ModuleDict({name: make(outputs) for name, outputs in heads.items()})
        self.gru = each(lambda _: nn.GRU(size, _CELLS, num_layers=2, batch_first=True))
        self.score = each(lambda _: nn.Linear(_CELLS, 1, bias=False))
        self.head = each(lambda outputs: nn.Linear(_CELLS, outputs))

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        """[B, S] → one [B, outputs] for every head."""
        frames = waveform.unfold(1, _FRAME, _HOP)  # [B, T, frame]
        x = self.pool(torch.relu(self.convolution_1(frames.reshape(-1, 1, _FRAME))))
        x = torch.relu(self.convolution_2(x)).view(-1, _MAPS, _POOL, _POSITIONS).amax(2)
        x = self.dropout(x.reshape(*frames.shape[:2], -1))
        outputs = {}
        for name, head in self.head.items():
            states, _ = self.gru[name](x)
            weights = torch.softmax(self.score[name](states), dim=1)
            outputs[name] = head((weights * states).sum(1))
        return outputs


def load_flax(model: TorchEndToEnd, params: Mapping) -> None:
    """Copies the parameters of the flax model, NumPy arrays, into the PyTorch one.

    PyTorch's second bias of the reset and update gates is set to 0.
    """

    def put(parameter, array):
        array = torch.from_numpy(np.array(array, np.float32, order='C'))
        assert parameter.shape == array.shape, (parameter.shape, array.shape)
        with torch.no_grad():
            parameter.copy_(array)

    for i in (1, 2):
        convolution = getattr(model, f'convolution_{i}')
        put(convolution.weight, params['encoder'][f'kernel_{i}'].transpose(2, 1, 0))
        put(convolution.bias, params['encoder'][f'bias_{i}'])
    for name, head in model.head.items():
        for layer in (0, 1):
            gru, leaf = model.gru[name], params[f'{name}_gru_{layer}']
            kernel_in = leaf['kernel_in']
            if layer == 0:  # PyTorch's frame vector holds one map after the other.
                kernel_in = kernel_in.reshape(_POSITIONS, _MAPS, -1).swapaxes(0, 1)
                kernel_in = kernel_in.reshape(_MAPS * _POSITIONS, -1)
            # Both order the gates reset, update, candidate.
            put(getattr(gru, f'weight_ih_l{layer}'), kernel_in.T)
            put(getattr(gru, f'weight_hh_l{layer}'), leaf['kernel'].T)
            put(getattr(gru, f'bias_ih_l{layer}'), leaf['bias_in'])
            put(getattr(gru, f'bias_hh_l{layer}'), np.pad(leaf['bias'], (2 * _CELLS, 0)))
        put(model.score[name].weight, params[f'{name}_score']['kernel'].T)
        put(head.weight, params[f'{name}_head']['kernel'].T)
        put(head.bias, params[f'{name}_head']['bias'])


def keep_second_biases(model: TorchEndToEnd) -> None:
    """Keeps the biases that Flax's GRU lacks at 0: with them Adam would move each pair twice as far."""
    alone = torch.arange(3 * _CELLS) >= 2 * _CELLS
    for name, parameter in model.named_parameters():
        if 'bias_hh' in name:
            parameter.register_hook(lambda gradient: gradient * alone.to(gradient.device))
