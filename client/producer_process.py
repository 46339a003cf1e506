"""The process of a `Producer`: reads its recipe from standard input, writes frames to the pipe it is given.

Run as `python -m client.producer_process DESCRIPTOR`, by `Producer` only: both ends are one program of one user.
"""

from __future__ import annotations

import pickle
import sys
from multiprocessing.connection import Connection

from client.producer import Recipe, produce

if __name__ == "__main__":
    recipe: Recipe = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    produce(recipe, Connection(int(sys.argv[1]), readable=False))
