"""What a KV-cache method is: a policy that scores slots and says how many to keep. Knows tensors, no model, no text.

A policy never sees or patches a module. The host (`session`) calls it at the end of a layer's prefill attention:
`budget(view)` says how many slots each row keeps, `score(view)` which ones, and the host frees the rest. What a policy
does beyond that are its `roles`. All state of a policy is set by `start`, which the host calls before every batch.
Shapes are those of `views`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from loom_core.api import Budget, Json, Saves, UsageError
from loom_kv.codec import Codec
from loom_kv.roles import Merges, ObservesQueries, SharesHeads, SharesLayers, StepsDecode
from loom_kv.views import Allotment, Geometry, LayerView, Need, Stream


@dataclass
class Policy:
    """Base of all KV-cache methods. options: the method's frozen dataclass; its field `budget` is a `Budget`.

    name: of the method. saves: whether memory is really freed. need: what the host collects. first, last: slots the
    method protects; a budget below their sum is refused. codec: how the kept slots are held, where the arm names one.
    """

    options: Any
    geometry: Geometry = field(init=False)
    codec: Codec | None = field(init=False, default=None)

    name: ClassVar[str] = ""
    saves: ClassVar[Saves] = "real"

    @property
    def need(self) -> Need:
        """What `score` will look at."""
        return Need()

    @property
    def observes(self) -> ObservesQueries | None:
        """Who sees the raw queries of the prompt; None = they are not kept."""
        return None

    @property
    def shares_heads(self) -> SharesHeads | None:
        """Who shares a layer's budget out among its heads; None = each keeps what `budget` says."""
        return None

    @property
    def shares_layers(self) -> SharesLayers | None:
        """Who shares one budget out among the layers; None = each keeps what `budget` says."""
        return None

    @property
    def steps(self) -> StepsDecode | None:
        """Who scores the slots at each decoding step; None = nothing is evicted while decoding."""
        return None

    @property
    def merges(self) -> Merges | None:
        """Who merges values at each decoding step, where `steps` evicts; None = nothing is merged."""
        return None

    @property
    def shares_prefix(self) -> bool:
        """Questions on one context may continue a prefix that was read once, without this policy.

        So by default where nothing is looked at before the end of the prompt but the newest queries.
        """
        early = (self.observes, self.steps, self.shares_layers)
        return not self.need.mass_stride and all(role is None for role in early)

    @property
    def first(self) -> int:
        """Valid tokens at the start of each row that are always kept."""
        return 0

    @property
    def last(self) -> int:
        """Valid tokens at the end of each row that are always kept."""
        return 0

    def newest(self, n_valid: int) -> int:
        """`last` of a prompt of `n_valid` tokens, for methods where it follows from the budget."""
        return self.last

    @property
    def asked(self) -> Budget:
        """The budget as the user gave it."""
        budget: Budget = self.options.budget
        return budget

    @property
    def request(self) -> str:
        """What the user asked for: the budget, and what the codec says of itself."""
        return str(self.asked) if self.codec is None else f"{self.asked} + {self.codec.asked}"

    def start(self, geometry: Geometry) -> None:
        """Forget everything: a new batch begins. Raises ModelError where the codec cannot hold this model or policy."""
        self.geometry = geometry
        if self.codec is not None:
            self.codec.start(geometry)
            self.codec.check_policy(self)

    def slots(self, n_valid: int) -> int:
        """Slots per KV head that the budget allows a prompt of `n_valid` tokens."""
        if self.codec is not None and self.asked.bytes_ is not None:
            return self.codec.slots(self.asked.bytes_)
        return self.asked.slots(n_valid, self.geometry.bytes_per_token)

    def asked_three_ways(self, n_valid: int) -> tuple[float, float, int]:
        """The budget for a prompt of `n_valid` tokens as tokens per KV head, as share of the prompt, and as bytes."""
        slots, asked = self.slots(n_valid), self.asked
        share = slots / n_valid if asked.ratio is None else asked.ratio
        if asked.bytes_ is not None:
            return slots, share, asked.bytes_
        if self.codec is not None:
            return slots, share, self.geometry.layers * self.codec.bytes_held(slots)
        return slots, share, slots * self.geometry.bytes_per_token

    def check(self, n_valid: int) -> None:
        """Refuse a prompt that this budget cannot serve. Raises UsageError with the arithmetic."""
        slots, newest = self.slots(n_valid), self.newest(n_valid)
        least = self.first + newest
        if slots < n_valid and slots < max(least, 1):
            raise UsageError(
                f"budget {self.asked} is too small for {self.name}",
                where=f"a prompt of {n_valid} tokens",
                why=f"the budget gives {slots} slots; {self.first} at the start and {newest} at the end are always "
                f"kept, which takes {least}",
                hint=f"a budget of at least {least}, or fewer protected tokens",
            )

    def budget(self, view: LayerView) -> Allotment:
        """How many slots this layer keeps, for each row."""
        slots, newest = ([of(n) for n in view.n_valid] for of in (self.slots, self.newest))
        return Allotment(slots=slots, first=self.first, last=newest)

    def most_slots(self, n_valid: int) -> int:
        """The most slots that the definition keeps of a prompt, over all layers and KV heads.

        The budget's by default; a definition that rounds up or spares layers says so here, and is held to it.
        """
        return min(self.slots(n_valid), n_valid) * self.geometry.layers * self.geometry.kv_heads

    def notes(self, n_valid: int) -> tuple[str, ...]:
        """Fall-backs taken for a prompt of `n_valid` tokens, for the user to read."""
        slots, stride = self.slots(n_valid), self.need.mass_stride
        approximate = (f"approximate: attention of every {stride}-th query of the prompt",) if stride > 1 else ()
        if slots < n_valid:
            return approximate
        outcome = "dense" if self.codec is None else "nothing evicted"
        if self.steps is not None:
            outcome = "dense until the budget is full"
        return (f"{outcome}: the prompt of {n_valid} tokens fits the budget of {slots}", *approximate)

    def score(self, view: LayerView) -> Tensor:
        """Float32 scores [b, h, N] or [b, 1, N] (one ranking for all heads), higher = keep; finite on valid slots.

        Scores of padding and of protected slots are ignored. Ties are broken by the larger position.
        """
        raise NotImplementedError

    def stream(self, n_valid: int) -> Stream | None:
        """For methods that cut the cache while the prompt is read; None (the default) = after the prefill."""
        return None

    def witness(self) -> Mapping[str, Json]:
        """Intermediate results of the last prompt's first row, by the names that recorded results give them.

        `loom check --oracle` compares those that a row has; nothing else reads them.
        """
        return {}
