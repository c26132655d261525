"""Checks of an output before and after its shards are computed: damage, completeness, leftovers."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from shared.errors import OutputError, ShardError
from shared.output_names import is_own
from shared.shards import (
    READERS,
    Commit,
    commit_names,
    commit_or_none,
    committed_shards,
    is_whole,
    iter_commits,
    iter_records,
    parse_commit,
    shard_of,
)
from shared.storage.store import Store
from shared.totals import Totals, total

Found = TypeVar("Found")


def find_damaged(store: Store, read_all: bool) -> list[int]:
    """Shards whose commit is invalid, or whose file is missing, has another size or (with `read_all`) other bytes.

    Nothing is changed: `write_shard` repairs them. Commits are listed before files, so a shard that another run commits
    concurrently is never mistaken for a damaged one.
    """
    with ThreadPoolExecutor(READERS) as readers:
        shards = sorted(committed_shards(store))
        commits = dict(zip(shards, _map(readers, lambda shard: commit_or_none(store, shard), shards), strict=True))
        sizes = store.sizes("shards")

        def is_good(shard: int) -> bool:
            commit = commits[shard]
            if commit is None or sizes.get(commit.file) != commit.num_bytes:
                return False
            return not read_all or is_whole(store, commit)

        return [shard for shard, good in zip(shards, _map(readers, is_good, shards), strict=True) if not good]


def _map(readers: ThreadPoolExecutor, function: Callable[[int], Found], shards: list[int]) -> Iterator[Found]:
    """`map` in order, with a bounded number of calls queued."""
    for start in range(0, len(shards), 4 * READERS):
        yield from readers.map(function, shards[start : start + 4 * READERS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Summary of a complete output's commits, from a single read of each. files: names of the shard files."""

    totals: Totals
    commits_sha256: str
    files: frozenset[str]


def check_complete(
    store: Store, *, rows: int, shards: int, also: Callable[[Commit], None] = lambda commit: None
) -> Complete:
    """The post-condition of a job, checked before it is marked complete. Raises OutputError naming what is missing.

    Every planned shard has one valid commit and a file of its size, no other shard is committed, and the rows used and
    quarantined add up to the `rows` of the input. Each commit is read once. also: called with each of them.
    """
    names, digest = commit_names(store), hashlib.sha256()
    committed = {shard_of(name) for name in names}
    commits: dict[int, Commit] = {}
    for name, content in zip(names, iter_records(store, names), strict=True):
        digest.update(content)
        with contextlib.suppress(ShardError):
            commit = parse_commit(store, name, content)
            if commit.shard == shard_of(name):
                commits[commit.shard] = commit
                also(commit)
    sizes = store.sizes("shards")
    problems = (
        (sorted(set(range(shards)) - committed), "has no commit"),
        (sorted(committed - set(range(shards))), "is not in the plan"),
        (sorted(committed - set(commits)), "has no valid commit record"),
        (
            [shard for shard, one in commits.items() if sizes.get(one.file) != one.num_bytes],
            "has a missing or truncated file",
        ),
    )
    for faulty, problem in problems:
        if faulty:
            more = f" (and {len(faulty) - 1} more)" if len(faulty) > 1 else ""
            raise OutputError(
                f"{store.uri} is not complete: shard {faulty[0]} {problem}{more}. Run the same command again"
            )
    accounted = sum(commit.sources + commit.quarantined for commit in commits.values())
    if accounted != rows:
        raise OutputError(
            f"{store.uri} is not complete: {accounted} rows were used or quarantined, but the input has {rows}. Use "
            "another --output, and report this as a bug"
        )
    files = frozenset(commit.file for commit in commits.values())
    return Complete(totals=total(commits.values()), commits_sha256=digest.hexdigest(), files=files)


def remove_orphans(
    store: Store,
    live_writers: frozenset[str] = frozenset(),
    older_than_seconds: float = 3600.0,
    known: frozenset[str] | None = None,
) -> int:
    """Remove shard files without a commit and half-written files; returns how many. Only when every shard is committed.

    By then it is safe even while another driver is writing: all that it still writes has the name of a committed shard.
    Files that no job would write are left alone. live_writers: runs whose half-written files are kept; files of unknown
    writers are removed once they are old. known: names of committed shard files, if the caller has already read the
    commits; another run may have replaced one since, so the commit is reread before its file is deleted.
    """
    if known is None:
        known = frozenset(commit.file for commit in iter_commits(store))
    unknown = [name for name in store.list("shards") if name not in known and is_own(name, "shard")]
    num_removed = 0
    for name in unknown:
        commit = commit_or_none(store, shard_of(name))
        if commit is None or commit.file != name:
            store.delete(name)
            num_removed += 1
    return num_removed + store.remove_partials(live_writers, older_than_seconds)
