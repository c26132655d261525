"""The arrows between packages, the instant `--help`, the wheel's content, and the generated reference page."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import shared

ROOT = Path(__file__).resolve().parents[2]
PURE = (
    "augment_service/engine/batches.py", "augment_service/job/scheduler.py", "augment_service/job/poison.py",
    "augment_service/engine/augment.py", "shared/sampling.py", "shared/rng.py", "shared/rendering.py",
    "trainer/data/batches.py", "trainer/losses.py", "trainer/mapping.py", "trainer/scores.py",
)  # fmt: skip
OUTSIDE = {"ray", "fastapi", "starlette", "uvicorn"}
HEAVY = ("ray", "torch", "transformers", "gensim", "fastapi", "pyarrow", "numpy")


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("shared", {"augment_service", "trainer", "deploy"}),
        ("augment_service", {"trainer", "deploy"}),
        ("trainer", {"augment_service", "deploy"}),
    ],
)
def test_arrows_point_one_way(package: str, forbidden: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imports_of(path) & forbidden, path


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_neither_ray_nor_http(name: str) -> None:
    assert not imports_of(ROOT / name) & OUTSIDE


def test_shared_is_ours() -> None:
    assert Path(shared.__file__).resolve().parent == ROOT / "shared"


def test_the_tree_in_the_architecture_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```")[1]
    missing, folder, inner = [], "", ""
    for line in tree.splitlines():
        words = line.split()
        indent = len(line) - len(line.lstrip())
        if words and indent == 0:
            folder, inner = words[0], ""
        elif words and indent == 2:
            inner = words[0] if words[0].endswith("/") else ""
        for word in words:
            name = word.rstrip(",;")
            if name.endswith(".py") and not (ROOT / folder / inner / name).exists():
                missing.append(f"{folder}{inner}{name}")
    assert missing == []


@pytest.mark.parametrize("program", ["augment_service", "trainer"])
def test_help_is_instant_and_loads_nothing_heavy(program: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: 0.2 s on an idle machine, and hardly more on a busy one, unlike the time on the clock.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert finished.returncode == 0
    assert "COMMAND" in finished.stdout
    code = (
        f"import sys; from {program}.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_reference_page_is_up_to_date() -> None:
    command = [sys.executable, "docs/make_reference.py"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert finished.stdout == page, "run `make reference`"


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_their_data(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(copy)]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"augment_service", "trainer", "shared"}
    for name in ("augment_service/engine/data/stopwords.txt", "shared/embedded/masked_lm_delta.safetensors"):
        assert name in names
