"""Call strings such as `'speed(0.9, 1.1)'`: how configs name operations, conditions and protocols."""

import ast
from collections.abc import Callable, Mapping

from ser_jax.runtime.errors import UserError


def number_rule(
    lowest: float, highest: float, *, whole: bool = False
) -> tuple[Callable[[object], bool], str]:
    """The rule of a numeric argument: (test, description). Infinity and NaN are outside every range."""
    types = (int,) if whole else (int, float)
    description = f'a {"whole " if whole else ""}number from {lowest} to {highest}'
    return lambda x: type(x) in types and lowest <= x <= highest, description


def check_arguments(
    what: str, text: str, name: str, arguments: tuple, rules: Mapping[str, tuple[Callable, str]]
) -> None:
    """Checks the arguments of a call string.

    Args:
        what: kind of operation, for messages.
        text: call string.
        name: name that is called.
        arguments: parsed arguments.
        rules: argument name -> (test, description of valid values), in order.

    Raises:
        UserError: wrong number of arguments, or an invalid one.
    """
    if len(arguments) != len(rules):
        form = f'{name}({", ".join(rules)})'
        raise UserError(
            f'{what} {text!r} takes {len(rules)} argument{"s" * (len(rules) != 1)}: {form}'
        )
    for argument, (field, (test, description)) in zip(arguments, rules.items()):
        if not test(argument):
            raise UserError(f'{what} {text!r}: {field} must be {description}')


def parse_call(text: str, what: str = '') -> tuple[str, tuple]:
    """Splits a call string into its name and literal arguments, without evaluating anything.

    Args:
        text: `'name'`, `'name()'` or `'name(1, 0.5, "x")'`.
        what: kind of operation, for the message.

    Returns:
        (name, arguments).

    Raises:
        UserError: the text is not such a call.
    """
    problem = UserError(
        f"{what}{' ' * bool(what)}{text!r} is not of the form name(number or 'text', …), e.g. speed(0.9, 1.1) or noise('rain', 5)"
    )
    try:
        node = ast.parse(text.strip(), mode='eval').body
        if isinstance(node, ast.Name):
            return node.id, ()
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords:
            raise problem
        return node.func.id, tuple(ast.literal_eval(argument) for argument in node.args)
    except (SyntaxError, TypeError, ValueError) as error:  # TypeError: {[]: 1}
        raise problem from error


def parse_chain(text: str, what: str = '') -> tuple[tuple[str, tuple], ...]:
    """Splits call strings joined by `+` into (name, arguments) pairs; arguments and errors as of `parse_call`."""
    return tuple(parse_call(part, what) for part in text.split('+'))
