"""Problems with data, collected so that all are reported at once."""

MOST_PROBLEMS = 10
LONGEST = 1000
"""Maximum length of one problem in characters; field names come from the data, and may have any length."""


class Problems:
    """Problems with the data, in order; after :data:`MOST_PROBLEMS` they are only counted."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.more = 0

    def add(self, text: str) -> None:
        """Add one problem, beginning with its field path."""
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        if text in self.found:
            return
        if len(self.found) < MOST_PROBLEMS:
            self.found.append(text)
        else:
            self.more += 1

    @property
    def full(self) -> bool:
        """Whether the limit is reached, so that looking further is useless."""
        return self.more >= MOST_PROBLEMS

    def all(self) -> list[str]:
        """Every problem listed, and how many more there were."""
        more = [f"spec.dataset.files: at least {self.more} more problems like these"] if self.more else []
        return self.found + more
