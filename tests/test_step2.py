"step2: Hugging Face's own loss, a frozen language model, padding and batches that change nothing, decodings."
import pytest
import torch

from expblip.encoders import DrawnEncoder, EncoderConfig
from expblip.lm import lm_rows, newline_id, pad_rows, small_opt, train_tokenizer
from expblip.qformer import QFormer, QFormerConfig
from expblip.step2 import DECODES, ExpressionCaptioner, trainable

torch.set_num_threads(1)
TEXTS = ["It is a people who raises cheek and pulls lip corner.", "The face shows happiness."]
TOK = train_tokenizer(TEXTS * 20, 400)


@pytest.fixture
def model() -> ExpressionCaptioner:
    torch.manual_seed(0)
    lm = small_opt(TOK, 32, 2, 2)
    for p in lm.parameters():
        if p.dim() > 1: p.data.normal_(0, .3)
    enc, qf = DrawnEncoder(EncoderConfig(32, (8, 16), 24, 1, 2, 32)), QFormer(QFormerConfig(len(TOK), 24, 32, 2, 2, 64, queries=4, dropout=0.))
    return ExpressionCaptioner(enc, qf, lm, TOK)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_loss_and_gradient_are_hugging_faces_row_by_row(model, pixels):
    ids, mask = model.rows(TEXTS)
    total = 0.
    for p, i, m in zip(model.prefix(pixels), ids, mask):
        n = int(m.sum())
        e = torch.cat([p[None], model.lm.get_input_embeddings()(i[None, :n])], 1)
        total = total + model.lm(inputs_embeds=e, labels=torch.cat([torch.full((1, 4), -100), i[None, :n]], 1)).loss * n
    ours, theirs = model(pixels, ids, mask)["loss"], total / mask.sum()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-4)
    wanted = [model.proj.weight, model.encoder.stages[0].down[0].weight, model.qformer.query_tokens]
    for a, b in zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(theirs, wanted)): assert torch.allclose(a, b, atol=1e-4)


def test_the_language_model_gets_no_gradient_no_update_and_no_dropout(model, pixels):
    before = {k: v.clone() for k, v in model.lm.state_dict().items()}
    model.train()
    assert not model.lm.training and model.qformer.training
    opt = torch.optim.AdamW([p for _, p in trainable(model)], 1e-2)
    model(pixels, *model.rows(TEXTS))["loss"].backward(); opt.step()
    assert all(p.grad is None for p in model.lm.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.lm.state_dict().items())
    assert model.encoder.stages[0].down[0].weight.grad.abs().sum() > 0


def test_trainable_leaves_out_the_text_side_and_on_request_the_encoder(model, pixels):
    names = {n for n, _ in trainable(model)}
    assert {n.split(".")[0] for n in names} == {"encoder", "ln_vision", "qformer", "proj"}
    assert not any(part in n for n in names for part in ("words", "positions", "head", "ffn_text"))
    model(pixels, *model.rows(TEXTS))["loss"].backward()
    idle = {n for n, p in trainable(model) if p.grad is None and "vit.pooler" not in n}
    assert not idle, idle
    assert not any(n.startswith("encoder.") for n, _ in trainable(model, train_encoder=False))


def test_padding_is_invisible_and_a_batch_is_its_singles(model, pixels):
    model.eval()
    ids, mask = model.rows(TEXTS)
    other = ids.masked_fill(~mask.bool(), 9)
    assert torch.equal(model(pixels, ids, mask)["loss"], model(pixels, other, mask)["loss"])
    singles = [model(pixels[k:k + 1], *model.rows(TEXTS[k:k + 1]))["loss"] * mask[k].sum() for k in range(2)]
    assert model(pixels, ids, mask)["loss"].item() == pytest.approx((sum(singles) / mask.sum()).item(), abs=1e-4)
    assert model.generate(pixels, max_new_tokens=12) == [model.generate(p[None], max_new_tokens=12)[0] for p in pixels]


def slow_greedy(model, pixels, longest):
    "Word by word, no cache, until the newline; also says whether the newline came."
    prefix, row = model.prefix(pixels), [TOK.bos_token_id]
    while len(row) <= longest:
        e = torch.cat([prefix, model.lm.get_input_embeddings()(torch.tensor([row]))], 1)
        row.append(int(model.lm(inputs_embeds=e, use_cache=False).logits[0, -1].argmax()))
        if row[-1] == newline_id(TOK): return TOK.decode(row[1:-1]).strip(), True
    return TOK.decode(row[1:], skip_special_tokens=True).strip(), False


def test_greedy_is_word_by_word_and_stops_at_the_newline(pixels):
    torch.manual_seed(0)
    lm, qf = small_opt(TOK, 32, 2, 2), QFormer(QFormerConfig(len(TOK), 24, 32, 2, 2, 64, queries=4, dropout=0.))
    ids, mask = pad_rows(lm_rows(TOK, TEXTS), TOK.pad_token_id)
    opt = torch.optim.AdamW(lm.parameters(), 1e-2)
    for _ in range(60): loss = lm(ids, mask, labels=ids.masked_fill(mask == 0, -100)).loss; opt.zero_grad(); loss.backward(); opt.step()
    model = ExpressionCaptioner(DrawnEncoder(EncoderConfig(32, (8, 16), 24, 1, 2, 32)), qf, lm, TOK)
    opt = torch.optim.AdamW([p for _, p in trainable(model)], 3e-3)
    first = model(pixels, *model.rows(TEXTS))["loss"].item()
    for _ in range(60): out = model(pixels, *model.rows(TEXTS)); opt.zero_grad(); out["loss"].backward(); opt.step()
    assert out["loss"].item() < first / 2
    said = [slow_greedy(model.eval(), p[None], 30) for p in pixels]
    assert model.generate(pixels, max_new_tokens=30) == [text for text, _ in said] and said[0][0] != said[1][0]
    assert all(stopped for _, stopped in said)
    assert all(len(model.generate(pixels, d, max_new_tokens=30)) == 2 for d in DECODES)


def test_sampling_repeats_with_its_seed_and_unknown_decodings_are_refused(model, pixels):
    a, b, c = (model.generate(pixels, "sample", seed=s, max_new_tokens=12) for s in (1, 1, 2))
    assert a == b != c
    with pytest.raises(ValueError, match="unknown decoding 'loudly': use one of greedy, beam, sample"): model.generate(pixels, "loudly")


def test_the_end_survives_truncation(model):
    ids, mask = model.rows(TEXTS, max_tokens=5)
    assert ids.shape == (2, 5) and (ids[:, 0] == TOK.bos_token_id).all() and (ids[:, -1] == newline_id(TOK)).all() and mask.all()
