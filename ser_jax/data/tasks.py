"""A task is a record: heads, losses, metrics and log names follow from it."""

import dataclasses
from typing import TYPE_CHECKING

from ser_jax.data.records import DIMENSIONS
from ser_jax.runtime.errors import UserError

if TYPE_CHECKING:  # the step itself needs JAX only
    import ml_collections

KINDS = ('classification', 'regression', 'reconstruction')


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing the network learns.

    Attributes:
        name: names the head, the loss and the metrics.
        kind: 'classification', 'regression' or 'reconstruction' (`KINDS`).
        target: what is predicted: a label of the records ('emotion', 'gender', 'speaker', …),
            'augmentation_type', a rated dimension for regression, or 'log_mel' for reconstruction.
        weight: of its loss in the sum, from 0; 0 leaves the task and its head out.
        classes: class names in the order of the outputs; of a regression those that ratings fall into; empty
            for reconstruction.
    """

    name: str
    kind: str
    target: str
    weight: float
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Outputs of its head: one a class, or the rating."""
        return 1 if self.kind == 'regression' else len(self.classes)


def make_tasks(
    records: 'ml_collections.ConfigDict', classes: dict[str, tuple[str, ...]]
) -> tuple[Task, ...]:
    """Builds the tasks of a config; those of weight 0 are left out, with their heads.

    Args:
        records: `config.tasks`: name -> kind, target, weight.
        classes: target -> class names, for every classification and regression target.

    Returns:
        The tasks in the config's order.

    Raises:
        UserError: an unknown kind, a negative weight, or a regression of what is not rated.
    """
    tasks = []
    for name, record in records.items():
        if record.kind not in KINDS:
            raise UserError(
                f'config.tasks.{name}.kind is {record.kind!r}; it must be one of {", ".join(KINDS)}'
            )
        if record.weight < 0:
            raise UserError(
                f'config.tasks.{name}.weight is {record.weight}; it must not be negative'
            )
        rated = record.kind == 'regression' and record.weight > 0
        if rated and record.target not in DIMENSIONS:
            raise UserError(
                f'config.tasks.{name}.target is {record.target!r}; a regression predicts a rating: {", ".join(DIMENSIONS)}'
            )
        if record.weight > 0:
            tasks.append(
                Task(
                    name, record.kind, record.target, record.weight, classes.get(record.target, ())
                )
            )
    return tuple(tasks)
