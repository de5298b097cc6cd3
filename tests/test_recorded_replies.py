"The replies that ship: real ones of the small chat model, labelled with its name, small, and enough to show the page without key or socket."
import json
from pathlib import Path

import papermill
import pytest

from expblip.replies import ReplyStore

ROOT = Path(__file__).resolve().parents[1]


def test_every_reply_says_which_model_wrote_it_and_it_is_no_gpt():
    store = ReplyStore(ROOT / "data" / "replies")
    assert store.check() == len(store) > 150
    for reply in store:
        assert reply.asked_model == "./small-chat-2m" and reply.model.startswith("./small-chat-2m") and reply.base.startswith("127.0.0.1:")
        assert reply.when.startswith("2026-") and reply.completion_tokens > 0
    assert (ROOT / "data/replies/replies.jsonl").stat().st_size < 400_000


def test_the_page_replays_them_without_key_or_socket(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"): monkeypatch.delenv(name, raising=False)
    page = ROOT / "nbs" / "howto" / "llm_writers.ipynb"
    guarded = json.loads(page.read_text())
    guard = ("import socket\n_own = socket.socket.connect\ndef _refuse(self, where):\n"
             "    if self.family != socket.AF_UNIX: raise RuntimeError(f'a socket to {where}')\n    return _own(self, where)\n"
             "socket.socket.connect = _refuse")
    at = next(i for i, cell in enumerate(guarded["cells"]) if "parameters" in cell["metadata"].get("tags", ()))
    guarded["cells"].insert(at + 1, {"cell_type": "code", "id": "0a0a0a0a", "metadata": {}, "source": guard, "outputs": [], "execution_count": None})
    (tmp_path / "page.ipynb").write_text(json.dumps(guarded))
    papermill.execute_notebook(tmp_path / "page.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False, cwd=ROOT)
    shown = json.loads((tmp_path / "out.ipynb").read_text())
    said = "".join("".join(o.get("data", {}).get("text/plain", "")) for cell in shown["cells"] for o in cell.get("outputs", []))
    assert "cut off" in said and "grammar" in said


def test_another_question_is_said_to_be_missing(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="MissingReplies: .*another"):
        papermill.execute_notebook(ROOT / "nbs/howto/llm_writers.ipynb", tmp_path / "out.ipynb", {"llm_model": "./another"},
                                   kernel_name="python3", progress_bar=False, cwd=ROOT)
