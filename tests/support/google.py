"""Google Cloud Storage for tests: its XML API in front of the S3 server of the other tests.

The two APIs are the same for the requests of this project, except for the condition that an object must not exist yet
(https://cloud.google.com/storage/docs/xml-api/reference-headers#xgoogifgenerationmatch).
"""

from __future__ import annotations

from tests.support.object_store import FaultyProxy

CONDITION = "x-goog-if-generation-match"


class GoogleProxy(FaultyProxy):
    """An S3 server (`upstream`) as Google Cloud Storage, with a fault in a share of the requests."""

    def translate(self, headers: dict[str, str]) -> dict[str, str]:
        """S3's form of the condition "generation 0", which no existing object has."""
        headers = {name.lower(): value for name, value in headers.items()}
        if condition := headers.pop(CONDITION, None):
            assert condition == "0", condition
            headers["if-none-match"] = "*"
        return headers
