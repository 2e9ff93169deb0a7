"""The parts of the agent that make it fast, each with a switch, so that a benchmark can ask what it brings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tactics:
    """What the agent may use. A search uses all of it; ablations switch one part off (studies/search_efficiency).

    Attributes:
        fan_out: A trained prefix is measured with every promising lowering, not only with the proposed one.
        cost_first: Costs are measured before training, and what they already beat is not trained.
        early_stopping: A training ends at a rung where even an optimistic end would not reach the front.
        inheritance: A more pruned child may start from its less pruned trained parent.
        gain_per_second: Of several proposals that one is run which promises most hypervolume per predicted second.
    """

    fan_out: bool = True
    cost_first: bool = True
    early_stopping: bool = True
    inheritance: bool = True
    gain_per_second: bool = True


EVERYTHING = Tactics()
