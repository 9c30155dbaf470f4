"""What every benchmark writes beside its figures, so that they can be judged and measured again."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, Any], packages: tuple[str, ...] = ()) -> Path:
    """Write `results/NAME.json`: command, date, machine and versions, then the figures.

    Args:
        name: of the benchmark, the script's own.
        figures: plain values; see README.md for what they must hold.
        packages: peers beside torch whose versions matter.
    """
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    head = {"command": command, "date": date.today().isoformat(), "machine": machine()}
    versions = {package: installed(package) for package in ("torch", *packages)}
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    record = {**head, "versions": {"python": platform.python_version(), **versions}, **figures}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, Any]:
    """Processor, its cores, the threads that torch uses, and the GPU if there is one."""
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def installed(package: str) -> str | None:
    """A package's version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
