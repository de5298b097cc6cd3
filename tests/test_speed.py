"speed: each switch leaves loss and gradient as they were, and does what it is there for."
import copy

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from expblip.config import ConfigError, stage_config
from expblip.lm import lm_rows, qformer_rows, small_opt, train_tokenizer
from expblip.models import ENCODERS, ModelSize, build
from expblip.qformer import QFormerConfig
from expblip.speed import arrive, compile_parts, padded, pinned, set_attention
from expblip.step2 import lm_hidden, trainable
from expblip.samples import Step1Batches, Step2Batches
from expblip.training import Plan, fit

torch.set_num_threads(1)
WORDS = 'the face shows happiness because it raises the cheek and pulls the lip corner while the brow stays calm'.split()
TEXTS = [' '.join(WORDS[:n]) for n in range(2, 18)]
N, SHAPE = len(TEXTS), dict(ENCODERS['eva_vit_g'], hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=28)


class Pictures:
    def __call__(self, rows): return torch.from_numpy(np.stack([np.random.default_rng(int(r)).integers(0, 256, (32, 32, 3), np.uint8) for r in rows]))
    def state(self): return []


@pytest.fixture
def made(monkeypatch):
    "Step 1, captioner, and their batch makers."
    monkeypatch.setitem(ENCODERS, 'speedy', SHAPE)
    tok = train_tokenizer(TEXTS * 4, 300)
    size = ModelSize('speedy', '', QFormerConfig(len(tok), 32, 32, 2, 2, 64, queries=4, max_text=48, projection=8))
    torch.manual_seed(0)
    step1, captioner = build(size, lm=small_opt(tok, 32, 3, 2, 64), tok=tok, dec=6)
    for p in captioner.encoder.parameters(): p.data.add_(.05 * torch.randn_like(p))
    features = np.random.default_rng(0).normal(size=(2, N, 5, 32)).astype('float16')
    def first(**kw): return Step1Batches(features, np.arange(N), qformer_rows(tok, TEXTS), TEXTS, tok.pad_token_id, **kw)
    def second(**kw): return Step2Batches(Pictures(), np.arange(N), lm_rows(tok, TEXTS), tok.pad_token_id, 28, **kw)
    return (step1, captioner), (first, second)


def numbers(model, batch):
    "Loss and gradients of a pass."
    model.zero_grad()
    loss = model(**batch)['loss']
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(a, b, tolerance=2e-5):
    "Equal losses, and gradients equal to a share of the largest of each parameter (or of 1e-3, for those that are nothing but rounding)."
    assert a[0] == pytest.approx(b[0], abs=tolerance) and a[1].keys() == b[1].keys()
    for n, g in a[1].items(): assert (g - b[1][n]).abs().max() <= tolerance * max(g.abs().max().item(), 1e-1), n


@pytest.mark.parametrize('step', (0, 1))
def test_attention_and_compilation_change_nothing(made, step):
    model, batch = made[0][step].train(), made[1][step](pad_to=8)(np.arange(6), np.arange(6))
    plain = numbers(model, batch)
    assert len(plain[1]) > 40
    same(plain, numbers(set_attention(model, 'eager'), batch))
    kinds = {m.config._attn_implementation for m in model.modules() if hasattr(m, 'config') and hasattr(m.config, '_attn_implementation')}
    assert not step or kinds == {'eager'}
    same(plain, numbers(set_attention(model, 'sdpa'), batch))
    keys = list(model.state_dict())
    torch._dynamo.reset(); counters.clear()
    assert compile_parts(model, 'encoder+qformer+lm', backend='aot_eager') == [['qformer'], ['encoder', 'qformer', 'lm']][step]
    same(plain, numbers(model, batch))
    assert counters['stats']['unique_graphs'] > 0 and not counters['graph_break'] and list(model.state_dict()) == keys
    next(iter(model.parameters())).data.normal_()
    with pytest.raises(AssertionError): same(plain, numbers(model, batch))  # the comparison can fail


def test_few_shapes_few_programs(made):
    (step1, captioner), makers = made
    for model, maker, kinds in ((step1, makers[0], 8), (captioner, makers[1], 5)):
        def programs(pad_to, model=model, maker=maker):
            torch._dynamo.reset(); counters.clear()
            net = copy.deepcopy(model)
            compile_parts(net, 'encoder+qformer+lm', 64, backend='eager')
            makes = maker(pad_to=pad_to)
            for i in range(0, N - 3, 4): net(**makes(np.arange(i, i + 4), np.arange(4)))
            return counters['stats']['unique_graphs']
        lengths = {makers[1](pad_to=16)(np.arange(i, i + 4), np.arange(4))['ids'].size(1) for i in range(0, N - 3, 4)}
        bucketed, free = programs(16), programs(1)
        assert bucketed <= kinds * len(lengths) and bucketed < free, (bucketed, free, lengths)


def test_the_language_model_needs_no_padding_mask(made):
    "Padding on the right is seen by no real token: states and gradients as with the mask that LAVIS passes, whatever stands in the padding."
    captioner, batch = made[0][1].eval(), made[1][1](pad_to=16)(np.arange(0, 8, 2), np.arange(4))
    for p in captioner.lm.parameters(): p.data.normal_(0, .2)
    ids, mask, prefix = batch['ids'], batch['mask'], torch.randn(4, 4, 32, requires_grad=True)
    def masked():
        embeds = torch.cat([prefix, captioner.lm.get_input_embeddings()(ids)], 1)
        seen = torch.cat([mask.new_ones(4, 4), mask], 1)
        return captioner.lm.base_model(inputs_embeds=embeds, attention_mask=seen, use_cache=False).last_hidden_state[:, 3:-1][mask.bool()]
    def grad(x): return torch.autograd.grad(x.square().sum(), prefix)[0]
    with_mask, without = masked(), lm_hidden(captioner.lm, prefix, ids, mask)
    assert (mask == 0).any() and torch.allclose(with_mask, without, atol=1e-5)
    assert torch.allclose(grad(with_mask), grad(without), rtol=1e-4, atol=1e-5)
    rubbish = torch.where(mask == 0, 77, ids)
    assert torch.equal(lm_hidden(captioner.lm, prefix, rubbish, mask), lm_hidden(captioner.lm, prefix, ids, mask))
    assert not torch.allclose(lm_hidden(captioner.lm, prefix, rubbish.flip(1), mask), without, atol=1e-2)


@pytest.mark.parametrize('part, programs', (('encoder', 1), ('lm', 1), ('qformer', 2)))  # the Q-Former's blocks: with cross-attention, and without
def test_equal_blocks_share_a_program(made, part, programs):
    captioner = made[0][1].train()
    torch._dynamo.reset(); counters.clear()
    compile_parts(captioner, part, backend='eager')
    captioner(**made[1][1]()(np.arange(4), np.arange(4)))
    assert counters['stats']['unique_graphs'] == programs


@pytest.mark.parametrize('step', (0, 1))
def test_padding_to_a_bucket_changes_nothing(made, step):
    model, maker = made[0][step].train(), made[1][step]
    narrow, wide = (maker(pad_to=p)(np.arange(4), np.arange(4)) for p in (1, 8))
    assert narrow['ids'].size(1) % 8 and wide['ids'].size(1) % 8 == 0
    same(numbers(model, narrow), numbers(model, wide))
    longest = maker(pad_to=64)
    assert longest(np.arange(5), np.arange(5))['ids'].size(1) == longest.lengths.max()  # never beyond the longest row of all
    assert padded(narrow, 1, 0) is narrow


def test_no_weight_gradient_of_the_language_model_is_computed(made):
    "Backward through a frozen linear layer costs as much as forward; with weight gradients it would cost twice as much."
    captioner = made[0][1].train()
    prefix, batch = torch.randn(4, 4, 32, requires_grad=True), made[1][1]()(np.arange(4), np.arange(4))
    def work(lm):
        set_attention(lm, 'eager')
        with FlopCounterMode(display=False) as forward: out = lm.get_output_embeddings()(lm_hidden(lm, prefix, batch['ids'], batch['mask'])).sum()
        with FlopCounterMode(display=False) as backward: out.backward()
        counts = [c.get_flop_counts()['Global'] for c in (forward, backward)]
        return [sum(v for k, v in c.items() if 'bmm' not in str(k)) for c in counts]
    forward, backward = work(captioner.lm)
    assert backward == forward > 0 and all(p.grad is None for p in captioner.lm.parameters())
    thawed = copy.deepcopy(captioner.lm).requires_grad_(True)
    assert work(thawed)[1] == 2 * forward  # what it would cost


def test_pictures_are_augmented_where_the_model_is(made):
    maker = made[1][1]
    here, there = maker(seed=3), maker(seed=3, there=True)
    i, at = np.arange(6), np.arange(10, 16)
    raw = there(i, at)
    assert raw['raw'].dtype == torch.uint8 and 'pixels' not in raw
    a, b = here(i, at), arrive(raw, torch.device('cpu'), there)
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    far = arrive(raw, torch.device('meta'), there)  # every tensor made on the way lies on the device
    assert far['pixels'].shape == (6, 3, 28, 28) and all(v.device.type == 'meta' for v in far.values())
    plain = maker(augment=False, there=True)
    assert torch.equal(arrive(plain(i), torch.device('cpu'), plain)['pixels'], maker(augment=False)(i)['pixels'])


@pytest.mark.parametrize('step', (0, 1))
def test_a_training_is_the_same_to_the_bit(made, step):
    def losses(**kw):
        model, maker = copy.deepcopy(made[0][step]), made[1][step](**kw)
        named = trainable(model) if step else list(model.named_parameters())
        return [line['loss'] for line in fit(model, named, maker, maker.lengths, Plan(4, 4, every=1))['log']], [p.detach().clone() for _, p in named]
    (a, p), (b, q) = losses(), losses(there=True)
    assert a == b and len(a) == 4 and all(map(torch.equal, p, q))


def test_a_batch_is_pinned_only_for_a_gpu():
    batch = dict(x=torch.ones(2), name='a')
    assert pinned(batch, torch.device('cpu')) is batch
    assert arrive(batch, torch.device('meta'))['x'].device.type == 'meta' and arrive(batch, torch.device('meta'))['name'] == 'a'


def test_knobs():
    cfg = stage_config('step2', device='cpu', compile='encoder+lm', pad_to=16, attention='eager', augment_on='device')
    assert (cfg.compile, cfg.pad_to, cfg.attention, cfg.augment_on) == ('encoder+lm', 16, 'eager', 'device')
    with pytest.raises(ConfigError, match='encoder'): stage_config('step1', compile='vit')
