"""What is wrong with data, gathered so that all of it is reported at once."""

MOST_PROBLEMS = 10
LONGEST = 1000
"""Characters of one problem; names of fields come from the data, and may be as long as that pleases."""


class Problems:
    """What is wrong with the data, in order; after :data:`MOST_PROBLEMS` only counted."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.more = 0

    def add(self, text: str) -> None:
        """Note one problem, beginning with its field path."""
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        if text in self.found:
            return
        if len(self.found) < MOST_PROBLEMS:
            self.found.append(text)
        else:
            self.more += 1

    @property
    def full(self) -> bool:
        """Whether there is no point in looking further."""
        return self.more >= MOST_PROBLEMS

    def all(self) -> list[str]:
        """Every problem noted, and how many more there were."""
        more = [f"spec.dataset.files: at least {self.more} more problems like these"] if self.more else []
        return self.found + more
