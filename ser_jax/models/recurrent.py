"""A bidirectional LSTM whose loops hold nothing that can be done outside them."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def _advance(carry, gates_in, kernel, alive):
    """One step of both directions: (hidden, cell) [2, B, H] → the next, and the gates after their nonlinearities."""
    hidden, cell = carry
    gates = gates_in + jnp.einsum('dbh,dhg->dbg', hidden, kernel)
    write, keep, candidate, read = jnp.split(gates, 4, axis=-1)
    write, keep, read = nn.sigmoid(write), nn.sigmoid(keep), nn.sigmoid(read)
    candidate = jnp.tanh(candidate)
    # Padding resets the state: the backward direction meets it first.
    cell = (keep * cell + write * candidate) * alive
    hidden = read * jnp.tanh(cell) * alive
    return (hidden, cell), jnp.concatenate([write, keep, candidate, read], axis=-1)


@jax.custom_vjp
def lstm(gates_in: jax.Array, kernel: jax.Array, alive: jax.Array) -> jax.Array:
    """LSTMs of several directions, side by side in one loop (Hochreiter & Schmidhuber 1997).

    Its gradient leaves the loop as the gates' gradients only; the kernel's is one product over all steps
    afterwards, where the gradient that JAX derives adds up a product a step.

    Args:
        gates_in: [T, D, B, 4H], input projection with bias, gates in the order input, forget, candidate,
            output.
        kernel: [D, H, 4H], of the states.
        alive: float [T, D, B, 1], 1 = real step; padding gives 0 and resets the state.

    Returns:
        The states [T, D, B, H].
    """
    return _lstm_forward(gates_in, kernel, alive)[0]


def _lstm_forward(gates_in, kernel, alive):
    start = jnp.zeros((*gates_in.shape[1:3], kernel.shape[1]), gates_in.dtype)

    def advance(carry, inputs):
        carry, gates = _advance(carry, inputs[0], kernel, inputs[1])
        return carry, (*carry, gates)

    _, (hidden, cell, gates) = lax.scan(advance, (start, start), (gates_in, alive))
    return hidden, (kernel, alive, hidden, cell, gates)


def _lstm_backward(saved, hidden_gradient):
    kernel, alive, hidden, cell, gates = saved
    before = lambda x: jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])

    def retreat(carry, inputs):
        hidden_bar, cell_bar = carry
        from_above, alive, cell, cell_before, gates = inputs
        write, keep, candidate, read = jnp.split(gates, 4, axis=-1)
        squashed = jnp.tanh(cell)
        hidden_bar = (hidden_bar + from_above) * alive
        cell_bar = (cell_bar + hidden_bar * read * (1.0 - squashed * squashed)) * alive
        gates_bar = jnp.concatenate(
            [
                cell_bar * candidate * write * (1.0 - write),
                cell_bar * cell_before * keep * (1.0 - keep),
                cell_bar * write * (1.0 - candidate * candidate),
                hidden_bar * squashed * read * (1.0 - read),
            ],
            axis=-1,
        )
        return (jnp.einsum('dbg,dhg->dbh', gates_bar, kernel), cell_bar * keep), gates_bar

    zeros = jnp.zeros_like(hidden[0])
    inputs = (hidden_gradient, alive, cell, before(cell), gates)
    _, gates_bar = lax.scan(retreat, (zeros, zeros), inputs, reverse=True)
    kernel_bar = jnp.einsum('tdbh,tdbg->dhg', before(hidden), gates_bar)
    return gates_bar, kernel_bar, jnp.zeros_like(alive)


lstm.defvjp(_lstm_forward, _lstm_backward)


def _direction_axis(init: Callable) -> Callable:
    """An initialiser for [2, …] that draws both directions as if they were two parameters."""
    return lambda key, shape: jnp.stack([init(k, shape[1:]) for k in jax.random.split(key)])


class BLSTM(nn.Module):
    """Bidirectional LSTM: input projection outside the loop, both directions in one loop.

    Attributes:
        features: H, cells per direction.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Runs both directions over the real frames.

        Args:
            x: [B, T, D].
            mask: bool [B, T].

        Returns:
            [B, T, 2H], forward then backward state, 0 in padding frames.
        """
        depth, cells = x.shape[-1], self.features
        lecun, orthogonal = nn.initializers.lecun_normal(), nn.initializers.orthogonal()
        kernel_in = self.param('kernel_in', _direction_axis(lecun), (2, depth, 4 * cells))
        kernel = self.param('kernel', _direction_axis(orthogonal), (2, cells, 4 * cells))
        # The forget bias begins at 1 (Jozefowicz et al. 2015).
        forget = jnp.zeros(4 * cells).at[cells : 2 * cells].set(1.0)
        bias = self.param(
            'bias', lambda key, shape: jnp.broadcast_to(forget, shape), (2, 4 * cells)
        )

        projected = jnp.einsum('btd,edg->tebg', x, kernel_in) + bias[:, None]
        alive = mask.T.astype(x.dtype)[:, None, :, None]
        both = lstm(_turn_second(projected), kernel, _turn_second(jnp.tile(alive, (1, 2, 1, 1))))
        return jnp.concatenate(jnp.unstack(_turn_second(both), axis=1), axis=-1).transpose(1, 0, 2)


def _turn_second(x: jax.Array) -> jax.Array:
    """[T, 2, …] with the second direction reversed in time."""
    return jnp.stack([x[:, 0], x[::-1, 1]], axis=1)
