"""Several labels per text: losses against a slow re-statement, metrics against scikit-learn, labels as data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError, ModelError
from shared.inputs.rows import SourceRow
from shared.model_folder import MULTI_LABEL
from tests.support.distillation import save_teacher
from trainer.any_classifier import load_any_classifier
from trainer.data.batches import Examples, Pieces, Tokenized, to_offsets
from trainer.data.tasks import Table, TaskSpec, own_spec
from trainer.data.token_cache import read_entry, write_entry
from trainer.inference import class_probabilities
from trainer.losses import hard_label_losses, multi_label_loss, multi_label_losses
from trainer.metrics import baselines, label_scores, score, weakness
from trainer.models import load_classifier, teacher_spec

SPEC = TaskSpec(
    name="multi-label", labels=("a", "b", "c"), metrics=("f1_micro", "f1_macro", "exact_match"), multi_label=True
)


def binary_entropy(logit: float, target: float) -> float:
    probability = 1 / (1 + np.exp(-np.float64(logit)))
    return float(-(target * np.log(probability) + (1 - target) * np.log(1 - probability)))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([1.0, 2.5]))
def test_losses_equal_a_slow_restatement(rows: int, labels: int, seed: int, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    student, teacher = (draw.normal(0, 3, (rows, labels)).astype(np.float32) for _ in range(2))
    soft = [
        [
            binary_entropy(student[row, label] / temperature, 1 / (1 + np.exp(-teacher[row, label] / temperature)))
            for label in range(labels)
        ]
        for row in range(rows)
    ]
    found = multi_label_losses(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    np.testing.assert_allclose(found.numpy(), np.mean(soft, axis=1), rtol=1e-4, atol=1e-6)
    whole = multi_label_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert float(whole) == pytest.approx(np.mean(soft), rel=1e-4)
    wanted = draw.integers(0, 2, (rows, labels)).astype(np.float32)
    wanted[0] = np.nan
    hard = hard_label_losses(torch.from_numpy(student), torch.from_numpy(wanted), is_regression=False)
    expected = [
        np.mean([binary_entropy(student[row, label], wanted[row, label]) for label in range(labels)]) if row else 0.0
        for row in range(rows)
    ]
    np.testing.assert_allclose(hard.numpy(), np.asarray(expected), rtol=1e-4, atol=1e-6)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_metrics_equal_those_of_scikit_learn(rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1, (rows, 3)).astype(np.float32)
    labels = (draw.random((rows, 3)) < draw.random(3)).astype(np.float32)
    given_, wanted = logits > 0, labels > 0
    f1 = sklearn.metrics.f1_score
    assert score(SPEC, logits, labels) == pytest.approx(
        {
            "f1_micro": f1(wanted, given_, average="micro", zero_division=0.0),
            "f1_macro": f1(wanted, given_, average="macro", zero_division=0.0),
            "exact_match": sklearn.metrics.accuracy_score(wanted, given_),
        }
    )
    expected = sklearn.metrics.precision_recall_fscore_support(wanted, given_, zero_division=0.0)
    found = label_scores(SPEC, logits, labels)
    assert list(found) == ["a", "b", "c"]
    for place, one in enumerate(found.values()):
        assert (one.precision, one.recall, one.f1) == pytest.approx([column[place] for column in expected[:3]])
        assert one.support == expected[3][place]


def test_baselines_are_what_blind_models_score() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((400, 3)) < [0.7, 0.2, 0.05]).astype(np.float32)
    found = baselines(SPEC, labels)
    majority = np.tile(np.asarray([1, -1, -1], np.float32), (400, 1))
    assert found["majority"] == score(SPEC, majority, labels)
    assert found["all"] == score(SPEC, np.ones_like(labels), labels)
    tosses = [score(SPEC, draw.choice([-1.0, 1.0], (400, 3)).astype(np.float32), labels) for _ in range(200)]
    for name, value in found["chance"].items():
        assert value == pytest.approx(np.mean([one[name] for one in tosses]), abs=0.01), name


def test_a_teacher_below_a_coin_is_named() -> None:
    labels = np.tile(np.asarray([1, 0, 1], np.float32), (20, 1))
    assert "its micro F1 0.000 is below chance" in weakness(SPEC, -labels, labels)
    assert weakness(SPEC, labels - 0.5, labels) == ""


def test_labels_become_rows_of_0_and_1() -> None:
    rows = [SourceRow(0, "x", None, ["c", "a"]), SourceRow(1, "y", None, []), SourceRow(2, "z", None, None)]
    found = Table("file", rows).examples(SPEC).labels
    np.testing.assert_array_equal(found[:2], [[1, 0, 1], [0, 0, 0]])
    assert np.isnan(found[2]).all()
    with pytest.raises(InputError, match=r"file row 7: a single label, 'a', but the model predicts several per text"):
        Table("file", [SourceRow(7, "x", None, "a")]).examples(SPEC)
    with pytest.raises(InputError, match=r"label 'd' matches none of the classes a, b, c"):
        Table("file", [SourceRow(7, "x", None, ["d"])]).examples(SPEC)
    single = TaskSpec(name="classification", labels=("a", "b"), metrics=("accuracy",))
    with pytest.raises(InputError, match="a list of labels, but the model predicts one label per text"):
        Table("file", [SourceRow(7, "x", None, ["a"])]).examples(single)


def test_the_task_is_known_from_its_labels() -> None:
    spec = own_spec([["10", "2"], [], ["9"]], False, "file")
    assert (spec.labels, spec.multi_label, spec.problem_type) == (("2", "9", "10"), True, MULTI_LABEL)
    assert own_spec([["b"], ["b"]], False, "file", ("b", "a")).labels == ("b", "a")
    for labels, message in (([["a"], []], "the only label is 'a'"), ([[], []], "no row has a label")):
        with pytest.raises(InputError, match=message):
            own_spec(labels, False, "file")
    with pytest.raises(InputError, match="leave out --regression"):
        own_spec([["1"], ["2"]], True, "file")


def test_a_cached_shard_keeps_the_rows_of_labels(tmp_path: Path) -> None:
    labels = np.asarray([[1, 0, 1], [0, 0, 0], [np.nan] * 3], np.float32)
    examples = Examples(texts_a=["a"] * 3, texts_b=None, labels=labels, keys=np.zeros((3, 2), np.int64))
    pieces = Pieces(np.arange(6, dtype=np.int32), np.zeros(6, np.uint8), to_offsets([2, 2, 2]))
    entry = Tokenized.of(examples, pieces)
    write_entry(str(tmp_path / "entry.arrow"), entry)
    found = read_entry(tmp_path / "entry.arrow")
    assert found is not None
    np.testing.assert_array_equal(found.labels, labels)
    both = Tokenized.concatenate([found, entry]).take(np.asarray([1, 3]))
    np.testing.assert_array_equal(both.labels, [[0, 0, 0], [1, 0, 1]])


def test_probabilities_of_several_labels_are_their_own() -> None:
    logits = np.asarray([[0.0, 800.0, -800.0]], np.float32)
    assert class_probabilities(logits, True).tolist() == [[0.5, 1.0, 0.0]]


def test_a_multi_label_model_is_known_by_its_configuration(tmp_path: Path) -> None:
    folder = save_teacher(tmp_path / "teacher", labels=3)
    multi = Path(shutil.copytree(folder, tmp_path / "multi"))
    config = json.loads((multi / "config.json").read_text())
    (multi / "config.json").write_text(json.dumps(config | {"problem_type": MULTI_LABEL}))
    for model in (load_classifier(str(multi)), load_any_classifier(str(multi)).model):
        spec = teacher_spec(model, None, "t")
        assert (spec.labels, spec.multi_label) == (("0", "1", "2"), True)
        with pytest.raises(ModelError, match="predicts several labels per text, but --task MNLI has one"):
            teacher_spec(model, "MNLI", "t")
    assert not teacher_spec(load_classifier(str(folder)), None, "t").multi_label
