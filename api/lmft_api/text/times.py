"""Times as the Kubernetes API writes them."""

from datetime import UTC, datetime


def now() -> str:
    """The time, RFC 3339 in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(timestamp: str | None) -> float | None:
    """UNIX seconds of an RFC 3339 time; None for none that can be read.

    That includes the zero times that kubelet writes at times: 1970 is when a container began that could not be started.
    """
    if not timestamp or timestamp.startswith("1970-01-01T00:00:00"):
        return None
    try:
        # The API server takes the years 0 and 10000, Python does not.
        found = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
        seconds = found.timestamp() if found.tzinfo is not None else -1.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 < seconds < LAST_SECOND else None


LAST_SECOND = 7258118400.0
"""The year 2200: no time that somebody wrote by hand is beyond what Python can count with, margins included."""
