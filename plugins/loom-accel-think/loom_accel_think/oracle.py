"""Which options reproduce a recorded result of someone else's ThinK. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_think.plugin import ThinKOptions
from loom_core.api import Json


def options(method: str, setting: Mapping[str, Json], n: int) -> ThinKOptions | str | None:
    """The options of a row, the arm of a row on top of SnapKV, or None where this method does not claim it.

    n: prompt tokens.
    """
    if method == "kvpress_think":
        ratio = setting["key_channel_compression_ratio"]
        return ThinKOptions(ratio=ratio, recent=0, window=setting["window_size"])
    if method != "official_think":
        return None
    ratio, recent, slots, window = setting["ratio"], setting["recent"], setting.get("B", 0), setting.get("w", 0)
    if not slots:
        return ThinKOptions(ratio=ratio, recent=recent)
    return f"snapkv:budget={slots},window={window}+think:ratio={ratio},recent={recent},order=rank"
