"""The house: what may import what, what the wheel carries, and what importing the package costs."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import triptych

ROOT = Path(__file__).resolve().parents[1]
# The folders with modules: each imports only itself and those to its left. The modules at the root come last.
LAYERS = ("tokenizers", "backbones", "objectives", "tasks")
# Folders of the repository that are no part of the package.
OUTSIDE = ("tests", "benchmarks", "docs")
MODALITIES = ("vision", "series", "speech")


def repository() -> list[PurePosixPath]:
    """Every file of the repository, relative to its root: tracked, or new and not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {name for name in listing.split("\0") if name}
    return sorted(PurePosixPath(name) for name in names if (ROOT / name).is_file())


def in_package(file: PurePosixPath) -> bool:
    """Whether a file must be in the wheel: modules, packaged configs, samples, the tried versions."""
    if file.parts[0] in OUTSIDE or file.parts[0].startswith("."):
        return False
    return file.suffix == ".py" or file.parts[0] in ("configs", "samples", "constraints.txt")


def modules() -> list[PurePosixPath]:
    return [file for file in repository() if in_package(file) and file.suffix == ".py"]


def imports(file: PurePosixPath, source: str) -> Iterator[str]:
    """The absolute dotted name of all that a module imports, at its top or inside a function.

    `from a import b` yields `a.b`: whether b is a module or a name in one, its folder is the same.
    """
    package = ("triptych", *file.parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, node.module) if node.module else base
            yield from (".".join((*module, alias.name)) for alias in node.names)


def may_import_lightning(file: PurePosixPath) -> bool:
    if str(file) in ("cli.py", "tasks/learner.py"):
        return True
    return file.parts[0] == "tasks" and file.name.startswith(("data", "fit"))


def fault(file: PurePosixPath, name: str) -> str | None:
    """Why a module of the package may not import a name, or None where it may."""
    top, _, rest = name.partition(".")
    if top in ("lightning", "pytorch_lightning") and not may_import_lightning(file):
        return "only the learner, the data modules, fit and the command line import Lightning"
    if top in OUTSIDE:
        return "it is no part of the package"
    folder, _, inner = rest.partition(".")
    if top != "triptych" or rest == "__version__":
        return None
    if folder in OUTSIDE:
        return "it is no part of the package"
    own = file.parts[0]
    if len(file.parts) == 1:
        return None
    if folder not in LAYERS or LAYERS.index(folder) > LAYERS.index(own):
        return f"it does not stand to the left of {own}"
    other = inner.partition(".")[0]
    if (
        own == folder == "tasks"
        and file.parts[1] in MODALITIES
        and other in {*MODALITIES, "joint"} - {file.parts[1]}
    ):
        return "a modality imports no other one"
    return None


def test_imports_run_only_to_the_left() -> None:
    faults = []
    for file in modules():
        for name in imports(file, (ROOT / file).read_text()):
            if reason := fault(file, name):
                faults.append(f"{file} imports {name}: {reason}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("file", "source", "allowed"),
    [
        ("tokenizers/a.py", "from .tokens import Tokens", True),
        ("tokenizers/a.py", "from ..backbones import encoder", False),
        ("tokenizers/a.py", "from .. import __version__", True),
        ("tokenizers/a.py", "import tokenizers", True),
        ("backbones/a.py", "from ..tokenizers.tokens import Tokens", True),
        ("backbones/a.py", "def f():\n    from ..objectives.objective import Loss", False),
        ("backbones/a.py", "import triptych.tasks.run", False),
        ("objectives/a.py", "from .. import cli", False),
        ("objectives/a.py", "import lightning.pytorch as pl", False),
        ("tasks/run.py", "from .vision.data import Images", True),
        ("tasks/vision/data.py", "from lightning.pytorch import LightningDataModule", True),
        ("tasks/vision/data.py", "from ..images import crop", True),
        ("tasks/vision/data.py", "from .views import crop", True),
        ("tasks/vision/data.py", "from ..series.data import Table", False),
        ("tasks/vision/views.py", "from .. import speech", False),
        ("tasks/vision/views.py", "from lightning.pytorch import Trainer", False),
        ("tasks/joint/data.py", "from ..speech.data import Speech", True),
        ("cli.py", "from .tasks.run import fit", True),
        ("cli.py", "from .tests import conftest", False),
        ("cli.py", "import benchmarks.speed", False),
    ],
)
def test_the_rule_of_imports_bites(file: str, source: str, allowed: bool) -> None:
    path = PurePosixPath(file)
    assert all(fault(path, name) is None for name in imports(path, source)) is allowed


def test_imports_inside_the_package_are_relative() -> None:
    for file in modules():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "triptych" for name in names), f"{file}, line {node.lineno}"


def test_folders_are_namespace_portions() -> None:
    inits = [str(file) for file in repository() if file.name == "__init__.py"]
    assert inits == ["__init__.py"], "with its own __init__.py, tokenizers/ shadows Hugging Face's package"


def test_hugging_face_tokenizers_is_not_shadowed(tmp_path: Path) -> None:
    """Both packages in one process of `python -m pytest`, which puts the root on the path."""
    ours = [f"triptych.tokenizers.{file.stem}" for file in modules() if file.parent.name == "tokenizers"]
    assert ours
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        "import importlib, sys\n"
        "def test_both():\n"
        f"    assert {str(ROOT)!r} in sys.path\n"
        "    from transformers import PreTrainedTokenizerFast\n"
        "    import tokenizers\n"
        "    assert 'site-packages' in tokenizers.__file__ and tokenizers.Tokenizer\n"
        f"    for name in {ours!r}:\n"
        f"        assert importlib.import_module(name).__file__.startswith({str(ROOT)!r})\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "pyproject.toml",
        str(probe),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout + run.stderr


def test_importing_the_package_is_light() -> None:
    script = "import sys, triptych; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "triptych" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "pandas", "jsonargparse", "rich"}


@pytest.mark.parametrize("name", sorted(triptych.PUBLIC))
def test_public_names_resolve(name: str) -> None:
    assert name in dir(triptych)
    assert getattr(triptych, name).__module__ == f"triptych.{triptych.PUBLIC[name]}"


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tokens'"):
        triptych.tokens  # noqa: B018


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel, built from a copy of the repository's files, was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    for file in repository():
        (folder / "source" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / "source" / file)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "./source"]
    for step in (build, ["install", "--no-deps", "--target", "target"]):
        wheels = [str(wheel) for wheel in folder.glob("wheels/*.whl")]
        run = subprocess.run([*pip, *step, *wheels], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    return folder / "target"


def test_the_wheel_carries_every_module_config_and_sample(installed: Path) -> None:
    package = installed / "triptych"
    found = {PurePosixPath(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    found = {file for file in found if "__pycache__" not in file.parts}
    expected = {file for file in repository() if in_package(file)}
    assert {"samples", "tokenizers"} <= {file.parts[0] for file in expected}
    assert sorted(map(str, expected - found)) == [], (
        "missing from the wheel: see [tool.setuptools] in pyproject.toml"
    )
    assert sorted(map(str, found - expected)) == [], "in the wheel, and no part of the package"


def test_the_installed_wheel_imports_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.resources, triptych\n"
        "from triptych.tokenizers.errors import UserError\n"
        "print(triptych.__file__)\n"
        "print((importlib.resources.files('triptych') / 'samples/speech/manifest.csv').is_file())\n"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [str(installed / "triptych" / "__init__.py"), "True"], run.stderr
