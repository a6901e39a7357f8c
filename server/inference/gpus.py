"""Which GPUs there are, and which worker uses which: the driver is asked, and no GPU is initialised."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

import onnxruntime as ort

from server.artifact.artifact import Device


def usable(device: Device) -> int:
    """How many GPUs a model for this device will run on; 0 for the CPU."""
    if device == "cpu" or "CUDAExecutionProvider" not in ort.get_available_providers():
        return 0
    return present()


def present(environment: Mapping[str, str] = os.environ) -> int:
    """How many GPUs this process may use: 0 where there is no driver.

    NVML counts them, because CUDA would initialise a GPU, in a process that only starts others.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    if nvml.nvmlInit_v2():
        return 0
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return 0
        return visible(count.value, environment.get("CUDA_VISIBLE_DEVICES"))
    finally:
        nvml.nvmlShutdown()


def visible(count: int, variable: str | None) -> int:
    """How many of `count` GPUs CUDA_VISIBLE_DEVICES leaves: those named before the first name that is not a GPU's."""
    if variable is None:
        return count
    seen = 0
    for name in map(str.strip, variable.split(",")):
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)):
            break
        seen += 1
    return seen


def gpu_of(worker: int, count: int) -> int:
    """The GPU of the worker with this number, counted from 0: workers are divided evenly among the GPUs."""
    return worker % count
