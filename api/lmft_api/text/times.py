"""Times in the format of the Kubernetes API."""

from datetime import UTC, datetime


def now() -> str:
    """The current time, RFC 3339 in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(seconds: float) -> str:
    """UNIX seconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(timestamp: str | None) -> float | None:
    """UNIX seconds of an RFC 3339 time; None if it cannot be read.

    Also None for zero times (1970), which kubelet writes as the start of a container that could not be started.
    """
    if not timestamp or timestamp.startswith("1970-01-01T00:00:00"):
        return None
    try:
        # The API server accepts the years 0 and 10000, Python does not.
        found = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
        seconds = found.timestamp() if found.tzinfo is not None else -1.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 < seconds < LAST_SECOND else None


LAST_SECOND = 7258118400.0
"""The year 2200: caps times that somebody wrote by hand, so that Python can compute with them, margins included."""
