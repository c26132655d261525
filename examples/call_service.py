"""Start the HTTP service on a free port and call it with the Python client.

    .venv/bin/python examples/call_service.py

If a service is already running, you need only the client part and only the `client` extra.
"""

from __future__ import annotations

import socket
import subprocess
import sys

from augment_service import Client


def main() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    service = subprocess.Popen([sys.executable, "-m", "augment_service", "serve", "--port", str(port)])
    try:
        # The client repeats a request that the service cannot answer yet, so this waits until the models are loaded.
        with Client(f"http://127.0.0.1:{port}", max_tries=60) as client:
            for result in client.augment(["a gripping and honest film"], n_a=3, seed=7, filter="whole-words"):
                for sample in result.samples:
                    print(sample.text_a, [(one.word, one.candidate) for one in sample.replaced])
            (sets,) = client.candidates(["a gripping and honest film"], k=5)
            for word in sets.text_a.words:
                print(f"{word.word}: {', '.join(word.candidates)}")
    finally:
        # SIGTERM: the service finishes the requests it has accepted, then exits.
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main()
