"""Students: sizes, initialisation from a teacher or from a saved student, and the projections W_h and W_e."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from shared.embedded import EMBEDDED
from shared.embedded.student import EmbeddedStudent, embedded_student, vocabulary_digest
from shared.errors import ModelError, UsageError
from shared.model_folder import model_folder
from shared.storage.objects import is_remote
from trainer.config import Projection, StudentConfig
from trainer.conversion import embedding_tables
from trainer.mapping import map_layers
from trainer.models import load_classifier, load_tokenizer
from trainer.relations import Objective, make_objective
from trainer.scores import ATTENTION
from trainer.vocabulary import PrunedVocabulary, shared_vocabulary

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
    """A student in training.

    model: BertForSequenceClassification; mapping: g(m) of layers 1..M; tokenizer: the student's; vocabulary: the part
    of the teacher's vocabulary that it keeps, None for all of it.
    """

    model: Any
    projections: Projections
    mapping: tuple[int, ...]
    objective: Objective
    tokenizer: Any
    vocabulary: PrunedVocabulary | None = None


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
    config: StudentConfig,
    teacher: Any,
    num_logits: int,
    tokenizer: Any,
    learns_attention: bool = True,
    frequencies: Tensor | None = None,
) -> Student:
    """The student that --student describes.

    teacher: a `BertModel`; tokenizer: the teacher's; frequencies: (tokens,) how often each token occurs, for
    --embedding-init weighted.

    learns_attention: whether the attention loss is used, which may need as many heads as the teacher has.
    Uses torch's global random state. Raises UsageError, ModelError.
    """
    size = parse_size(config.student)
    depth = teacher.config.num_hidden_layers
    vocabulary, found = None, dict[str, Tensor]()
    own_tokenizer = tokenizer
    if size is not None:
        mapping = map_layers(config.mapping, size.layers, depth)
        model = new_student(config, size, teacher, mapping, num_logits, frequencies)
    elif config.student == EMBEDDED:
        shipped = embedded_student()
        check_embedded_vocabulary(shipped, tokenizer)
        model, found = shipped.new_classifier(num_logits, attn_implementation=ATTENTION), dict(shipped.projections)
        set_dropout(model, config.dropout)
        mapping = map_layers(config.mapping, model.config.num_hidden_layers, depth)
    else:
        folder = student_folder(config.student)
        own_tokenizer = load_tokenizer(folder, "--student")
        vocabulary = shared_vocabulary(own_tokenizer, tokenizer, config.student, str(teacher.config._name_or_path))
        model = load_student(folder, num_logits, config.dropout)
        found = read_projections(Path(folder))
        mapping = map_layers(config.mapping, model.config.num_hidden_layers, depth)
    objective = make_objective(
        config.attention_loss if learns_attention else "none",
        config.loss_weights,
        model.config.num_attention_heads,
        teacher.config.num_attention_heads,
    )
    return Student(
        model=model,
        projections=make_projections(
            config.projection, len(mapping), model.config.hidden_size, teacher.config.hidden_size, found
        ),
        mapping=mapping,
        objective=objective,
        tokenizer=own_tokenizer,
        vocabulary=vocabulary,
    )


def new_student(
    config: StudentConfig,
    size: StudentSize,
    teacher: Any,
    mapping: Sequence[int],
    num_labels: int,
    frequencies: Tensor | None = None,
) -> Any:
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
    if config.embedding_init == "weighted" and frequencies is None:
        raise UsageError("--embedding-init weighted needs the tokens of a corpus: it works only in `trainer general`")
    if config.embedding_init != "random":
        _project_embeddings(student.bert, teacher, frequencies if config.embedding_init == "weighted" else None)
    if config.layer_init == "teacher":
        if (size.hidden, size.ffn) != (theirs.hidden_size, theirs.intermediate_size):
            raise UsageError("--layer-init teacher requires a student as wide as its teacher")
        for layer, source in zip(student.bert.encoder.layer, mapping, strict=True):
            layer.load_state_dict(teacher.encoder.layer[source - 1].state_dict())
    return student


def student_folder(student: str) -> str:
    """The folder of a saved student. Raises UsageError for a name of another kind, ModelError."""
    if not is_remote(student) and not Path(student).is_dir():
        raise UsageError(
            f"--student {student}: not a size (tinybert4, tinybert6, M,d',FFN,heads), embedded or an existing folder"
        )
    return model_folder(student, "--student")


def load_student(path: str, num_labels: int, dropout: float) -> Any:
    """A student that `trainer general` or `trainer task` saved, with a classifier of `num_labels`."""
    student = load_classifier(path, num_labels, "--student")
    set_dropout(student, dropout)
    return student


def set_dropout(student: Any, dropout: float) -> None:
    """Set the probability of all dropout layers of a BERT."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(student.config, name, dropout)
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def check_embedded_vocabulary(student: EmbeddedStudent, tokenizer: Any) -> None:
    """Raises ModelError unless the embedded student's ids mean the same to the teacher's tokenizer."""
    if vocabulary_digest(tokenizer.get_vocab()) != student.vocabulary_sha256:
        raise ModelError(
            "--student embedded uses the vocabulary of bert-base-uncased and the embedded encoder, but this teacher "
            "has a different one; train a student for it with `python -m trainer general --teacher ...`"
        )


def principal_directions(table: Tensor, width: int, frequencies: Tensor | None = None) -> Tensor:
    """(d, width): orthonormal directions that keep most of the rows of `table` (tokens, d), best first.

    frequencies: (tokens,) how much each row counts (default: all alike).
    """
    if frequencies is not None:
        table = table * (frequencies / frequencies.mean()).sqrt()[:, None]
    values, vectors = torch.linalg.eigh((table.T @ table).double())
    best: Tensor = vectors[:, values.argsort(descending=True)[:width]].to(table.dtype)
    return best


def _project_embeddings(student: Any, teacher: Any, frequencies: Tensor | None) -> None:
    """E_S = E_T V, V being the principal directions of E_T: the best approximation of the teacher's at rank d'."""
    tables = embedding_tables(teacher)
    table = tables["word_embeddings"]
    width = student.config.hidden_size
    if width > table.shape[1]:
        raise UsageError("--embedding-init projected requires a student no wider than its teacher; use random")
    directions = principal_directions(table, width, frequencies)
    with torch.no_grad():
        for name, source in tables.items():
            getattr(student.embeddings, name).weight.copy_(source @ directions)
        # The layer norm scales every row, so the lost norm of the projected rows does not matter.
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

    def save(self, folder: Path) -> None:
        """Write the maps into the folder of a student, for a later stage."""
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in self.state_dict().items()}, folder / PROJECTIONS
        )


def make_projections(
    kind: Projection, num_layers: int, student_width: int, teacher_width: int, found: Mapping[str, Tensor]
) -> Projections:
    """The maps saved with a student if they fit, whatever their kind; else new ones of `kind`."""
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    kinds: tuple[tuple[Projection, int], ...] = (("shared", 1), ("per-layer", num_layers + 1))
    for fitting, count in kinds:
        wanted: dict[str, tuple[int, ...]] = {}
        for place in range(count):
            wanted[f"maps.{place}.weight"] = (teacher_width, student_width)
            wanted[f"maps.{place}.bias"] = (teacher_width,)
        if shapes == wanted:
            projections = Projections(fitting, num_layers, student_width, teacher_width)
            projections.load_state_dict(dict(found))
            return projections
    return Projections(kind, num_layers, student_width, teacher_width)


def read_projections(folder: Path) -> dict[str, Tensor]:
    """The maps that general distillation saved with a student; empty if there are none."""
    path = folder / PROJECTIONS
    return load_file(path) if path.is_file() else {}
