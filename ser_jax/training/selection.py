"""Which step's parameters of a fold are kept, and when its training ends: functions of its validations so far."""


def best_row(history: list[dict]) -> dict:
    """The row of the parameters to keep: the last one without validation.

    Else that of the highest validation UAR, where ratings are predicted of the highest mean over the tasks of UAR or
    CCC; then of the lowest loss.

    Args:
        history: the fold's rows of metrics.jsonl.
    """
    if 'validation_uar' not in history[-1]:
        return history[-1]
    score = 'validation_score' if 'validation_score' in history[-1] else 'validation_uar'
    return max(history, key=lambda row: (row[score], -row['validation_loss']))


def is_patient(history: list[dict], patience: int) -> bool:
    """Whether training goes on: the best row is among the last `patience`."""
    return not history or best_row(history) in history[-patience:]
