"""`writer=llm` in the stage notebooks: against a server, then from the recording alone; priced first; nothing of the key anywhere."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from expblip.facs import parse
from expblip.records import check_records, read_captions, write_captions, write_records
from expblip.replies import ReplyStore
from expblip.synthesis import GrammarWriter, dice

ROOT = Path(__file__).resolve().parents[1]
KEY = "canary-key-0123456789"
GRAMMAR = GrammarWriter()


class Server(BaseHTTPRequestHandler):
    "An OpenAI-compatible server. It answers well, except the first time about AU4, and says who asked."
    calls: list[dict] = []
    keys: set[str] = set()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.calls.append(asked)
        Server.keys.add(self.headers["Authorization"])
        prompt, chance = asked["messages"][-1]["content"], dice(str(asked["seed"]))
        if "Emotion Sentence" in prompt:
            text = GRAMMAR.fuse(*(line.split(": ", 1)[1].strip('"') for line in prompt.splitlines()[-2:]), chance)
        else:
            aus = [int(name.strip().removeprefix("AU")) for name in prompt.rsplit("which contains ", 1)[1].split(" in 1-9")[0].split(",")]
            text = "AU4 is active." if 4 in aus and asked["seed"] < 1000 else GRAMMAR.au_caption(aus, chance)
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": asked["model"],
                  "usage": {"prompt_tokens": 300, "completion_tokens": 20},
                  "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        "Say nothing."


@pytest.fixture
def address(monkeypatch):
    "The server's address; the key is in the environment."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Server.calls, Server.keys = [], set()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    "Records with labels of both kinds, and the specialists' captions, in a project of their own."
    (tmp_path / "data").mkdir()
    for name in ("settings.ini", "data/prices.csv"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    rows = [{"id": f"r{i}", "image": f"{i}.png", "dataset": "d", "split": ("train", "train", "val", "test")[i % 4],
             "au_present": aus, "au_absent": [28], "emotions": None} for i, aus in enumerate([[12, 25], [4, 7], [1, 2], []] * 6)]
    rows += [{**rows[0], "id": f"e{i}", "au_present": None, "au_absent": None, "emotions": [name]} for i, name in enumerate(["fear", "anger"] * 3)]
    records = check_records(pd.DataFrame(rows))
    write_records(records, tmp_path / "outputs/data/records.parquet")
    for name, aspect, text, rows in (("au", "au", "It is a people who drops jaw.", records[records["au_present"].isna()]),
                                     ("emot", "emotion", "The face shows surprise.", records[records["emotions"].isna()])):
        guess = pd.DataFrame({"id": "p/" + rows["id"], "record": rows["id"], "text": text, "aspect": aspect, "writer": "model", "use": "pseudo"})
        write_captions(guess.assign(model=name, provenance=""), tmp_path / f"outputs/{name}/pseudo.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SYNTHESIZE = {"records": "outputs/data", "out": "outputs/synthesize"}
FUSE = {"records": "outputs/data", "captions": "outputs/synthesize", "pseudo_au": "outputs/au", "pseudo_emot": "outputs/emot", "model": "exp",
        "out": "outputs/fuse"}


def play(stage: str, **params) -> dict:
    "Run a stage notebook's cells here; its variables."
    from IPython.display import display
    names = {"display": display}
    for cell in json.loads((ROOT / f"nbs/stages/{stage}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            try:
                exec("".join(cell["source"]), names)
            except SystemExit:
                break
            names |= params if "parameters" in cell["metadata"].get("tags", []) else {}
    return names


def test_both_stages_live_and_then_from_the_recording_alone(project, address, monkeypatch, capsys):
    live = {"writer": "llm", "llm_model": "tiny", "base_url": address, "price": "local", "variants": 2}
    play("20_synthesize", **SYNTHESIZE, **live)
    store = ReplyStore(project / "outputs/replies")
    assert 3 <= len(Server.calls) == len(store) <= 3 * 2 + 2 and Server.keys == {f"Bearer {KEY}"}
    play("60_fuse", **FUSE, **live)
    asked = len(Server.calls)
    assert len(ReplyStore(project / "outputs/replies")) == asked
    captions = read_captions(project / "outputs/synthesize/captions.parquet")
    mine = captions[captions["writer"] == "llm"]
    labels = {"r" + str(i): aus for i, aus in enumerate([{12, 25}, {4, 7}, {1, 2}, set()] * 6)}
    assert set(mine["record"]) == {record for record, aus in labels.items() if aus}
    assert all(parse(text).aus == labels[record] for text, record in zip(mine["text"], mine["record"]))
    ready = read_captions(project / "outputs/fuse/captions.parquet")
    assert set(ready["writer"]) == {"llm"} and set(ready["pseudo"]) == {"au", "emotion"}
    rejected = pd.read_csv(project / "outputs/synthesize/rejected.csv")
    assert set(rejected["about"]) == {"AU4, AU7"} and set(rejected["reason"]) == {"says AU"} and set(rejected["then"]) == {"asked again"}
    facts = json.loads((project / "outputs/synthesize/llm.json").read_text())
    assert (facts["model"], facts["temperature"], facts["seed"], facts["answered"]) == ("tiny", 1, 0, {"tiny": len(store)})
    figures = {entry["name"]: entry["value"] for entry in json.loads((project / "outputs/synthesize/results.json").read_text())}
    assert figures["synthesize/llm/images"] == 18 and figures["synthesize/llm/prompts"] == 3 and figures["synthesize/llm/faithful"] == 1
    files = {path: path.read_bytes() for path in (project / "outputs").rglob("*") if path.is_file()}
    assert KEY not in capsys.readouterr().out and not [path for path, data in files.items() if KEY.encode() in data]
    # and once more without key and server
    monkeypatch.delenv("OPENAI_API_KEY")
    offline = live | {"base_url": None}
    play("20_synthesize", **SYNTHESIZE, **offline)
    play("60_fuse", **FUSE, **offline)
    assert len(Server.calls) == asked
    assert [path.name for path, data in files.items() if path.read_bytes() != data] == []


def test_the_price_is_said_and_nobody_asked(project, address, capsys):
    play("20_synthesize", **SYNTHESIZE, writer="llm", llm_model="gpt-4o-mini", variants=1, dry_run=True)
    said = capsys.readouterr().out
    assert "gpt-4o-mini: 3 questions, 3 distinct, 0 in the store, 3 calls" in said and "absent: dry run: nobody was asked" in said
    assert Server.calls == [] and not (project / "outputs/synthesize/captions.parquet").exists()
    assert "dry run" in json.loads((project / "outputs/synthesize/absent.json").read_text())["reason"]


def test_the_same_parameters_choose_how_it_is_asked(project):
    from expblip.config import stage_config
    from expblip.llm_writer import stage_writer
    given = {"writer": "llm", "llm_model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1", "budget": 2.5, "out": "outputs/run/shared/synthesize"}
    one, many = (stage_writer(stage_config("synthesize", device="cpu", batch_api=batch, **given), project).asker for batch in (False, True))
    assert [type(ask.asker).__name__ for ask in (one, many)] == ["ChatClient", "BatchClient"]
    assert one.asker.budget == many.asker.budget == 2.5 and one.asker.price == many.asker.price == many.price and many.batch
    assert Path(many.asker.folder) == project / "outputs/replies/batches/outputs-run-shared-synthesize"


def test_a_model_without_a_price_is_not_asked(project):
    from expblip.prices import PriceError
    with pytest.raises(PriceError, match="no price for model 'tiny'"):
        play("20_synthesize", **SYNTHESIZE, writer="llm", llm_model="tiny", base_url="http://127.0.0.1:9/v1")


def test_without_a_budget_nothing_is_paid(project, address):
    from expblip.replies import Stopped
    with pytest.raises(Stopped, match="budget of 0 dollars"):
        play("20_synthesize", **SYNTHESIZE, writer="llm", llm_model="gpt-4o-mini", base_url=address)
    assert Server.calls == [] and not (project / "outputs/synthesize/captions.parquet").exists()


def test_nothing_recorded_is_said_clearly(project):
    from expblip.replies import MissingReplies
    with pytest.raises(MissingReplies, match="have no recorded reply"):
        play("20_synthesize", **SYNTHESIZE, writer="llm", llm_model="tiny")


@pytest.mark.slow
def test_the_pipeline_records_the_model_and_nothing_of_the_key(project, address):
    for name in ("expblip", "nbs", "pipeline.yaml", "dodo.py", "pyproject.toml"):
        (project / name).symlink_to(ROOT / name)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    knobs = {"writer": "llm", "llm_model": "tiny", "base_url": address, "price": "local", "temperature": "0.7"}
    options = [part for name, value in knobs.items() for part in ("-p", f"synthesize.{name}={value}")]
    command = [sys.executable, "-m", "expblip.pipeline", "run", "--run", "llm", "--scale", "smoke", "--only", "synthesize", *options]
    got = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    manifest = json.loads((project / "outputs/llm/shared/synthesize/manifest.json").read_text())
    assert manifest["llm"]["model"] == "tiny" and manifest["llm"]["temperature"] == .7 and manifest["llm"]["seed"] == 0
    assert sum(manifest["llm"]["answered"].values()) == len(Server.calls) > 0 and Server.keys == {f"Bearer {KEY}"}
    hits = [str(path) for path in (project / "outputs").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert hits == [] and KEY not in got.stdout + got.stderr


def test_a_failed_pipeline_shows_the_cause_and_nothing_of_the_key(project, monkeypatch):
    "A server that refuses the key, and repeats it in its answer: the failed notebook with its traceback, logs and output hold none of it."
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            told = {"message": f"Incorrect API key provided: {KEY}", "type": "invalid_request_error", "code": "invalid_api_key"}
            body = json.dumps({"error": told})
            self.send_response(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_): pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("expblip", "nbs", "pipeline.yaml", "dodo.py", "pyproject.toml"):
        (project / name).symlink_to(ROOT / name)
    knobs = {"writer": "llm", "llm_model": "tiny", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "price": "local"}
    options = [part for name, value in knobs.items() for part in ("-p", f"synthesize.{name}={value}")]
    command = [sys.executable, "-m", "expblip.pipeline", "run", "--run", "llm", "--scale", "smoke", "--only", "synthesize", *options]
    got = subprocess.run(command, cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert got.returncode == 1 and "FAILED shared/synthesize" in got.stdout and "key" in got.stdout
    failed = project / "outputs/llm/shared/synthesize/notebook.failed.ipynb"
    assert "Traceback" in failed.read_text() or '"output_type": "error"' in failed.read_text()
    hits = [str(path) for path in project.rglob("*") if path.is_file() and not path.is_symlink() and "nbs" not in path.parts
            and "expblip" not in path.parts and KEY.encode() in path.read_bytes()]
    assert hits == [] and KEY not in got.stdout + got.stderr
