"""Services with a small model for the tests in this folder: an open one, and one with tokens and tight limits."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.models import save_random_model, save_random_vectors
from tests.support.service import TOKEN, Service


@pytest.fixture(scope="session")
def model_options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command-line options for a small random model and vectors."""
    folder = tmp_path_factory.mktemp("service-model")
    model = save_random_model("bert-uncased", folder / "model", num_heads=2)
    vectors = save_random_vectors(folder / "glove.txt")
    return ["--mlm", str(model), "--glove", str(vectors), "--dtype", "fp32", "--threads", "1"]


@pytest.fixture(scope="session")
def service(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(*model_options, log=tmp_path_factory.mktemp("service") / "log.txt") as running:
        yield running
        assert running.process.poll() is None, running.log


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as one:
        yield one


@pytest.fixture(scope="session")
def guarded_service(model_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two tokens, one of them from a file, and small limits."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text("# of the tests\nanother-token-of-the-tests-42\n", encoding="utf-8")
    limits = ["--max-body-bytes", "100000", "--max-texts", "4", "--max-text-characters", "600", "--max-n-a", "30"]
    options = [*model_options, *limits, "--max-k", "20", "--token-file", str(folder / "tokens")]
    with Service(*options, log=folder / "log.txt", tokens=TOKEN) as running:
        yield running
        assert running.process.poll() is None, running.log
