"qformer: who may look at whom, no leak through the causal mask, padding invisible, sizes."
import pytest
import torch

from expblip.qformer import MASKS, Attention, QFormer, QFormerConfig, attention_mask

torch.set_num_threads(1)
CFG = QFormerConfig(vocab=20, encoder_width=8, hidden=16, layers=3, heads=2, ffn=32, queries=3, max_text=6, projection=8)
REAL = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
IDS = torch.tensor([[4, 7, 8, 5], [4, 9, 5, 1]])


@pytest.fixture(scope="module")
def model() -> QFormer:
    torch.manual_seed(0)
    return QFormer(CFG).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MASKS)
def test_masks_say_pair_by_pair_who_may_look(kind):
    q, text = (0 if kind == "text" else 3), (None if kind == "query" else REAL)
    mask, t = attention_mask(kind, q, text, batch=2), 0 if text is None else 4
    assert mask.shape == (2, 1, q + t, q + t) and mask.dtype == torch.bool
    for b in range(2):
        for i in range(q + t):
            for j in range(q + t):
                real = j < q or bool(REAL[b, j - q])
                order = kind != "causal" or j < q or (i >= q and j <= i)
                assert bool(mask[b, 0, i, j]) == (real and order), (b, i, j)


def test_unknown_mask_long_text_and_missing_image_are_refused(model):
    with pytest.raises(ValueError, match="unknown mask 'sideways': use one of query"): attention_mask("sideways", 3, REAL)
    with pytest.raises(ValueError, match="7 tokens, but this Q-Former has 6 positions"):
        model("text", ids=torch.zeros(1, 7, dtype=torch.long), text_mask=torch.ones(1, 7))
    with pytest.raises(ValueError, match="needs image tokens"): model("causal", None, IDS, REAL)


def test_no_leak_changing_a_word_moves_no_earlier_output(model, image):
    full = torch.ones_like(IDS)
    q, t = model("causal", image, IDS, full)
    for at in range(1, 4):
        changed = IDS.clone(); changed[:, at] = (changed[:, at] + 3) % 20
        q2, t2 = model("causal", image, changed, full)
        assert torch.equal(t[:, :at], t2[:, :at]) and torch.equal(q, q2)
        assert not torch.allclose(t[:, at], t2[:, at])
        assert not torch.allclose(model("both", image, IDS, full)[0], model("both", image, changed, full)[0])


def test_no_gradient_leaks_back_in_time(model, image):
    words = model.words(IDS).detach().requires_grad_(True)
    x = torch.cat([model.query_tokens.expand(2, -1, -1), words], 1)
    mask = attention_mask("causal", 3, torch.ones_like(IDS))
    for layer in model.layers: x = layer(x, 3, mask, image)
    x[:, 3 + 1].square().sum().backward()  # the second word's output
    assert words.grad[:, :2].abs().amin(-1).amax() > 0 and words.grad[:, 2:].abs().max() == 0


def test_the_causal_pass_gives_the_queries_of_the_image_alone(model, image):
    assert torch.allclose(model("causal", image, IDS, REAL)[0], model("query", image)[0], atol=1e-6)


@pytest.mark.parametrize("kind", ("text", "both", "causal"))
def test_padding_is_invisible(model, image, kind):
    image = None if kind == "text" else image
    q, t = model(kind, image, IDS, REAL)
    other = IDS.clone(); other[1, 3] = 13
    q2, t2 = model(kind, image, other, REAL)
    assert torch.allclose(q, q2, atol=1e-6) and torch.allclose(t[1, :3], t2[1, :3], atol=1e-6)
    single = model(kind, None if image is None else image[1:], IDS[1:, :3], REAL[1:, :3])
    assert torch.allclose(single[1][0], t[1, :3], atol=1e-5) and torch.allclose(single[0], q[1:], atol=1e-5)


def test_only_queries_of_every_second_layer_look_at_the_image(model, image):
    weights: list[torch.Tensor] = []
    model("both", image, IDS, REAL, weights)
    assert [w.shape for w in weights] == [(2, 2, 3, 5)] * 2  # layers 0 and 2
    assert all(torch.allclose(w.sum(-1), torch.ones(2, 2, 3)) for w in weights)
    a, b = (model("text", None, IDS, REAL)[1] for _ in range(2))
    assert torch.equal(a, b)


def test_attention_against_loops():
    torch.manual_seed(2)
    att, x, mask = Attention(CFG).eval(), torch.randn(1, 4, 16), torch.rand(1, 1, 4, 4) < .6
    mask[..., 0] = True
    q, k, v = (f(x)[0] for f in (att.query, att.key, att.value))
    out = torch.zeros(4, 16)
    for h in (slice(0, 8), slice(8, 16)):
        for i in range(4):
            score = torch.tensor([(q[i, h] @ k[j, h]).item() / 8**.5 if mask[0, 0, i, j] else -float("inf") for j in range(4)])
            out[i, h] = score.softmax(0) @ v[:, h]
    assert torch.allclose(att(x, mask=mask)[0], att.norm(x[0] + att.out(out)), atol=1e-5)


def test_tied_head_and_sizes_of_the_paper(model):
    text = torch.randn(2, 3, 16)
    assert torch.allclose(model.logits(text), model.head(text) @ model.words.weight.T + model.head_bias, atol=1e-6)
    with torch.device("meta"): big = QFormer(QFormerConfig.paper())
    assert 185e6 < sum(p.numel() for p in big.parameters()) < 188e6
    assert QFormerConfig(**CFG.dict()) == CFG


def test_queries_start_different():
    tokens = QFormer(CFG).query_tokens[0]
    assert torch.cdist(tokens, tokens).fill_diagonal_(1).min() > .01


def test_a_fresh_reader_lets_the_picture_through():
    "With the gain, most of what a query says depends on the picture; at BERT's loudness most of it does not."
    torch.manual_seed(0)
    tokens = torch.nn.functional.layer_norm(torch.randn(200, 37, 160), (160,))
    def share(gain):
        torch.manual_seed(1)
        with torch.no_grad(): out = QFormer(QFormerConfig(gain=gain)).eval()("query", tokens)[0]
        return (out.var(0).mean() / out.pow(2).mean()).item()
    assert share(QFormerConfig().gain) > .5 > .3 > share(1.)
