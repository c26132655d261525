"""The packages of the images: all of them by hash, in the tested versions, and none too few or too many."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import CUDA, EXTRAS, LOCKS, PYTHON

ROOT = Path(__file__).resolve().parents[3]
IMAGE = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
BUILD = {"setuptools"}


def pins(text: str) -> dict[str, str]:
    """Name -> version of each line `name==version`."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def lock(name: str) -> str:
    return (LOCKS / f"{name}.txt").read_text(encoding="utf-8")


def needed(extras: Iterable[str]) -> set[str]:
    """Names of all distributions that these extras of ours need in the image, by what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = [*project["dependencies"]]
    waiting = list(extras)
    for extra in waiting:
        for line in project["optional-dependencies"][extra]:
            one = Requirement(line)
            if one.name == project["name"]:
                waiting += [name for name in one.extras if name not in waiting]
            else:
                ours.append(line)
    done: set[tuple[str, frozenset[str]]] = set()
    open_ = [Requirement(line) for line in ours]
    while open_:
        one = open_.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key in done or (one.marker and not one.marker.evaluate(IMAGE)):
            continue
        done.add(key)
        try:
            requirements = importlib.metadata.requires(one.name) or []
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{one.name} is not installed here: run `make setup`")
        for line in requirements:
            inner = Requirement(line)
            if not inner.marker or any(inner.marker.evaluate(IMAGE | {"extra": name}) for name in (*one.extras, "")):
                inner.marker = None
                open_.append(inner)
    return {name for name, _ in done}


@pytest.mark.parametrize("name", [*EXTRAS, "torch-cuda"])
def test_every_locked_package_has_hashes_and_the_tested_version(name: str) -> None:
    entries = re.split(r"\n(?=\S+==)", lock(name).strip())[1:]
    assert len(entries) == len(pins(lock(name))) > 10
    for entry in entries:
        head, *hashes = entry.split(" \\\n")
        assert hashes, f"{head} has no hash"
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", one) for one in hashes), head
    tested = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    wrong = {one: (pin, tested[one]) for one, pin in pins(lock(name)).items() if tested.get(one, pin) != pin}
    assert wrong == {}, "run `make lock`"


@pytest.mark.parametrize("name", list(EXTRAS))
def test_a_lock_holds_what_its_extras_need_and_nothing_else(name: str) -> None:
    wanted = {one for one in needed(EXTRAS[name]) if not CUDA.match(f"{one}==")} | BUILD
    assert set(pins(lock(name))) == wanted, "run `make lock`"


def test_pytorch_is_in_a_lock_of_its_own() -> None:
    cuda = lock("torch-cuda")
    assert {"torch", "triton"} < set(pins(cuda))
    assert all(CUDA.match(f"{name}==") for name in pins(cuda))
    for name in EXTRAS:
        assert not [one for one in pins(lock(name)) if CUDA.match(f"{one}==")]


def test_the_dockerfile_installs_by_hash_from_one_index() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line and not line.startswith("#")]
    assert len(installs) == 4
    for line in installs:
        assert "--no-deps" in line
        assert "--require-hashes" in line or line == "RUN pip install --no-deps --no-build-isolation ."
    assert "index-url" not in text
    for name in re.findall(r"^ARG PACKAGES=(.+)|locks/([a-z-]+)\.txt", text, re.MULTILINE):
        assert (LOCKS / f"{''.join(name)}.txt").exists()


def test_a_pytorch_of_another_version_or_build_is_refused(tmp_path: Path) -> None:
    version = importlib.metadata.version("torch")
    fits = "torch==" + version.partition("+")[0] + " \\\n"
    found: list[int] = []
    for text, variant in ((fits, "cpu"), (fits, "cuda"), ("torch==1.0 \\\n", "cpu"), ("", "cpu")):
        (tmp_path / "lock.txt").write_text(text, encoding="utf-8")
        command = [sys.executable, str(ROOT / "deploy" / "check_torch.py"), str(tmp_path / "lock.txt"), variant]
        finished = subprocess.run(command, capture_output=True, text=True)
        found.append(finished.returncode)
        assert "Traceback" not in finished.stderr
    own = 0 if torch.version.cuda is None else 1
    assert found == [own, 1 - own, 1, 1]


def test_without_uv_the_lock_script_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.executable = '/nowhere/python'; import deploy.lock as lock\n"
        "import os; os.environ['PATH'] = '/nowhere'; lock.main()"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (2, "lock: uv was not found; run: pip install uv\n")
