"""May this model be attached? A probe of a few tokens answers, and measures the geometry. Knows models, no method.

Every refusal names its rule. The probe runs the model's own attention and loom's on the same tokens: what loom cannot
reproduce, for whatever reason, is refused instead of being silently wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from loom_kv import Geometry, Policy, Rope, Session, Stream, attend_many
from torch import Tensor, nn

from loom_core.api import ModelError
from loom_server_hf.host import Layers, PassThrough, attached, forward

PROBE = 7


def refuse(rule: str, where: str, why: str) -> ModelError:
    """The error of a model that breaks a rule."""
    return ModelError(
        "this model cannot run on loom's KV host",
        where=f"{where} (rule: {rule})",
        why=why,
        hint="use a model with full causal attention in every layer, or another server",
    )


class _Probe:
    """Stands behind the attention function once, without a cache, and writes down what every layer hands over."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: list[nn.Module] = []
        self.shapes: list[tuple[int, int, int, int]] = []
        self.dtype = torch.float32

    def attend(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, rest: dict[str, Any]
    ) -> Tensor:
        where = f"{self.name}, attention layer {getattr(module, 'layer_idx', len(self.layers))}"
        for key, rule in (
            ("sliding_window", "sliding window"),
            ("softcap", "logit soft-capping"),
            ("s_aux", "attention sinks"),
            ("position_bias", "position bias"),
        ):
            if rest.get(key) is not None:
                raise refuse(rule, where, f"the layer asks for {key}={_short(rest[key])}")
        if getattr(module, "sinks", None) is not None:
            raise refuse("attention sinks", where, "the layer learns an extra logit that takes part in the softmax")
        if not getattr(module, "is_causal", True):
            raise refuse("causal attention", where, "the layer looks at later tokens")
        if getattr(module, "layer_idx", None) != len(self.layers):
            raise refuse("every layer once", where, f"layer {len(self.layers)} was expected here")
        if q.shape[1] % k.shape[1]:
            raise refuse("group size", where, f"{q.shape[1]} query heads do not divide into {k.shape[1]} KV heads")
        self.layers.append(module)
        self.shapes.append((q.shape[1], k.shape[1], k.shape[3], v.shape[3]))
        self.dtype = k.dtype
        return attend_many(q, k, v, None, None, scaling)


def _short(value: Any) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)


def _check_config(model: Any, name: str) -> int:
    """Rules that the configuration decides; returns the number of decoder layers."""
    config = model.config.get_text_config(decoder=True)
    for layer, kind in enumerate(getattr(config, "layer_types", None) or ()):
        if kind != "full_attention":
            raise refuse("full attention", f"{name}, layer {layer}", f"its type is {kind}")
    slides = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if slides and getattr(config, "layer_types", None) is None:
        raise refuse("sliding window", f"{name}, every layer", f"sliding_window={config.sliding_window}")
    if not model._can_set_attn_implementation():
        raise refuse("attention interface", name, "its attention does not go through transformers' interface")
    return int(config.num_hidden_layers)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the probe found: the geometry, and the attention module of the first layer."""

    geometry: Geometry
    attention: nn.Module


@torch.inference_mode()
def examine(model: Any) -> Examined:
    """The geometry of a model that keeps all rules. Raises ModelError naming the layer and the rule otherwise."""
    name = type(model).__name__
    layers = _check_config(model, name)
    ids, positions = _probe_inputs(model)
    probe = _Probe(name)
    with attached(model):
        try:
            seen = forward(model, probe, PassThrough(), ids, positions)
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise refuse("attention interface", name, f"{type(error).__name__}: {error}") from error
    # The model's own pass comes second: one that cannot run at all has been refused by its rule by now.
    own = model(input_ids=ids, use_cache=False).logits[:, -1]
    geometry = _geometry(probe, layers, ids.device)
    with attached(model):
        _compare(own, seen, geometry, name, "equal results")
        session = Session(geometry, [PROBE], [0], None)
        _compare(own, _in_steps(model, session, ids, positions), geometry, name, "equal results with a cache")
    return Examined(geometry, probe.layers[0])


@torch.inference_mode()
def examine_rope(model: Any, examined: Examined) -> Rope:
    """The model's rotation, proved on the probe: raw keys rotated by loom give the logits of rotated ones."""
    name = type(model).__name__
    rope = Rope(model.get_decoder(), examined.attention)
    ids, positions = _probe_inputs(model)
    policy = _AllInCache(None)
    policy.start(examined.geometry)
    dense = Session(examined.geometry, [PROBE], [0], None)
    session = Session(examined.geometry, [PROBE], [0], policy, rope=rope)
    with attached(model):
        own = _in_steps(model, dense, ids, positions)
        try:
            seen = _in_steps(model, session, ids, torch.zeros_like(positions))
        except (RuntimeError, TypeError, ValueError) as error:
            raise refuse("rotary", name, f"its rotation does not apply to whole keys: {error}") from error
    _compare(own, seen, examined.geometry, name, "rotary")
    return rope


class _AllInCache(Policy):
    """In-cache positions and a budget that holds the whole probe."""

    name = "probe"

    def stream(self, n_valid: int) -> Stream:
        """Everything fits."""
        return Stream(sinks=1, recent=PROBE, in_cache=True)


def _in_steps(model: Any, session: Session, ids: Tensor, positions: Tensor) -> Tensor:
    """The probe through a cache: two chunks, then single tokens. Logits of the last token."""
    logits, cache = ids, PassThrough()
    for start, n in ((0, 3), (3, 2), (5, 1), (6, 1)):
        session.begin(n)
        part = slice(start, start + n)
        logits = forward(model, Layers(session), cache, ids[:, part], positions[:, part])
    return logits


def _geometry(probe: _Probe, layers: int, device: torch.device) -> Geometry:
    if len(probe.layers) != layers:
        why = f"{len(probe.layers)} of {layers} layers attend through transformers' interface"
        raise refuse("attention interface", probe.name, why)
    for layer, shape in enumerate(probe.shapes):
        if shape != probe.shapes[0]:
            raise refuse("equal layers", f"{probe.name}, layer {layer}", f"heads and sizes {shape}")
    query_heads, kv_heads, key_dim, value_dim = probe.shapes[0]
    return Geometry(
        layers=layers,
        query_heads=query_heads,
        kv_heads=kv_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        dtype=probe.dtype,
        device=device,
    )


def _probe_inputs(model: Any) -> tuple[Tensor, Tensor]:
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids = (torch.arange(1, PROBE + 1, device=model.device) * 7919 % vocabulary)[None]
    return ids, torch.arange(PROBE, device=model.device)[None]


def _compare(own: Tensor, seen: Tensor, geometry: Geometry, name: str, rule: str) -> None:
    """Raises where the logits differ by more than rounding."""
    # Sixteen-bit formats round every layer's sums; in float32 only the order of additions differs.
    tolerance = 1e-3 if geometry.dtype.itemsize >= 4 else 5e-2
    difference = float((own.float() - seen.float()).abs().max() / own.float().abs().max().clamp(min=1e-6))
    if not difference <= tolerance:
        why = f"logits of {PROBE} probe tokens differ by {difference:.1e} of their range (at most {tolerance:g})"
        raise refuse(rule, name, why)
