"""Which tensors share a scale because they meet in a Concat. Pure.

INT8 codes can stand side by side in one tensor only if they mean the same. So all quantized inputs of a Concat and its
output form one group; a tensor in two Concats, as in a DenseNet, makes one group of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedRanges:
    """The groups by the tensor that names their scale: the last of each in the order of the graph."""

    groups: Mapping[str, tuple[str, ...]]

    def leader(self, tensor: str) -> str:
        """Return the tensor that names this one's scale: itself where it is in no group."""
        return next((leader for leader, members in self.groups.items() if tensor in members), tensor)

    def members(self, leader: str) -> tuple[str, ...]:
        """Return the tensors that share a scale named so."""
        return self.groups.get(leader, (leader,))


def join_ranges(concats: Sequence[onnx.NodeProto], ranges: Mapping[str, str]) -> JoinedRanges:
    """Group the tensors whose values meet in Concats.

    Args:
        concats: those that run in INT8.
        ranges: for each quantized tensor, in the order of the graph, the one whose range it has.
    """
    groups: list[set[str]] = []
    for node in concats:
        meeting = {ranges[tensor] for tensor in (*node.input, node.output[0]) if tensor in ranges}
        groups, apart = (
            [group for group in groups if group & meeting],
            [group for group in groups if not group & meeting],
        )
        groups = [*apart, meeting.union(*groups)]
    order = {tensor: index for index, tensor in enumerate(dict.fromkeys(ranges.values()))}
    members = [tuple(sorted(group, key=order.__getitem__)) for group in groups]
    return JoinedRanges(groups={group[-1]: group for group in members})
