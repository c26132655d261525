"""Where a distillation writes: a folder, or a prefix of an object store with a scratch folder on this machine.

In a store, every step writes directly under the prefix, and so do the small files of the plan. The scratch folder holds
this machine's logs and lock; another machine resumes from the prefix alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UsageError
from shared.model_folder import CONFIG
from shared.storage.objects import is_remote
from shared.storage.store import Store, local_path, open_store
from trainer.remote_run import agree_on_options, scratch_folder
from trainer.run_folder import open_run

COMMAND = "distill"
LOGS = "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """output: the folder or URI; store: its files; folder: on this machine, the output itself or the scratch folder."""

    output: str
    store: Store
    folder: Path

    @property
    def is_remote(self) -> bool:
        """Whether the output is in an object store."""
        return is_remote(self.output)

    def path(self, name: str) -> str:
        """Path or URI of a file of the output."""
        return f"{self.output}/{name}" if self.is_remote else str(self.folder / name)

    def check_is_free(self) -> None:
        """Raises UsageError if the output contains anything else, StoreError if the store cannot be reached."""
        if not self.is_remote and self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"--output {self.output} is a file; choose a folder")
        others = [name for name in self.store.entries() if not name.startswith(".")]
        if others and CONFIG not in others:
            raise UsageError(
                f"--output {self.output} is not empty and holds no run of `trainer distill`; choose another "
                f"{'prefix' if self.is_remote else 'folder'}"
            )

    def open_run(self, identity: Mapping[str, Any]) -> None:
        """Create the configuration, or check that the existing one matches. Raises StoreError, ManifestError."""
        if self.is_remote:
            agree_on_options(self.store, self.folder, COMMAND, identity)
        else:
            open_run(self.output, COMMAND, identity)

    def log(self, step: str) -> Path:
        """A step's log file on this machine, which continues the log of earlier calls. Raises StoreError."""
        name = f"{LOGS}/{step.replace(' ', '-')}.log"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.is_remote and not path.exists() and self.store.exists(name):
            path.write_bytes(self.store.read(name))
        return path

    def keep_log(self, step: str) -> None:
        """Copy a step's log to the object store, if there is one. Raises StoreError."""
        if self.is_remote:
            path = self.log(step)
            self.store.put(path.relative_to(self.folder).as_posix(), path.read_bytes())

    def tidy(self) -> None:
        """Remove a finished distillation's files from the scratch folder, if the output is in an object store."""
        if self.is_remote:
            shutil.rmtree(self.folder / LOGS, ignore_errors=True)
            (self.folder / CONFIG).unlink(missing_ok=True)


def place_of(output: str) -> Place:
    """The place of an --output; nothing is created. Raises UsageError."""
    if not is_remote(output):
        folder = local_path(output)
        return Place(output=folder, store=open_store(output), folder=Path(folder))
    store = open_store(output)
    return Place(output=store.uri, store=store, folder=scratch_folder(store.uri, f"-{COMMAND}"))
