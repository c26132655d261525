"""Whose hidden states a student learns, the teacher's or the embedded encoder's; loads a teacher that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.embedded import EMBEDDED
from shared.embedded.student import embedded_student
from shared.errors import ModelError
from shared.storage.objects import is_remote
from trainer.any_classifier import is_bert, load_any_classifier
from trainer.conversion import as_bert, is_like_bert
from trainer.models import load_classifier, load_tokenizer, names_types, read_config, with_types
from trainer.student import check_embedded_vocabulary, parse_size
from trainer.vocabulary import shared_vocabulary

AUTO = "auto"
"""The default student of `trainer distill`: the embedded one, unless the teacher is a BERT."""


def gives_states(teacher: str, student: str, option: str = "--teacher") -> bool:
    """Whether a student learns the teacher's hidden states. See `why_no_states`."""
    return why_no_states(teacher, student, option) is None


def why_no_states(teacher: str, student: str, option: str = "--teacher") -> str | None:
    """Why a student learns the embedded encoder's hidden states, in words; None if it learns its teacher's.

    student: --student, or AUTO. A BERT's hidden states are always used; a student that does not fit them is rejected
    later. Raises ModelError when teacher or student cannot be read, UsageError for an invalid size.
    """
    settings = read_config(teacher, option)
    if settings.model_type == "bert":
        return None
    if not is_like_bert(settings):
        return "its architecture differs from BERT's"
    tokenizer = load_tokenizer(teacher, option)
    if (size := parse_size(student)) is not None:
        # A new student gets its teacher's vocabulary.
        depth, reads_same = size.layers, True
    elif student in (AUTO, EMBEDDED):
        shipped = embedded_student()
        depth = int(shipped.config["num_hidden_layers"])
        reads_same = not _fails(lambda: check_embedded_vocabulary(shipped, tokenizer))
    elif is_remote(student) or Path(student).is_dir():
        depth = int(read_config(student, "--student").num_hidden_layers)
        own = load_tokenizer(student, "--student")
        reads_same = not _fails(lambda: shared_vocabulary(own, tokenizer, student, teacher))
    else:
        # Rejected when the student is created.
        return None
    if not reads_same:
        return "the student has a different vocabulary"
    return "the student has more layers" if depth > int(settings.num_hidden_layers) else None


def load_with_states(teacher: str, option: str = "--teacher") -> tuple[Any, Any, Any]:
    """(classifier, the same as a `BertForSequenceClassification`, the tokenizer shared with the student), in fp32.

    teacher: one for which `gives_states` is true. Raises ModelError.
    """
    if is_bert(teacher, option):
        model = load_classifier(teacher, option=option)
        return model, model, load_tokenizer(teacher, option)
    plain = load_any_classifier(teacher, option, device="cpu", dtype="fp32")
    states = as_bert(plain.model, names_types(plain.tokenizer))
    return plain.model, states, with_types(plain.tokenizer)


def _fails(check: Callable[[], object]) -> bool:
    try:
        check()
    except ModelError:
        return True
    return False
