"""Reloads the token file when it changes: polled every few seconds, or at once on SIGHUP.

Each process polls by itself, so Ray Serve replicas, which get no signals, accept new tokens too.
"""

from __future__ import annotations

import asyncio
import logging

from augment_service.service.access import Access
from augment_service.service.tokens import Token, read_tokens
from shared.errors import UsageError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


class TokenWatch:
    """Replaces the tokens of `access` with those in the file. Use from one event loop."""

    def __init__(self, access: Access, token_file: str) -> None:
        self._access, self._token_file = access, token_file
        self._seen: list[Token] | None = None
        self._error = ""

    def read(self) -> None:
        """Reload the file now. An unusable file is logged and changes nothing."""
        try:
            self._accept(read_tokens(self._token_file))
        except UsageError as error:
            self._refuse(str(error))

    async def run(self) -> None:
        """Poll the file until cancelled. An unusable file is logged once, not at every poll."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Accept changed tokens once two polls in a row find them: the first may see a half-written file."""
        try:
            # On a thread, because the file may be on a slow network disk.
            tokens = await asyncio.to_thread(read_tokens, self._token_file)
        except UsageError as error:
            self._seen = None
            if str(error) != self._error:
                self._refuse(str(error))
            return
        self._error = ""
        if tokens == self._seen and tokens != self._access.tokens:
            self._accept(tokens)
        self._seen = tokens

    def _accept(self, tokens: list[Token]) -> None:
        self._access.replace(tokens)
        self._error = ""
        logger.info("tokens_read", extra={"fields": {"tokens": len(tokens)}})

    def _refuse(self, error: str) -> None:
        self._error = error
        logger.error("tokens_not_read: the old ones stay valid", extra={"fields": {"error": error}})
