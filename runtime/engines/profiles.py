"""Which batch sizes an engine plays, and on which of its optimisation profiles."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import Profile


def batch_sizes(profiles: Sequence[Profile]) -> list[int]:
    """Return the batch sizes at which the engines are played, in ascending order.

    They are the three sizes of every profile, and the powers of two between its smallest and its largest.
    Each size has its own recording and memory. Other batches are filled up to the next of these sizes.
    """
    sizes = set()
    for smallest, common, largest in profiles:
        powers = (1 << exponent for exponent in range(largest.bit_length()))
        sizes |= {smallest, common, largest, *(size for size in powers if smallest < size < largest)}
    return sorted(sizes)


def profile_of(batch: int, profiles: Sequence[Profile]) -> int:
    """Return the index of the profile on which a batch of one of `batch_sizes` is played.

    Of the profiles that contain the size, it is the one whose common size is nearest, as a ratio; the first
    of equally near ones. TensorRT chooses the kernels of a profile by their time at its common size.
    """

    def distance(index: int) -> float:
        common = profiles[index][1]
        return max(batch / common, common / batch)

    fitting = [index for index, (smallest, _, largest) in enumerate(profiles) if smallest <= batch <= largest]
    return min(fitting, key=distance)
