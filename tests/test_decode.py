"decode: greedy captions of OPT are Hugging Face's, token for token, however rows leave the batch; other models go to Hugging Face."
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from expblip.decode import Cache, advance, fast, greedy

torch.set_num_threads(1)
END, PAD, WIDTH = 5, 1, 32


@pytest.fixture(scope="module")
def lm():
    "Random, with a likely end: captions of many lengths."
    torch.manual_seed(0)
    model = OPTForCausalLM(OPTConfig(vocab_size=90, hidden_size=WIDTH, word_embed_proj_dim=WIDTH, ffn_dim=64, num_hidden_layers=3,
                                     num_attention_heads=4, max_position_embeddings=80)).eval().requires_grad_(False)
    for p in model.parameters():
        if p.dim() > 1: p.mul_(12)
    model.get_input_embeddings().weight[END] *= 1.6
    return model


def cut(rows): return [r[:r.index(END) + 1] if END in r else [t for t in r] for r in rows.tolist()]


def theirs(lm, x, longest):
    out = lm.generate(inputs_embeds=x, attention_mask=torch.ones(x.shape[:2], dtype=torch.long), max_new_tokens=longest, do_sample=False,
                      eos_token_id=END, pad_token_id=PAD)
    return cut(out)


@pytest.mark.parametrize("share", (0., .125, 1.))
@pytest.mark.parametrize("longest", (1, 2, 40))
def test_equal_to_hugging_face(lm, share, longest):
    x = torch.randn(60, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    ours = cut(greedy(lm, x, END, PAD, longest, share))
    assert ours == theirs(lm, x, longest)
    if longest == 40: assert len({len(r) for r in ours}) > 5 and any(END in r for r in ours)


def test_alone_a_row_says_the_same(lm):
    x = torch.randn(12, 3, WIDTH, generator=torch.Generator().manual_seed(2))
    assert [cut(greedy(lm, row[None], END, PAD, 30))[0] for row in x] == cut(greedy(lm, x, END, PAD, 30))


def test_states_are_the_models_own_also_past_the_room(lm):
    "Token by token, with a cache that has to grow, against one pass over all."
    x, cache = torch.randn(4, 20, WIDTH), Cache(3, room=4)
    states = torch.stack([advance(lm, x[:, :5], cache), *(advance(lm, x[:, t:t + 1], cache) for t in range(5, 20))], 1)
    whole = lm.base_model(inputs_embeds=x).last_hidden_state[:, 4:]
    assert torch.allclose(states, whole, atol=1e-4) and cache.length == 20


def test_who_is_decoded_here(lm):
    c = lm.config.to_dict()
    after = OPTForCausalLM(OPTConfig(**{**c, "do_layer_norm_before": False}))
    projected = OPTForCausalLM(OPTConfig(**{**c, "word_embed_proj_dim": 16}))
    other = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1))
    assert [fast(m) for m in (lm, after, projected, other)] == [True, False, False, False]


def test_too_long_is_refused(lm):
    x = torch.zeros(1, 50, WIDTH)
    assert greedy(lm, x, -1, PAD, 31).shape == (1, 31)  # the last token is never read
    with pytest.raises(ValueError, match="a prefix of 50 and 32 new tokens, but this language model has 80 positions"): greedy(lm, x, -1, PAD, 32)


def test_the_benchmark_runs_and_says_equal_text(monkeypatch, capsys):
    import runpy
    import sys
    from pathlib import Path
    monkeypatch.setattr(sys, "argv", ["generation.py", *"--small --pictures 6 --batch 3 --new 12 --teach 4 --rounds 1 --threads 1".split()])
    runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/generation.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "the same text in every way" in said and "ours, batches of 3 against Hugging Face, batches of 3" in said
