from __future__ import annotations

from server.decode import buffers
from server.decode.buffers import Buffers


def test_the_smallest_that_fits_is_used_again() -> None:
    pool = Buffers()
    large, small = pool.take(100), pool.take(10)
    pool.give(large)
    pool.give(small)
    assert pool.take(10) is small
    assert pool.take(11) is large
    assert pool.take(11).size == 11


def test_the_smallest_is_let_go_where_too_many_wait() -> None:
    pool = Buffers()
    taken = [pool.take(10 + number) for number in range(buffers.KEPT + 2)]
    for buffer in taken:
        pool.give(buffer)
    again = [pool.take(1) for _ in range(buffers.KEPT)]
    assert {id(buffer) for buffer in again} == {id(buffer) for buffer in taken[2:]}


def test_a_closed_pool_keeps_nothing() -> None:
    pool = Buffers()
    waits, used = pool.take(10), pool.take(10)
    pool.give(waits)
    pool.close()
    pool.give(used)
    fresh = pool.take(10)
    assert fresh is not waits
    assert fresh is not used
