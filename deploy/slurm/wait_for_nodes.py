"""Wait until the Ray cluster at RAY_ADDRESS has enough nodes: `wait_for_nodes.py NODES SECONDS`; else exit code 1.

RAY_LOG: the log file that the error message names.
"""

from __future__ import annotations

import logging
import os
import sys
import time


def main(wanted: int, seconds: float) -> int:
    """Poll once per second, then report the outcome in one line on stderr."""
    import ray

    deadline = time.monotonic() + seconds
    alive, problem = 0, "no answer"
    while time.monotonic() < deadline:
        try:
            if not ray.is_initialized():
                ray.init(address=os.environ["RAY_ADDRESS"], logging_level=logging.ERROR, log_to_driver=False)
            alive = sum(node["Alive"] for node in ray.nodes())
            problem = f"{alive} of {wanted} nodes"
        except (ConnectionError, RuntimeError, ValueError) as error:
            problem = str(error).splitlines()[0]
        if alive >= wanted:
            print(f"Ray at {os.environ['RAY_ADDRESS']}: {alive} nodes", file=sys.stderr)
            return 0
        time.sleep(1)
    log = os.environ["RAY_LOG"]
    print(f"Ray at {os.environ['RAY_ADDRESS']}: {problem} after {seconds:.0f} s; see {log}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
