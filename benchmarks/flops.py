"""Floating-point operations of the matrix products and convolutions of a function."""

import math

from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr


def matrix_flops(function, *arguments) -> int:
    """Multiplications and additions of all products; a loop body counts once per iteration.

    XLA's cost analysis counts a loop body once, and includes elementwise operations, which matrix units do not execute.

    Args:
        function: function compiled by `jax.jit`; on several devices, the share of one of them counts.
        arguments: arguments of the function, arrays or shapes.

    Returns:
        Operations; of branches, those of the most expensive one.
    """
    jaxpr = function.trace(*arguments).jaxpr.jaxpr
    # Traced gradients contain unused forward computations, which XLA removes too.
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(needed)


def _count(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == 'dot_general':
            (contracted, _), _ = params['dimension_numbers']
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        elif name == 'conv_general_dilated':
            kernel = equation.invars[1].aval.shape
            outputs = kernel[params['dimension_numbers'].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * math.prod(kernel) // outputs
        else:
            inner = [_count(each) for each in jaxprs_in_params(params)]
            chosen = max(inner, default=0) if name == 'cond' else sum(inner)
            total += chosen * (params['length'] if name == 'scan' else 1)
    return total
