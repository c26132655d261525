"""`make lock`: pins the packages of the container images, with versions and file hashes.

It resolves the extras of pyproject.toml within constraints.txt, from PyPI alone, with uv (`pip install uv`), and writes

    deploy/locks/all.txt          for the image of nodes and jobs
    deploy/locks/serve.txt        for the image of the service
    deploy/locks/torch-cuda.txt   PyTorch and the CUDA libraries, as published on PyPI

The first two exclude PyTorch, whose CPU builds are not on PyPI: the image installs one of them by URL and hash.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "locks"
EXTRAS = {"all": ("all",), "serve": ("embedded", "serve", "traces")}
"""Name of a lock -> extras of pyproject.toml that it contains."""
PYTHON = "3.11"
"""The Python of the Dockerfile."""
CUDA = re.compile(r"(torch|triton|cuda-.+|nvidia-.+)==")
"""Packages of PyTorch's CUDA build."""
HEAD = "# Written by `make lock`: do not edit.\n"


def main() -> None:
    """Write the three files. Exits with 2 when uv is missing, with 1 when it finds no solution."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        print("lock: uv was not found; run: pip install uv", file=sys.stderr)
        raise SystemExit(2)
    resolved = {name: resolve(uv, extras) for name, extras in EXTRAS.items()}
    for name, entries in resolved.items():
        write(name, (one for one in entries if not CUDA.match(one)))
    write("torch-cuda", (one for one in resolved["all"] if CUDA.match(one)))


def resolve(uv: str, extras: Iterable[str]) -> list[str]:
    """One entry `name==version` with hashes per package, sorted by name. Wheels only: building needs more packages."""
    command = [uv, "pip", "compile", "--no-config", "--quiet", "pyproject.toml", "--constraint", "constraints.txt"]
    command += [f"--extra={name}" for name in extras]
    command += ["--generate-hashes", "--only-binary=:all:", "--no-header", "--no-annotate"]
    command += [f"--python-version={PYTHON}", "--python-platform=x86_64-manylinux_2_28", "-"]
    # The build backend is locked too, so that the image builds this project without build isolation.
    finished = subprocess.run(command, cwd=ROOT, input="setuptools>=77\n", stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        raise SystemExit(1)
    return re.findall(r"^\S+==(?:.+\\\n)+.+\n", finished.stdout, re.MULTILINE)


def write(name: str, entries: Iterable[str]) -> None:
    """Write one lock."""
    (LOCKS / f"{name}.txt").write_text(HEAD + "".join(entries), encoding="utf-8")


if __name__ == "__main__":
    main()
