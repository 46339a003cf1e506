import enum


class Reason(str, enum.Enum):
    """Why two operations were not merged."""

    NONLINEARITY = "nonlinearity"
    SHARED = "shared tensor"
    BORDER = "border"
    COST = "cost"
    BROADCAST = "broadcast"
    GEOMETRY = "geometry"
    UNKNOWN_SHAPE = "unknown shape"
    OPERATOR = "operator"
    VERIFICATION = "verification"


class NotExact(Exception):
    """A rule's precondition does not hold, so the operation keeps its own tensor.

    Args:
        reason: The kind of obstacle.
        sentence: The obstacle for a person, with the values seen.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
