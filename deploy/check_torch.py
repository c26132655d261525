"""Check that the installed PyTorch is the locked version and the wanted build. The Dockerfile runs it before this
project is installed: python check_torch.py LOCK VARIANT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch


def main() -> None:
    """Exits with a message if the build (`cpu` or `cuda`) or the version differs."""
    lock, variant = sys.argv[1:]
    found = re.search(r"^torch==(\S+)", Path(lock).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{lock} does not pin torch")
    version, build = torch.__version__.partition("+")[0], "cuda" if torch.version.cuda else "cpu"
    if (version, build) != (found[1], variant):
        raise SystemExit(
            f"found PyTorch {version} for {build}, but the image needs {found[1]} for {variant}; see TORCH_CPU"
        )


if __name__ == "__main__":
    main()
