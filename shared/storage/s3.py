"""S3 and compatible stores: one pyarrow file system and one boto3 client, configured by environment variables.

Credentials come from AWS's own chain (AWS_ACCESS_KEY_ID …, profiles, roles), the region from AWS_REGION, the endpoint
of a compatible store from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Both libraries try three times themselves.
`with_retries` continues after that, because a job of many hours should survive longer faults.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from shared.errors import ExpectedError, StoreError, UsageError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SCHEME = "s3://"
MAX_TRIES = 6
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.3, 8.0
_PERMANENT = (
    "ACCESS_DENIED",
    "AccessDenied",
    "NO_SUCH_BUCKET",
    "NoSuchBucket",
    "INVALID_ACCESS_KEY_ID",
    "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "Unable to locate credentials",
    "HTTP status 400",
    "HTTP status 403",
    "(400)",
    "(401)",
    "(403)",
)
"""Parts of the messages of both libraries that mean a retry cannot help."""


def endpoint() -> str | None:
    """URL of the store if it is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b/` -> (bucket, a/b). Raises UsageError."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise UsageError(f"{uri}: the bucket is missing; write s3://bucket/prefix")
    return bucket, key.strip("/")


@functools.cache
def file_system() -> Any:
    """This process's pyarrow file system for S3."""
    from pyarrow import fs

    options: dict[str, Any] = {"allow_delayed_open": True, "retry_strategy": fs.AwsStandardS3RetryStrategy(3)}
    if url := endpoint():
        scheme, _, host = url.partition("://")
        options |= {"scheme": scheme, "endpoint_override": host.rstrip("/")}
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return fs.S3FileSystem(**options)


@functools.cache
def client() -> Any:
    """This process's boto3 client, for conditional writes, which pyarrow lacks. Raises UsageError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UsageError("s3:// needs boto3: pip install 'tinybert-augment-distill[s3]'") from error
    retries = {"mode": "standard", "total_max_attempts": 3}
    config = Config(retries=retries, connect_timeout=5, read_timeout=60, s3={"addressing_style": "auto"})
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.client("s3", endpoint_url=endpoint(), region_name=region, config=config)


def with_retries(action: str, work: Callable[[], T]) -> T:
    """The result of `work()`, retried after transient errors. Raises StoreError; FileNotFoundError is not retried."""
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return work()
        except (FileNotFoundError, ExpectedError):
            raise
        except Exception as error:
            if not _is_store_error(error):
                raise
            reason = " ".join(str(error).split())[:300]
            if any(sign in reason for sign in _PERMANENT):
                raise StoreError(f"{action}: {reason}") from error
            if attempt == MAX_TRIES:
                raise StoreError(f"{action}: failed {MAX_TRIES} times; the last error: {reason}", True) from error
            logger.warning("store_retry", extra={"fields": {"action": action, "attempt": attempt, "reason": reason}})
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
            time.sleep(pause * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def _is_store_error(error: Exception) -> bool:
    """Errors of pyarrow's file system are OSError; those of boto3 are defined in botocore."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "urllib3"))
