"""Object stores: Amazon S3 and compatible ones, Google Cloud Storage and Azure, all through obstore.

    s3://bucket/key    gs://bucket/key    az://container/key    abfs[s]://container@account.dfs.core.windows.net/key

Everything else comes from the environment variables that the stores' own tools use: credentials, region, endpoint.
obstore retries a failed request a few times within seconds. `with_retries` continues after that, because a job of many
hours should survive longer outages.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import ExpectedError, StoreError, UsageError

logger = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
EXAMPLES = "s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
MAX_TRIES = 6
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.3, 8.0
SHORT_SECONDS, LONG_SECONDS = 60, 3600
"""Request timeouts: for small requests, and for uploads of more than a block."""
BLOCK_BYTES = 16 << 20
LARGEST_PUT = 4 << 30
"""Up to this many bytes an object is written in one request."""
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
_PERMANENT = (
    "NoSuchBucket",
    "ContainerNotFound",
    "The specified bucket does not exist",
    "status code: 400",
    "status code: 401",
    "status code: 403",
    "status code: 405",
    "status code: 501",
    "ExpiredToken",
)
"""Message fragments of permanent errors, which are not retried."""
_GOOGLE_CREDENTIALS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
)
_PERMANENT_KINDS = (
    "PermissionDeniedError",
    "UnauthenticatedError",
    "NotSupportedError",
    "InvalidPathError",
    "UnknownConfigurationKeyError",
)


def is_remote(uri: str) -> bool:
    """Whether this is the URI of an object store, rather than a local path."""
    return uri.partition("://")[0].lower() in SCHEMES and "://" in uri


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b/` -> (s3://bucket, a/b). Raises UsageError."""
    scheme, _, rest = uri.partition("://")
    root, _, key = rest.partition("/")
    if not root:
        raise UsageError(f"{uri}: the bucket name is missing; use {EXAMPLES}")
    return f"{scheme.lower()}://{root}", key.strip("/")


def client_of(root: str, *, patient: bool = False) -> Any:
    """This process's client of a bucket or container. patient: with timeouts for large uploads. Raises UsageError."""
    # A forked child must not use the threads of its parent.
    return _client_of(root, LONG_SECONDS if patient else SHORT_SECONDS, os.getpid())


@functools.cache
def _client_of(root: str, seconds: int, process: int) -> Any:
    try:
        from obstore import store
    except ImportError as error:
        raise UsageError(f"{root} needs obstore: pip install 'tinybert-augment-distill[remote]'") from error
    kind, options = client_options(root, seconds)
    credentials = aws_credentials() if kind == "S3Store" else None
    try:
        return getattr(store, kind)(**options, **({"credential_provider": credentials} if credentials else {}))
    except Exception as error:
        if not is_store_error(error):
            raise
        raise UsageError(f"{root}: {reason_of(error)}") from error


def client_options(root: str, seconds: int = SHORT_SECONDS) -> tuple[str, dict[str, Any]]:
    """Name of obstore's class for a bucket or container, and its arguments. Raises UsageError."""
    scheme, _, name = root.partition("://")
    options: dict[str, Any] = {"retry_config": dict(_RETRIES)}
    client: dict[str, Any] = {"timeout": f"{seconds} seconds", "connect_timeout": "5 seconds"}
    endpoint: str | None = None
    if scheme == "s3":
        kind = "S3Store"
        options |= {"bucket": name, "region": _environment("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"}
        if endpoint := _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            options["endpoint"] = endpoint.rstrip("/")
    elif scheme == "gs":
        kind = "GCSStore"
        options |= {"bucket": name}
        if endpoint := _environment("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"):
            endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
            options["base_url"] = endpoint.rstrip("/")
        if endpoint and not _environment("GOOGLE_BASE_URL", *_GOOGLE_CREDENTIALS):
            # An emulator accepts any token. Without one, writes would ask the metadata server of Google's machines.
            options["bearer_token"] = "emulator"
    else:
        kind = "AzureStore"
        container, _, host = name.partition("@")
        options |= {"container_name": container}
        account = host.partition(".")[0] or _environment("AZURE_STORAGE_ACCOUNT_NAME")
        endpoint = _environment("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
        if endpoint:
            options["endpoint"] = endpoint.rstrip("/")
        if account:
            options["account_name"] = account
        elif not _environment("AZURE_STORAGE_USE_EMULATOR"):
            raise UsageError(
                f"{root}: no storage account is given; set AZURE_STORAGE_ACCOUNT_NAME, or use "
                f"abfs://{container}@ACCOUNT.dfs.core.windows.net/prefix"
            )
    if (endpoint or "").startswith("http://") or _environment("AZURE_STORAGE_USE_EMULATOR"):
        client["allow_http"] = True
    return kind, options | {"client_options": client}


def aws_credentials() -> Any:
    """boto3's credentials if they are only in AWS's own files (profiles, single sign-on); None otherwise.

    obstore itself finds keys in the environment and roles of a machine, pod or task.
    """
    if _environment("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"):
        return None
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config")
    has_files = any(Path(one).expanduser().is_file() for one in files)
    if not (has_files or _environment("AWS_PROFILE")):
        return None
    if importlib.util.find_spec("boto3") is None:
        raise UsageError(
            "AWS profiles need boto3: pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except Exception as error:
        raise UsageError(f"AWS credentials: {error}") from error


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def upload(path: Path, uri: str) -> None:
    """Write or replace an object with the content of a local file. Raises StoreError, UsageError."""
    import obstore

    root, key = split_uri(uri)
    if not key:
        raise UsageError(f"{uri}: the file name is missing; use {root}/name")
    size = path.stat().st_size
    client = client_of(root, patient=size > BLOCK_BYTES)
    is_large = size > LARGEST_PUT
    # At most 10,000 parts are allowed.
    parts = {"chunk_size": 4 * BLOCK_BYTES, "max_concurrency": 4} if is_large else {}
    with_retries(f"write {uri}", lambda: obstore.put(client, key, path, use_multipart=is_large, **parts))


def with_retries(action: str, work: Callable[[], T]) -> T:
    """The result of `work()`, retried after transient errors.

    Raises StoreError. FileNotFoundError (if the bucket exists) and obstore's AlreadyExistsError are not retried.
    """
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return work()
        except ExpectedError:
            raise
        except Exception as error:
            if not is_store_error(error) or already_exists(error):
                raise
            reason = reason_of(error)
            if type(error).__name__ in _PERMANENT_KINDS or any(sign in reason for sign in _PERMANENT):
                raise StoreError(f"{action}: {reason}") from error
            if isinstance(error, FileNotFoundError):
                raise
            if attempt == MAX_TRIES:
                raise StoreError(f"{action}: failed {MAX_TRIES} times; the last error: {reason}", True) from error
            logger.warning("store_retry", extra={"fields": {"action": action, "attempt": attempt, "reason": reason}})
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
            time.sleep(pause * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def already_exists(error: Exception) -> bool:
    """Whether an object could not be created because it exists."""
    return type(error).__name__ in ("AlreadyExistsError", "PreconditionError")


def is_store_error(error: Exception) -> bool:
    """Whether an error was raised by obstore, or by the network below it."""
    return isinstance(error, OSError) or type(error).__module__.startswith("obstore")


def reason_of(error: Exception) -> str:
    """An obstore error in one line, without the dump of its structures; with a hint if credentials are missing."""
    reason = " ".join(str(error).partition("Debug source:")[0].split())[:300]
    if "169.254.169.254" in reason or "metadata.google.internal" in reason or "/metadata/identity" in reason:
        reason += " (no credentials were found in the environment, and this machine has no role)"
    return reason
