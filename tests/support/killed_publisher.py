"""`python -m tests.support.killed_publisher N ...`: runs `python -m trainer ...`, with SIGKILL in publication number N.

The files of the state are then in the bucket, and the commit that names them is not. The first publication is the one
that takes the run over.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from unittest import mock

from trainer.cli import main
from trainer.remote_run import RemoteRun, StoredFile


def run(last: int, arguments: list[str]) -> int:
    """Run the command line; never returns if there are `last` publications."""
    commit, num_commits = RemoteRun._commit, 0

    def commit_or_die(self: RemoteRun, number: int, files: Mapping[str, StoredFile]) -> bool:
        nonlocal num_commits
        num_commits += 1
        if num_commits == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return commit(self, number, files)

    with mock.patch.object(RemoteRun, "_commit", commit_or_die):
        return main(arguments)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
