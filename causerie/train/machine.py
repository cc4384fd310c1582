"""What the machine can do: device, bf16, whether to compile."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import torch

from causerie.core import CauserieError
from causerie.model import Transformer
from causerie.train.config import TrainSettings

COMPILE_PAYS_SECONDS: Final = {"cpu": 600.0, "cuda": 90.0}
"""Expected length of a run from which a cold compilation (15-30 s) is won back; on CPUs the gain is a few percent."""
M_TRIM_THRESHOLD: Final = -1
M_MMAP_MAX: Final = -4
"""Options of glibc's mallopt (malloc.h)."""
NOMINAL_FLOPS_PER_CORE = 5e10
NOMINAL_FLOPS_GPU = 1e14


def pick_device(settings: TrainSettings) -> torch.device:
    """The device to train on.

    Raises:
        CauserieError: CAU-4001 when a GPU was asked for and there is none.
    """
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise CauserieError("CAU-4001", "no CUDA device is available", where="device", fix="use --device cpu")
    return torch.device("cuda" if there and settings.device != "cpu" else "cpu")


def uses_bf16(settings: TrainSettings, device: torch.device) -> bool:
    """Whether matrix products run in bf16: as set, else where the hardware multiplies bf16 itself."""
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether the processor has bf16 products (AVX512-BF16 or AMX); without them bf16 is slower than fp32."""
    try:
        found = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):  # torch before 2.12
        found = {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """bf16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def wants_compile(settings: TrainSettings, device: torch.device, flops_per_token: float) -> tuple[bool, str]:
    """Whether to compile, and a line that says why."""
    if settings.compile == "off":
        return False, "not compiled (as asked)"
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        return False, "not compiled: no C++ compiler was found"
    if settings.compile == "on":
        return True, "compiled (as asked); the first step takes half a minute"
    expected = expected_seconds(settings, device, flops_per_token)
    if expected < COMPILE_PAYS_SECONDS[device.type]:
        return False, f"not compiled: a run of about {expected:.0f} s is too short to win back the compilation"
    return True, "compiled; the first step takes half a minute"


def expected_seconds(settings: TrainSettings, device: torch.device, flops_per_token: float) -> float:
    """Rough length of a run from its limits and a nominal speed; seconds."""
    per_second = NOMINAL_FLOPS_GPU if device.type == "cuda" else NOMINAL_FLOPS_PER_CORE * torch.get_num_threads()
    per_token = flops_per_token / per_second
    limits = [60 * settings.minutes] if settings.minutes is not None else []
    if settings.steps is not None:
        limits.append(settings.steps * settings.batch_size * settings.seq_len * per_token)
    if settings.tokens is not None:
        limits.append(settings.tokens * per_token)
    return min(limits, default=0.0)


def keep_freed_memory(device: torch.device) -> None:
    """On Linux CPUs, let the C library keep what tensors free instead of giving it back to the system each step.

    Activations of megabytes come and go with every update; fetched anew, each page is a fault: 10-20 % of a small
    model's time. Lasts for the process; CAUSERIE_ALLOCATOR=plain leaves the library as it is.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux") or os.environ.get("CAUSERIE_ALLOCATOR") == "plain":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def compile_model(model: Transformer) -> None:
    """Compile the forward pass in place; parameter names stay as they are."""
    model.compile()


def uncompile_model(model: Transformer) -> None:
    """Run the model as written from now on."""
    model._compiled_call_impl = None


@contextmanager
def uncompiled(model: Transformer) -> Iterator[None]:
    """Run the model as written inside the block."""
    compiled = model._compiled_call_impl
    model._compiled_call_impl = None
    try:
        yield
    finally:
        model._compiled_call_impl = compiled
