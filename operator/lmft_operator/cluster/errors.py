"""What can go wrong between the operator and the API server."""


class ClusterError(Exception):
    """The API server refused or failed; ``status`` is the HTTP status, 0 when no answer came."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ClusterError):
    """The object does not exist."""


class ConflictError(ClusterError):
    """The object has another version than was expected (patch), or an object of that name exists (create)."""


class NameTakenError(ClusterError):
    """All names that could be used are taken by objects of others."""


class ForbiddenError(ClusterError):
    """The operator lacks a right, the namespace is being deleted, or admission refuses the object."""


class InvalidObjectError(ClusterError):
    """The API server finds the object invalid: retrying with the same object cannot help."""


class RestoredError(Exception):
    """The API server's database was restored to an older snapshot: what the cache holds is no longer true."""

    def __init__(self, kind: str, before: int, now: int) -> None:
        super().__init__(
            f"the API server's database was restored to an older state ({kind}: version {now} after {before}); "
            "restarting with the restored state"
        )


class SilentError(ClusterError):
    """Connected, but no answer came in time: the request may have been carried out, or hang in a webhook."""
