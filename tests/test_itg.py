"itg: the Q-Former writes by itself; every word is the one its own ITG pass scores highest, and beams find what a plain search finds."
import pytest
import torch

from expblip.itg import Writer, itg_captions
from expblip.lm import train_tokenizer
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1

torch.set_num_threads(1)
TEXTS = ["the face shows fear", "it raises cheek and pulls lip corner"]


@pytest.fixture(scope="module")
def work():
    tok = train_tokenizer(TEXTS * 9, 290)
    torch.manual_seed(0)
    model = Step1(QFormer(QFormerConfig(len(tok), 8, 32, 3, 2, 64, queries=4, max_text=24, projection=16)), tok.convert_tokens_to_ids("[DEC]")).eval()
    for p in model.qformer.parameters(): p.data.mul_(2.5)
    return model, tok, torch.randn(3, 6, 8)


def scores(model, image, ids):
    "Log-probabilities of the next word by the pass that step 1 trains."
    words = model.qformer("causal", model.ln_vision(image), ids, torch.ones_like(ids))[1]
    return model.qformer.logits(words)[:, -1].log_softmax(-1)


@torch.no_grad()
def plain_greedy(model, tok, image, longest, shortest):
    ids = torch.full((1, 1), model.dec_id)
    while ids.size(1) < longest:
        p = scores(model, image, ids)[0]
        if ids.size(1) < shortest: p[tok.sep_token_id] = -torch.inf
        ids = torch.cat([ids, p.argmax()[None, None]], 1)
        if ids[0, -1] == tok.sep_token_id: break
    return tok.decode(ids[0], skip_special_tokens=True).strip()


@torch.no_grad()
def plain_beam(model, tok, image, beams, longest):
    "Beam search in a few lines: finished beams are scored by their sum over their length without [DEC]."
    live, done = [(0., [model.dec_id])], []
    while live and len(live[0][1]) < longest:
        grown = []
        for total, ids in live:
            p = scores(model, image, torch.tensor([ids]))[0]
            grown += [(total + p[k].item(), [*ids, k]) for k in p.topk(2 * beams).indices.tolist()]
        grown = sorted(grown, reverse=True)[:2 * beams]
        done += [(t / (len(i) - 1), i) for t, i in grown[:beams] if i[-1] == tok.sep_token_id]
        live = [(t, i) for t, i in grown if i[-1] != tok.sep_token_id][:beams]
        if len(done) >= beams: break
    done += [(t / (len(i) - 1), i) for t, i in live] if len(done) < beams else []
    return tok.decode(max(done)[1], skip_special_tokens=True).strip()


@pytest.mark.parametrize("shortest", (2, 10))
def test_greedy_is_the_best_word_of_the_trained_pass(work, shortest):
    model, tok, image = work
    got = itg_captions(model, tok, image, "greedy", max_length=18, min_length=shortest)
    assert got == [plain_greedy(model, tok, x[None], 18, shortest) for x in image]
    assert len(set(got)) > 1  # the pictures matter


def test_beams_are_those_of_a_plain_search(work):
    model, tok, image = work
    got = itg_captions(model, tok, image, "beam", beams=3, max_length=12, min_length=1)
    assert got == [plain_beam(model, tok, x[None], 3, 12) for x in image]


def test_pictures_together_and_alone_say_the_same(work):
    model, tok, image = work
    for how in ("greedy", "beam"):
        together = itg_captions(model, tok, image, how, max_length=14)
        assert together == [itg_captions(model, tok, x[None], how, max_length=14)[0] for x in image]


def test_lengths_and_sampling(work):
    model, tok, image = work
    writer = Writer(model.qformer, tok.pad_token_id, tok.sep_token_id, model.dec_id)
    start = torch.full((3, 1), model.dec_id)
    for low, high in ((10, 12), (2, 5)):
        out = writer.generate(input_ids=start, image=model.ln_vision(image), max_length=high, min_length=low)
        ends = [(row == tok.sep_token_id).nonzero()[0, 0].item() if (row == tok.sep_token_id).any() else high for row in out]
        assert out.size(1) <= high and all(low <= e for e in ends)
    a, b, c = (itg_captions(model, tok, image, "sample", max_length=20, seed=s) for s in (1, 1, 2))
    assert a == b != c


def test_wrong_wishes(work):
    model, tok, image = work
    with pytest.raises(ValueError, match="unknown decoding 'best': use one of greedy, beam, sample"): itg_captions(model, tok, image, "best")
    with pytest.raises(ValueError, match="max_length 25, but this Q-Former has 24 positions"): itg_captions(model, tok, image, max_length=25)


def test_lavis_s_own_qformer_writes_the_same(monkeypatch, tmp_path):
    "Recorded from Blip2Qformer.generate by tools/lavis_parity.py, greedy and with three beams."
    from test_lavis import FACTS, TENSORS, encoder, lavis_file, qformer

    from expblip.weights import load_weights
    model, enc = Step1(qformer(), FACTS["step1"]["dec"]), encoder()
    load_weights(lavis_file(tmp_path, "step1"), model, enc)
    model.qformer.positions.weight.data *= 64  # as there: positions that matter, so that words vary
    model.qformer.words.weight.data /= 8
    writer = Writer(model.eval().qformer, FACTS["step1"]["pad"], FACTS["step1"]["sep"], model.dec_id)
    with torch.no_grad(): image = model.ln_vision(enc.eval()(TENSORS["image"]))
    start = torch.full((len(image), 1), model.dec_id)
    for how, beams in (("greedy", 1), ("beam", 3)):
        got = writer.generate(input_ids=start, image=image, num_beams=beams, max_length=10, min_length=4)[:, 1:].tolist()
        assert got == FACTS["step1"][how] and len({tuple(row) for row in got}) > 1, how
