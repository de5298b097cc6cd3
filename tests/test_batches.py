"""The Batch API: files within the limits, resumed at every step, partial answers kept, nothing submitted twice."""
import json
import os
import random

import pytest
from chat_server import ChatServer, status
from test_chat import ask

from expblip.batches import BatchClient, Job, request_line, split
from expblip.prices import Price
from expblip.replies import Failure, Reply, ReplyStore, Stopped


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-of-no-value")

def client(path, server, **settings) -> BatchClient:
    return BatchClient(path / "store", path / "batches", server.url, **{"every": .01, **settings})

def texts(n: int) -> list: return [ask(f"q {i}") for i in range(n)]

def test_split_keeps_the_limits():
    rng = random.Random(0)
    for _ in range(200):
        lines = [b"x" * rng.randint(1, 40) for _ in range(rng.randint(0, 60))]
        most, size = rng.randint(1, 9), rng.randint(40, 200)
        parts = list(split(lines, most, size))
        assert [line for part in parts for line in part] == lines
        assert all(0 < len(part) <= most and sum(map(len, part)) <= size for part in parts)
        for part, after in zip(parts, parts[1:]):  # no file ends early
            assert len(part) == most or sum(map(len, part)) + len(after[0]) > size

def test_request_line_is_what_chat_sends():
    line = json.loads(request_line(question := ask("a", variant=3)))
    assert line == {"custom_id": question.key, "method": "POST", "url": "/v1/chat/completions", "body": question.body()}

def test_answers_reach_the_store(tmp_path):
    "Files of 40, answers in another order, equal questions once; and nothing is asked again."
    with ChatServer() as server:
        one = client(tmp_path, server, most_requests=40)
        results = one.ask([*texts(100), ask("q 3")])
        assert [r.text for r in results] == [f"reply to q {i}" for i in range(100)] + ["reply to q 3"]
        assert [b["request_counts"]["total"] for b in server.batches.values()] == [40, 40, 20] and set(server.calls.values()) == {1}
        assert {b["completion_window"] for b in server.batches.values()} == {"24h"} and {j.status for j in one.jobs} == {"done"}
        assert [r.text for r in client(tmp_path, server).ask(texts(101))] == [f"reply to q {i}" for i in range(101)]
        assert server.calls["q 100"] == 1 and server.total == 101 and ReplyStore(tmp_path / "store").check() == 101

def test_partial_answers(tmp_path):
    "Errors, an expired part, missing lines, an answer without choices: failures, each with its reason; asked again, only those are sent."
    script = {"q 1": [status(400, "too long")], "q 2": ["expired"], "q 3": ["drop"], "q 4": ["empty"]}
    with ChatServer(script) as server:
        server.end = "expired"
        results = client(tmp_path, server).ask(texts(10))
        assert [r.kind if isinstance(r, Failure) else "" for r in results] == ["", "status 400", "batch_expired", "missing", "answer", *[""] * 5]
        assert results[1].reason == "too long" and len(ReplyStore(tmp_path / "store")) == 6
        server.script, sent = {}, server.total
        assert all(isinstance(r, Reply) for r in client(tmp_path, server).ask(texts(10)))
        assert sorted(server.order[sent:]) == ["q 1", "q 2", "q 3", "q 4"]

def test_refused_batch(tmp_path):
    with ChatServer() as server:
        server.end, server.refusal = "failed", "enqueued token limit reached"
        results = client(tmp_path, server).ask(texts(3))
        assert [(r.kind, r.reason) for r in results] == [("batch", "enqueued token limit reached")] * 3

STEPS = ["split", "upload", "submit", "submitted", "poll", "fetch", "add"]

@pytest.mark.parametrize("step", STEPS)
def test_stopped_at_any_step(tmp_path, monkeypatch, step):
    "An end without warning before or after each step: called again it goes on, and no question is submitted twice."
    class Killed(BaseException): pass
    def die(*_, **__): raise Killed
    with ChatServer() as server, monkeypatch.context() as patch:
        one = client(tmp_path, server, most_requests=10)
        if step == "split": patch.setattr("expblip.batches.write_json", die)
        if step == "upload": patch.setattr("openai.resources.files.Files.create", die)
        if step == "submit": patch.setattr("openai.resources.batches.Batches.create", die)
        if step == "submitted":  # the server has it, we have not heard
            from openai.resources.batches import Batches
            create = Batches.create
            patch.setattr("openai.resources.batches.Batches.create", lambda *a, **k: die(create(*a, **k)))
        if step == "poll": patch.setattr("openai.resources.batches.Batches.retrieve", die)
        if step == "fetch": patch.setattr("openai.resources.files.Files.content", die)
        if step == "add": patch.setattr(ReplyStore, "add", die)
        with pytest.raises(Killed): one.ask(texts(25))
        patch.undo()
        os.environ["OPENAI_API_KEY"] = "test-key-of-no-value"
        results = client(tmp_path, server, most_requests=10).ask(texts(25))
        assert [r.text for r in results] == [f"reply to q {i}" for i in range(25)]
        assert set(server.calls.values()) == {1} and len(server.batches) == 3

def test_a_longer_list_while_batches_are_under_way(tmp_path):
    "What is under way is not submitted again, whatever is asked beside it; a reply nobody asks for now waits in its file."
    with ChatServer() as server:
        server.end = "in_progress"
        with pytest.raises(Stopped, match="still under way"): client(tmp_path, server, patience=.05).ask(texts(10))
        server.end = "completed"
        assert [r.text for r in client(tmp_path, server).ask([ask("q 12"), ask("q 2")])] == ["reply to q 12", "reply to q 2"]
        assert server.total == 11 and len(ReplyStore(tmp_path / "store")) == 2
        assert all(isinstance(r, Reply) for r in client(tmp_path, server).ask(texts(13))) and server.total == 13

def test_budget(tmp_path):
    with ChatServer() as server:
        with pytest.raises(Stopped, match="the budget is 0.001. Nothing was submitted"):
            client(tmp_path, server, price=Price("tiny", 2, 8, .5), budget=.001).ask(texts(100))
        assert not server.files and not server.batches
        client(tmp_path, server, price=Price("tiny", 2, 8, .5), budget=1).ask(texts(100))
        assert server.total == 100

def test_server_says_no(tmp_path):
    with ChatServer({"batch": [status(401, "bad {key}")]}) as server:
        with pytest.raises(Stopped, match="AuthenticationError") as stop: client(tmp_path, server).ask(texts(3))
        assert "test-key-of-no-value" not in str(stop.value) and stop.value.__context__ is None
        assert len(client(tmp_path, server).ask(texts(3))) == 3 and server.total == 3

def test_one_process_at_a_time(tmp_path):
    import fcntl
    (tmp_path / "batches").mkdir()
    with open(tmp_path / "batches" / ".lock", "a") as file, ChatServer() as server:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process"): client(tmp_path, server).ask(texts(1))

def test_a_damaged_file_of_answers(tmp_path):
    with ChatServer() as server:
        one = client(tmp_path, server)
        one.ask(texts(3))
        one.jobs[0] = Job(**{**vars(one.jobs[0]), "status": "completed"})
        one.save()
        (tmp_path / "batches" / "output-0000.jsonl").write_text('{"custom_id": "a"}\n{"cust')
        (tmp_path / "store" / "replies.jsonl").unlink()
        with pytest.raises(ValueError, match=r"output-0000\.jsonl, line 2: not an answer of a batch"): client(tmp_path, server).ask(texts(3))
        (tmp_path / "batches" / "output-0000.jsonl").unlink()
        assert all(isinstance(r, Reply) for r in client(tmp_path, server).ask(texts(3))) and server.total == 3

def test_answers_of_another_name_are_kept_until_it_is_accepted(tmp_path):
    "A server may call the model otherwise; what was paid for is not paid for again."
    script = {f"q {i}": ["model"] * 9 for i in range(6)}
    with ChatServer(script) as server:
        first = client(tmp_path, server).ask(texts(6))
        assert {r.kind for r in first} == {"model"} and "llm_accept" in first[0].reason and len(ReplyStore(tmp_path / "store")) == 0
        again = client(tmp_path, server).ask(texts(6))
        assert {r.kind for r in again} == {"model"} and len(server.batches) == 1
        accepted = client(tmp_path, server, accept=("another-model",)).ask(texts(6))
        assert all(isinstance(r, Reply) for r in accepted) and len(server.batches) == 1 and len(ReplyStore(tmp_path / "store")) == 6

@pytest.mark.parametrize("end", ["failed", "expired"])
def test_a_batch_that_ended_badly_frees_its_questions(tmp_path, end):
    "Also when fewer are asked afterwards, since that is how one gets below a provider's limit; what it did answer is kept."
    with ChatServer({f"q {i}": ["expired"] for i in range(4, 8)} if end == "expired" else {}) as server:
        server.end, server.refusal = end, "token limit" if end == "failed" else ""
        client(tmp_path, server).ask(texts(8))
        server.end, server.refusal = "completed", ""
        results = client(tmp_path, server).ask(texts(6))
        assert all(isinstance(r, Reply) for r in results)
        sent = [b["request_counts"]["total"] for b in server.batches.values()]
        assert sent == ([0, 6] if end == "failed" else [8, 2])  # the server counts nothing of what it refuses as a whole
