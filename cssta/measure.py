"""What a call costs: FLOPs by counting, memory by watching, seconds by the clock.

GFLOPs count a multiply-add as two, as `torch.utils.flop_counter` does.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

STATUS = Path("/proc/self/status")
EVERY_S = 0.002  # between two looks at a process's memory


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of a call, forward and backward; what is no PyTorch operation counts nothing."""
    # The counter does not know the CPU's fused attention, and would count it as free.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    known = {fused: _attention_flops, backward: _attention_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        call()
    return counter.get_total_flops()


def _attention_flops(query, key, value, *_, **__) -> int:
    """Both products, from shapes (batch, heads, length, channels)."""
    batch, heads, queries, channels = query
    return 2 * batch * heads * queries * key[2] * (channels + value[3])


def _attention_backward_flops(_grad, query, key, value, *_, **__) -> int:
    """Scores again, then the gradients of values, weights, queries and keys."""
    batch, heads, queries, channels = query
    return 2 * batch * heads * queries * key[2] * (3 * channels + 2 * value[3])


class PeakMemory:
    """Most bytes in use while it is entered: of a GPU, or of the process's anonymous memory.

    Anonymous memory is what a process has made itself: mapped files (libraries, weights,
    memory-mapped references) do not count. Linux keeps no record of its peak, so it is looked at
    every few milliseconds. `rise` is the peak less what was in use at the start.
    """

    def __enter__(self) -> PeakMemory:
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.before = anonymous_bytes()
            self.bytes = self.before
            self._stop = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._stop.set()
            self._watcher.join()
        self.rise = self.bytes - self.before

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.bytes = max(self.bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    """The process's resident anonymous memory (elsewhere than on Linux: its peak resident size)."""
    try:
        return _status("RssAnon")
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 2**10


def resident_bytes() -> tuple[int, int]:
    """The process's resident size, and the highest that it ever had.

    Raises OSError elsewhere than on Linux.
    """
    return _status("VmRSS"), _status("VmHWM")


def _status(key: str) -> int:
    """Bytes that Linux tells of this process."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 2**10
    raise OSError(f"{STATUS} has no {key}")


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call by the clock, and of CPU time by all of its threads."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return f"{name} with AMX" if capabilities.get("amx_bf16") else name


def alone(module: str, case: dict) -> dict:
    """`module`'s answer to `--one CASE`, a line of JSON, from a process of its own.

    Its peak memory is then its own. Raises RuntimeError with its last words where it fails.
    """
    command = [sys.executable, "-m", module, "--one", json.dumps(case)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        words = result.stderr.strip().splitlines() or [f"ended by signal {-result.returncode}"]
        raise RuntimeError(words[-1])
    return json.loads(result.stdout.splitlines()[-1])
