"""The chat client against a server that misbehaves on purpose: nothing lost, nothing paid twice, every call counted."""
import asyncio
import email.utils
import io
import itertools
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path

import pytest
from chat_server import ChatServer, status

from expblip.chat import ChatClient
from expblip.prices import Price, answer_bound, token_bound
from expblip.replies import Failure, Question, Replay, Reply, ReplyStore, Stopped
from expblip.servers import KeyFault

ROOT = Path(__file__).resolve().parents[1]
CANARY = "sk-" "canary-0123456789abcdef"  # in two pieces: this file is searched for keys, too


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-of-no-value")

def ask(text: str, **more) -> Question:
    return Question([("system", "You describe faces."), ("user", text)], "tiny", {"max_tokens": 9, "seed": 1}, **more)

def client(store, server, **settings) -> ChatClient:
    return ChatClient(store, server.url, **{"show": False, "max_retries": 2, "max_failures": 10 ** 6, "timeout": 20, **settings})

# ---------------------------------------------------------------- faults

PAST, SOON = "Wed, 21 Oct 2015 07:28:00 GMT", email.utils.formatdate(time.time() + 1, usegmt=True)
QUICK = {"retry_after_ms": "1"}
AGAIN = {  # what is asked again: fault -> whether the call may have been billed
    "408": (status(408, **QUICK), 0), "409": (status(409, **QUICK), 0), "429": (status(429, **QUICK), 0),
    "429 .01": (status(429, retry_after="0.01"), 0), "429 1": (status(429, retry_after="1"), 0), "429 0": (status(429, retry_after="0"), 0),
    "429 -5": (status(429, retry_after="-5"), 0), "429 nan": (status(429, retry_after="nan"), 0), "429 inf": (status(429, retry_after="inf"), 0),
    "429 -inf": (status(429, retry_after="-inf"), 0), "429 past": (status(429, retry_after=PAST), 0), "429 soon": (status(429, retry_after=SOON), 0),
    "429 words": (status(429, retry_after="a while"), 0), "429 bare": (status(429), 0), "500": (status(500, **QUICK), 0),
    "502": (status(502, **QUICK), 0), "503": (status(503, **QUICK), 0), "503 nan": (status(503, retry_after="nan"), 0),
    "reset": ("reset", 1), "cut": ("cut", 1)}
ONCE = {  # what is not: fault -> kind of failure, whether it may have been billed
    "400": (status(400), "status 400", 0), "422": (status(422), "status 422", 0), "truncated": ("truncated", "answer", 1),
    "empty": ("empty", "answer", 1), "html": ("html", "answer", 1), "list": ("list", "answer", 1)}
KEPT = {"refusal": "refusal", "filtered": "content_filter", "silent": "stop", "length": "length"}  # a reply all the same: its finish

def test_grid(tmp_path):
    "Over 200 faults among good questions, asked at once: exact calls for each, order kept, every reply in the store."
    script, calls, unsure, kinds = {}, {}, {}, {}
    def plan(text, faults, n, billed, kind): script[text], calls[text], unsure[text], kinds[text] = faults, n, billed, kind
    for (name, (fault, billed)), times, k in itertools.product(AGAIN.items(), (1, 2, 3), range(2)):
        plan(f"{name} x{times} #{k}", [fault] * times, min(times + 1, 3), billed * times, "reply" if times < 3 else "status " + name[:3])
    for (a, (one, x)), (b, (two, y)) in itertools.product(list(AGAIN.items())[::4], list(AGAIN.items())[1::5]):
        plan(f"{a} then {b}", [one, two], 3, x + y, "reply")
    for (name, (fault, kind, billed)), before in itertools.product(ONCE.items(), ("", "503", "reset")):
        plan(f"{before}>{name}", ([AGAIN[before][0]] if before else []) + [fault], 1 + bool(before), billed + (before == "reset"), kind)
    for name in KEPT: plan(name, [name], 1, 0, "reply")
    for name in ("reset", "cut"):
        for k in range(2): kinds[f"{name} x3 #{k}"] = "connection"
    injected = sum(map(len, script.values()))
    assert injected >= 200
    texts = [*script, *(f"fine {i}" for i in range(60))]
    random.Random(0).shuffle(texts)
    with ChatServer(script) as server:
        one = client(tmp_path, server, concurrency=48)
        results = one.ask([ask(text) for text in texts])
        assert dict(server.calls) == {text: calls.get(text, 1) for text in texts}
        assert one.tally.calls == server.total and one.tally.unsure == sum(unsure.values())
        assert server.most_under_way <= 48
        for text, result in zip(texts, results, strict=True):
            assert result.key == ask(text).key
            assert ("reply" if isinstance(result, Reply) else result.kind) == kinds.get(text, "reply"), text
            if isinstance(result, Failure): assert result.calls == calls[text]
            elif text in KEPT: assert result.finish == KEPT[text]
            else: assert result.text == f"reply to {text}" and (result.asked_model, result.base) == ("tiny", f"127.0.0.1:{server.server_port}")
        kept = {r.key for r in results if isinstance(r, Reply)}
        assert {r.key for r in ReplyStore(tmp_path)} == kept and one.tally.replies == len(kept) and one.tally.failures == len(texts) - len(kept)
        assert one.tally.retries == server.total - len(texts)
        # asked again, only what failed is asked, and now all is well
        before, failed = server.total, [text for text, r in zip(texts, results, strict=True) if isinstance(r, Failure)]
        server.script = {}
        again = one.ask([ask(text) for text in texts])
        assert server.total - before == len(failed) == one.last.calls and all(isinstance(r, Reply) for r in again)
        assert [r.text for r, old in zip(again, results, strict=True) if isinstance(old, Reply)] == [r.text for r in results if isinstance(r, Reply)]

def test_no_wait_is_long(tmp_path):
    "A Retry-After that is negative, nan, infinite or past costs the usual short pause."
    faults = ["429 -5", "429 nan", "429 inf", "429 -inf", "429 past", "429 words", "503 nan"]
    with ChatServer({name: [AGAIN[name][0]] * 2 for name in faults}) as server:
        begin = time.monotonic()
        assert all(isinstance(r, Reply) for r in client(tmp_path, server).ask([ask(name) for name in ["first", *faults]]))
        assert time.monotonic() - begin < 10

def test_slow_and_trickle(tmp_path):
    "A time-out is repeated and counted as unsure; a trickle that never times out ends at the deadline."
    with ChatServer({"slow": ["slow"], "slower": ["slow"] * 9, "trickle": ["trickle"]}) as server:
        one = client(tmp_path, server, timeout=.8, max_retries=1)
        good, bad = one.ask([ask("slow"), ask("slower")])
        assert good.text == "reply to slow" and bad.kind == "time-out" and bad.calls == 2
        assert one.tally.calls == server.total == 4 and one.tally.unsure == 3
        begin = time.monotonic()
        two = client(tmp_path, server, deadline=.7)
        assert two.ask([ask("trickle")])[0].kind == "deadline" and time.monotonic() - begin < 5
        assert (two.tally.calls, two.tally.unsure) == (1, 1)

def test_nobody_there(tmp_path):
    "Refused connections were never sent: calls, but none that may have been billed; after some in a row asking stops."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one = ChatClient(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}/v1", max_retries=0, max_failures=5, concurrency=1, show=False)
        with pytest.raises(Stopped, match="5 questions in a row failed.*ConnectError") as stop:
            one.ask([ask(f"{i}") for i in range(1000)])
    assert stop.value.kind == "failures" and (one.tally.calls, one.tally.unsure) == (5, 0)

# ---------------------------------------------------------------- stops

HOPELESS = {
    "wrong key": ([status(401, "bad key")], "key", 1), "no right": ([status(403)], "key", 1), "no such model": ([status(404)], "model", 1),
    "another model": (["model"], "model", 1), "quota": ([status(429, "quota used up", **QUICK)] * 3, "quota", 3),
    "an hour": ([status(429, retry_after="3600")], "wait", 1), "huge": ([status(503, retry_after="1e12")], "wait", 1),
    "next year": ([status(429, retry_after=email.utils.formatdate(time.time() + 3e7, usegmt=True))], "wait", 1)}

@pytest.mark.parametrize("name", HOPELESS)
def test_stops_at_the_first(tmp_path, name):
    "10,000 questions, a hopeless answer to the first: one clear error, and nobody asks the rest."
    faults, kind, calls = HOPELESS[name]
    with ChatServer({"q 0": faults}) as server:
        one = client(tmp_path, server, concurrency=32)
        with pytest.raises(Stopped, match="10,000 of 10,000 questions have no reply") as stop:
            one.ask([ask(f"q {i}") for i in range(10_000)])
        assert stop.value.kind == kind and server.total == calls == one.tally.calls and len(stop.value.results) == 10_000

def test_stops_in_the_middle(tmp_path):
    "A key that is revoked after 50 questions: nobody asks twice, what came is kept; asked again, the rest is asked."
    texts = [f"q {i}" for i in range(150)]
    with ChatServer({f"q {i}": [status(401)] for i in range(50, 150)}) as server:
        one = client(tmp_path, server, concurrency=8)
        with pytest.raises(Stopped) as stop: one.ask([ask(t) for t in texts])
        replies = [r for r in stop.value.results if isinstance(r, Reply)]
        assert len(replies) == len(one.store) == 50 and 51 <= server.total <= 50 + 8
        server.script, sent = {}, server.total
        assert all(isinstance(r, Reply) for r in one.ask([ask(t) for t in texts])) and server.total - sent == 100

def test_failures_in_a_row(tmp_path):
    with ChatServer({f"q {i}": [status(400, "unknown parameter")] for i in range(1000)}) as server:
        one = client(tmp_path, server, max_failures=10, concurrency=4)
        with pytest.raises(Stopped, match="in a row failed, the last with: .*unknown parameter") as stop:
            one.ask([ask(f"q {i}") for i in range(1000)])
        assert stop.value.kind == "failures" and 10 <= server.total <= 14

def test_accepted_name(tmp_path):
    with ChatServer({"a": ["model"]}) as server:
        reply, = client(tmp_path, server, accept=["another-model"]).ask([ask("a")])
        assert (reply.asked_model, reply.model) == ("tiny", "another-model")

def test_settings_at_fault(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="concurrency=0: must be at least 1"): ChatClient(tmp_path, concurrency=0)
    with pytest.raises(ValueError, match="max_retries=-1"): ChatClient(tmp_path, max_retries=-1)
    with pytest.raises(ValueError, match="a budget needs the price"): ChatClient(tmp_path, budget=1)
    with pytest.raises(ValueError, match="must begin with http"): ChatClient(tmp_path, "localhost:1/v1").ask([ask("a")])
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(KeyFault, match="OPENAI_API_KEY is not set"): ChatClient(tmp_path).ask([ask("a")])
    monkeypatch.setenv("OPENAI_API_KEY", CANARY + "\nx")
    with pytest.raises(KeyFault, match="a character that no key has") as fault: ChatClient(tmp_path).ask([ask("a")])
    said = "".join(traceback.TracebackException.from_exception(fault.value, capture_locals=True).format())
    assert CANARY not in said

# ---------------------------------------------------------------- what is sent, asked once, kept

def test_what_is_sent(tmp_path):
    with ChatServer() as server:
        client(tmp_path, server).ask([Question([("user", "a")], "tiny", {"seed": 5, "temperature": .5, "top_k": 3, "stop": ["x"]}, 2, 1)])
        assert server.bodies == [{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "seed": 1007, "temperature": .5, "top_k": 3,
                                  "stop": ["x"]}]

def test_same_question_once(tmp_path):
    with ChatServer() as server:
        one = client(tmp_path, server)
        results = one.ask([ask("a"), ask("b"), ask("a"), ask("a", variant=1), ask("a")])
        assert server.total == 3 and results[0] == results[2] == results[4] != results[3]
        assert (one.tally.questions, one.tally.distinct) == (5, 3)
        assert one.ask([]) == [] and client(tmp_path, server).ask([ask("b")])[0].stored and server.total == 3

def test_replay_needs_no_key_and_no_socket(tmp_path, monkeypatch):
    with ChatServer() as server: client(tmp_path, server).ask([ask("a"), ask("b")])
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    assert [r.text for r in Replay(tmp_path).ask([ask("b"), ask("a"), ask("b")])] == ["reply to b", "reply to a", "reply to b"]
    with pytest.raises(LookupError, match="2 of 3 questions have no recorded reply"): Replay(tmp_path).ask([ask("a"), ask("x"), ask("y")])

def test_in_a_running_loop(tmp_path):
    with ChatServer() as server:
        async def cell():
            one = client(tmp_path, server)
            return [*one.ask([ask("a")]), *await one.ask_async([ask("b")])]
        assert [r.text for r in asyncio.run(cell())] == ["reply to a", "reply to b"]

def test_one_list_at_a_time(tmp_path):
    with ChatServer() as server:
        one = client(tmp_path, server)
        async def both(): return await asyncio.gather(one.ask_async([ask("a")]), one.ask_async([ask("b")]))
        with pytest.raises(RuntimeError, match="is asking already"): asyncio.run(both())
        assert not one.busy and one.ask([ask("c")])[0].text == "reply to c"

# ---------------------------------------------------------------- budget

@pytest.mark.parametrize("share", [.02, .3, .7, 1.2])
def test_budget_is_kept(tmp_path, share):
    "What the server bills, with every unsure call at its maximum, stays within the budget; and the budget is used."
    price, rng = Price("tiny", 3.0, 11.0), random.Random(7)
    texts = ["q" * rng.randint(5, 400) + f" {i}" for i in range(150)]
    script = {t: [rng.choice(["cut", "truncated", "nousage", status(503, **QUICK), "ok", "ok"]), "ok"] for t in texts}
    once = {t: price.cost(token_bound(ask(t)), answer_bound(ask(t))) for t in texts}
    budget = share * sum(once.values())
    with ChatServer(script) as server:
        one = client(tmp_path, server, price=price, budget=budget, concurrency=16, max_retries=1)
        try: results, stopped = one.ask([ask(t) for t in texts]), False
        except Stopped as stop: results, stopped = stop.results, stop.kind == "budget"
        billed = sum(price.cost(*tokens) for tokens in server.billed)
        assert billed <= one.tally.cost <= budget and one.tally.calls == server.total
        assert sum(isinstance(r, Reply) for r in results) == len(one.store)
        if stopped: assert budget - one.tally.cost < 2 * max(once.values())  # it could not hold one more with its retry
        else: assert share > 1

def test_budget_too_small_asks_nobody(tmp_path):
    with ChatServer() as server:
        with pytest.raises(Stopped, match="does not hold another question"):
            client(tmp_path, server, price=Price("tiny", 1, 1), budget=1e-6).ask([ask("a")])
        with pytest.raises(ValueError, match="no limit for its answer"):
            client(tmp_path, server, price=Price("tiny", 1, 1)).ask([Question([("user", "a")], "tiny")])
        assert server.total == 0

def test_budget_is_for_all_calls_of_a_client(tmp_path):
    with ChatServer() as server:
        one = client(tmp_path, server, price=Price("tiny", 1, 1), budget=.0004)
        with pytest.raises(Stopped, match="budget"):
            for i in range(100): one.ask([ask(f"{i}")])
        assert one.tally.cost <= .0004 and 2 < server.total < 22

# ---------------------------------------------------------------- killed

ASK = textwrap.dedent("""
    import asyncio, os, sys; sys.path.insert(0, {tests!r})
    from test_chat import ask
    from expblip.chat import ChatClient
    url, store, concurrency = sys.argv[1:]
    one, questions = ChatClient(store, url, concurrency=int(concurrency), max_retries=0, show=False), [ask(f"q {{i}}") for i in range(60)]
    async def cell(): one.ask(questions)
    if "IN_A_LOOP" in os.environ: asyncio.new_event_loop().run_until_complete(cell())  # as a notebook does
    else: one.ask(questions)
    """).format(tests=str(ROOT / "tests"))

def start(server, store, concurrency=1, code=ASK, **env):
    return subprocess.Popen([sys.executable, "-c", code, server.url, str(store), str(concurrency)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **env})

@pytest.mark.parametrize("at,concurrency", [(1, 1), (23, 1), (60, 1), (31, 6)])
def test_kill_and_resume(tmp_path, at, concurrency):
    "kill -9 when request `at` reaches the server: the replies before are kept, and only the rest is asked again."
    with ChatServer() as server:
        process = start(server, tmp_path, concurrency)
        server.on_call = lambda count: count == at and os.kill(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        time.sleep(.05)
        sent, kept = server.total, len(ReplyStore(tmp_path))
        assert kept == at - 1 if concurrency == 1 else at - concurrency <= kept < at
        server.on_call = None
        one = client(tmp_path, server)
        results = one.ask([ask(f"q {i}") for i in range(60)])
        assert server.total - sent == 60 - kept == one.tally.calls and one.tally.stored == kept
        assert [r.text for r in results] == [f"reply to q {i}" for i in range(60)] and ReplyStore(tmp_path).check() == 60

@pytest.mark.parametrize("where", [{}, {"IN_A_LOOP": "1"}], ids=["script", "notebook"])
def test_interrupt(tmp_path, where):
    "Control-C: an end within seconds, no complaint about a closed loop, the store whole, calls under way given up."
    with ChatServer() as server:
        server.pause = .05
        process = start(server, tmp_path, 4, **where)
        server.on_call = lambda count: count == 20 and os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode != 0 and err.rstrip().endswith("KeyboardInterrupt") and "Event loop is closed" not in out + err
        server.on_call, sent, kept = None, server.total, ReplyStore(tmp_path).check()
        assert 10 <= kept <= 20
        client(tmp_path, server).ask([ask(f"q {i}") for i in range(60)])
        assert server.total - sent == 60 - kept

# ---------------------------------------------------------------- the key

LEAK = textwrap.dedent("""
    import sys, traceback; sys.path.insert(0, {tests!r})
    from test_chat import ask
    from expblip.chat import ChatClient
    from expblip.replies import Stopped
    url, store, _ = sys.argv[1:]
    one = ChatClient(store, url, max_retries=1, show=True)
    print(one, vars(one))
    print(one.ask([ask("echo"), ask("told"), ask("fine")]))
    print(one.tally)
    for text in ("refused", "model"):
        try: one.ask([ask(text)])
        except Stopped as stop:
            print(repr(stop), stop.results)
            print("".join(traceback.TracebackException.from_exception(stop, capture_locals=True).format()))
    one.ask([ask("refused again")])
    """).format(tests=str(ROOT / "tests"))

def test_canary_key(tmp_path):
    "A server that repeats the key in errors and answers, debug logging on, a crash: no trace of the key in any file or output."
    told = status(400, "your header was {key}")
    with ChatServer({"echo": ["echo"], "told": [told], "refused": [status(401, "bad {key}")], "refused again": [status(401, "bad {key}")],
                     "model": ["model"]}) as server:
        process = start(server, tmp_path / "run", code=LEAK, OPENAI_API_KEY=CANARY, OPENAI_LOG="debug", PYTHONFAULTHANDLER="1")
        out, err = process.communicate(timeout=60)
        assert server.keys == {f"Bearer {CANARY}"}  # it was really used
    assert process.returncode == 1 and "Stopped" in err and "***" in out and "your header was" in out
    (tmp_path / "out").write_text(out); (tmp_path / "err").write_text(err)
    searched = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(searched) == 3 and [p.name for p in searched if CANARY.encode() in p.read_bytes()] == []
    assert "your key is Bearer ***" in (tmp_path / "run" / "replies.jsonl").read_text()

def test_canary_key_in_a_notebook(tmp_path, monkeypatch):
    "An executed notebook that shows the client, its replies and two failures, in text and traceback."
    import nbformat
    from nbclient import NotebookClient
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = status(401, "bad {key}")
    with ChatServer({"echo": ["echo"], "no": [told], "never": [told]}) as server:
        cells = [f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom test_chat import ask\nfrom expblip.chat import ChatClient",
                 f"one = ChatClient({str(tmp_path / 'run')!r}, {server.url!r})\none, vars(one)", "one.ask([ask('echo')])",
                 "await one.ask_async([ask('no')])", "one.ask([ask('never')])", "one, one.tally"]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=120, allow_errors=True, kernel_name="python3").execute()
        assert server.keys == {f"Bearer {CANARY}"} and server.total == 3
    shown = nbformat.writes(notebook)
    assert shown.count("Correct the key in OPENAI_API_KEY") >= 2 and "your key is Bearer ***" in shown and CANARY not in shown
    assert CANARY.encode() not in (tmp_path / "run" / "replies.jsonl").read_bytes()

def test_client_holds_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with ChatServer() as server:
        one = client(tmp_path, server)
        one.ask([ask("a")])
        assert CANARY not in repr(one) and CANARY not in repr(vars(one)) and CANARY not in json.dumps(vars(one.tally))
        one.store = None
        assert CANARY.encode() not in pickle.dumps(one)

# ---------------------------------------------------------------- light

def test_imports_are_light():
    heavy = {"torch", "transformers", "openai", "pandas", "numpy"}
    for module in ("replies", "servers", "chat", "prices", "batches"):
        code = f"import sys, expblip.{module}; print(*sys.modules)"
        got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert got.returncode == 0 and f"expblip.{module}" in got.stdout and not heavy & set(got.stdout.split()), module

def test_progress_and_summary(tmp_path, capsys):
    with ChatServer() as server: (one := client(tmp_path, server, show=True, price=Price("tiny", 1, 1))).ask([ask(f"{i}") for i in range(5)])
    assert "replies 5/5 calls 5 dollars" in capsys.readouterr().out
    text = io.StringIO(); print(one.tally, file=text)
    assert "5 questions, 5 distinct, 0 from the store, 5 answered, 0 failed" in text.getvalue()

@pytest.mark.parametrize("usage, text", [({"prompt_tokens": float("inf"), "completion_tokens": 1}, "ok"),
                                         ({"prompt_tokens": -5, "completion_tokens": -7}, "ok"),
                                         ({}, "a smile \ud83d")])
def test_odd_answers_cost_nothing_and_stop_nothing(tmp_path, usage, text):
    "Half an emoji is no text, a number without end no count, and nobody pays less than nothing."
    from expblip.servers import read_answer
    body = {"model": "m", "usage": usage, "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    try:
        reply = read_answer(Question([("user", "x")], "m", {"max_tokens": 8}), body)
    except ValueError as error:
        assert "no chat completion" in str(error) and usage["prompt_tokens"] > 0
    else:
        assert reply.prompt_tokens >= 0 <= reply.completion_tokens
        ReplyStore(tmp_path).add(Question([("user", "x")], "m", {"max_tokens": 8}), reply)
        assert ReplyStore(tmp_path).check() == 1

def test_what_another_process_asked_meanwhile_is_not_asked_again(tmp_path):
    questions = [ask(f"q {i}") for i in range(30)]
    with ChatServer() as server:
        server.pause = .03
        other = threading.Thread(target=lambda: client(tmp_path, server, concurrency=1).ask(questions[::-1]))
        other.start()
        results = client(tmp_path, server, concurrency=1).ask(questions)
        other.join()
        assert all(isinstance(r, Reply) for r in results) and server.total <= 34  # those under way at the same moment may meet
