"""Small messages and file descriptors between two of our own processes."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from engine.runtime import Batch, RuntimeDescription
from engine.slots import SlotHandle
from engine.tensors import TensorSpec

Message = dict[str, Any]

MAX_MESSAGE_BYTES = 128 * 1024
"""A message is a few hundred bytes; one packet carries it whole."""
MAX_DESCRIPTORS = 64
_INT_BYTES = array("i").itemsize


class Channel:
    """One end of a pair of sockets that keeps packets whole. JSON, never pickle: a message cannot carry code.

    Args:
        connection: An AF_UNIX socket of type SOCK_SEQPACKET. The channel owns it from here on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two channels that talk to each other."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    @classmethod
    def adopt(cls, descriptor: int) -> Channel:
        """The channel behind a descriptor that this process was started with."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message, with copies of some descriptors.

        Raises:
            OSError: The other end is gone, or the message is too large.
        """
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_MESSAGE_BYTES or len(descriptors) > MAX_DESCRIPTORS:
            raise OSError(f"a message of {len(data)} bytes and {len(descriptors)} descriptors is too large")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def receive(self, timeout_s: float | None = None) -> tuple[Message, list[int]] | None:
        """Wait for one message.

        Args:
            timeout_s: How long to wait; None means for ever.

        Returns:
            The message and its descriptors, which the caller owns; None once the other end is closed.

        Raises:
            TimeoutError: Nothing came.
            OSError: The other end is gone, or what came is no message.
        """
        self._socket.settimeout(timeout_s)
        # Not socket.recv_fds, which drops its flags: descriptors would leak into what we start.
        data, ancillary, flags, _ = self._socket.recvmsg(
            MAX_MESSAGE_BYTES, socket.CMSG_LEN(MAX_DESCRIPTORS * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        descriptors = _descriptors(ancillary)
        if not data:
            return None
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise OSError("a message came in part")
            message = json.loads(data)
            if not isinstance(message, dict):
                raise OSError("a message is no JSON object")
        except (OSError, ValueError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise error if isinstance(error, OSError) else OSError(f"a message is no JSON: {error}") from error
        return message, descriptors

    def close(self) -> None:
        """Close this end; the other one sees it."""
        self._socket.close()


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    received = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return list(received)


def pack_batch(batch: Batch) -> Message:
    """A batch as JSON: handles only, never tensors."""
    return {
        kind: {name: [handle.region, handle.offset_bytes, list(handle.shape), handle.dtype] for name, handle in handles}
        for kind, handles in (("inputs", batch.inputs.items()), ("outputs", batch.outputs.items()))
    }


def unpack_batch(message: Mapping[str, Any]) -> Batch:
    """The batch in a message of `pack_batch`.

    Raises:
        ValueError: It is none.
    """
    try:
        inputs, outputs = (
            {
                str(name): SlotHandle(int(region), int(offset), tuple(int(size) for size in shape), str(dtype))
                for name, (region, offset, shape, dtype) in message[kind].items()
            }
            for kind in ("inputs", "outputs")
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a batch: {error!r}") from error
    return Batch(inputs, outputs)


def pack_description(description: RuntimeDescription) -> Message:
    """A description as JSON."""
    fields = {field.name: getattr(description, field.name) for field in dataclasses.fields(description)}
    tensors = {kind: [spec.model_dump() for spec in fields[kind]] for kind in ("inputs", "outputs")}
    return fields | tensors


def unpack_description(message: dict[str, Any]) -> RuntimeDescription:
    """The description in a message of `pack_description`."""
    tensors = {
        kind: tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in message[kind])
        for kind in ("inputs", "outputs")
    }
    return RuntimeDescription(**{**message, **tensors})
