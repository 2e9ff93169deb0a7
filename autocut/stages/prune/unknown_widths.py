"""A `torch.cat` whose parts have unknown widths, explained to torch-pruning's dependency graph.

A rotary embedding joins pieces of a `chunk`, and torch-pruning 1.6.1 cannot tell how wide they are. It then adds up None, and the
trace of the whole model fails. Here such a concatenation counts as an element-wise operation, as every operation does that
torch-pruning does not know. The check of each group finds where that is wrong, so only those groups are left whole. This can go
when torch-pruning leaves such a concatenation out by itself (`dependency/index_mapping.py`, `update_concat_index_mapping`).

Where the pieces are slices, torch-pruning 1.6.1 shifts the channels each time that a group goes round, and does not end
(`rotate_half` of transformers). A group has an end here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch_pruning
from torch import nn
from torch_pruning.dependency import graph, shape_infer
from torch_pruning.ops import OPTYPE

_MOST = 32
"""Times that a group may come to one layer with other channels each time."""


class _EndlessError(Exception):
    """A group does not end."""


class _BoundedGroup(graph.Group):  # type: ignore[misc]
    """A group that comes to each layer only so often."""

    def __init__(self) -> None:
        super().__init__()
        self._visits: Counter[int] = Counter()

    def add_dep(self, dep: Any, idxs: Any) -> None:
        """Add one item."""
        self._visits[id(dep.target)] += 1
        if self._visits[id(dep.target)] > _MOST:
            raise _EndlessError
        super().add_dep(dep, idxs)


class PatientGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """A dependency graph that can be traced where the parts of a concatenation have unknown widths.

    `endless` has the layers for which no group of channels was found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.endless: list[nn.Module] = []

    def _build_dependency(self, module2node: dict[Any, Any]) -> None:
        """Build the dependencies, and let concatenations of unknown parts count as element-wise."""
        super()._build_dependency(module2node)
        shape_infer.init_shape_information(self)
        for node in module2node.values():
            if node.type == OPTYPE.CONCAT and self._has_unknown_parts(node):
                node.type = OPTYPE.ELEMENTWISE

    def get_pruning_group(self, module: nn.Module, pruning_fn: Any, idxs: Any) -> Any:
        """Return what goes with channels of `module`; an empty group where that does not end."""
        of_library = graph.Group
        graph.Group = _BoundedGroup
        try:
            return super().get_pruning_group(module, pruning_fn, idxs)
        except _EndlessError:
            self.endless.append(module)
            return of_library()
        finally:
            graph.Group = of_library

    def _has_unknown_parts(self, node: Any) -> bool:
        """Whether torch-pruning knows the width of `node`, but not that of each of its parts. There it fails."""
        parts = [shape_infer.infer_channels_between(self, part, node) for part in node.inputs]
        return None in parts and shape_infer.infer_in_channels_recursively(self, node, recursive_depth=[0]) is not None
