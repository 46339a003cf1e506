from dataclasses import dataclass


@dataclass(frozen=True)
class FuseOptions:
    """What the fuser takes one unit of each kind of work to cost, and what it assumes where sizes are open.

    The defaults describe one core of a present CPU: 25 GMAC/s, 10 GB/s, 5 µs per operator. Only their
    ratios decide.

    Args:
        ns_per_mac: Nanoseconds per multiply-accumulate.
        ns_per_byte: Nanoseconds per byte of a tensor or weight read or written.
        ns_per_launch: Nanoseconds per operator that runs.
        symbolic_size: Height and width assumed for the cost model where a model leaves them open; a batch
            left open counts as 1.
        cuts_per_tensor: How many forms of a tensor are kept while looking for the best cover.
    """

    ns_per_mac: float = 0.04
    ns_per_byte: float = 0.1
    ns_per_launch: float = 5000.0
    symbolic_size: int = 224
    cuts_per_tensor: int = 12
