from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FuseOptions:
    """What the fuser takes one unit of each kind of work to cost, and what it assumes where sizes are open.

    The defaults describe one core of a present CPU: 50 GMAC/s, 20 GB/s, 5 µs per operator. Only their
    ratios decide; `python -m benchmarks.cost` compares their order with the measured one.

    Args:
        ns_per_mac: Nanoseconds per multiply-accumulate.
        narrow_mac_factor: How many times as much one costs where a group reads fewer than 16 channels, as in a
            depthwise convolution: vector units and tensor cores stay partly empty.
        ns_per_byte: Nanoseconds per byte of a tensor or weight read or written.
        ns_per_launch: Nanoseconds per operator that runs.
        symbolic_size: Height and width assumed for the cost model where a model leaves them open; a batch
            left open counts as 1.
        batch_names: Names of further sizes that count as 1, wherever they are: `build_engine.fuse.cost.sized_for`
            adds what a model calls its batch.
        cuts_per_tensor: How many forms of a tensor are kept while looking for the best cover.
        excluded: Names of nodes, as a report gives them, that stay as they are.
    """

    ns_per_mac: float = 0.02
    narrow_mac_factor: float = 4.0
    ns_per_byte: float = 0.05
    ns_per_launch: float = 5000.0
    symbolic_size: int = 224
    batch_names: frozenset[str] = frozenset()
    cuts_per_tensor: int = 12
    excluded: frozenset[str] = frozenset()

    @classmethod
    def for_target(cls, target: str) -> FuseOptions:
        """The cost model of a device class; an unknown one counts as ``cpu``.

        =================  ===========  =================  ========  =====================
        target             TMAC/s       in narrow groups   GB/s      µs per kernel
        =================  ===========  =================  ========  =====================
        cpu                0.05         0.0125             20        5
        rtx, gpu           20           5                  800       4
        jetson-, drive-    5            1.25               150       6
        =================  ===========  =================  ========  =====================

        The first row is fitted to 88 random regions measured on ONNX Runtime, where it misorders 4 (8 with one price
        for all multiplications). The others come from data sheets: nothing here has run on a GPU.
        """
        kind = target.split("-", 1)[0]
        if kind in ("rtx", "gpu"):
            return cls(ns_per_mac=5e-5, ns_per_byte=1.25e-3, ns_per_launch=4000.0)
        if kind in ("jetson", "drive"):
            return cls(ns_per_mac=2e-4, ns_per_byte=6.7e-3, ns_per_launch=6000.0)
        return cls()
