"""Locates a model, and checks its files before and after transformers reads them.

Shared by augmentation and training: resolves a folder or hub id from any option, turns library errors into one line,
and checks that a tokenizer belongs to its model.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import ExpectedError, ModelError
from shared.storage.foreign_files import START_BYTES, what_came_instead
from shared.storage.objects import is_remote
from shared.storage.remote_model import fetched_model

CONFIG = "config.json"
_LAYER = re.compile(r"\.(layers?|h|blocks?)\.[0-9]+\.")
_READ_FILES = (
    *(CONFIG, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
MULTI_LABEL = "multi_label_classification"
"""The value of `problem_type` in a model's config.json that makes transformers apply a sigmoid to each logit."""


def model_folder(path: str, option: str = "model") -> str:
    """Location of a model: a folder or hub id as given, OUTPUT/model for the output of a run, a copy of a remote one.

    Raises ModelError for a path that does not exist, and for a run that has no model; StoreError.
    """
    if is_remote(path):
        return _checked(path, fetched_model(path, option), option)
    folder = Path(path)
    if folder.is_file():
        raise ModelError(
            f"{option} {path} is a file; pass the folder that contains it, with config.json and the tokenizer"
        )
    if not path or not folder.is_dir():
        if not path or path.count("/") > 1 or path.startswith(("/", ".", "~")) or "://" in path or "\\" in path:
            raise ModelError(f"{option} {path}: no such folder")
        if _is_offline() and not _is_cached(path):
            raise ModelError(
                f"{option} {path}: no such folder, and no such model in the cache of the Hugging Face hub "
                "(HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
            )
        return path
    if (folder / "adapter_config.json").is_file() and not (folder / CONFIG).is_file():
        raise ModelError(
            f"{option} {path} is an adapter, such as LoRA, not a model: merge it into its base model "
            "(merge_and_unload), and save the result with its tokenizer"
        )
    if not is_run(folder):
        return _checked(path, path, option)
    if not (folder / "model" / CONFIG).is_file():
        raise ModelError(f"{option} {path} is the output of a run that has not finished: it has no model/ yet")
    return _checked(path, str(folder / "model"), option)


def _checked(path: str, folder: str, option: str) -> str:
    """The folder. Raises ModelError if one of its files was not fetched."""
    names = [Path(folder) / name for name in _READ_FILES]
    for file in (*names, *weight_files(Path(folder))):
        try:
            with file.open("rb") as opened:
                start = opened.read(START_BYTES)
        except OSError:
            # The later read reports why it fails.
            continue
        if (kind := what_came_instead(start) or _what_weights_are(file, start)) is not None:
            raise ModelError(f"{option} {path}: {file.name} is {kind}")
        if (dtype := _integer_dtype(file)) is not None and not _is_quantised(Path(folder)):
            raise ModelError(
                f"{option} {path}: {file.name} has {dtype} weights, but config.json has no quantization_config "
                "that says how to scale them: save the model in fp16 or fp32"
            )
    return folder


def _integer_dtype(file: Path) -> str | None:
    """The dtype of a safetensors file's quantised weights, None if it has none or cannot be read."""
    if file.suffix != ".safetensors":
        return None
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length <= _MAX_HEADER_BYTES else {}
        dtypes = {one["dtype"] for one in header.values() if len(one.get("shape", ())) > 1}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        # Whoever reads it says why it cannot.
        return None
    return next((name for code, name in _QUANTISED.items() if code in dtypes), None)


_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library; the length of a damaged file may be anything."""
_QUANTISED = {"I8": "int8", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}


def _is_quantised(folder: Path) -> bool:
    try:
        return "quantization_config" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return True


def _what_weights_are(file: Path, start: bytes) -> str | None:
    """What a weight file actually contains if not what its name says, and what to do about it."""
    if file.suffix not in (".safetensors", ".bin"):
        return None
    if not start:
        return "empty; download it again"
    # A safetensors file begins with the length of its JSON header, a PyTorch file with a zip or pickle signature.
    if file.suffix == ".bin" and start[8:10] in (b'{"', b"{ "):
        return f"a safetensors file: rename it to {file.stem.replace('pytorch_model', 'model')}.safetensors"
    if file.suffix == ".safetensors" and start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return f"a PyTorch file: rename it to {file.stem.replace('model', 'pytorch_model')}.bin"
    return None


def is_run(folder: Path) -> bool:
    """Whether a folder is the output of a training command."""
    try:
        options = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(options, dict) and "command" in options


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a saved model: safetensors, else pytorch_model.bin; several if sharded."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


@contextlib.contextmanager
def reading_model(path: str, option: str) -> Iterator[None]:
    """Turns any error raised by transformers and the libraries below it while reading files into a ModelError.

    They have no common base: a damaged tokenizer.json raises a plain Exception, a damaged pickle an UnpicklingError, a
    wrong type in config.json a TypeError. Out-of-memory errors propagate unchanged.
    """
    try:
        yield
    except (ExpectedError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if len(lines) > 1 and lines[0].endswith(":"):
            lines[0] = f"{lines[0]} {lines[1]}"
        what = lines[0] if lines and not isinstance(error, KeyError) else f"{type(error).__name__} {error!s}".strip()
        if not Path(path).is_dir():
            what = f"not a local folder, and the Hugging Face hub did not provide it: {what}"
        raise ModelError(f"{option} {path}: {what}") from error


def check_weights(
    model: Any, path: str, option: str, problems: Mapping[str, Any] | None = None, may_be_new: tuple[str, ...] = ()
) -> None:
    """Raises ModelError for weights that were randomly initialised by transformers, are NaN or infinite, or all zero.

    problems: the loading info from `from_pretrained`. may_be_new: name prefixes of weights that the files may lack.
    """
    problems = problems or {}
    missing = sorted(name for name in problems.get("missing_keys", ()) if not name.startswith(may_be_new))
    if missing:
        raise ModelError(f"{option} {path} lacks weights such as {missing[0]}")
    for name, found, wanted in sorted(problems.get("mismatched_keys", ())):
        if not name.startswith(may_be_new):
            raise ModelError(
                f"{option} {path}: {name} has shape {tuple(found)} in the file, but {tuple(wanted)} according to "
                "config.json"
            )
    layers = {found[0] for name in model.state_dict() if (found := _LAYER.search(f".{name}"))}
    for name in sorted(problems.get("unexpected_keys", ())):
        # Unused weights, such as another head's, are fine; an unused layer means that every result is wrong.
        if (found := _LAYER.search(f".{name}")) and found[0] not in layers:
            raise ModelError(
                f"{option} {path} has weights of a layer that config.json does not describe, such as {name}"
            )
    new = set(problems.get("missing_keys", ()))
    read = [value for name, value in model.state_dict().items() if name not in new and value.is_floating_point()]
    if read and not any(bool(value.any()) for value in read):
        raise ModelError(f"{option} {path}: all weights are zero; the file is damaged, so download it again")
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool((is_finite := value.isfinite()).all()):
            raise ModelError(
                f"{option} {path}: {int((~is_finite).sum())} of {value.numel()} weights in {name} are NaN or infinite: "
                "the file is damaged, or the training diverged; use another checkpoint"
            )


def check_tokenizer_fits(tokenizer: Any, num_embeddings: int, path: str, option: str) -> None:
    """Raises ModelError for a tokenizer that produces ids beyond the model's embeddings."""
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > num_embeddings:
        raise ModelError(
            f"{option} {path}: the tokenizer has {size} tokens, but the model has only {num_embeddings} embeddings; "
            "use the tokenizer that the model was trained with, or resize the embeddings and train the model again"
        )


def check_tokenizer_is_fast(tokenizer: Any, path: str, option: str) -> None:
    """Raises ModelError for a tokenizer without character offsets, such as BERTweet's and Japanese BERT's.

    Also for an empty one, which transformers silently creates if a model was saved without its tokenizer.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"{option} {path} has no fast tokenizer (tokenizer.json or vocab.txt), which is needed for character "
            "offsets: save one with the model, or use a model that has one"
        )
    # An empty SentencePiece vocabulary still has the space marker.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)) + 1:
        raise ModelError(
            f"{option} {path} has no tokenizer (tokenizer.json or vocab.txt): save the one that the model was trained "
            "with to the folder (tokenizer.save_pretrained)"
        )


def _is_offline() -> bool:
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFFLINE)


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def _is_cached(name: str) -> bool:
    """Whether the hub's cache holds the model's configuration."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return True
    try:
        return isinstance(try_to_load_from_cache(name, CONFIG), str)
    except HFValidationError:
        return False
