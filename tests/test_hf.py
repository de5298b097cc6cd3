"""Hugging Face as judge: the same tiny weights in Blip2ForConditionalGeneration and Blip2ForImageTextRetrieval, through our mapping.

Tolerances (float32, one thread): features and scores 5e-6, losses 2e-6, gradients 2e-5 of the largest entry of their tensor, tokens equal.
Hugging Face computes ln_vision with an epsilon of 1e-6; for these comparisons ours is set to it (`ln_eps`), and one test shows what it changes."""
import pytest
import torch

from expblip.encoders import build_encoder
from expblip.exchange import to_hf
from expblip.lm import newline_id, small_opt, train_tokenizer
from expblip.mapping import HF, OURS, part_of, rename
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1, similarity
from expblip.step2 import ExpressionCaptioner

torch.set_num_threads(1)
TEXTS = ['It is a people who raises cheek and pulls lip corner.', 'The face shows happiness.', 'The face shows fear.']
TOK = train_tokenizer(TEXTS * 9, 300)
FEATURES, LOSS, GRADIENT = 5e-6, 2e-6, 2e-5


@pytest.fixture(scope='module')
def ours():
    torch.manual_seed(3)
    enc = build_encoder(dict(model_type='blip_2_vision_model', hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                             image_size=42, patch_size=14, initializer_range=.2))
    one = Step1(QFormer(QFormerConfig(len(TOK), 16, 32, 3, 2, 64, queries=4, max_text=32, projection=8, gain=1.)), TOK.convert_tokens_to_ids('[DEC]'),
                ln_eps=1e-6)
    lm = small_opt(TOK, 24, 2, 2, 64)
    two = ExpressionCaptioner(enc, one.qformer, lm, TOK, one.ln_vision)
    for m in (one, two):
        for p in m.parameters():
            if p.dim() < 2: p.data.add_(torch.randn_like(p) * .1)
    for p in lm.parameters():
        if p.dim() > 1: p.data.normal_(0, .4)
    one.qformer.query_tokens.data.normal_(0, .5)
    return one.eval(), two.eval()


@pytest.fixture(scope='module')
def pixels(): return torch.randn(3, 3, 42, 42, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def captioner(ours): return to_hf(ours[1])[0]


@pytest.fixture(scope='module')
def retrieval(ours): return to_hf(ours[0], ours[1].encoder)[0]


def with_image(model, ids, mask):
    "Hugging Face wants a placeholder for each query before the text."
    mark = torch.full((len(ids), 4), model.config.image_token_index)
    return torch.cat([mark, ids], 1), torch.cat([torch.ones_like(mark), mask], 1)


def near(a, b, bound): assert a.shape == b.shape and (a - b).abs().max().item() <= bound


def test_query_features(ours, captioner, pixels):
    with torch.no_grad():
        tokens, queries = ours[1].features(pixels)
        said = captioner.get_image_features(pixels, return_dict=True)
        near(ours[1].ln_vision(tokens), said.vision_outputs.last_hidden_state, FEATURES)
        near(queries, said.qformer_outputs.last_hidden_state, FEATURES)
        near(ours[1].prefix(pixels), said.pooler_output, FEATURES)


def test_loss_and_gradients_of_step_2(ours, captioner, pixels):
    two = ours[1]
    ids, mask = two.rows(TEXTS)
    wide, full = with_image(captioner, ids, mask)
    labels = torch.cat([torch.full((3, 4), -100), ids.masked_fill(mask == 0, -100)], 1)
    two.zero_grad(); two.encoder.requires_grad_(True)
    captioner.requires_grad_(True); captioner.zero_grad()
    loss, theirs = two(pixels, ids, mask)['loss'], captioner(pixel_values=pixels, input_ids=wide, attention_mask=full, labels=labels).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=LOSS)
    loss.backward(); theirs.backward()
    compared = 0
    for name, p in captioner.named_parameters():
        key = rename(name, HF, OURS)
        if part_of(key) == 'language model' or 'intermediate.' in name: continue
        mine = dict(two.named_parameters())[key].grad
        assert mine is not p.grad and mine.data_ptr() != p.grad.data_ptr()
        assert (mine - p.grad).abs().max() <= GRADIENT * p.grad.abs().max() + 2e-7, key
        compared += 1
    assert compared > 100


def test_generated_tokens(ours, captioner, pixels):
    two = ours[1]
    wide, full = with_image(captioner, torch.full((3, 1), TOK.bos_token_id), torch.ones(3, 1, dtype=torch.long))
    for decode, beams in (('greedy', 1), ('beam', 5)):
        out = captioner.generate(pixels, wide, full, max_new_tokens=16, num_beams=beams, do_sample=False, eos_token_id=newline_id(TOK),
                                 pad_token_id=TOK.pad_token_id)
        said = [t.strip() for t in TOK.batch_decode(out[:, wide.size(1):], skip_special_tokens=True)]
        assert two.generate(pixels, decode, beams=5, max_new_tokens=16) == said and any(said)


def test_similarities_of_itc(ours, retrieval, pixels):
    from expblip.lm import pad_rows, qformer_rows
    one, two = ours
    ids, mask = pad_rows(qformer_rows(TOK, TEXTS, 32), TOK.pad_token_id)
    with torch.no_grad():
        image = one.ln_vision(two.encoder(pixels))
        mine = similarity(one.image_features(one.qformer('query', image)[0]), one.text_features(ids, mask))
        said = retrieval(pixel_values=pixels, input_ids=ids, attention_mask=mask)
        near(mine, said.logits_per_image.reshape(3, 3), FEATURES)
        near(one.text_features(ids, mask), said.text_embeds, FEATURES)


def test_logits_of_itm(ours, retrieval, pixels):
    from expblip.lm import pad_rows, qformer_rows
    one, two = ours
    ids, mask = pad_rows(qformer_rows(TOK, TEXTS, 32), TOK.pad_token_id)
    with torch.no_grad():
        mine = one.match(one.ln_vision(two.encoder(pixels)), ids, mask)
        near(mine, retrieval(pixel_values=pixels, input_ids=ids, attention_mask=mask, use_image_text_matching_head=True).logits_per_image, FEATURES)
    assert mine.std(0).min() > 1e-3


def test_the_epsilon_of_ln_vision_is_a_switch(ours, captioner, pixels):
    "Where tokens vary little the two epsilons part: with LAVIS's, ours is no longer Hugging Face's."
    two = ours[1]
    try:
        two.ln_vision.eps = 1e-5
        with torch.no_grad():
            tokens = two.encoder(pixels) * .01
            assert (two.ln_vision(tokens) - captioner.vision_model.post_layernorm(tokens)).abs().max() > 1e-4
    finally: two.ln_vision.eps = 1e-6


def test_a_wrong_mapping_would_be_seen(ours, captioner, pixels):
    "Text and query feed-forward networks swapped: the same shapes, another model."
    layer = captioner.qformer.encoder.layer[0]
    kept = layer.intermediate_query.dense.weight
    layer.intermediate_query.dense.weight = torch.nn.Parameter(ours[1].qformer.layers[0].ffn_text.up.weight.data)
    try:
        with torch.no_grad(): said = captioner.get_image_features(pixels, return_dict=True).qformer_outputs.last_hidden_state
        assert (ours[1].features(pixels)[1] - said).abs().max() > 1e-2
    finally: layer.intermediate_query.dense.weight = kept
