"""Students: sizes, initialisation from a teacher or from a saved student, and the projections W_h and W_e."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from shared.errors import ModelError, UsageError
from trainer.config import Projection, StudentConfig
from trainer.mapping import map_layers
from trainer.models import load_classifier, load_tokenizer, model_folder
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A student in training. model: BertForSequenceClassification; mapping: g(m) of layers 1..M."""

    model: Any
    projections: Projections
    mapping: tuple[int, ...]


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
        raise UsageError(f"--student {text}: the hidden size {size.hidden} is not a multiple of {size.heads} heads")
    return size


def make_student(
    config: StudentConfig, teacher: Any, num_logits: int, tokenizer: Any, learns_attention: bool = True
) -> Student:
    """The student that --student describes. teacher: a `BertModel`; tokenizer: the teacher's.

    learns_attention: whether the attention loss is used, which needs as many heads as the teacher has.
    Uses torch's global random state. Raises UsageError, ModelError.
    """
    size = parse_size(config.student)
    depth = teacher.config.num_hidden_layers
    if size is not None:
        mapping = map_layers(config.mapping, size.layers, depth)
        model = new_student(config, size, teacher, mapping, num_logits)
    else:
        if not Path(config.student).is_dir():
            raise UsageError(
                f"--student {config.student}: neither a size (tinybert4, tinybert6, M,d',FFN,heads) nor a folder"
            )
        folder = model_folder(config.student, "--student")
        own_tokenizer = load_tokenizer(folder)
        check_same_vocabulary(own_tokenizer, tokenizer, config.student, str(teacher.config._name_or_path))
        model = load_student(folder, num_logits, config.dropout)
        mapping = map_layers(config.mapping, model.config.num_hidden_layers, depth)
    if learns_attention and model.config.num_attention_heads != teacher.config.num_attention_heads:
        raise UsageError(
            f"--student {config.student} has {model.config.num_attention_heads} attention heads, the teacher "
            f"{teacher.config.num_attention_heads}: the attention loss needs equal numbers"
        )
    projections = Projections(config.projection, len(mapping), model.config.hidden_size, teacher.config.hidden_size)
    if size is None:
        projections.initialise_from(model_folder(config.student, "--student"))
    return Student(model=model, projections=projections, mapping=mapping)


def new_student(config: StudentConfig, size: StudentSize, teacher: Any, mapping: Sequence[int], num_labels: int) -> Any:
    """A student of `size` with the teacher's vocabulary, initialised as the configuration says.

    teacher: a `BertModel`. Uses torch's global random state. Raises UsageError.
    """
    theirs: BertConfig = teacher.config
    own = BertConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.ffn,
        hidden_act=theirs.hidden_act,
        max_position_embeddings=theirs.max_position_embeddings,
        type_vocab_size=theirs.type_vocab_size,
        layer_norm_eps=theirs.layer_norm_eps,
        pad_token_id=theirs.pad_token_id,
        num_labels=num_labels,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        attn_implementation=ATTENTION,
    )
    student = BertForSequenceClassification(own)
    if config.embedding_init == "projected":
        _project_embeddings(student.bert, teacher)
    if config.layer_init == "teacher":
        if (size.hidden, size.ffn) != (theirs.hidden_size, theirs.intermediate_size):
            raise UsageError("--layer-init teacher requires a student as wide as its teacher")
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


def check_same_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any, student: str, teacher: str) -> None:
    """Raises ModelError unless every token has the same id for both."""
    own, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if own == theirs:
        return
    differing = next((piece for piece in theirs if own.get(piece) != theirs[piece]), None)
    raise ModelError(
        f"the student {student} and the teacher {teacher} have different vocabularies ({len(own)} and {len(theirs)} "
        f"tokens; they differ at {differing!r}): a student must use its teacher's vocabulary"
    )


def principal_directions(table: Tensor, width: int) -> Tensor:
    """(d, width): orthonormal directions that keep most of the rows of `table` (tokens, d), best first."""
    values, vectors = torch.linalg.eigh((table.T @ table).double())
    best: Tensor = vectors[:, values.argsort(descending=True)[:width]].to(table.dtype)
    return best


def _project_embeddings(student: Any, teacher: Any) -> None:
    """E_S = E_T V, where V are the principal directions of E_T: the best approximation of the teacher's at rank d'."""
    table = teacher.embeddings.word_embeddings.weight.detach().float()
    width = student.config.hidden_size
    if width > table.shape[1]:
        raise UsageError("--embedding-init projected requires a student no wider than its teacher; use random")
    directions = principal_directions(table, width)
    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            source = getattr(teacher.embeddings, name).weight.detach().float()
            getattr(student.embeddings, name).weight.copy_(source @ directions)
        # The layer norm scales every row, so the lost length of the projected rows does not matter.
        student.embeddings.word_embeddings.weight[student.config.pad_token_id].zero_()


class Projections(nn.Module):
    """W_h and W_e: linear maps from student width d' to teacher width d, trained with the student, then dropped.

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

    def initialise_from(self, folder: str) -> bool:
        """Load the maps that general distillation saved with a student; returns whether they exist and fit."""
        path = Path(folder) / PROJECTIONS
        if not path.is_file():
            return False
        found, own = load_file(path), self.state_dict()
        if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in own.items()}:
            return False
        self.load_state_dict(found)
        return True

    def save(self, folder: Path) -> None:
        """Write the maps into the folder of a student, for a later stage."""
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in self.state_dict().items()}, folder / PROJECTIONS
        )
