import threading

import numpy as np
import pytest

import client
from tests.client.scripted import Script, serving_in_thread, well_behaved

CAMERA = client.Camera("front", width=8, height=4, encoding="gray8")
PIXELS = np.zeros((4, 8), np.uint8)


def test_frames_and_results_without_async() -> None:
    with serving_in_thread(Script(well_behaved)) as address, client.connect_sync(address) as server:
        assert server.engine().name == "scripted"
        with server.stream([CAMERA]) as stream:
            assert stream.submit(client.Frame("front", PIXELS)) == 0
            assert next(stream).ok
            assert stream.send(client.Frame("front", PIXELS)) == 1
            stream.finish()
            assert [result.sequence for result in stream] == [1]
            assert stream.counts["front"].answered == 2
            assert stream.undelivered == 0


def test_one_thread_may_send_while_another_reads() -> None:
    with (
        serving_in_thread(Script(well_behaved)) as address,
        client.connect_sync(address) as server,
        server.stream([CAMERA], policy="replay") as stream,
    ):
        results: list[client.Result] = []
        reader = threading.Thread(target=lambda: results.extend(stream))
        reader.start()
        for _ in range(30):
            stream.send(client.Frame("front", PIXELS))
        stream.finish()
        reader.join()
        assert [result.sequence for result in results] == list(range(30))


def test_errors_arrive_where_the_call_was_made() -> None:
    with pytest.raises(client.ServerUnreachable, match="python -m server BUNDLE"), client.connect_sync("127.0.0.1:1"):
        pass
    with serving_in_thread(Script(well_behaved)) as address, client.connect_sync(address) as server:
        with pytest.raises(client.FrameInvalid), server.stream([]):
            pass
        with server.stream([CAMERA]) as stream, pytest.raises(client.FrameInvalid, match="no camera 'left'"):
            stream.submit(client.Frame("left", PIXELS))
    with pytest.raises(RuntimeError, match="not open"):
        server.engine()


def test_watching_without_async() -> None:
    script = Script(well_behaved)
    script.watch_again(CAMERA.to_proto(), 3)
    with serving_in_thread(script) as address, client.connect_sync(address) as server:
        assert [watched.camera for watched in server.watch()] == [CAMERA] * 3
