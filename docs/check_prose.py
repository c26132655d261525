"""Fail on phrases that read as a translation; part of `make lint`.

    python docs/check_prose.py [FILE...]     prints file:line: phrase -> suggested wording; exit code 1 after any hit

Without arguments it reads every text file of the repository. A phrase may be split over two lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("*.py", "*.md", "*.html", "*.js", "*.json", "*.yaml", "*.yml", "*.sh", "*.sbatch", "*.toml")
NAMES = ("Makefile", "Dockerfile", ".ci/run")
EXCLUDED = ("docs/check_prose.py", "tests/unit/test_check_prose.py")
"""These two contain the phrases on purpose."""

_IDIOMATIC_NO = "longer|more|such|less|fewer|need|reason|way"
PHRASES = {
    r"(made|begun|begin|computed) anew|anew": "recomputed; start again",
    r"in (any |other )?company": "batch-invariant; together with other inputs",
    r"wants? to hear": "propagates to; must be told",
    r"cannot stand": "fails on",
    r"none of (its|the(?! classes)|ours|theirs)": "not one of; no",
    rf"(there )?(is|are|was|were) no (?!({_IDIOMATIC_NO})\b)": "is not a; is not valid",
    r"(there )?(is|are) none": "is not one",
    r"(stands?|stood) (in|beside|there|where|under)": "is in; is stored in; replaces",
    r"turn(s|ed|ing)? (\w+ ){1,3}round": "reverse",
    r"foreign page": "page from another origin",
    r"the way of": "as in; with",
    # A list of words, such as the candidates of a table, may contain it.
    r"beside(?!, )(?! beneath)": "next to; alongside; compared with",
    r"for want of": "because of a lack of; when ... runs out",
    r"is dry": "is exhausted",
    r"bids": "tells; requests",
    r"whither": "where",
}
_COMPILED = [(re.compile(rf"\b{phrase.replace(' ', ' +')}\b"), wording) for phrase, wording in PHRASES.items()]


def find_phrases(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, phrase, suggested wording) of each hit in a text."""
    joined = _on_one_line(text)
    for pattern, wording in _COMPILED:
        for match in pattern.finditer(joined):
            # "There is no ..." is idiomatic, unlike "X is no ...".
            if not match[0].startswith("there"):
                yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), wording


def _on_one_line(text: str) -> str:
    """The text in lower case except for Python's None, without line breaks and comment signs, offsets unchanged."""
    lowered = re.sub(r"[A-Z](?!one\b)", lambda letter: letter[0].lower(), text)
    return re.sub(r"\n[ \t]*(#|//|\*)?", lambda found: " " * len(found[0]), lowered)


def text_files() -> list[Path]:
    """Every file of the repository that is checked, in order."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PATTERNS]
    command += [f":(glob)**/{name}" for name in NAMES]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in sorted(set(names)) if name not in EXCLUDED and (ROOT / name).is_file()]


def main(paths: Iterable[Path]) -> int:
    """Print every hit; returns 1 if there is one."""
    num_hits = 0
    for path in paths:
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        for line, phrase, wording in sorted(find_phrases(path.read_text(encoding="utf-8"))):
            print(f"{shown}:{line}: {phrase} -> {wording}")
            num_hits += 1
    return int(num_hits > 0)


if __name__ == "__main__":
    sys.exit(main([Path(name).resolve() for name in sys.argv[1:]] or text_files()))
