"""Validation of JSON files against a shape: they may come from a stranger.

A shape is a type or union (`int`, `float | None`), `list[shape]`, `tuple[shape, shape]`, `dict[str, shape]`, a TypedDict, or a
dictionary {name: shape}, where `name?` may be missing; `[shape]` and `{str: shape}` are short for list and dict. `float` includes
integers, no number is a bool, numbers are finite, `object` is anything, and objects may have further names.
"""

import functools
import json
import typing
from pathlib import Path
from typing import Any

from ser_jax.runtime.errors import UserError

_LARGEST = 2**53  # no count, time or loss is larger


def read_json(path: Path, shape: Any) -> Any:
    """Reads a JSON file of a given shape.

    Raises:
        FileNotFoundError: no such file.
        UserError: unreadable, not JSON, or of another shape.
    """
    try:
        return checked(json.loads(path.read_text(encoding='utf-8')), shape)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def checked(content: Any, shape: Any) -> Any:
    """Returns JSON content of a given shape.

    Raises:
        ValueError: another shape; the message names the first mismatch.
    """
    problem = mismatch(content, shape)
    if problem:
        raise ValueError(problem)
    return content


def mismatch(content: Any, shape: Any, where: str = '') -> str:
    """Describes the first mismatch of content and shape, as `<where> is <value>`; '' if there is none."""
    shape = _expanded(shape)
    if isinstance(shape, list | dict):
        if not isinstance(content, type(shape)):
            return _describe(content, where)
        if isinstance(shape, list):
            inner = shape * len(content) if len(shape) == 1 else shape
            if len(content) != len(inner):
                return _describe(content, where)
            parts = [(str(i), item, inner[i]) for i, item in enumerate(content)]
        elif str in shape:
            parts = [(name, item, shape[str]) for name, item in content.items()]
        else:
            names = {name.removesuffix('?'): name for name in shape}
            missing = [name for name in names if name not in content and name in shape]
            if missing:
                return f'{where + ": " if where else ""}it lacks {", ".join(missing)}'
            parts = [
                (name, content[name], shape[own]) for name, own in names.items() if name in content
            ]
        problems = (mismatch(item, own, f'{where}.{name}'.strip('.')) for name, item, own in parts)
        return next(filter(None, problems), '')
    types = typing.get_args(shape) or (shape,)
    if float in types:
        types += (int,)
    fits = isinstance(content, types) and not (isinstance(content, bool) and bool not in types)
    fits &= not isinstance(content, int | float) or abs(content) <= _LARGEST  # false for NaN
    return '' if fits or object in types else _describe(content, where)


def _expanded(shape: Any) -> Any:
    """The outermost level of an annotation as a list or dictionary of shapes."""
    if typing.is_typeddict(shape):
        return _fields(shape)
    origin, arguments = typing.get_origin(shape), typing.get_args(shape)
    if origin in (list, tuple):
        return list(arguments)
    return {str: arguments[1]} if origin is dict else shape


@functools.cache
def _fields(record: type) -> dict[str, Any]:
    """The fields of a TypedDict: name -> shape, `name?` if not required."""
    required = record.__required_keys__
    return {
        name if name in required else f'{name}?': hint
        for name, hint in typing.get_type_hints(record).items()
    }


def _describe(content: Any, where: str) -> str:
    return f'{where or "the whole"} is {json.dumps(content)[:60]}'
