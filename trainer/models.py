"""Teachers and students: loading, sizes, how a new student begins, and the projections W_h and W_e."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel
from transformers.utils import logging as transformers_logging

from shared.errors import ModelError, UsageError
from shared.glue import get_task
from trainer.config import Projection, StudentConfig
from trainer.data.tasks import TaskSpec
from trainer.model_card import write_model_card
from trainer.scores import ATTENTION

PROJECTIONS = "projections.safetensors"


@dataclass(frozen=True, slots=True)
class StudentSize:
    """M layers, hidden size d', FFN size, attention heads."""

    layers: int
    hidden: int
    ffn: int
    heads: int


SIZES = {"tinybert4": StudentSize(4, 312, 1200, 12), "tinybert6": StudentSize(6, 768, 3072, 12)}


def parse_size(text: str) -> StudentSize | None:
    """A size by name or as `M,d',FFN,heads`; None when the text is neither. Raises UsageError for bad numbers."""
    if text in SIZES:
        return SIZES[text]
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        return None
    size = StudentSize(*(int(part) for part in parts))
    if min(size.layers, size.hidden, size.ffn, size.heads) < 1:
        raise UsageError(f"--student {text}: all four numbers must be at least 1")
    if size.hidden % size.heads:
        raise UsageError(f"--student {text}: the hidden size {size.hidden} is no multiple of {size.heads} heads")
    return size


def load_tokenizer(path: str) -> Any:
    """Tokenizer beside a model. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} has no tokenizer: {str(error).splitlines()[0]}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def load_classifier(path: str, num_labels: int | None = None, option: str = "--teacher") -> Any:
    """A `BertForSequenceClassification`. With `num_labels` a new classifier is put on an encoder. Raises ModelError."""
    config = _bert_config(path, option)
    architectures = config.architectures or []
    if num_labels is None and not any("SequenceClassification" in name for name in architectures):
        raise ModelError(
            f"{option} {path} is {', '.join(architectures) or 'a model without a named architecture'}, no sequence "
            "classification model; make one with `python -m trainer teacher`"
        )
    options: dict[str, Any] = {"attn_implementation": ATTENTION, "dtype": torch.float32}
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    model, problems = BertForSequenceClassification.from_pretrained(path, output_loading_info=True, **options)
    new = [name for name in problems["missing_keys"] if not name.startswith(("classifier.", "bert.pooler."))]
    if new or (num_labels is None and problems["missing_keys"]):
        raise ModelError(f"{option} {path} lacks weights such as {(new or sorted(problems['missing_keys']))[0]}")
    return model


def load_encoder(path: str) -> Any:
    """A `BertModel` without pooler, with which a student learns in general distillation. Raises ModelError."""
    _bert_config(path, "--teacher")
    return BertModel.from_pretrained(path, add_pooling_layer=False, attn_implementation=ATTENTION, dtype=torch.float32)


def new_student(config: StudentConfig, size: StudentSize, teacher: Any, mapping: Sequence[int], labels: int) -> Any:
    """A student of `size` with the teacher's vocabulary, begun as the configuration says.

    teacher: a `BertModel`. Uses torch's global random state. Raises UsageError.
    """
    theirs: BertConfig = teacher.config
    if size.heads != theirs.num_attention_heads:
        raise UsageError(
            f"--student has {size.heads} attention heads, the teacher {theirs.num_attention_heads}: the attention loss "
            "needs equal numbers"
        )
    own = BertConfig(
        vocab_size=theirs.vocab_size, hidden_size=size.hidden, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, intermediate_size=size.ffn, hidden_act=theirs.hidden_act,
        max_position_embeddings=theirs.max_position_embeddings, type_vocab_size=theirs.type_vocab_size,
        layer_norm_eps=theirs.layer_norm_eps, pad_token_id=theirs.pad_token_id, num_labels=labels,
        hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=config.dropout, attn_implementation=ATTENTION,
    )  # fmt: skip
    student = BertForSequenceClassification(own)
    if config.embedding_init == "projected":
        _project_embeddings(student.bert, teacher)
    if config.layer_init == "teacher":
        if (size.hidden, size.ffn) != (theirs.hidden_size, theirs.intermediate_size):
            raise UsageError("--layer-init teacher needs a student as wide as its teacher")
        for layer, source in zip(student.bert.encoder.layer, mapping, strict=True):
            layer.load_state_dict(teacher.encoder.layer[source - 1].state_dict())
    return student


def load_student(path: str, num_labels: int, dropout: float) -> Any:
    """A student that `trainer general` or `trainer task` saved, with a classifier of `num_labels`."""
    student = load_classifier(path, num_labels, "--student")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(student.config, name, dropout)
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return student


def principal_directions(table: Tensor, width: int) -> Tensor:
    """(d, width): orthonormal directions that keep most of the rows of `table` (pieces, d), best first."""
    values, vectors = torch.linalg.eigh((table.T @ table).double())
    best: Tensor = vectors[:, values.argsort(descending=True)[:width]].to(table.dtype)
    return best


def _project_embeddings(student: Any, teacher: Any) -> None:
    """E_S = E_T V with V the principal directions of E_T: the rank-d' table nearest to the teacher's."""
    table = teacher.embeddings.word_embeddings.weight.detach().float()
    width = student.config.hidden_size
    if width > table.shape[1]:
        raise UsageError("--embedding-init projected needs a student no wider than its teacher; use random")
    directions = principal_directions(table, width)
    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            source = getattr(teacher.embeddings, name).weight.detach().float()
            getattr(student.embeddings, name).weight.copy_(source @ directions)
        # The layer norm makes every row's entries about 1 in size; the teacher's norm does the same.
        student.embeddings.word_embeddings.weight[student.config.pad_token_id].zero_()


class Projections(nn.Module):
    """W_h and W_e: linear maps from student width d' to teacher width d, learned with the student and then dropped.

    `shared`: one map for all layers and the embeddings, as in the reference; `per-layer`: one for each, and W_e.
    """

    def __init__(self, kind: Projection, num_layers: int, student_width: int, teacher_width: int) -> None:
        super().__init__()
        count = 1 if kind == "shared" else num_layers + 1
        self.maps = nn.ModuleList(nn.Linear(student_width, teacher_width) for _ in range(count))

    @property
    def w_e(self) -> Callable[[Tensor], Tensor]:
        """Map of the embeddings."""
        return self.maps[0]

    def w_h(self, num_layers: int) -> list[Callable[[Tensor], Tensor]]:
        """Maps of layers 1..M."""
        return list(self.maps[1:]) if len(self.maps) > 1 else [self.maps[0]] * num_layers

    def begin_with(self, folder: str) -> bool:
        """Take the maps that general distillation left beside a student, if they fit."""
        path = Path(folder) / PROJECTIONS
        if not path.is_file():
            return False
        found, own = load_file(path), self.state_dict()
        if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in own.items()}:
            return False
        self.load_state_dict(found)
        return True

    def save(self, folder: Path) -> None:
        """Write the maps beside a student, for a later stage."""
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in self.state_dict().items()}, folder / PROJECTIONS
        )


def check_same_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any, student: str, teacher: str) -> None:
    """Raises ModelError when piece ids mean different pieces to the two."""
    own, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if own == theirs:
        return
    differing = next((piece for piece in theirs if own.get(piece) != theirs[piece]), None)
    raise ModelError(
        f"the student {student} and the teacher {teacher} have different vocabularies ({len(own)} and {len(theirs)} "
        f"pieces; they differ at {differing!r}): a student learns from a teacher that reads the same pieces"
    )


def teacher_spec(model: Any, task: str | None, path: str) -> TaskSpec:
    """What a fine-tuned teacher predicts, from its configuration. Raises ModelError when it does not fit `task`."""
    config = model.config
    is_regression = config.num_labels == 1
    names = None if is_regression else tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if task is None:
        from trainer.data.tasks import CLASSIFICATION_METRICS, REGRESSION_METRICS

        return (
            TaskSpec("regression", None, REGRESSION_METRICS)
            if names is None
            else TaskSpec("classification", names, CLASSIFICATION_METRICS)
        )
    known = get_task(task)
    if (known.labels is None) != is_regression or (known.labels and len(known.labels) != config.num_labels):
        wanted = "one number (regression)" if known.labels is None else f"{len(known.labels)} classes"
        raise ModelError(f"--teacher {path} has {config.num_labels} outputs, --task {known.name} needs {wanted}")
    if known.labels and names and set(names) == set(known.labels):
        return TaskSpec(known.name, names, known.metrics)
    return TaskSpec(known.name, known.labels, known.metrics)


def save_classifier(model: Any, tokenizer: Any, spec: TaskSpec | None, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a folder that plain transformers loads, with tokenizer and model card, complete or not at all.

    facts: what the model card is made of (see trainer.model_card).
    """
    temporary = folder.with_name(folder.name + ".partial")
    if spec is not None:
        model.config.problem_type = "regression" if spec.labels is None else "single_label_classification"
        if spec.labels is not None:
            model.config.id2label = dict(enumerate(spec.labels))
            model.config.label2id = {name: index for index, name in enumerate(spec.labels)}
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    write_model_card(temporary, facts)
    replace_folder(temporary, folder)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`."""
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def count_parameters(model: nn.Module) -> int:
    """Weights of a model, tied ones once."""
    return sum(weight.numel() for weight in model.parameters())


def fingerprint(folder: str) -> str:
    """sha256 of a model folder's weights and configuration."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        path = Path(folder) / name
        if not path.is_file():
            raise ModelError(f"{folder} has no {name}: it is no model folder")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _bert_config(path: str, option: str) -> Any:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{option} {path}: {str(error).splitlines()[0]}") from error
    if config.model_type != "bert":
        raise ModelError(f"{option} {path} is a {config.model_type}; distillation works on BERT models")
    return config
