"""Two-stage TinyBERT distillation (arXiv 1909.10351) that streams augmented shards.

The names below are the public interface for Python. They are loaded on first use (PEP 562), so that `import trainer`
stays instant; everything else may change between versions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.inference import Classifier, Prediction, evaluate, load_student

    __version__: str

# As in `augment_service`: next to other programs on the same cores, training is 27 times faster (decision 0014).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__all__ = ["Classifier", "Prediction", "__version__", "evaluate", "load_student"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("tinybert-augment-distill")
    else:
        from trainer import inference

        value = getattr(inference, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
