"""Recorded results of codecs: quantised tensors, which tokens are quantised, which channels are dropped.

Knows the schema of such rows and the formats and stores of `loom_kv`; no particular method.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loom_core.api import DataError, Json
from loom_kv.codec import Codec
from loom_kv.grouped import GroupedStore
from loom_kv.pruned import ChannelPrunedStore
from loom_kv.quantise import Format, Packed, split
from loom_kv.store import Store

ROUNDED = 2e-2
"""Tolerance of single logits where noise in the last bit of a key may flip a code."""
DEQUANTISED = 1e-5


def differs_held(stores: Sequence[Store], case: Json, key: str) -> str | None:
    """How many tokens are quantised (`case[key]`), and once per case the channels that are dropped."""
    for layer, store in enumerate(stores):
        if key in case and isinstance(store, GroupedStore):
            own = {"K": store.keys.quantised(store.counts[0]), "V": store.values.quantised(store.counts[0])}
            if own != case[key]:
                return f"layer {layer}: {key} is {own}, not {case[key]}"
        if "pruned_channels" in case and isinstance(store, ChannelPrunedStore):
            for head, (kept, listed) in enumerate(
                zip(store.channels[0].tolist(), case["pruned_channels"][layer], strict=True)
            ):
                dim = store.whole.shape[3]
                if own_channels := sorted(set(range(dim)) - set(kept) ^ set(listed)):
                    return f"layer {layer} head {head}: channels {own_channels} are dropped by one only"
    return None


def differs_format(folder: Path, case: Json, codec: Codec) -> str | None:
    """A row without a model: one tensor through the format that the codec has for keys or values."""
    setting = case["setting"]
    form: Format = codec.values if setting.get("tensor") == "V" else codec.keys  # type: ignore[attr-defined]
    if "input" not in setting:
        return _differs_constant(case, form)
    x = _tensor(folder, f"quant_*_{setting['input']}.safetensors", setting["tensor"])
    packed = form.encode(x)
    own = form.decode(packed)
    listed = _tensor(folder, f"quant_*_{setting['input']}.safetensors", case["expected_tensor"], needed=False)
    if listed is not None:
        distance = float((own - listed).abs().max())
        if not distance <= DEQUANTISED:
            return f"dequantised values differ by {distance:.2e} (at most {DEQUANTISED:g})"
    return (
        _differs_list("dequantised", own.flatten()[:8], case["dequant"].get("first8"))
        or _differs_list("dequantised", own.flatten()[-8:], case["dequant"].get("last8"))
        or _differs_codes(form, packed, case)
    )


def _differs_constant(case: Json, form: Format) -> str | None:
    """The row of a constant block: ones, one group."""
    if "official_result_first4" not in case:
        return "the row names no input and no result that is known here"
    own = form.decode(form.encode(torch.ones(1, 1, form.group, form.group)))
    return _differs_list("dequantised", own.flatten()[:4], case["official_result_first4"])


def _differs_codes(form: Format, packed: Packed, case: Json) -> str | None:
    """Codes, scales, least values, and bytes in the order in which the authors' code holds them."""
    codes = form.codes(packed.codes)
    if "codes_sum" in case and int(codes.sum()) != case["codes_sum"]:
        return f"the codes add up to {int(codes.sum())}, not {case['codes_sum']}"
    if "codes_first16" in case and codes.flatten()[:16].tolist() != case["codes_first16"]:
        return f"the first codes are {codes.flatten()[:16].tolist()}, not {case['codes_first16']}"
    if "packed_first8_int32" in case:
        words = _words(form, packed.codes)
        if list(words.shape) != case["packed_shape"] or words.flatten()[:8].tolist() != case["packed_first8_int32"]:
            return f"packed words {list(words.shape)} begin {words.flatten()[:8].tolist()}"
    if "packed_first16_uint8" in case:
        held = packed.codes[0].transpose(0, 1)
        first, total = held.flatten()[:16].tolist(), int(held.sum())
        if (list(held.shape), first, total) != (
            case["packed_shape"],
            case["packed_first16_uint8"],
            case["packed_sum"],
        ):
            return f"packed bytes {list(held.shape)} begin {first} and add up to {total}"
    pairs = torch.stack([packed.scale, packed.least], dim=-1)[0].transpose(0, 1)
    return (
        _differs_list("scales", packed.scale.flatten()[:4], case.get("scale_first4"))
        or _differs_list("least values", packed.least.flatten()[:4], case.get("min_first4"))
        or _differs_list("scales and least values", pairs.flatten()[:4], case.get("scale_min_first4"))
    )


def _words(form: Format, packed: Tensor) -> Tensor:
    """Four bytes along the axis of the groups as one int32, the first byte lowest."""
    parts = split(packed, form.axis, 4).long()
    shifts = torch.arange(0, 32, 8)
    words: Tensor = (parts << (shifts[:, None] if form.axis == -2 else shifts)).sum(form.axis)
    return words.to(torch.int32)


def _differs_list(what: str, own: Tensor, listed: Sequence[float] | None) -> str | None:
    """Values that a record gives with seven digits."""
    if listed is None:
        return None
    wanted = torch.tensor(listed, dtype=torch.float64)
    if torch.allclose(own.double(), wanted, rtol=1e-6, atol=DEQUANTISED):
        return None
    return f"{what} are {own.tolist()}, not {listed}"


def _tensor(folder: Path, pattern: str, name: str, *, needed: bool = True) -> Any:
    """A tensor of one of the folder's files; None where none has it and it is not needed."""
    from safetensors import safe_open

    for path in sorted((folder / "tensors").glob(pattern)):
        with safe_open(str(path), framework="pt") as file:
            if name in file.keys():  # noqa: SIM118 - not a mapping
                return file.get_tensor(name)
    if needed:
        raise DataError(f"no file {pattern} holds the tensor {name}", where=str(folder / "tensors"))
    return None
