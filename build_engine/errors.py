class BuildError(Exception):
    """An offline step that could not be done, and what to do about it.

    Args:
        message: What happened, with the values seen.
        remedy: What to type, change or check next.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}"
