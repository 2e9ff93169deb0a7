"""A `torch.cat` whose parts have unknown widths, explained to torch-pruning's dependency graph.

A rotary embedding joins pieces of a `chunk` or of slices, and torch-pruning 1.6.1 cannot tell how wide they are. It then adds up
None, and the trace of the whole model fails. Here such a concatenation counts as an element-wise operation, as every operation does
that torch-pruning does not know. So do its pieces: they would shift the channels each time that a group goes round, without end.
The check of each group finds where that is wrong, so only those groups are left whole. This can go when torch-pruning leaves such
a concatenation out by itself (`dependency/index_mapping.py`, `update_concat_index_mapping`).
"""

from __future__ import annotations

from typing import Any

import torch_pruning
from torch_pruning.dependency import shape_infer
from torch_pruning.ops import OPTYPE


class PatientGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """A dependency graph that can be traced where the parts of a concatenation have unknown widths."""

    def _build_dependency(self, module2node: dict[Any, Any]) -> None:
        """Build the dependencies, and let concatenations of unknown parts count as element-wise."""
        super()._build_dependency(module2node)
        shape_infer.init_shape_information(self)
        for node in module2node.values():
            if node.type == OPTYPE.CONCAT and self._has_unknown_parts(node):
                node.type = OPTYPE.ELEMENTWISE
                for part in node.inputs:
                    _forget_pieces(part)

    def _has_unknown_parts(self, node: Any) -> bool:
        """Whether torch-pruning knows the width of `node`, but not that of each of its parts. There it fails."""
        parts = [shape_infer.infer_channels_between(self, part, node) for part in node.inputs]
        return None in parts and shape_infer.infer_in_channels_recursively(self, node, recursive_depth=[0]) is not None


def _forget_pieces(node: Any) -> None:
    """Let the slices that `node` is made of count as element-wise operations."""
    while node.type == OPTYPE.ELEMENTWISE and len(node.inputs) == 1:
        node = node.inputs[0]
    if node.type in (OPTYPE.SLICE, OPTYPE.SPLIT):
        node.type = OPTYPE.ELEMENTWISE
