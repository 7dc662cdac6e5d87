"""One method of an arm's parts: at most one policy, at most one codec. Knows the rules; no method."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from loom_core.api import Budget, Saves
from loom_kv.choose import Choice, protect
from loom_kv.codec import Codec, HeldView, clash
from loom_kv.policy import Policy
from loom_kv.store import DenseStore
from loom_kv.views import Allotment, LayerView

UNEVEN = "the heads of a layer may keep unequal numbers of slots, and a codec holds them in one block"
EQUAL = "a method that keeps as many slots in every head"
ONE_SHOT = "a method that evicts each layer once, at the end of the prompt"


class KeepAll(Policy):
    """The policy of a codec that stands alone: nothing is evicted."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The codec's."""
        return self.codec.name if self.codec is not None else "all"

    @property
    def saves(self) -> Saves:  # type: ignore[override]
        """The codec's."""
        return self.codec.saves if self.codec is not None else "none"

    @property
    def asked(self) -> Budget:
        """Everything."""
        return Budget(ratio=1.0)

    @property
    def request(self) -> str:
        """What the codec was asked for."""
        return self.codec.asked if self.codec is not None else ""

    def notes(self, n_valid: int) -> tuple[str, ...]:
        """The codec's."""
        return self.codec.notes(n_valid) if self.codec is not None else ()

    def budget(self, view: LayerView) -> Allotment:
        """All there is."""
        return Allotment(slots=view.n_valid)


def compose(parts: Sequence[Policy | Codec]) -> Policy | None:
    """One method of an arm's parts; None without any. Raises ModelError, which names the rule, for parts that clash."""
    policies = [part for part in parts if isinstance(part, Policy)]
    codecs = [part for part in parts if isinstance(part, Codec)]
    names = " and ".join(part.name for part in parts)
    for many, rule, why in (
        (policies, "one selecting method", "each decides alone which slots are kept"),
        (codecs, "one codec", "each decides alone how the kept slots are held"),
    ):
        if len(many) > 1:
            raise clash(names, rule, why, "give them as two arms")
    if not codecs:
        return policies[0] if policies else None
    policy = policies[0] if policies else KeepAll(None)
    for clashes, rule, why, hint in (
        (policy.shares_heads is not None, "equal heads", UNEVEN, EQUAL),
        (policy.steps is not None, "decode eviction", "what is encoded is never evicted from again", ONE_SHOT),
        (
            policy.shares_layers is not None,
            "layer by layer",
            "later layers evict again from those that are encoded",
            ONE_SHOT,
        ),
    ):
        if clashes:
            raise clash(names, rule, why, hint)
    policy.codec = codecs[0]
    return policy


def held_view(store: DenseStore, layer: int, queries: Tensor | None, scores: Tensor | None, codec: Codec) -> HeldView:
    """What a codec sees of a layer. Raises ModelError where the heads of a row hold unequal numbers of slots."""
    missing = [[0]] * len(store.n_valid) if store.missing is None else store.missing.tolist()
    if any(len(set(row)) > 1 for row in missing):
        raise clash(f"{codec.name} and this eviction", "equal heads", UNEVEN, EQUAL)
    keys, values = store.decoded()
    return HeldView(
        layer=layer,
        k=keys,
        v=values,
        missing=tuple(int(row[0]) for row in missing),
        kept=store.kept,
        n_valid=tuple(store.n_valid),
        queries=newest_of(queries, codec.need.window),
        scores=scores,
        room=store.room,
    )


def newest_of(queries: Tensor | None, window: int) -> Tensor | None:
    """The last `window` of the queries [b, H, w, d]; None for none."""
    return None if queries is None or not window else queries[:, :, -window:]


def held_scores(scores: Tensor, n_valid: Sequence[int], allotment: Allotment, choice: Choice | None) -> Tensor:
    """`HeldView.scores`: of all slots [b, h or 1, N], those of the choice, infinite where they are protected."""
    scores = protect(scores, n_valid, allotment)
    return scores if choice is None else scores.expand(-1, choice.index.shape[1], -1).gather(2, choice.index)


def ranks_slots(policy: Policy) -> bool:
    """True if the codec looks at this policy's scores."""
    return policy.codec is not None and policy.codec.ranked and not isinstance(policy, KeepAll)
