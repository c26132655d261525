"""A sequence classification model of any architecture, loaded through plain transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import ModelError
from shared.model_folder import (
    CONFIG,
    check_tokenizer_fits,
    check_tokenizer_is_fast,
    check_weights,
    model_folder,
    reading_model,
    weight_files,
)

Arrays = Mapping[str, NDArray[np.int64]]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedClassifier:
    """A model in fp32 and eval mode, with its tokenizer and the folder it was loaded from."""

    folder: Path
    model: Any
    tokenizer: Any

    @property
    def weight_bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in weight_files(self.folder))

    @property
    def num_parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @torch.no_grad()
    def logits(self, arrays: Arrays) -> Floats:
        """Logits of one padded batch: (rows, classes) float32. arrays: input name -> (rows, length) int64."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        logits: Floats = self.model(**tensors).logits.float().numpy()
        return logits


def load_saved_classifier(path: str, option: str) -> SavedClassifier:
    """Load a folder. `option`: the flag to name in messages. Raises ModelError that says what is wrong with it."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = Path(model_folder(path, option))
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{option} {path} is not a model folder: it has no config.json")
    with reading_model(str(folder), option):
        config = AutoConfig.from_pretrained(folder)
        if not any("SequenceClassification" in name for name in config.architectures or ()):
            raise ModelError(
                f"{option} {path} is {', '.join(config.architectures or ['a model of unknown architecture'])}, not a "
                "sequence classification model; `trainer teacher` and `trainer task` write one to OUTPUT/model"
            )
        model, problems = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
    check_weights(model, path, option, problems)
    check_tokenizer_is_fast(tokenizer, path, option)
    check_tokenizer_fits(tokenizer, model.get_input_embeddings().weight.shape[0], path, option)
    return SavedClassifier(folder=folder, model=model.eval(), tokenizer=tokenizer)
