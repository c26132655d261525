"""Write docs/demo.svg: what `make demo` printed, without the lines of the steps. Reads the saved output.

make demo | tee demo.log && python docs/make_demo_picture.py demo.log
"""

from __future__ import annotations

import html
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

WIDTH, LINE_HEIGHT, COLUMNS = 1000, 18, 118
LEFT_OUT = re.compile(
    r"\d\d:\d\d:\d\d |\s*[a-z0-9 ]+ \| |  python -m |\$ python -m (trainer (teacher|task|export|report)|augment)"
    r"|[a-z0-9 ]+: ended after|the steps, each|benchmarking|make|\.venv/|real|user|sys|f1_macro|\d+ rows in "
)
"""Lines of the steps, of `make` and of `time`."""
SENTENCES_SHOWN = 3
COLORS = {"heading": "#e6e6e6", "command": "#9aa4b2", "text": "#c9d1d9"}


def shown_lines(log: str) -> Iterator[str]:
    """The lines of the picture, wrapped. Of the augmented sentences, the first few."""
    sources = 0
    for line in log.splitlines():
        line = re.sub(r"\x1b\[[0-9;]*m", "", line)
        if LEFT_OUT.match(line):
            continue
        if re.match(r"[123]\. ", line):
            sources = 0
        sources += bool(re.match(r"  [A-Z][^|]*[a-z.!?]$", line))
        is_sample = line.startswith(("  ", "    ->"))
        if is_sample and sources > SENTENCES_SHOWN:
            continue
        yield from textwrap.wrap(line, COLUMNS, subsequent_indent="    ", drop_whitespace=False) or [""]


def picture(lines: list[str]) -> str:
    """The lines as an SVG of a terminal; replaced words, in [brackets], are coloured."""
    height = LINE_HEIGHT * len(lines) + 28
    rows = []
    for number, line in enumerate(lines):
        kind = "heading" if re.match(r"[123]\. ", line) else "command" if line.startswith(("$", "    -")) else "text"
        text = html.escape(line)
        if line.startswith("    ->"):
            kind = "text"
            text = re.sub(r"\[(.*?)\]", r'<tspan fill="#6cd3e6" text-decoration="underline">\1</tspan>', text)
        look = f'fill="{COLORS[kind]}"' + (' font-weight="bold"' if kind == "heading" else "")
        rows.append(f'<text x="16" y="{28 + LINE_HEIGHT * number}" {look} xml:space="preserve">{text}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" '
            'font-size="13.5">',
            '<rect width="100%" height="100%" rx="8" fill="#16181d"/>',
            *rows,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    found = re.sub(r"\n{3,}", "\n\n", "\n".join(shown_lines(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    Path(__file__).with_name("demo.svg").write_text(picture(found.strip().split("\n")), encoding="utf-8")
