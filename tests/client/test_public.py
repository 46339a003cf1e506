import ast
import inspect
from pathlib import Path

import client

PUBLIC = """
    Age Camera ClientError Connection ConnectionLost Counts Detection Encoding Engine EngineStatus Frame FrameInvalid
    Intrinsics Ledger Memory Mounting Offset Opened Policy ProtocolViolation Rejected Result ServerState
    ServerUnreachable SetFrame SourceError Status Stream StreamClock StreamClosed StreamStalled SurroundSet
    SyncConnection SyncStream TensorSpec VehicleObject VideoEncoder Watched connect connect_sync encode
"""
OURS = ("build_engine", "engine", "server", "surround", "torch", "onnx", "onnxruntime")


def test_the_public_names_change_only_on_purpose() -> None:
    assert sorted(client.__all__) == PUBLIC.split()
    assert all(hasattr(client, name) for name in client.__all__)


def test_every_exception_is_in_the_tree_and_explained() -> None:
    from client import errors

    tree = errors.__doc__ or ""
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(classes) == 9
    for item in classes:
        assert issubclass(item, client.ClientError)
        assert item.__name__ in tree
        assert item.__name__ in client.__all__


def test_the_client_needs_nothing_of_ours_but_the_wire() -> None:
    for path in Path(client.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in OURS, f"{path} imports {name}"


def names_of(owner: object) -> set[str]:
    return {name for name in vars(owner) if not name.startswith("_")}


def test_the_client_without_async_offers_the_same() -> None:
    streams, arguments = (client.Stream, client.SyncStream), set()
    assert names_of(streams[1]) - names_of(streams[0]) == set()
    for name in ("submit", "slot", "send", "finish"):
        assert [*inspect.signature(getattr(streams[0], name)).parameters] == [
            *inspect.signature(getattr(streams[1], name)).parameters
        ]
    for connection in (client.Connection, client.SyncConnection):
        arguments.add(tuple(inspect.signature(connection.stream).parameters))
    assert len(arguments) == 1
    assert "shared_memory" in arguments.pop()
