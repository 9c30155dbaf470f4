"""`triptych doctor`: what this machine can do, and how it differs from the set that was tried."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
NEEDED = (
    "torch",
    "torchvision",
    "torchaudio",
    "lightning",
    "jsonargparse",
    "numpy",
    "pandas",
    "librosa",
    "scikit-learn",
    "soundfile",
    "safetensors",
)
OPTIONAL = ("xformers", "transformers", "timm", "tensorboard", "wandb", "mlflow")
Row = tuple[str, str, str]


def doctor() -> None:
    """Print what was found: the machine, what attention runs on, and the libraries beside the tried ones."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "found", "note")
    for rows in (machine(), devices(), libraries()):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    Console().print(table)


def machine() -> Iterator[Row]:
    """Python, the system, cores and memory."""
    yield "Python", platform.python_version(), ""
    yield "system", f"{platform.system()} {platform.machine()}", ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield "cores", str(cores), ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield "memory", gibibytes(memory), ""


def devices() -> Iterator[Row]:
    """CPU and CUDA devices, with the attention backend of each and what to know about bf16."""
    try:
        import torch

        from ..backbones.attention import choose_backend
    except ImportError as error:
        yield "torch", "cannot be imported", str(error)
        return
    advice = "" if bf16_hardware() else "train in fp32: bf16 is far slower here"
    yield "CPU attention", choose_backend("cpu"), advice
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        half = "bf16: --trainer.precision bf16-mixed" if torch.cuda.is_bf16_supported() else "no bf16"
        yield f"CUDA {index}", f"{card.name}, {gibibytes(card.total_memory)}", half
        yield f"CUDA {index} attention", choose_backend(f"cuda:{index}"), ""
    if not torch.cuda.is_available():
        built = (
            f"built for CUDA {torch.version.cuda}, but" if torch.version.cuda else "built without CUDA, and"
        )
        yield "CUDA", "none", f"torch is {built} no device answers"


def bf16_hardware() -> bool:
    """Whether the CPU computes in bf16 itself, where the system says so (Linux)."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return any(flag in flags for flag in ("amx_bf16", "avx512_bf16", "bf16"))


def libraries() -> Iterator[Row]:
    """Versions of what is needed and of what is optional, beside those that were tried."""
    tried = tried_versions()
    for name in (*NEEDED, *OPTIONAL):
        found = installed(name)
        if found is None:
            yield name, "-", "optional" if name in OPTIONAL else "MISSING: install triptych again"
        else:
            other = name in tried and tried[name] != found.partition("+")[0]
            yield name, found, f"tried with {tried[name]}" if other else ""


def tried_versions() -> dict[str, str]:
    """Name -> version of the constraints file, which ships with the package."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = (line.split(";")[0].partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): pinned.strip().partition("+")[0] for name, _, pinned in pins}


def installed(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
