"""A task is a record: heads, losses, metrics and log names follow from it."""

import dataclasses
from collections.abc import Mapping

from ser_jax.data.records import DIMENSIONS
from ser_jax.runtime.errors import UserError

KINDS = ('classification', 'regression', 'reconstruction')


@dataclasses.dataclass(frozen=True)
class Task:
    """One training target.

    Attributes:
        name: name of the head, the loss and the metrics.
        kind: 'classification', 'regression' or 'reconstruction' (`KINDS`).
        target: predicted quantity: a label of the records ('emotion', 'gender', 'speaker', …), 'augmentation_type',
            a rated dimension for regression, or 'log_mel' for reconstruction.
        weight: weight of the loss in the sum, from 0; a task of weight 0 is left out with its head.
        classes: class names in the order of the outputs; for regression, the classes that ratings fall into; empty
            for reconstruction.
    """

    name: str
    kind: str
    target: str
    weight: float
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Outputs of the head: one per class, or the rating."""
        return 1 if self.kind == 'regression' else len(self.classes)


def make_tasks(
    records: Mapping[str, Mapping], classes: Mapping[str, tuple[str, ...]]
) -> tuple[Task, ...]:
    """Builds the tasks of a config; those of weight 0 are left out.

    Args:
        records: `config.tasks`: name -> kind, target, weight.
        classes: target -> class names, for every classification and regression target.

    Returns:
        The tasks in the config's order.

    Raises:
        UserError: an unknown kind, a negative weight, or a regression of a target that is not rated.
    """
    tasks = []
    for name, record in records.items():
        kind, target, weight = record['kind'], record['target'], record['weight']
        if kind not in KINDS:
            raise UserError(
                f'config.tasks.{name}.kind is {kind!r}; it must be one of {", ".join(KINDS)}'
            )
        if weight < 0:
            raise UserError(f'config.tasks.{name}.weight is {weight}; it must not be negative')
        if kind == 'regression' and weight > 0 and target not in DIMENSIONS:
            raise UserError(
                f'config.tasks.{name}.target is {target!r}; a regression predicts a rating: {", ".join(DIMENSIONS)}'
            )
        if weight > 0:
            tasks.append(Task(name, kind, target, weight, classes.get(target, ())))
    return tuple(tasks)
