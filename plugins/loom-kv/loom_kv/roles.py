"""What a policy may do beyond scoring a prompt. The host asks a policy for each role and calls what it is given.

A policy's property (`Policy.steps` for `StepsDecode`, …) returns who plays the role, mostly the policy itself, or None
where its options have none. Knows no policy. Shapes are those of `views`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from loom_kv.views import Allotment, LayerView, Merge, QueryChunk, StepView


class ObservesQueries(Protocol):
    """Sees every query of the prompt as it was before the rotary embedding.

    Models whose rotation loom does not know are refused.
    """

    def observe(self, chunk: QueryChunk) -> None:
        """Called for each layer and prefill chunk, the last chunk before the layer's `budget`."""


class SharesHeads(Protocol):
    """Shares a layer's budget out among its heads by their scores."""

    def allot(self, view: LayerView, scores: Tensor, allotment: Allotment) -> Allotment:
        """The final slots of this layer. scores: [b, h, N]; those of padding and protected slots mean nothing.

        allotment: what `budget` gave.
        """


class SharesLayers(Protocol):
    """Shares one budget out among all layers: earlier ones are cut again as later ones are read."""

    def shares(self, layer: int) -> list[list[int]]:
        """Slots [layer][row] of layers 0 to `layer`, now that it is known.

        Called after the layer's `score`. A layer that holds fewer already keeps what it has.
        """


class StepsDecode(Protocol):
    """Sees each decoding step, after which slots are evicted as it says: the budget holds while decoding."""

    def step(self, view: StepView) -> Tensor:
        """Float32 scores [b, h or 1, S] of all slots after this step, higher = keep.

        The host then drops the lowest ones of each row that holds more than its allotment, without the protected ones.
        The shape is that of `score`; the scores of the slots that stay are handed back at the next step.
        """


class Merges(Protocol):
    """Adds values to others before slots are freed at a decoding step."""

    def merge(self, view: StepView, kept: Tensor) -> Merge | None:
        """Called after `step`: what is added to the values of others. kept: bool [b, h or 1, S], slots that stay."""


def allotted(heads: SharesHeads | None, view: LayerView, scores: Tensor, allotment: Allotment) -> Allotment:
    """The final slots of a layer: the allotment, shared out where someone does that."""
    return allotment if heads is None else heads.allot(view, scores, allotment)
