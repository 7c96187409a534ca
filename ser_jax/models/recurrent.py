"""Recurrent layers; everything that does not depend on the state is computed outside their loops."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def lstm(gates_in: jax.Array, kernel: jax.Array, alive: jax.Array) -> jax.Array:
    """Runs D LSTMs (directions) side by side in one loop (Hochreiter & Schmidhuber 1997).

    A custom gradient (the kernel's as one product after the loop) and unrolling are no faster (measured on 2 CPU cores).

    Args:
        gates_in: [T, D, B, 4H], input projection with bias, gates in the order input, forget, candidate, output.
        kernel: [D, H, 4H], recurrent kernel.
        alive: float [T, D, B, 1], 1 = real step; padding outputs 0 and resets the state.

    Returns:
        States [T, D, B, H].
    """

    def advance(carry, inputs):
        hidden, cell = carry
        gates_in, alive = inputs
        gates = gates_in + jnp.einsum('dbh,dhg->dbg', hidden, kernel)
        write, keep, candidate, read = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(keep) * cell + nn.sigmoid(write) * jnp.tanh(candidate)
        # Padding resets the state, because the backward direction starts in it.
        cell = cell * alive
        hidden = nn.sigmoid(read) * jnp.tanh(cell) * alive
        return (hidden, cell), hidden

    start = jnp.zeros((*gates_in.shape[1:3], kernel.shape[1]), gates_in.dtype)
    return lax.scan(advance, (start, start), (gates_in, alive))[1]


def gru(gates_in: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Runs D GRUs side by side in one loop (Cho et al. 2014).

    The reset gate is applied after the state's product, as in `nn.GRUCell`, PyTorch and cuDNN.

    Args:
        gates_in: [T, D, B, 3H], input projection with bias, gates in the order reset, update, candidate.
        kernel: [D, H, 3H], recurrent kernel.
        bias: [D, H], bias of the candidate's recurrent product.

    Returns:
        States [T, D, B, H].
    """

    def advance(hidden, gates_in):
        reset_in, update_in, candidate_in = jnp.split(gates_in, 3, axis=-1)
        products = jnp.einsum('dbh,dhg->dbg', hidden, kernel)
        reset, update, candidate = jnp.split(products, 3, axis=-1)
        keep = nn.sigmoid(update_in + update)
        reset = nn.sigmoid(reset_in + reset)
        candidate = jnp.tanh(candidate_in + reset * (candidate + bias[:, None]))
        hidden = keep * hidden + (1.0 - keep) * candidate
        return hidden, hidden

    start = jnp.zeros((*gates_in.shape[1:3], kernel.shape[1]), gates_in.dtype)
    return lax.scan(advance, start, gates_in)[1]


def _direction_axis(init: Callable) -> Callable:
    """Initialiser for [2, …] that draws each direction like a parameter of its own."""
    return lambda key, shape: jnp.stack([init(k, shape[1:]) for k in jax.random.split(key)])


class BLSTM(nn.Module):
    """Bidirectional LSTM: input projection outside the loop, both directions in one loop.

    Attributes:
        features: H, cells per direction.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Runs both directions over the real frames: [B, T, D] -> [B, T, 2H], forward and backward states, 0 in padding."""
        depth, cells = x.shape[-1], self.features
        lecun, orthogonal = nn.initializers.lecun_normal(), nn.initializers.orthogonal()
        kernel_in = self.param('kernel_in', _direction_axis(lecun), (2, depth, 4 * cells))
        kernel = self.param('kernel', _direction_axis(orthogonal), (2, cells, 4 * cells))
        # Forget bias 1 (Jozefowicz et al. 2015).
        forget = jnp.zeros(4 * cells).at[cells : 2 * cells].set(1.0)
        bias = self.param(
            'bias', lambda key, shape: jnp.broadcast_to(forget, shape), (2, 4 * cells)
        )

        projected = jnp.einsum('btd,edg->tebg', x, kernel_in) + bias[:, None]
        alive = mask.T.astype(x.dtype)[:, None, :, None]
        both = lstm(
            _reverse_second(projected), kernel, _reverse_second(jnp.tile(alive, (1, 2, 1, 1)))
        )
        return jnp.concatenate(jnp.unstack(_reverse_second(both), axis=1), axis=-1).transpose(
            1, 0, 2
        )


def _reverse_second(x: jax.Array) -> jax.Array:
    """Reverses the second direction of [T, 2, …] in time."""
    return jnp.stack([x[:, 0], x[::-1, 1]], axis=1)
