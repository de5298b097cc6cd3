"""A real OpenAI-compatible server: `transformers serve` on a tiny language model that is made here, chat and streaming."""
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from expblip.chat import ChatClient
from expblip.prices import price, token_bound
from expblip.replies import Question, Replay, Reply, Stopped

MODEL = "./tiny"
TEMPLATE = ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}")


def make_model(folder: Path) -> None:
    "A Llama of one layer with random weights and a byte-level vocabulary of its own."
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(["raises cheek and pulls lip corner, lowers brow"] * 20, vocab_size=320, special_tokens=["<s>", "</s>", "<pad>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE)
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    ends = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **ends, **size))
    model.generation_config.do_sample = True  # without this the server is greedy at any temperature
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "The address of the server, once it is there."
    folder = tmp_path_factory.mktemp("serving")
    make_model(folder / "tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", MODEL, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    log = open(folder / "log", "w+")
    process = subprocess.Popen([*command, "--default-seed", "0"], cwd=folder, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(3000):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"): monkeypatch.delenv(name, raising=False)

def ask(text: str, variant: int = 0, **params) -> Question:
    messages = [("system", "You describe what a face does."), ("user", text)]
    return Question(messages, MODEL, {"max_tokens": 8, "temperature": 0, **params}, variant)

def test_200_captions(server, tmp_path):
    "Client, server, store, and the replay of it all; without a key, at the price of a local server, within the bound on tokens."
    questions = [ask(f"raises cheek {i % 67}", i // 67, temperature=1.0, seed=1) for i in range(200)]
    one = ChatClient(tmp_path, server, price("local"), budget=0, show=False)
    replies = one.ask(questions)
    assert all(isinstance(r, Reply) and r.text for r in replies) and one.tally.calls == 200 == len(one.store) and one.tally.cost == 0
    for question, reply in zip(questions, replies, strict=True):
        assert reply.key == question.key and reply.asked_model == MODEL and reply.model.startswith(MODEL) and reply.base in server
        assert 0 < reply.completion_tokens <= 8 and 0 < reply.prompt_tokens <= token_bound(question)
    assert one.store.check() == 200 and Replay(tmp_path).ask(questions) == replies
    assert one.ask(questions) == replies and one.last.calls == 0

def test_same_question_same_answer(server, tmp_path):
    "Greedy answers do not depend on what else is asked at the same time."
    questions = [ask(f"lowers brow {i}") for i in range(12)]
    texts = [[r.text for r in ChatClient(tmp_path / f"{c}", server, concurrency=c, show=False).ask(questions)] for c in (1, 6)]
    assert texts[0] == texts[1]

def test_seed_and_variant(server, tmp_path):
    "Sampled one at a time, an answer repeats with its seed, and a variant is another answer."
    questions = [ask("raises cheek", k, temperature=1.0, seed=1) for k in range(4)]
    texts = [[r.text for r in ChatClient(tmp_path / name, server, concurrency=1, show=False).ask(questions)] for name in "ab"]
    assert texts[0] == texts[1] and len(set(texts[0])) == 4

def test_streaming(server, tmp_path):
    "The server speaks the streaming protocol too: the pieces add up to the answer that is kept."
    import openai
    question = ask("pulls lip corner")
    whole = ChatClient(tmp_path, server, show=False).ask([question])[0]
    with openai.OpenAI(base_url=server, api_key="none", max_retries=0) as api:
        pieces = [chunk.choices[0].delta.content or "" for chunk in api.chat.completions.create(**question.body(), stream=True) if chunk.choices]
    assert len(pieces) > 2 and "".join(pieces).rstrip("\ufffd") == whole.text.rstrip("\ufffd")  # half a character at the end is not streamed

def test_another_model(server, tmp_path):
    "This server serves one model and says so; asking stops after the failures in a row that the client allows."
    questions = [Question([("user", f"{i}")], "gpt-3.5-turbo", {"max_tokens": 8}) for i in range(50)]
    one = ChatClient(tmp_path, server, max_failures=3, concurrency=1, show=False)
    with pytest.raises(Stopped, match="says 400"): one.ask(questions)
    assert one.tally.calls == 3 and len(one.store) == 0
