"""Which folder may import which, where heavy libraries may be used, sizes of files, start-up time, and the wheel."""

from __future__ import annotations

import ast
import functools
import os
import re
import resource
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import shared

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("augment_service", "trainer", "shared")

ALLOWED: Mapping[str, set[str]] = {
    # Folder -> folders (or single modules) that it may import, besides itself and the standard library.
    "shared": {"shared.cli", "shared.storage", "shared.inputs.labels"},
    "shared.cli": {"shared.errors"},
    "shared.compute": {"shared.errors", "shared.cli"},
    "shared.embedded": {"shared.errors", "shared.storage"},
    "shared.storage": {"shared.errors", "shared.output_names"},
    "shared.inputs": {"shared.errors", "shared.glue", "shared.cli", "shared.storage"},
    "augment_service": {
        "augment_service.engine",
        "augment_service.job",
        "augment_service.plan",
        "augment_service.service",
        "shared",
        "shared.cli",
        "shared.compute",
        "shared.inputs",
        "shared.storage",
    },
    "augment_service.engine": {"shared", "shared.compute", "shared.embedded", "shared.inputs"},
    "augment_service.job": {
        "augment_service.config",
        "augment_service.engine",
        "shared",
        "shared.cli",
        "shared.compute",
        "shared.inputs",
        "shared.storage",
    },
    "augment_service.plan": {
        "augment_service.config",
        "augment_service.engine",
        "augment_service.job",
        "shared",
        "shared.cli",
        "shared.compute",
        "shared.inputs",
        "shared.storage",
    },
    "augment_service.service": {
        "augment_service.config",
        "augment_service.engine",
        "shared",
        "shared.cli",
        "shared.compute",
        "shared.inputs",
        "shared.embedded",
    },
    "augment_service.service.page": set(),
    "trainer": {"trainer.data", "shared", "shared.cli", "shared.compute", "shared.embedded", "shared.storage"},
    "trainer.data": {"trainer.config", "trainer.labels", "shared", "shared.inputs", "shared.storage"},
    "trainer.mlm": {"trainer", "trainer.data", "shared", "shared.cli", "shared.embedded"},
    "trainer.pipeline": {
        "trainer",
        "trainer.data",
        "shared.errors",
        "shared.label_quotas",
        "shared.model_folder",
        "shared.params",
        "shared.vector_path",
        "shared.cli",
        "shared.compute",
        "shared.embedded",
        "shared.inputs",
        "shared.storage",
    },
    "trainer.predict": {
        "trainer",
        "trainer.data",
        "trainer.export",
        "shared.storage",
        "shared.errors",
        "shared.model_folder",
        "shared.cli",
        "shared.inputs",
    },
    "trainer.export": {
        "trainer.positions",
        "shared.errors",
        "shared.model_folder",
        "shared.cli",
        "shared.inputs",
        "shared.storage",
    },
    "trainer.report": {
        "trainer.positions",
        "trainer.remote_run",
        "trainer.result",
        "trainer.run_folder",
        "trainer.data",
        "trainer.export",
        "shared.errors",
        "shared.glue",
        "shared.model_folder",
        "shared.cli",
        "shared.compute",
        "shared.storage",
    },
}
ONLY_IN: Mapping[str, set[str]] = {
    # Library -> folders or modules that may import it.
    "ray": {
        "augment_service.job",
        "augment_service.service.deployments",
        "augment_service.service.ray_export",
        "shared.compute",
        "trainer.workers",
    },
    "fastapi": {"augment_service.service"},
    "starlette": {"augment_service.service"},
    "uvicorn": {"augment_service.service"},
    "httpx": {"augment_service.service"},
    "gensim": {"augment_service.engine"},
    "jinja2": {"trainer.report"},
    "onnx": {"trainer.export"},
    "onnxruntime": {"trainer.export"},
}
HEAVY = ("ray", "torch", "transformers", "gensim", "fastapi", "pyarrow", "numpy")
MAX_LINES, MAX_MEDIAN_LINES, MAX_ENTRIES = 400, 150, 12
IMPORT_SECONDS, HELP_SECONDS = 0.05, 0.5


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of our packages."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def folder_of(module: str) -> str:
    """Dotted name of the folder that holds a module."""
    return ".".join(modules()[module].relative_to(ROOT).parent.parts)


@functools.cache
def imports_of(module: str, in_functions: bool) -> frozenset[str]:
    """What a module imports: our modules by their full name, others as written. Includes TYPE_CHECKING blocks."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _nodes(tree, in_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else str(node.module) for name in full}
    return frozenset(found - {module})


def _nodes(node: ast.AST, in_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _nodes(child, in_functions)


@pytest.mark.parametrize("in_functions", [False, True], ids=["at module level", "anywhere"])
def test_no_modules_import_each_other(in_functions: bool) -> None:
    graph = {module: {name for name in imports_of(module, in_functions) if name in modules()} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circular imports: {' <- '.join(error.args[1])}")


def test_every_folder_imports_only_folders_below_it() -> None:
    wrong = []
    for module in modules():
        folder = folder_of(module)
        assert folder in ALLOWED, f"{folder} is not in ALLOWED"
        for name in imports_of(module, in_functions=True):
            if name in modules():
                target = folder_of(name)
                if target != folder and not {target, name} & ALLOWED[folder]:
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_the_table_of_allowed_imports_is_tight() -> None:
    used: dict[str, set[str]] = {folder: set() for folder in ALLOWED}
    for module in modules():
        for name in imports_of(module, in_functions=True):
            if name in modules():
                used[folder_of(module)] |= {name, folder_of(name)}
    # The command line names its work in strings, which `Command` imports.
    used["augment_service"] |= {"augment_service.job", "augment_service.plan", "augment_service.service"}
    assert {folder: allowed - used[folder] for folder, allowed in ALLOWED.items() if allowed - used[folder]} == {}


def test_nothing_imports_tests_or_deployment_files() -> None:
    outside = {"deploy", "tests", "benchmarks", "docs"}
    for module in modules():
        assert not {name.split(".")[0] for name in imports_of(module, in_functions=True)} & outside, module


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_used_in_its_own_folders_only(library: str) -> None:
    users = {
        module
        for module in modules()
        if library in {name.split(".")[0] for name in imports_of(module, in_functions=True)}
    }
    assert {module for module in users if not {module, folder_of(module)} & ONLY_IN[library]} == set()


def test_files_are_short_and_folders_are_small() -> None:
    others = [path for folder in ("tests", "benchmarks", "docs", "deploy") for path in (ROOT / folder).rglob("*.py")]
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in [*modules().values(), *others]}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}
    assert statistics.median(lines[path] for path in modules().values()) <= MAX_MEDIAN_LINES
    entries = [path.name for path in (ROOT / "augment_service").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_shared_is_ours() -> None:
    assert Path(shared.__file__).resolve().parent == ROOT / "shared"


def test_the_architecture_page_names_paths_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"]
    known = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in [folder, *folder.rglob("*")]
        if path.suffix in (".py", ".md", ".html", ".txt") or path.is_dir()
    }
    ends = {"/".join(path.split("/")[start:]) for path in known for start in range(path.count("/") + 1)}
    named = set(re.findall(r"(?<![\w/.{}-])[a-z_0-9/]+(?:\.py|\.md|/)(?![\w{*])", page))
    assert {name for name in named if name.rstrip("/") not in ends and name.strip("/")} == set()
    # The story may name modules and folders without their endings.
    story = page.split("## The story")[1].split("\n## ")[0]
    words = set(re.findall(r"`([a-z][a-z_]*(?:/[a-z_]+)*)`", story))
    assert words
    assert {word for word in words if word not in ends and f"{word}.py" not in ends} == set()


def cpu_seconds(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Processor time of a Python process: unlike the time on the clock, hardly affected by other work."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, finished


@pytest.mark.parametrize("package", ["augment_service", "trainer"])
def test_importing_a_package_is_instant_and_loads_nothing_heavy(package: str) -> None:
    bare = min(cpu_seconds("-c", "pass")[0] for _ in range(5))
    assert min(cpu_seconds("-c", f"import {package}")[0] for _ in range(5)) - bare < IMPORT_SECONDS
    code = f"import sys, {package}; sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    _, finished = cpu_seconds("-c", code)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["augment_service", "augment_service run", "trainer", "trainer task"])
def test_help_is_instant_and_loads_nothing_heavy(arguments: str) -> None:
    program, *command = arguments.split()
    seconds, finished = cpu_seconds("-m", program, *command, "--help")
    assert seconds < HELP_SECONDS
    assert finished.returncode == 0
    assert ("Common options" if command else "COMMAND") in finished.stdout
    code = (
        f"import sys; from {program}.cli import main\ntry: main({[*command, '--help']})\nexcept SystemExit: pass\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    _, finished = cpu_seconds("-c", code)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_reference_page_is_up_to_date() -> None:
    command = [sys.executable, "docs/make_reference.py"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert finished.stdout == page, "run `make reference`"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the committed state: a clone leaves out what only lies around here."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "copy")], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder / "copy")], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_contains_the_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == set(PACKAGES)
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split("\n")
    assert [path for path in tracked if path and path not in names] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_runs_in_a_bare_environment_with_the_base_dependencies_only(wheel: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)

    assert run(sys.executable, "-m", "venv", str(tmp_path / "bare")).returncode == 0
    folder = tmp_path / "bare" / "bin"
    options = ["-q", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
    installed = run(str(folder / "python"), "-m", "pip", "install", *options, str(wheel))
    assert installed.returncode == 0, installed.stderr
    for line in ("augment_service --help", "augment_service run --help", "trainer --help", "trainer task --help"):
        program, *arguments = line.split()
        finished = run(str(folder / program), *arguments)
        assert (finished.returncode, finished.stderr) == (0, ""), line
        assert finished.stdout.startswith(f"usage: {' '.join([program, *arguments[:-1]])}")
    code = "import augment_service, shared, trainer; print(trainer.__version__, *trainer.__all__)"
    finished = run(str(folder / "python"), "-c", code)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.split()[0] == wheel.name.split("-")[1]
    # What is not installed is named, with the command that installs it.
    failed = run(str(folder / "trainer"), "report", "--runs", "x", "--output", "y.html")
    assert failed.returncode == 1
    assert "pip install" in failed.stderr
    assert failed.stderr.count("\n") == 1
