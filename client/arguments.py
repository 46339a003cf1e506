"""Numbers on the command line: what each may be, and what is said where it is something else."""

from __future__ import annotations

import argparse

LARGEST_INT32 = 2**31 - 1


def real(text: str) -> float:
    """Any number.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def whole(text: str) -> int:
    """Any whole number that fits 32 bits.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if not -LARGEST_INT32 <= value <= LARGEST_INT32:
        raise argparse.ArgumentTypeError(f"{text} is beyond {LARGEST_INT32}")
    return value


def count(text: str) -> int:
    """How many, at least one.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    if (value := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def quality(text: str) -> int:
    """Of JPEG, 1 to 100.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = whole(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return value


def not_negative(text: str) -> float:
    """A time, in whatever unit.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1e9")
    return value


def positive(text: str) -> float:
    """A length of time or a factor, not 0.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1e6")
    return value


def rate(text: str) -> float:
    """Frames per second.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a rate between 0 and 1000 frames per second")
    return value
