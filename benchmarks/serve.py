"""Requests per second of the service: by number of clients, under overload, next to naive services, web layer alone.

Service and load generator share the cores of this machine. Each request is a new sentence, except in the table of the
web layer, where repeated sentences come from the cache, so that only the web layer is measured.

    python benchmarks/serve.py --golden ../shared/golden > benchmarks/results/serve.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from datetime import date
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.augment import cpu_name, prepare  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

NLPAUG = ["torch==2.13.0", "numpy<2", "transformers==4.46.3", "nlpaug==1.1.11", "gensim", "requests"]
NLPAUG += ["fastapi", "uvicorn"]


class Running:
    """A service process of a benchmark."""

    def __init__(self, command: list[str], port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"{self.process.args!r} ended with {self.process.returncode}")
            time.sleep(0.2)
        raise SystemExit("the service did not become ready")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def cpu_seconds(self) -> float:
        """CPU time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> int:
        """Resident memory of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def ours(model: str, glove: str, *more: str) -> Running:
    """Our service."""
    port = free_port()
    command = [sys.executable, "-m", "augment_service", "serve", "--port", str(port), "--mlm", model, "--glove", glove]
    return Running([*command, *more], port)


def naive(kind: str, python: str, model: str) -> Running:
    """One of benchmarks/peers/naive_service.py."""
    port = free_port()
    script = str(ROOT / "benchmarks" / "peers" / "naive_service.py")
    return Running([python, script, kind, model, str(port), str(os.cpu_count())], port)


def load(service: Running, texts: Path, clients: int, seconds: float, first: int = 0, n_a: int = 20) -> dict[str, Any]:
    """One run of the load generator, in its own process."""
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), service.address, str(texts)]
    command += ["--clients", str(clients), "--seconds", str(seconds), "--first", str(first), "--n-a", str(n_a)]
    before = service.cpu_seconds()
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    result["cpu_ms"] = (service.cpu_seconds() - before) * 1000 / max(result["good"], 1)
    result["megabytes"] = service.megabytes()
    print(clients, result, file=sys.stderr, flush=True)
    return result


def row(name: str, one: dict[str, Any]) -> str:
    """A row of a table."""
    refused = f"{one['refused']} (p99 {one['refused_p99_ms']:.0f} ms)" if one["refused"] else "0"
    return (
        f"| {name} | {one['per_second']:,} | {one['p50_ms']:,.0f} | {one['p99_ms']:,.0f} | {refused} | "
        f"{one['cpu_ms']:,.2f} | {one['megabytes']} |"
    )


HEAD = "| {} | answers/s | p50 ms | p99 ms | refused with 503 | CPU ms per answer | memory, MB |\n"
HEAD += "|---|---|---|---|---|---|---|"


def by_clients(texts: Path, seconds: float) -> str:
    """The embedded model with 1 to 256 clients, and with the queue limit of an interactive deployment."""
    lines, first = [HEAD.format("clients")], 0
    for options in ([], ["--queue-seconds", "0.5"]):
        with ours("embedded", "embedded", *options) as service:
            load(service, texts, 2, 2, first)
            for clients in (1, 16, 64, 256) if not options else (256,):
                first += 4_000
                result = load(service, texts, clients, seconds, first)
                lines.append(row(f"{clients}{' (--queue-seconds 0.5)' if options else ''}", result))
    return "\n".join(lines)


def sizing(texts: Path, seconds: float) -> str:
    """Resources of one replica with the embedded models: memory once ready, then memory and cores by clients."""
    lines = ["| clients, embedded models, new sentences | memory, MB | cores in use | answers/s |\n|---|---|---|---|"]
    with ours("embedded", "embedded", "--queue-seconds", "60") as service:
        lines.append(f"| ready, no request yet | {service.megabytes()} | | |")
        for place, clients in enumerate((1, 16, 64)):
            one = load(service, texts, clients, seconds, place * 4_000)
            cores = one["cpu_ms"] * one["per_second"] / 1000
            lines.append(f"| {clients} | {one['megabytes']} | {cores:.1f} | {one['per_second']:,} |")
    return "\n".join(lines)


def web_layer(golden: Path, texts: Path, seconds: float) -> str:
    """The tiny golden model with 32 clients: cached texts, and new ones."""
    lines = [HEAD.format("32 clients, golden model")]
    with ours(str(golden / "model"), str(golden / "glove.txt.gz")) as service:
        known = texts.with_name("known.json")
        known.write_text(json.dumps(json.loads(texts.read_text(encoding="utf-8"))[:200]), encoding="utf-8")
        load(service, known, 8, 4)
        for n_a in (20, 3):
            result = load(service, known, 32, seconds, n_a=n_a)
            lines.append(row(f"200 repeated sentences, N_a {n_a}", result))
        lines.append(row("new sentences, N_a 3", load(service, texts, 32, seconds, 1_000, 3)))
    return "\n".join(lines)


def compared_with_naive(work: Path, texts: Path, seconds: float, peers: list[str]) -> str:
    """16 clients, 12 layers x 768, compared with services that handle one request after another."""
    folder = prepare(work, 12, 768)
    model = str(folder / "model")
    results = {}
    with ours(model, str(folder / "glove.txt"), "--queue-seconds", "60") as service:
        load(service, texts, 4, 3)
        results["this service"] = load(service, texts, 16, seconds, 1_000)
    for kind in peers:
        python = nlpaug_venv(work) if kind == "nlpaug" else sys.executable
        with naive(kind, python, model) as service:
            load(service, texts, 1, 1)
            results[kind] = load(service, texts, 16, seconds, 1_000)
    names = {"one-pass": "one request, one pass (transformers, fp32)", "nlpaug": "nlpaug 1.1.11 behind FastAPI"}
    best = results["this service"]["per_second"]
    lines = [HEAD.format("16 clients, 12 x 768").replace(" |\n", " | speed-up of this service |\n") + "---|"]
    for name, one in results.items():
        ratio = f"{best / max(one['per_second'], 1e-9):.1f} x" if name != "this service" else ""
        lines.append(f"{row(names.get(name, name), one)} {ratio} |")
    return "\n".join(lines)


def nlpaug_venv(work: Path) -> str:
    """Python of a throw-away virtualenv with nlpaug and FastAPI."""
    python = work / "peers" / "nlpaug-service" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NLPAUG], check=True, stdout=sys.stderr)
    return str(python)


def sentences(work: Path) -> Path:
    """Distinct film-review sentences."""
    path = work / "sentences.json"
    if not path.exists():
        from deploy.demo.reviews import review_sentences

        distinct = dict.fromkeys(review_sentences(work / "data" / "reviews.csv"))
        texts = [one for one in distinct if 8 <= len(one.split()) <= 30]
        path.write_text(json.dumps(texts), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, help="folder of the golden model, for the web layer's table")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "benchmark")
    parser.add_argument("--peers", nargs="+", default=["one-pass", "nlpaug"], help="nlpaug takes five minutes")
    parser.add_argument("--tables", nargs="+", default=["web", "clients", "naive"])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    texts = sentences(options.work)
    tables = []
    if "web" in options.tables and options.golden:
        tables.append(web_layer(options.golden, texts, options.seconds))
    if "sizing" in options.tables:
        tables.append(sizing(texts, options.seconds))
    if "clients" in options.tables:
        tables.append(by_clients(texts, options.seconds))
    if "naive" in options.tables:
        tables.append(compared_with_naive(options.work, texts, 2 * options.seconds, options.peers))
    print(f"## {date.today()}, {cpu_name()}\n`python benchmarks/serve.py {' '.join(sys.argv[1:])}`\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
