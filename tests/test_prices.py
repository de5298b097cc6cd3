"""Prices and estimates: every bound holds, every fault of the table is named."""
import random
from pathlib import Path

import pytest

from expblip.prices import Price, PriceError, answer_bound, estimate, price, read_prices, token_bound, token_guess
from expblip.replies import Question, Reply, ReplyStore
from expblip.sheets import TableError

TABLE = Path(__file__).resolve().parents[1] / "data" / "prices.csv"

def ask(text: str, limit: int | None = 50, **more) -> Question:
    return Question([("user", text)], "m", {"max_tokens": limit} if limit else {}, **more)

def test_the_shipped_table():
    "Every price has a day, answers cost more than prompts (vectors nothing), a local server costs nothing."
    prices = read_prices(TABLE)
    assert prices["local"].cost(1e9, 1e9) == 0
    for p in prices.values():
        assert len(p.as_of) == 10 and p.as_of.startswith("20") and p.model
        assert p.model == "local" or 0 < p.input < p.output or (p.output == 0 < p.input and "embedding" in p.model)
        assert 0 < p.batch <= 1

def test_unknown_model_says_what_to_do():
    with pytest.raises(PriceError, match="no price for model 'gpt-4o-mni' .did you mean 'gpt-4o-mini'.*Add a line 'model,input,output"):
        price("gpt-4o-mni", TABLE)

@pytest.mark.parametrize("rows,faults", [
    (["a,1,2", "a,1,2"], ["name each model once"]), (["a,-1,2"], ["must be a number from 0"]), (["a,x,nan"], ["'x'", "'nan'"]),
    ([",1,2"], ["name each model"]), (["a,inf,2"], ["'inf'"])])
def test_bad_tables(tmp_path, rows, faults):
    (tmp_path / "p.csv").write_text("model,input,output\n" + "\n".join(rows))
    with pytest.raises(TableError) as error: read_prices(tmp_path / "p.csv")
    assert all(fault in str(error.value) for fault in faults) and "line" in str(error.value)

def test_table_of_ones_own(tmp_path):
    (tmp_path / "p.csv").write_text("model,input,output\nmine,1.5,3\n")
    assert price("mine", tmp_path / "p.csv").cost(2e6, 1e6) == 6.0
    (tmp_path / "p.csv").write_text("model,input\nmine,1.5\n")
    with pytest.raises(TableError, match="column 'output' is missing"): read_prices(tmp_path / "p.csv")

def test_token_bound_holds_for_a_byte_level_tokenizer():
    "Not even a tokenizer that knows nothing but bytes makes more tokens, chat template included."
    from tokenizers import ByteLevelBPETokenizer
    bpe, rng = ByteLevelBPETokenizer(), random.Random(0)
    bpe.train_from_iterator(["a"], vocab_size=257)
    for _ in range(200):
        def letter(): return chr(rng.choice([rng.randint(1, 127), rng.randint(0xA0, 0x2FFF), 0x1F600]))
        texts = ["".join(letter() for _ in range(rng.randint(0, 60))) for _ in range(3)]
        question = Question([(role, text) for role, text in zip(("system", "user", "assistant"), texts)], "m")
        rendered = "".join(f"<|im_start|>{text}<|im_end|>" for text in texts)
        frame = len("<|im_start|><|im_end|>") * len(texts)  # one special token each in a real template
        assert len(bpe.encode(rendered).ids) - frame + 4 * len(texts) + 3 <= token_bound(question)
        assert token_guess(question) <= token_bound(question)

def test_estimate(tmp_path):
    "Equal questions count once, stored ones not at all, and the figures are plain sums."
    store = ReplyStore(tmp_path)
    store.add(ask("a"), Reply(ask("a").key, "x", "m", "m", "2026-01-01T00:00:00Z"))
    got = estimate([ask("a"), ask("bb"), ask("bb"), ask("ccc", 20), ask("bb", variant=1)], Price("m", 2, 10, .5), store, answer_tokens=30)
    assert (got.questions, got.distinct, got.stored, got.calls) == (5, 4, 1, 3)
    most = [(token_bound(q), answer_bound(q)) for q in (ask("bb"), ask("ccc", 20), ask("bb"))]
    assert got.most == pytest.approx(sum(2 * p + 10 * c for p, c in most) / 1e6) and got.completion_tokens == 30 + 20 + 30
    assert estimate([ask("a")], Price("m", 2, 10, .5), batch=True).most == pytest.approx(estimate([ask("a")], Price("m", 2, 10)).most / 2)
    assert "5 questions, 4 distinct, 1 in the store, 3 calls" in str(got)
    assert estimate([ask("q")], Price("m", 2, 10), tokens=lambda q: 7).prompt_tokens == 7

def test_estimate_refuses():
    with pytest.raises(ValueError, match="set max_tokens"): estimate([ask("a", None)], Price("m", 1, 1))
    with pytest.raises(ValueError, match="one model"): estimate([ask("a"), Question([("user", "a")], "n", {"max_tokens": 5})], Price("m", 1, 1))
    assert answer_bound(Question([("user", "a")], "m", {"max_completion_tokens": 9, "max_tokens": 5})) == 9
