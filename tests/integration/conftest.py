"""A small model, vectors, a corpus, one finished run of the job that the tests compare with; an S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import run_command
from tests.support.models import save_random_model, save_random_vectors
from tests.support.object_store import moto_server, s3_client

SENTENCES = (
    "The quick brown fox jumps over the lazy dog number {}.",
    "A great movie with a good plot, bad acting and a terrible ending: {}",
    "Honestly, {} people live there happily and the cat sat near a small river",
)
NUM_ROWS = 240


class Job:
    """Arguments of one job; `output` differs from run to run."""

    def __init__(self, folder: Path, num_rows: int = NUM_ROWS) -> None:
        self.folder = folder
        model = save_random_model("bert-uncased", folder / "model")
        vectors = save_random_vectors(folder / "glove.txt")
        corpus = folder / "corpus.tsv"
        lines = [f"{SENTENCES[row % 3].format(row)}\t{row % 2}\tkept {row}" for row in range(num_rows)]
        lines[17] = "a line with one column"
        corpus.write_text("\n".join(["sentence\tlabel\tnote", *lines]) + "\n", encoding="utf-8")
        self.common = [
            "run",
            "--input",
            str(corpus),
            "--text-column",
            "sentence",
            "--label-column",
            "label",
            "--mlm",
            str(model),
            "--glove",
            str(vectors),
            "--dtype",
            "fp32",
            "--n-a",
            "6",
            "--k",
            "8",
            "--shard-rows",
            "8",
        ]

    def arguments(self, output: Path, *more: str) -> list[str]:
        """Command line of a run into `output`."""
        return [*self.common, "--output", str(output), *more]


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="session")
def finished_run(job: Job) -> Path:
    """Output of an undisturbed run with one actor."""
    output = job.folder / "one-actor"
    finished = run_command(*job.arguments(output, "--mlm-actors", "1"))
    assert finished.returncode == 0, finished.stderr
    return output


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server with an empty bucket."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        s3_client(url).create_bucket(Bucket="bucket")
        yield url
