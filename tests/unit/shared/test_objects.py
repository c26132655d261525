"""URIs of object stores, and what is handed to obstore for them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.errors import UsageError
from shared.storage import objects
from shared.storage.objects import aws_credentials, client_options, is_remote, split_uri
from shared.storage.store import LocalStore, open_store

PREFIXES = ("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    objects._client_of.cache_clear()


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://bucket/a/b/", "s3://bucket", "a/b"),
        ("S3://bucket", "s3://bucket", ""),
        ("gs://bucket/a b", "gs://bucket", "a b"),
        ("az://container/x", "az://container", "x"),
        ("abfss://c@account.dfs.core.windows.net/x/y", "abfss://c@account.dfs.core.windows.net", "x/y"),
    ],
)
def test_uris_are_split_into_bucket_and_key(uri: str, root: str, key: str) -> None:
    assert is_remote(uri)
    assert split_uri(uri) == (root, key)


@pytest.mark.parametrize("path", ["/data/out", "out", "s3:/out", "file:///data", "hdfs://x/y", "C:\\x", ""])
def test_everything_else_is_not_remote(path: str) -> None:
    assert not is_remote(path)


def test_other_uris_and_half_uris_are_refused_as_outputs() -> None:
    for uri in ("hdfs://x/y", "http://x/y", "s3:/bucket/out", "gs:bucket", "s3://"):
        with pytest.raises(UsageError, match="s3://bucket/prefix"):
            open_store(uri)
    assert isinstance(open_store("file:///data/out"), LocalStore)


@pytest.mark.parametrize(
    ("root", "environment", "kind", "options", "allow_http"),
    [
        ("s3://b", {}, "S3Store", {"bucket": "b", "region": "us-east-1"}, False),
        (
            "s3://b",
            {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://minio:9000/"},
            "S3Store",
            {"bucket": "b", "region": "eu-west-1", "endpoint": "http://minio:9000"},
            True,
        ),
        (
            "s3://b",
            {"AWS_REGION": "x", "AWS_ENDPOINT_URL": "http://other", "AWS_ENDPOINT_URL_S3": "https://minio"},
            "S3Store",
            {"bucket": "b", "region": "x", "endpoint": "https://minio"},
            False,
        ),
        ("gs://b", {}, "GCSStore", {"bucket": "b"}, False),
        (
            "gs://b",
            {"STORAGE_EMULATOR_HOST": "localhost:4443"},
            "GCSStore",
            {"bucket": "b", "base_url": "http://localhost:4443", "bearer_token": "emulator"},
            True,
        ),
        (
            "gs://b",
            {"STORAGE_EMULATOR_HOST": "localhost:4443", "GOOGLE_BASE_URL": "https://google"},
            "GCSStore",
            {"bucket": "b", "base_url": "https://google"},
            False,
        ),
        (
            "gs://b",
            {"STORAGE_EMULATOR_HOST": "localhost:4443", "GOOGLE_BEARER_TOKEN": "mine"},
            "GCSStore",
            {"bucket": "b", "base_url": "http://localhost:4443"},
            True,
        ),
        (
            "az://c",
            {"AZURE_STORAGE_ACCOUNT_NAME": "me"},
            "AzureStore",
            {"container_name": "c", "account_name": "me"},
            False,
        ),
        (
            "abfss://c@they.dfs.core.windows.net",
            {"AZURE_STORAGE_ACCOUNT_NAME": "me"},
            "AzureStore",
            {"container_name": "c", "account_name": "they"},
            False,
        ),
    ],
)
def test_options_come_from_the_uri_and_the_environment(
    root: str,
    environment: dict[str, str],
    kind: str,
    options: dict[str, str],
    allow_http: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found_kind, found = client_options(root)
    client: dict[str, Any] = found.pop("client_options")
    assert found.pop("retry_config")["retry_timeout"] <= timedelta(minutes=1)
    assert (found_kind, found, client.get("allow_http", False)) == (kind, options, allow_http)


def test_a_container_without_an_account_is_refused() -> None:
    with pytest.raises(UsageError, match=r"AZURE_STORAGE_ACCOUNT_NAME, or use abfs://c@ACCOUNT"):
        open_store("az://c/out")


def test_obstore_accepts_the_options_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    for uri in ("s3://b/x", "gs://b/x", "abfs://c@me.dfs.core.windows.net/x"):
        assert open_store(uri).uri == uri


def test_keys_in_the_environment_come_before_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert aws_credentials() is None
    (tmp_path / ".aws").mkdir()
    credentials = tmp_path / ".aws" / "credentials"
    credentials.write_text("[work]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    assert aws_credentials()()["access_key_id"] == "key"
    monkeypatch.setenv("AWS_PROFILE", "gone")
    with pytest.raises(UsageError, match=r"AWS credentials: .*gone"):
        aws_credentials()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    assert aws_credentials() is None
