"""Environment variables with the service's prefix."""

from __future__ import annotations

import logging
import os

from augment_service.config import ServeConfig
from augment_service.service.tokens import TOKENS_VARIABLE
from shared.cli.environment import unknown_variables

logger = logging.getLogger(__name__)

_OTHER_VARIABLES = (TOKENS_VARIABLE, "AUGMENT_SERVICE_CONFIG", "AUGMENT_SERVICE_CACHE")
"""Variables with the prefix that are not options."""


def log_unknown_variables() -> None:
    """Warn about variables that have no effect, by name only: a value may be a secret."""
    if unknown := unknown_variables(ServeConfig, os.environ, _OTHER_VARIABLES):
        logger.warning("unknown_environment_variables", extra={"fields": {"names": ", ".join(unknown)}})
