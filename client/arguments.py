"""Numbers on the command line: what each may be, and what is said where it is something else."""

from __future__ import annotations

import argparse
from typing import TypeVar

LARGEST_INT32 = 2**31 - 1

Number = TypeVar("Number", int, float)


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
    return _checked(value, -LARGEST_INT32 <= value <= LARGEST_INT32, f"{text} is beyond {LARGEST_INT32}")


def count(text: str) -> int:
    """How many, at least one.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = whole(text)
    return _checked(value, value >= 1, f"{text} is not 1 or more")


def quality(text: str) -> int:
    """Of JPEG, 1 to 100.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = whole(text)
    return _checked(value, 1 <= value <= 100, f"{text} is not between 1 and 100")


def not_negative(text: str) -> float:
    """A time, in whatever unit.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    return _checked(value, 0 <= value < 1e9, f"{text} is not between 0 and 1e9")


def positive(text: str) -> float:
    """A length of time or a factor, not 0.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    return _checked(value, 0 < value < 1e6, f"{text} is not above 0 and below 1e6")


def rate(text: str) -> float:
    """Frames per second.

    Raises:
        argparse.ArgumentTypeError: It is no such number.
    """
    value = real(text)
    return _checked(value, 0 < value <= 1000, f"{text} is not a rate between 0 and 1000 frames per second")


def _checked(value: Number, fits: bool, complaint: str) -> Number:
    if not fits:
        raise argparse.ArgumentTypeError(complaint)
    return value
