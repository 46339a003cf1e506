from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FuseOptions:
    """What the fuser takes one unit of each kind of work to cost, and what it assumes where sizes are open.

    The defaults describe one core of a present CPU: 50 GMAC/s, 10 GB/s, 5 µs per operator. Only their
    ratios decide.

    Args:
        ns_per_mac: Nanoseconds per multiply-accumulate.
        ns_per_byte: Nanoseconds per byte of a tensor or weight read or written.
        ns_per_launch: Nanoseconds per operator that runs.
        symbolic_size: Height and width assumed for the cost model where a model leaves them open; a batch
            left open counts as 1.
        cuts_per_tensor: How many forms of a tensor are kept while looking for the best cover.
        excluded: Names of nodes, as a report gives them, that stay as they are.
    """

    ns_per_mac: float = 0.02
    ns_per_byte: float = 0.1
    ns_per_launch: float = 5000.0
    symbolic_size: int = 224
    cuts_per_tensor: int = 12
    excluded: frozenset[str] = frozenset()

    @classmethod
    def for_target(cls, target: str) -> FuseOptions:
        """The cost model of a device class; an unknown one counts as ``cpu``.

        =================  ===========  ========  =====================
        target             TMAC/s       GB/s      µs per kernel
        =================  ===========  ========  =====================
        cpu                0.05         10        5
        rtx, gpu           20           800       4
        jetson-, drive-    5            150       6
        =================  ===========  ========  =====================
        """
        kind = target.split("-", 1)[0]
        if kind in ("rtx", "gpu"):
            return cls(ns_per_mac=5e-5, ns_per_byte=1.25e-3, ns_per_launch=4000.0)
        if kind in ("jetson", "drive"):
            return cls(ns_per_mac=2e-4, ns_per_byte=6.7e-3, ns_per_launch=6000.0)
        return cls()
