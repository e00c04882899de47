"""A small chart of a loss as SVG."""

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _EDGE = 480, 120, 4
_MOST = 1000


def curve(points: Sequence[tuple[int, float]], of: str) -> str:
    """Losses over their steps, or nothing where there are fewer than two.

    Args:
        points: step and loss, in the order of steps. More than a thousand are thinned evenly.
        of: what they are, for people.
    """
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) < 2:
        return ""
    points = [points[at * (len(points) - 1) // (_MOST - 1)] for at in range(_MOST)] if len(points) > _MOST else points
    first, last = points[0][0], points[-1][0]
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    # Halves, for the difference of two finite numbers may be infinite.
    span = (high / 2 - low / 2) or 1.0
    places = " ".join(
        f"{_EDGE + (_WIDTH - 2 * _EDGE) * (step - first) / max(1, last - first):.1f},"
        f"{_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * ((loss / 2 - low / 2) / span):.1f}"
        for step, loss in points
    )
    label = f"{of} from {points[0][1]:.4g} at step {first} to {points[-1][1]:.4g} at step {last}"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">'
        f"<title>{label}</title>"
        f'<polyline points="{places}" fill="none" stroke="#1f77b4" stroke-width="1.5"/></svg><div>{label}</div>'
    )
