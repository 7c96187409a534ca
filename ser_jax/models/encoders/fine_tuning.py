"""Fine-tuning of a pretrained encoder: which of its parameters train, at which rates, and how they join the frozen ones.

Rates that fall from layer to layer: Howard and Ruder 2018 (arXiv 1801.06146). Low-rank updates: Hu et al. 2021
(arXiv 2106.09685).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from ser_jax.runtime.call_strings import parse_call

PRETRAINED = 'pretrained'  # subtree of a network's parameters: those of its encoder that train
Path = tuple[str, ...]


def lora_rank(trains: str) -> int:
    """The rank of `config.fine_tune.trains`; 0 where it is not 'lora(RANK)'."""
    name, arguments = parse_call(trains) if trains else ('', ())
    return arguments[0] if name == 'lora' else 0


def learning_rates(
    module: nn.Module,
    params: Mapping[str, Any],
    layers: Sequence[int],
    *,
    trains: str,
    rate: float,
    layer_decay: float,
    front_end: bool,
) -> dict[Path, float]:
    """The parameters that train, and their learning rates relative to that of the network.

    Args:
        module: the encoder, with low-rank updates where they train.
        params: parameters of the encoder.
        layers: numbers of the layers that the network sees; those above the highest one do not train.
        trains: 'all', 'top(N)', the highest N layers, or 'lora(RANK)', low-rank updates of every layer.
        rate: rate of the highest layer.
        layer_decay: factor from the rate of a layer to that of the layer below; the front end is layer 0.
        front_end: whether 'all' includes what is below the first layer; Whisper's sinusoids never train.

    Returns:
        Path -> rate.
    """
    name, arguments = parse_call(trains)
    highest = max(layers)
    lowest = highest - arguments[0] + 1 if name == 'top' else 1
    rates = {}
    for path in flatten_dict(params):
        depth = _depth(path, module)
        if name == 'lora':
            chosen = depth >= 1 and path[-1].startswith('lora_')
        elif depth == 0:
            chosen = name == 'all' and front_end and path != ('positions',)
        else:
            chosen = depth >= lowest
        if chosen and depth <= highest:
            rates[path] = rate * layer_decay ** (highest - depth)
    return rates


def _depth(path: Path, module: nn.Module) -> int:
    """Number of the layer whose output a parameter changes first; 0 for those below the first layer."""
    if path[0].startswith('layer_'):
        return int(path[0].removeprefix('layer_')) + 1
    norm_is_last = module.outputs == module.layers + 2
    return module.layers + 1 if path[0] == 'norm' and norm_is_last else 0


def split(params: Mapping[str, Any], trained: Collection[Path]) -> tuple[dict, dict]:
    """Splits the parameters of an encoder by their paths: (those that train, the frozen ones)."""
    flat = flatten_dict(params)
    part = lambda inside: {path: leaf for path, leaf in flat.items() if (path in trained) == inside}
    return unflatten_dict(part(True)), unflatten_dict(part(False))


def merge(frozen: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of an encoder; those that train replace the frozen ones."""
    return unflatten_dict({**flatten_dict(frozen), **flatten_dict(trained)})
