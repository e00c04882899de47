"""This attempt: its number and pod, and what is known of those before."""

from dataclasses import dataclass, field

from lmft_job.attempt import journal


@dataclass(frozen=True)
class CurrentAttempt:
    """This attempt.

    Attributes:
        ours: its number, and its pod.
        earlier: steps that attempts before are known to have done; its own too, in a process before this.
        passed_over: folders of the checkpoints that it finds damaged.
    """

    ours: journal.Begun
    earlier: dict[int, int]
    passed_over: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """From 1."""
        return self.ours.number
