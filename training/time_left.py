"""How long a run will still take, by the time that its steps and evaluations took."""

from collections import deque

MEASURED = 100  # log lines that the time of a step is taken from


class TimeLeft:
    """The time left of one process of a run."""

    def __init__(self, eval_every: int) -> None:
        self._eval_every = eval_every
        self._measured: deque[tuple[int, float]] = deque(maxlen=MEASURED)  # step, and the seconds of training until then

    def measure(self, step: int, total: int | None, seconds: float, per_evaluation: float) -> float | None:
        """Seconds left after this step; None if the number of steps is not known, or before a second measurement."""
        self._measured.append((step, seconds))
        first, seconds_then = self._measured[0]  # its step may have compiled: only what came after it counts
        if total is None or step == first:
            return None
        evaluations = (total - 1) // self._eval_every - (step - 1) // self._eval_every + 1  # this step's is still to come
        return (total - step) * (seconds - seconds_then) / (step - first) + evaluations * per_evaluation


def describe_duration(seconds: float) -> str:
    """A duration for people: the two largest of hours, minutes and seconds."""
    whole = round(seconds)
    if whole >= 3600:
        hours, minutes = divmod(round(whole / 60), 60)
        return f"{hours} h {minutes} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
