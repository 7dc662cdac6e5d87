"""The most memory that a piece of work took, and what to do when it ran out.

Knows the CUDA allocator and Linux's process counters, nothing else.
"""

from __future__ import annotations

import gc
from pathlib import Path
from types import TracebackType

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """While it is open, `bytes` is the peak since it was opened.

    On a GPU: bytes of the allocator's tensors on that device, weights included. On Linux without one: resident bytes
    of the process. None where neither can be measured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._works = device.type == "cuda"

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif self._device.type == "cpu":
            try:
                # 5 resets the high-water mark of resident memory, of this process only.
                _CLEAR.write_text("5")
                self._works = True
            except OSError:
                self._works = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._works = False

    def bytes(self) -> int | None:
        """The peak so far."""
        if not self._works:
            return None
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


def out_of_memory(error: BaseException) -> bool:
    """True for the errors with which torch says that memory ran out, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def release_memory() -> None:
    """Give back what is no longer referred to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
