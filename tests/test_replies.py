"""The store of replies: nothing lost, nothing twice, whoever is killed or writes at the same time."""
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.replies import Question, Replay, Reply, ReplyStore, StoreError, summary

ROOT = Path(__file__).resolve().parents[1]

def ask(text: str, **more) -> Question: return Question([("system", "x" * 200), ("user", text)], "tiny", {"max_tokens": 9}, **more)
def reply(question: Question, text: str = "A face.") -> Reply:
    return Reply(question.key, text, question.model, "tiny", "2026-01-01T00:00:00Z", "stop", 3, 4, "host")

def filled(path, n: int) -> ReplyStore:
    store = ReplyStore(path)
    for i in range(n): store.add(ask(f"{i}"), reply(ask(f"{i}"), f"reply {i} é 笑"))
    return store

# ---------------------------------------------------------------- questions

def test_key_is_the_content():
    "Each part of a question changes its key; the spelling of equal parts does not."
    q = Question([("user", "a")], "m", {"temperature": .5, "seed": 1})
    same = [Question((("user", "a"),), "m", (("seed", 1.0), ("temperature", .5))),
            Question([["user", "a"]], "m", {"seed": 1, "temperature": .5}, 0, 0)]
    others = [replace(q, variant=1), replace(q, attempt=1), replace(q, model="n"), replace(q, messages=[("system", "a")]),
              replace(q, messages=[("user", "b")]), replace(q, messages=[("user", "a"), ("user", "")]), replace(q, params={"temperature": .5}),
              replace(q, params={"temperature": .51, "seed": 1}), replace(q, params={"temperature": "0.5", "seed": 1})]
    assert all(s == q and s.key == q.key and hash(s) == hash(q) for s in same)
    assert len({q.key, *(o.key for o in others)}) == len(others) + 1
    with pytest.raises(FrozenInstanceError): q.model = "n"  # type: ignore[misc]

def test_key_is_stable():
    "The key of today is the key of every recording: a change here orphans all of them."
    q = Question([("system", "Describe."), ("user", "Wange – 笑")], "some-model", {"temperature": .7, "stop": ["\n"], "max_tokens": 80}, 2, 1)
    assert q.key == "221eb04c71b6c5ce7b12a87ae14fadbc0798eb1be24a1558b4b8db0cdb7e989f"

@pytest.mark.parametrize("change,word", [({"messages": ()}, "at least one message"), ({"model": ""}, "needs a model"),
                                         ({"params": {"n": 2}}, "variant"), ({"params": {"stream": True}}, "not allowed"),
                                         ({"params": {"temperature": float("nan")}}, "finite"),
                                         ({"params": {"x": {"a": 1}}}, "must be a text"), ({"messages": [("user", "\ud800")]}, "UTF-8")])
def test_bad_questions(change, word):
    with pytest.raises(ValueError, match=word): Question(**{"messages": [("user", "a")], "model": "m", **change})

# ---------------------------------------------------------------- the file

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6))
def test_round_trip(tmp_path_factory, rows):
    "Whatever the texts hold (line ends of all kinds, quotes, long, empty), question and reply come back."
    folder = tmp_path_factory.mktemp("store")
    store, expected = ReplyStore(folder), {}
    for system, user, text in rows:
        q = Question([("system", system), ("user", user)], "m", {"stop": ["\n", "."], "max_tokens": 5})
        r = store.add(q, reply(q, text))
        assert expected.setdefault(q, replace(r, stored=True)) == r
    fresh = ReplyStore(folder)
    assert {fresh.question(r.key): r for r in fresh} == expected and fresh.check() == len(expected) == len(fresh)
    assert all(fresh.get(q.key) == r and fresh.get(q.key).stored for q, r in expected.items())

def test_cut_at_every_byte(tmp_path):
    "A file cut anywhere holds every reply before the cut, and the next reply is added to a whole file."
    whole = filled(tmp_path / "whole", 3).path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole[:cut])
        store = ReplyStore(tmp_path / "cut.jsonl")
        lines = sum(end <= cut or end == cut + 1 for end in ends)  # a last line without its line end is whole
        assert len(store) == max(0, lines - 1)  # the first line is the long message
        filled(tmp_path / "cut.jsonl", 3)
        again = ReplyStore(tmp_path / "cut.jsonl")
        assert again.check() == 3 and [r.text for r in again] == [f"reply {i} é 笑" for i in range(3)]

def test_long_messages_once(tmp_path):
    store = filled(tmp_path, 50)
    assert store.path.read_text().count("x" * 200) == 1 and all(line.isprintable() for line in store.path.read_text().splitlines())

def test_first_wins(tmp_path):
    one, two = ReplyStore(tmp_path), ReplyStore(tmp_path)
    assert one.add(ask("a"), reply(ask("a"), "first")).text == "first"
    assert two.add(ask("a"), reply(ask("a"), "second")) == one.get(ask("a").key)
    with open(one.path, "ab") as file: file.write(one.path.read_bytes().replace(b"first", b"third"))  # two files joined by hand
    assert [r.text for r in ReplyStore(tmp_path)] == ["first"]

def test_a_lookup_sees_what_others_wrote(tmp_path):
    one, two = ReplyStore(tmp_path), ReplyStore(tmp_path)
    one.add(ask("a"), reply(ask("a")))
    assert len(two) == 0 and two.get(ask("a").key) == reply(ask("a")) and len(two) == 1 and two.get(ask("b").key) is None

@pytest.mark.parametrize("line", [b"not json", b"[1]", b'{"key":"12"}', b'{"key":"zz","text":""}', b"\xff\xfe", b"null", b'"message"',
                                  b'{"message":"a"}'])
def test_damage_in_the_middle(tmp_path, line):
    store = filled(tmp_path, 3)
    good = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join([*good[:2], line + b"\n", *good[2:]]))
    with pytest.raises(StoreError, match=r"replies\.jsonl, line 3: not a reply"): ReplyStore(tmp_path)

def test_a_changed_question_is_found(tmp_path):
    store = filled(tmp_path, 3)
    store.path.write_bytes(store.path.read_bytes().replace(b'["user","1"]', b'["user","9"]'))
    with pytest.raises(StoreError, match="was changed after it was asked"): ReplyStore(tmp_path).check()

def test_another_questions_reply(tmp_path):
    with pytest.raises(ValueError, match="answers another question"): ReplyStore(tmp_path).add(ask("a"), reply(ask("b")))
    assert not (tmp_path / "replies.jsonl").exists()

def test_reading_makes_no_file(tmp_path):
    with pytest.raises(LookupError, match="there is no such file"): Replay(tmp_path / "x" / "y.jsonl").ask([ask("a")])
    assert list(tmp_path.iterdir()) == []

def test_read_only(tmp_path):
    "A shipped recording is read where nothing may be written, and stays as it was."
    path = filled(tmp_path, 3).path
    before = path.read_bytes(), path.stat().st_mtime_ns
    path.chmod(0o444)
    assert len(Replay(path).ask([ask("0"), ask("2")])) == 2 and (path.read_bytes(), path.stat().st_mtime_ns) == before

def test_memory(tmp_path):
    "Under 250 bytes a reply stay in memory."
    import tracemalloc
    path = filled(tmp_path, 2000).path
    tracemalloc.start()
    store = ReplyStore(path)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / len(store) < 250

def test_summary(tmp_path):
    at = "2026-01-01T00:00:00Z"
    counts = {"replies": 4, "models": {"tiny": 4}, "prompt_tokens": 12, "completion_tokens": 16}
    assert summary(filled(tmp_path, 4)) == {**counts, "first": at, "last": at}

# ---------------------------------------------------------------- several writers, killed writers

WRITE = textwrap.dedent("""
    import sys; sys.path.insert(0, {tests!r})
    from test_replies import ask, reply
    from expblip.replies import ReplyStore
    path, who, first, last = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    store = ReplyStore(path)
    print("ready", flush=True); sys.stdin.readline()
    for i in range(first, last): store.add(ask(f"{{i}}"), reply(ask(f"{{i}}"), f"{{who}} says {{i}} " + "z" * (i % 7 * 500)))
    """).format(tests=str(ROOT / "tests"))

def writer(path, who, first, last):
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(path), who, str(first), str(last)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return process

def go(*processes):
    for p in processes: assert p.stdout.readline() == "ready\n"
    for p in processes: p.stdin.write("\n"); p.stdin.flush()

def test_two_writers(tmp_path):
    "Two processes write 600 overlapping questions at once: each is there once, whole, and the same for both."
    a, b = writer(tmp_path, "a", 0, 400), writer(tmp_path, "b", 200, 600)
    go(a, b)
    assert a.wait(60) == b.wait(60) == 0
    store = ReplyStore(tmp_path)
    assert store.check() == 600 and len(store.path.read_bytes().splitlines()) == 601
    who = [store.get(ask(f"{i}").key).text.split(" says ")[0] for i in range(600)]
    assert set(who[:200]) == {"a"} and set(who[400:]) == {"b"} and all(f"says {i} " in store.get(ask(f"{i}").key).text for i in range(600))

def test_killed_writers(tmp_path):
    "kill -9 at random moments while another writes: no damage, no reply of the living writer lost."
    rng, alive = random.Random(3), writer(tmp_path, "alive", 0, 1500)
    victims = [writer(tmp_path, f"v{k}", 2000 + 1000 * k, 3000 + 1000 * k) for k in range(6)]
    go(alive, *victims)
    for victim in victims:
        time.sleep(rng.random() * .1)
        victim.send_signal(signal.SIGKILL)
        victim.wait(20)
    assert alive.wait(60) == 0
    store = ReplyStore(tmp_path)
    assert store.check() == len(store) >= 1500 and all(ask(f"{i}").key in store for i in range(1500))
