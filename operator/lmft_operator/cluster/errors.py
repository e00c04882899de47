"""What can go wrong between the operator and the API server, in the operator's own words."""


class ClusterError(Exception):
    """The API server refused or failed; ``status`` is the HTTP status, 0 when no answer came."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ClusterError):
    """The object does not exist."""


class ConflictError(ClusterError):
    """Another version of the object is there than was meant (patch), or an object of that name (create)."""


class NameTakenError(ClusterError):
    """Somebody else's objects have all the names that could be used."""


class ForbiddenError(ClusterError):
    """The operator lacks a right, or the namespace is being deleted, or admission refuses the object."""


class InvalidObjectError(ClusterError):
    """The API server finds the object wrong: trying the same again cannot help."""


class RestoredError(Exception):
    """The API server's database was restored to an older snapshot: what is known of the cluster is of another time."""

    def __init__(self, kind: str, before: int, now: int) -> None:
        super().__init__(
            f"the API server's database was restored to an older state ({kind}: version {now} after {before}); "
            "restarting with the restored state"
        )


class SilentError(ClusterError):
    """A connection stood and no answer came in time: the request may have been carried out, or hang in a webhook."""
