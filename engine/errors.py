"""The one tree of exceptions of `engine`."""


class EngineError(Exception):
    """Anything that `engine` refuses to do, with what to do about it.

    ::

        EngineError
        ├── BundleError        a bundle cannot be used
        │   ├── BundleNotFound     nothing there, or not a bundle
        │   ├── BundleInvalid      the manifest breaks its schema
        │   └── BundleCorrupt      a file's bytes are not what the manifest says
        ├── PlanRejected       a plan does not fit this device, or its key or digest differs
        ├── RuntimeUnavailable the library or the device a target needs is missing
        ├── BuildFailed        TensorRT refused the network; carries its log's errors
        └── RunFailed          a batch could not be executed

    Args:
        message: What happened, with the values seen.
        remedy: What to do next, ideally a command to type.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}"


class BundleError(EngineError):
    """A bundle cannot be used."""


class BundleNotFound(BundleError):
    """Nothing is there, or it is not a bundle."""


class BundleInvalid(BundleError):
    """The manifest breaks its schema, or lacks what was asked of it."""


class BundleCorrupt(BundleError):
    """A file's bytes are not what the manifest says."""


class PlanRejected(EngineError):
    """A plan does not fit this device, or its key or digest differs from what is recorded."""


class RuntimeUnavailable(EngineError):
    """The library or the device that a target needs is missing."""


class BuildFailed(EngineError):
    """A compiler refused the network."""


class RunFailed(EngineError):
    """A batch could not be executed."""


def pack_error(error: EngineError) -> dict[str, str]:
    """An exception as JSON, for another process to raise (see `unpack_error`)."""
    return {"type": type(error).__name__, "message": error.message, "remedy": error.remedy}


def unpack_error(fields: dict[str, str]) -> EngineError:
    """The exception that another process packed, of the same type and with the same words."""
    kind = globals().get(fields["type"])
    known = kind if isinstance(kind, type) and issubclass(kind, EngineError) else RunFailed
    return known(fields["message"], remedy=fields["remedy"])
