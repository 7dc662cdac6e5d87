"""StreamingLLM (Xiao et al. 2023, arXiv:2309.17453): attention sinks and a window of recent tokens.

With S sinks, budget B and R = B - S, in every layer and head:

    form=streamed   before token t the cache is cut to the first S and the last R - 1 tokens, while the prompt is read
                    and while decoding, so no token ever sees more than B keys. Keys are kept raw and rotated by their
                    index in the cache, the query by min(t, B - 1) (positions=in-cache; original keeps the text's own).
    form=evict      a full-attention prefill, then once: keep {0..S-1} and {N-R..N-1}, original positions; the cache
                    grows while decoding.

The streamed form reads texts longer than the trained window; the evict form does not.
"""

from __future__ import annotations

from loom_kv import LayerView, Policy, Stream
from torch import Tensor


class StreamingLLM(Policy):
    """options: `plugin.StreamingLLMOptions`. Protects the sinks and one recent token."""

    name = "streamingllm"

    @property
    def first(self) -> int:
        """The sinks."""
        sinks: int = self.options.sinks
        return sinks

    @property
    def last(self) -> int:
        """At least the newest token."""
        return 1

    def score(self, view: LayerView) -> Tensor:
        """The position, [b, 1, N]: the newest tokens win, in all heads alike."""
        return view.positions.float()

    def stream(self, n_valid: int) -> Stream | None:
        """The rule of the streamed form."""
        if self.options.form == "evict":
            return None
        # A prompt of fewer tokens than sinks may have a budget as small as itself; it still sees its newest token.
        recent = max(1, self.slots(n_valid) - self.first)
        return Stream(sinks=self.first, recent=recent, in_cache=self.options.positions != "original")
