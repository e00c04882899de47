"""This attempt: its number and pod, and what is known of earlier attempts."""

from dataclasses import dataclass, field

from lmft_job.attempt import journal


@dataclass(frozen=True)
class CurrentAttempt:
    """This attempt.

    Attributes:
        ours: its number and pod.
        earlier: steps that earlier attempts are known to have done; also those of earlier processes of this attempt.
        passed_over: folders of checkpoints that it found damaged.
    """

    ours: journal.Begun
    earlier: dict[int, int]
    passed_over: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """Attempt number, from 1."""
        return self.ours.number
