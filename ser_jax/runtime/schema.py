"""JSON files that must have a given shape: whoever made them may be a stranger."""

import json
from pathlib import Path
from typing import Any

from ser_jax.runtime.errors import UserError

_LARGEST = 2**53  # more is no count, time or loss


def read_json(path: Path, shape: Any) -> Any:
    """Reads a file that must have a shape.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, is not JSON, or has another shape.
    """
    try:
        return checked(json.loads(path.read_text(encoding='utf-8')), shape)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def checked(found: Any, shape: Any) -> Any:
    problem = mismatch(found, shape, '')
    if problem:
        raise ValueError(problem)
    return found


def mismatch(found: Any, shape: Any, where: str) -> str:
    """Where something has not the shape it should have, and what is there; '' where it has."""
    if isinstance(shape, list | dict):
        if not isinstance(found, type(shape)):
            return _told(found, where)
        if isinstance(shape, list):
            if len(shape) > 1 and len(found) != len(shape):
                return _told(found, where)
            parts = [(str(number), one, shape[0]) for number, one in enumerate(found)]
        elif str in shape:
            parts = [(name, one, shape[str]) for name, one in found.items()]
        else:
            names = {name.removesuffix('?'): name for name in shape}
            lacking = [name for name in names if name not in found and name in shape]
            if lacking:
                return f'{where + ": " if where else ""}it lacks {", ".join(lacking)}'
            parts = [
                (name, found[name], shape[own]) for name, own in names.items() if name in found
            ]
        problems = (mismatch(one, own, f'{where}.{name}'.strip('.')) for name, one, own in parts)
        return next(filter(None, problems), '')
    wanted = shape if isinstance(shape, tuple) else (shape,)
    fits = isinstance(found, wanted) and not (isinstance(found, bool) and bool not in wanted)
    fits &= not isinstance(found, int | float) or abs(found) <= _LARGEST  # false of NaN
    return '' if fits or object in wanted else _told(found, where)


def _told(found: Any, where: str) -> str:
    return f'{where or "the whole"} is {json.dumps(found)[:60]}'
