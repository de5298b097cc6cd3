"step1: ITC, ITM and ITG against slow versions, values and gradients; hard negatives; held-out judging."
import math

import pytest
import torch
from torch.nn import functional as F

from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import ITM_PRIOR, Step1, _auc, hard_negatives, held_out_scores, itc_loss, itg_loss, similarity, smoothed_cross_entropy

torch.set_num_threads(1)


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def slow_itc(image, text, temp, same, detach, identical_negatives, smoothing=.1):
    "Pair by pair, straight from the description."
    const = (lambda x: x.detach()) if detach else (lambda x: x)
    total = 0.
    for n in range(len(text)):
        keep = [m for m in range(len(text)) if m == n or identical_negatives or not same[n, m]]
        i2t = torch.stack([torch.stack([q @ const(text)[m] for q in image[n]]).max() / temp for m in keep])
        t2i = torch.stack([torch.stack([q @ text[n] for q in const(image)[m]]).max() / temp for m in keep])
        for logits in (i2t, t2i):
            logp = logits - logits.logsumexp(0)
            total = total - (1 - smoothing) * logp[keep.index(n)] - smoothing * logp.mean()
    return total / (2 * len(text))


@pytest.mark.parametrize("detach", (True, False))
@pytest.mark.parametrize("identical_negatives", (True, False))
def test_itc_equals_the_slow_version_and_so_does_its_gradient(detach, identical_negatives):
    torch.manual_seed(0)
    same = torch.eye(5, dtype=torch.bool); same[1, 3] = same[3, 1] = True
    leaves = [[x.clone().requires_grad_(True) for x in (i, t, torch.tensor(.07))] for i, t in [(unit(5, 3, 8), unit(5, 8))] for _ in range(2)]
    fast = itc_loss(*leaves[0], same, detach, identical_negatives)[0]
    slow = slow_itc(*leaves[1], same, detach, identical_negatives)
    assert torch.allclose(fast, slow, atol=1e-5)
    for a, b in zip(torch.autograd.grad(fast, leaves[0]), torch.autograd.grad(slow, leaves[1])): assert torch.allclose(a, b, atol=1e-4)


def test_detaching_changes_the_gradient_and_not_the_value():
    torch.manual_seed(0)
    image, text, eye = unit(4, 3, 8).requires_grad_(True), unit(4, 8).requires_grad_(True), torch.eye(4, dtype=torch.bool)
    a, b = (itc_loss(image, text, torch.tensor(.07), eye, detach)[0] for detach in (True, False))
    ga, gb = (torch.autograd.grad(x, text)[0] for x in (a, b))
    assert torch.equal(a, b) and (ga - gb).norm() > .1 * gb.norm()


def test_itc_knows_nothing_at_ln_n_and_takes_the_best_query():
    eye = torch.eye(16, dtype=torch.bool)
    flat = F.normalize(torch.ones(16, 2, 4), dim=-1), F.normalize(torch.ones(16, 4), dim=-1)
    assert itc_loss(*flat, torch.tensor(.07), eye)[0].item() == pytest.approx(math.log(16), abs=1e-4)
    image, text = unit(2, 3, 4), unit(3, 4)
    slow = torch.tensor([[max((q @ t).item() for q in i) for t in text] for i in image])
    assert torch.allclose(similarity(image, text), slow, atol=1e-6)


def test_smoothing_is_torchs_when_all_columns_are_candidates():
    torch.manual_seed(1)
    logits, target = torch.randn(5, 7), torch.tensor([0, 3, 1, 6, 2])
    ours = smoothed_cross_entropy(logits, target, torch.zeros(5, 7, dtype=torch.bool))
    assert torch.allclose(ours, F.cross_entropy(logits, target, label_smoothing=.1), atol=1e-6)


def test_a_column_left_out_counts_for_nothing():
    torch.manual_seed(1)
    logits, ignore = torch.randn(2, 4).requires_grad_(True), torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    loss = smoothed_cross_entropy(logits, torch.tensor([0, 1]), ignore)
    grad = torch.autograd.grad(loss, logits)[0]
    assert grad[0, 2] == 0 and grad.isfinite().all()
    short = [F.cross_entropy(x[None], torch.tensor([y]), label_smoothing=.1) for x, y in ((logits[0, [0, 1, 3]], 0), (logits[1], 1))]
    assert torch.allclose(loss, sum(short) / 2, atol=1e-6)


def test_hard_negatives_follow_the_softmax_over_other_captions():
    torch.manual_seed(0)
    sim = torch.tensor([[9., 2., 1., 0.], [0., 0., 0., 0.], [1., 1., 1., 1.]])
    own = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    draws = torch.stack([hard_negatives(sim, own)[0] for _ in range(3000)])
    share = torch.stack([(draws == k).float().mean(0) for k in range(4)], 1)
    want = sim.masked_fill(own, -math.inf)[:2].softmax(1)
    assert torch.allclose(share[:2], want, atol=.04) and not share[:2][own[:2]].any()
    assert hard_negatives(sim, own)[1].tolist() == [True, True, False]


@pytest.fixture
def toy():
    torch.manual_seed(0)
    qf = QFormer(QFormerConfig(vocab=20, encoder_width=8, hidden=32, layers=2, heads=2, ffn=64, queries=3, max_text=6, projection=8, dropout=0.))
    ids = torch.randint(7, 20, (4, 6)); ids[:, 0], ids[:, -1] = 4, 5
    mask = torch.ones_like(ids); ids[2, 4:], mask[2, 5:] = torch.tensor([5, 1]), 0
    return Step1(qf, dec_id=6), torch.randn(4, 5, 8), ids, mask


def test_itm_equals_single_pairs_and_so_does_its_gradient(toy):
    model, image, ids, mask = toy
    torch.manual_seed(3)
    i2t, t2i, same = torch.randn(4, 4), torch.randn(4, 4), torch.eye(4, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    torch.manual_seed(5); loss, accuracy = model.itm(image, ids, mask, i2t, t2i, same)
    torch.manual_seed(5); wrong_image, wrong_text = hard_negatives(t2i, same)[0], hard_negatives(i2t, same)[0]
    assert not same[range(4), wrong_image].any() and not same[range(4), wrong_text].any()
    pairs = [(n, n, 1) for n in range(4)] + [(int(wrong_image[n]), n, 0) for n in range(4)] + [(n, int(wrong_text[n]), 0) for n in range(4)]
    scores = torch.cat([model.match(image[i:i + 1], ids[t:t + 1, :mask[t].sum()], mask[t:t + 1, :mask[t].sum()]) for i, t, _ in pairs])
    slow = torch.stack([-(s - s.logsumexp(0))[y] for s, (_, _, y) in zip(scores, pairs)]).mean()
    assert torch.allclose(loss, slow, atol=1e-5)
    assert accuracy.item() == pytest.approx(sum(int(s.argmax()) == y for s, (_, _, y) in zip(scores, pairs)) / 12)
    wanted = [model.itm_head.weight, model.qformer.query_tokens, model.qformer.words.weight]
    for a, b in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(slow, wanted)): assert torch.allclose(a, b, atol=1e-5)


def test_itm_leaves_out_rows_without_a_wrong_caption(toy):
    model, image, ids, mask = toy
    sim = torch.zeros(4, 4)
    loss, accuracy = model.itm(image, ids, mask, sim, sim, torch.ones(4, 4, dtype=torch.bool))
    right = model.match(image, ids, mask)
    assert torch.allclose(loss, F.cross_entropy(right, torch.ones(4, dtype=torch.long)), atol=1e-6)


def test_itm_prior_is_the_entropy_of_one_in_three():
    assert ITM_PRIOR == pytest.approx(-(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3))


def test_itg_equals_word_by_word_and_ends_with_sep():
    torch.manual_seed(0)
    logits, ids, mask = torch.randn(2, 4, 9), torch.tensor([[4, 7, 8, 5], [4, 6, 5, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    logits.requires_grad_(True)
    terms = []
    for b in range(2):
        for t in range(3):
            if not mask[b, t + 1]: continue
            logp = logits[b, t] - logits[b, t].logsumexp(0)
            terms.append(-.9 * logp[ids[b, t + 1]] - .1 * logp.mean())
    loss, slow = itg_loss(logits, torch.eye(9), None, ids, mask), torch.stack(terms).mean()
    a, b = (torch.autograd.grad(x, logits)[0] for x in (loss, slow))
    assert torch.allclose(loss, slow, atol=1e-6) and torch.allclose(a, b, atol=1e-6)
    assert a[0, 2].abs().sum() > 0 and a[1, 1].abs().sum() > 0  # [SEP] is a target
    assert a[1, 2:].abs().sum() == 0 and a[0, 3].abs().sum() == 0  # padding, and what follows the end, are not


def test_itg_of_the_model_never_sees_the_word_it_predicts(toy):
    model, image, ids, mask = toy
    dec = ids.clone(); dec[:, 0] = 6
    text = model.qformer("causal", model.ln_vision(image), dec, mask)[1]
    for t in range(1, 5):
        other = dec.clone(); other[:, t:] = 11
        assert torch.equal(model.qformer("causal", model.ln_vision(image), other, mask)[1][:, :t], text[:, :t])


def test_the_loss_is_the_sum_and_reaches_every_part(toy):
    model, image, ids, mask = toy
    out = model(image, ids, mask, torch.arange(4))
    assert torch.allclose(out["loss"], out["itc"] + out["itm"] + out["itg"])
    out["loss"].backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == set()


def test_padding_changes_no_loss(toy):
    model, image, ids, mask = toy
    wide = [F.pad(ids[:, :5], (0, 1), value=v) for v in (1, 13)]
    short = F.pad(mask[:, :5], (0, 1))
    outs = []
    for x in wide: torch.manual_seed(0); outs.append(model(image, x, short, torch.arange(4)))
    assert all(torch.allclose(outs[0][k], outs[1][k], atol=1e-5) for k in outs[0])


def test_it_learns_four_pairs_by_heart(toy):
    model, image, ids, mask = toy
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120): out = model(image, ids, mask, torch.arange(4)); opt.zero_grad(); out["loss"].backward(); opt.step()
    assert out["itc_acc"] == 1 and out["itm"] < .4 < ITM_PRIOR and out["itc"] < math.log(4)
    scores = held_out_scores(model, image, ids, mask, torch.arange(4))
    assert scores["recall_at_1"] == 1 and scores["chance_at_1"] == .25 and scores["itm_balanced_accuracy"] > .5 and scores["itm_auc"] > .5
    assert held_out_scores(model, image, ids, mask, torch.arange(4)) == scores


def test_auc_counts_ordered_pairs_and_half_of_the_ties():
    assert _auc(torch.tensor([2., 1.]), torch.tensor([1., 0.])) == pytest.approx(3.5 / 4)


def test_negatives_harden_with_the_batches_of_training_only(monkeypatch):
    import expblip.step1 as module
    torch.manual_seed(0)
    model = Step1(QFormer(QFormerConfig(vocab=40, encoder_width=8, hidden=16, layers=1, heads=2, ffn=16, queries=2)), 3, hard_after=4)
    batch = dict(image=torch.randn(4, 5, 8), ids=torch.randint(4, 40, (4, 6)), mask=torch.ones(4, 6, dtype=torch.long), group=torch.arange(4))
    spread, usual = [], module.hard_negatives
    def spy(sim, own, draw=None, rule="masked"):
        spread.append(sim.std().item())
        return usual(sim, own, draw)
    monkeypatch.setattr(module, "hard_negatives", spy)
    for _ in range(6): model(**batch)
    model.eval(); model(**batch)
    steps = [s / spread[-2] for s in spread[::2]]  # the first of the two draws of each batch, against full hardness
    assert steps == pytest.approx([.25, .5, .75, 1, 1, 1, 1], rel=1e-4)
