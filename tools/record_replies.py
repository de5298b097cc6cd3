"""Records the replies that the docs show: serves the small chat model, and lets the page nbs/howto/llm_writers.ipynb ask it."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import papermill

ROOT = Path(__file__).resolve().parents[1]
NAME = "small-chat-2m"


def main(model: str, replies: str) -> None:
    "Serve `model` under its name, run the page against it, and leave the replies in `replies`."
    with tempfile.TemporaryDirectory() as place, socket.socket() as free:
        shutil.copytree(ROOT / model, Path(place) / NAME)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [str(Path(sys.executable).parent / "transformers"), "serve", f"./{NAME}", "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--default-seed", "0"]
        with open(Path(place) / "log", "w+") as log:
            server = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            try:
                for _ in range(600):
                    if server.poll() is not None:
                        raise SystemExit(f"the server ended:\n{(Path(place) / 'log').read_text()[-2000:]}")
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                        break
                    except OSError:
                        time.sleep(0.2)
                page = ROOT / "nbs" / "howto" / "llm_writers.ipynb"
                papermill.execute_notebook(page, Path(place) / "out.ipynb", {"base_url": f"http://127.0.0.1:{port}/v1", "replies": replies}, cwd=ROOT,
                                           kernel_name="python3", progress_bar=False)
            finally:
                server.terminate()
                server.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
