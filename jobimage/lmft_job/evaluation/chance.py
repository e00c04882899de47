"""When a change of a figure is no news. Without numpy: what lists and prints runs asks it too."""

NOTICEABLE = 2.0
"""A change of fewer standard errors than this may be chance: one in twenty is larger by chance alone."""


def may_be_chance(change: float, error: float | None) -> bool:
    """Whether a change is so small that another sample of held-out data might not show it."""
    return error is not None and abs(change) < NOTICEABLE * error
