"""Data augmentation of TinyBERT (arXiv 1909.10351, Algorithm 1): in this process, as a job on Ray, or as a service.

    from augment_service import Augmenter

    for result in Augmenter("embedded").augment(["a gripping and honest film"], n_a=5, seed=7):
        for sample in result.samples:
            print(sample)

`Augmenter` runs the models in this process; `Client` and `AsyncClient` call a running service, with the same types.
`__version__` is the version of the installed distribution. Names are imported on first use, so `import augment_service`
loads neither torch nor numpy.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# oneDNN reads this at its first product. Its AMX kernels sum a row's terms in an order that depends on the number of
# rows, so a text's candidates would depend on the rest of the batch (decision 0013). An existing value is kept.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
# OpenMP reads this when torch is loaded. With its default of 300,000 spins, a spinning thread takes the core from the
# thread that it waits for whenever other programs run on the same cores (decision 0014).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from augment_service.augmenter import Augmenter
    from augment_service.service.client import AsyncClient, Client, ServiceError
    from augment_service.service.responses import TextCandidateSets, TextSamples
    from shared.errors import ExpectedError, InputError, ModelError, UsageError
    from shared.params import AugmentParams

    __version__: str

__all__ = [
    "AsyncClient",
    "AugmentParams",
    "Augmenter",
    "Client",
    "ExpectedError",
    "InputError",
    "ModelError",
    "ServiceError",
    "TextCandidateSets",
    "TextSamples",
    "UsageError",
    "__version__",
]

_MODULE_OF = {
    "AsyncClient": "augment_service.service.client",
    "AugmentParams": "shared.params",
    "Augmenter": "augment_service.augmenter",
    "Client": "augment_service.service.client",
    "ExpectedError": "shared.errors",
    "InputError": "shared.errors",
    "ModelError": "shared.errors",
    "ServiceError": "augment_service.service.client",
    "TextCandidateSets": "augment_service.service.responses",
    "TextSamples": "augment_service.service.responses",
    "UsageError": "shared.errors",
}
_DISTRIBUTION = "tinybert-augment-distill"


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        value: object = _version()
    elif name in _MODULE_OF:
        value = _load(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _load(name: str) -> object:
    try:
        return getattr(import_module(_MODULE_OF[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"augment_service.{name} needs the package {error.name}, which is not installed: pip install '.[all]'"
        ) from error


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        # Not installed: a plain copy of the source tree, such as the working directory of a Ray job.
        return "0+unknown"
