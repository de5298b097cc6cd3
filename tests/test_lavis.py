"""LAVIS as judge: losses, gradients, features and tokens of its own modules, recorded by tools/lavis_parity.py; and its names at full size.

Tolerances (float32, one thread; both sides add the same numbers in another order): features 5e-6, losses 2e-6, gradients 2e-5 of the largest
entry of their tensor, tokens equal."""
import json
import re
from pathlib import Path

import pytest
import torch

import expblip.step1
from expblip.encoders import build_encoder
from expblip.io import load_tensors
from expblip.lm import OPTConfig, OPTForCausalLM
from expblip.mapping import LAVIS, OURS, from_ours, part_of, rename
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1
from expblip.step2 import ExpressionCaptioner
from expblip.weights import load_weights

torch.set_num_threads(1)
HERE = Path(__file__).parent
FACTS = json.loads((HERE / 'lavis_parity.json').read_text())
TENSORS = load_tensors(HERE / 'lavis_parity.safetensors')
FEATURES, LOSS, GRADIENT = 5e-6, 2e-6, 2e-5


class Ids:
    "In place of the language model's tokenizer: captions are the token numbers themselves."
    bos_token_id, pad_token_id, unk_token_id = FACTS['step2']['bos'], FACTS['step2']['pad'], None
    def convert_tokens_to_ids(self, name): return FACTS['step2']['newline']
    def batch_decode(self, rows, skip_special_tokens): return [' '.join(map(str, r.tolist())) for r in rows]


def encoder():
    v = FACTS['vit']
    return build_encoder(dict(model_type='blip_2_vision_model', hidden_size=v['embed_dim'], intermediate_size=int(v['embed_dim'] * v['mlp_ratio']),
                              num_hidden_layers=v['depth'], num_attention_heads=v['num_heads'], image_size=v['img_size'], patch_size=v['patch_size'],
                              layer_norm_eps=v['eps'], initializer_range=.02))


def qformer() -> QFormer:
    b = FACTS['bert']
    return QFormer(QFormerConfig(FACTS['step1']['vocab'], FACTS['vit']['embed_dim'], b['hidden_size'], b['num_hidden_layers'],
                                 b['num_attention_heads'], b['intermediate_size'], 2, FACTS['queries'], b['max_position_embeddings'],
                                 FACTS['projection'], 0., gain=1.))


def lavis_file(tmp: Path, step: str) -> Path:
    "The recorded weights as the file that LAVIS would have saved."
    state = {k.removeprefix(f'{step}/'): v for k, v in TENSORS.items() if k.startswith(f'{step}/')}
    torch.save(dict(model=state, epoch=0), tmp / f'{step}.pth')
    return tmp / f'{step}.pth'


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    model, enc = Step1(qformer(), FACTS['step1']['dec'], identical_negatives=True), encoder()
    report = load_weights(lavis_file(tmp_path_factory.mktemp('lavis'), 'step1'), model, enc)
    assert not report.stayed and not report.unused
    return model.train(), enc.eval()


def two_model() -> ExpressionCaptioner:
    lm = OPTForCausalLM(OPTConfig(vocab_size=FACTS['step2']['vocab'], pad_token_id=1, bos_token_id=2, eos_token_id=2, **FACTS['opt']))
    return ExpressionCaptioner(encoder(), qformer(), lm, Ids())


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    model = two_model()
    report = load_weights(lavis_file(tmp_path_factory.mktemp('lavis'), 'step2'), model)
    assert set(report.stayed) == {'text', 'ITG head'} and not report.unused  # LAVIS throws both away in step 2
    return model


def near(ours: torch.Tensor, theirs: torch.Tensor, bound: float) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= bound


def step1_losses(model, enc, monkeypatch) -> dict:
    "Our losses on LAVIS's batch with LAVIS's drawn negatives."
    drawn = iter((FACTS['step1']['wrong_image'], FACTS['step1']['wrong_text']))
    def lavis_drew(sim, own, draw=None, rule="masked"): return torch.tensor(next(drawn)), torch.ones(len(sim), dtype=torch.bool)
    monkeypatch.setattr(expblip.step1, 'hard_negatives', lavis_drew)
    with torch.no_grad(): tokens = enc(TENSORS['image'])
    group = torch.tensor([FACTS['texts'].index(t) for t in FACTS['texts']])
    return model(tokens, TENSORS['text_ids'], TENSORS['text_mask'], group)


def test_features_of_step_1(one):
    model, enc = one
    with torch.no_grad():
        tokens = enc(TENSORS['image']); image = model.ln_vision(tokens)
        near(tokens, TENSORS['step1_vit'], FEATURES); near(image, TENSORS['step1_ln'], FEATURES)
        near(model.qformer('query', image)[0], TENSORS['step1_queries'], FEATURES)
        near(model.qformer('text', ids=TENSORS['text_ids'], text_mask=TENSORS['text_mask'])[1][:, 0], TENSORS['step1_text'], FEATURES)
        near(model.match(image, TENSORS['text_ids'], TENSORS['text_mask'])[:, 1], TENSORS['step1_itm'], FEATURES)


def test_losses_of_step_1(one, monkeypatch):
    got = step1_losses(*one, monkeypatch)
    for name in ('itc', 'itm', 'itg', 'loss'): assert got[name].item() == pytest.approx(FACTS['step1'][name], abs=LOSS * 3), name


def our_grad(model, name: str) -> torch.Tensor | None:
    "Our gradient under LAVIS's name; LAVIS keeps the biases of query and value apart."
    own = dict(model.named_parameters())
    if name.endswith(('q_bias', 'v_bias')):
        joint = own[rename(re.sub('[qv]_bias', 'qkv.bias', name), LAVIS, OURS)].grad
        return joint.chunk(3)[0 if name.endswith('q_bias') else 2]
    return own[rename(name, LAVIS, OURS)].grad


def compare_gradients(model, prefix: str, names) -> float:
    "The largest deviation, as a share of the largest entry of its tensor."
    worst = 0.
    for name in names:
        theirs, ours = TENSORS[prefix + name], our_grad(model, name)
        assert ours is not None, name
        floor = 1e-6  # a gradient that is zero but for rounding (biases of keys)
        worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=floor)).item() if theirs.abs().max() > floor else 0.)
        assert (ours - theirs).abs().max() <= GRADIENT * theirs.abs().max() + 2e-7, name
    return worst


def test_gradients_of_step_1(one, monkeypatch):
    model, enc = one
    model.zero_grad(); step1_losses(model, enc, monkeypatch)['loss'].backward()
    names = [k.removeprefix('grad step1 ') for k in TENSORS if k.startswith('grad step1 ')]
    assert {part_of(rename(n, LAVIS, OURS)) for n in names} == {'ln_vision', 'queries', 'text', 'ITG head', 'ITC and ITM heads', 'temperature'}
    compare_gradients(model, 'grad step1 ', names)
    theirs = {rename(n, LAVIS, OURS) for n in names}
    assert {n for n, p in model.named_parameters() if p.grad is not None} == theirs  # nothing more, nothing less


@pytest.mark.parametrize('loss', ('itc', 'itm', 'itg'))
def test_gradients_of_each_loss(one, monkeypatch, loss):
    model, enc = one
    model.zero_grad(); step1_losses(model, enc, monkeypatch)[loss].backward()
    prefix = f'grad loss_{loss.replace("itg", "lm")} '
    names = [k.removeprefix(prefix) for k in TENSORS if k.startswith(prefix)]
    assert len(names) >= 4
    compare_gradients(model, prefix, names)


def test_without_detaching_the_loss_is_equal_and_the_gradient_is_not(one, monkeypatch):
    "Why gradients are compared: LAVIS gathers without gradient, and only the gradient shows it."
    model, enc = one
    model.zero_grad(); model.detach = False
    try:
        got = step1_losses(model, enc, monkeypatch)
        assert got['itc'].item() == pytest.approx(FACTS['step1']['itc'], abs=LOSS)
        got['itc'].backward()
        theirs = TENSORS['grad loss_itc vision_proj.weight']
        assert (model.vision_proj.weight.grad - theirs).abs().max() > .1 * theirs.abs().max()
    finally: model.detach = True


def test_identical_captions_as_negatives_are_a_switch(one, monkeypatch):
    model, enc = one
    model.identical_negatives = False
    try: assert abs(step1_losses(model, enc, monkeypatch)['itc'].item() - FACTS['step1']['itc']) > .01
    finally: model.identical_negatives = True


def test_features_loss_and_gradients_of_step_2(two):
    two.eval(); two.zero_grad()
    two.encoder.requires_grad_(True)
    with torch.no_grad(): near(two.features(TENSORS['image'])[1], TENSORS['step2_queries'], FEATURES)
    loss = two(TENSORS['image'], TENSORS['lm_ids'], TENSORS['lm_mask'])['loss']
    assert loss.item() == pytest.approx(FACTS['step2']['loss'], abs=LOSS * 3)
    loss.backward()
    names = [k.removeprefix('grad step2 ') for k in TENSORS if k.startswith('grad step2 ')]
    named = {re.sub('[qv]_bias', 'qkv.bias', n) for n in names}
    assert {part_of(rename(n, LAVIS, OURS)) for n in named} == {'image encoder', 'ln_vision', 'queries', 'projection'}
    compare_gradients(two, 'grad step2 ', names)


@pytest.mark.parametrize('decode', ('greedy', 'beam', 'beam_sum'))
def test_generated_tokens(two, decode):
    said = two.generate(TENSORS['image'], decode.split('_')[0], beams=5, max_new_tokens=20, length_penalty=float(decode != 'beam_sum'))
    end = FACTS['step2']['newline']
    def cut(row): return row[:row.index(end) + 1] if end in row else row
    assert [cut(list(map(int, s.split()))) for s in said] == [cut(r) for r in FACTS['step2'][decode]]


def test_the_epsilon_of_ln_vision_is_lavis_not_hugging_face(one):
    model, enc = one
    with torch.no_grad():
        tokens = enc(TENSORS['image'])
        model.ln_vision.eps = 1e-6
        try: assert (model.ln_vision(tokens) - TENSORS['step1_ln']).abs().max() > 0
        finally: model.ln_vision.eps = 1e-5


def test_the_schedule_of_lavis():
    from expblip.scales import epoch_rate
    for step, theirs in FACTS['schedule']: assert epoch_rate(step, 100, 5, 1e-4, 1e-5, 160, 1e-6) == pytest.approx(theirs, rel=1e-12), step
    assert FACTS['schedule'][3][1] < 7e-5 < 9e-5 < FACTS['schedule'][4][1]  # warm-up cut off, then a leap


def test_the_dropout_of_the_frozen_language_model_is_a_switch(two):
    "LAVIS leaves it alive in training; ours only when asked."
    for layer in two.lm.model.decoder.layers: layer.dropout = .5
    try:
        losses = {}
        for two.lm_dropout in (False, True):
            two.train(); torch.manual_seed(0)
            losses[two.lm_dropout] = [two(TENSORS['image'], TENSORS['lm_ids'], TENSORS['lm_mask'])['loss'].item() for _ in range(2)]
        assert losses[False] == pytest.approx([FACTS['step2']['loss']] * 2, abs=1e-5) and losses[True][0] != losses[True][1]
    finally:
        for layer in two.lm.model.decoder.layers: layer.dropout = 0.
        two.lm_dropout = False; two.eval()


# ---------------------------------------------------------------- names at full size, as LAVIS itself has them

def table(state: dict) -> dict:
    out: dict = {}
    for key, value in state.items():
        row = out.setdefault(f'{re.sub("[0-9]+", "#", key)} {list(value.shape)}', [])
        row += [int(n) for n in re.findall(r'\.(\d+)\.', key)[:1]]
    return {k: sorted(v) for k, v in out.items()}


@pytest.mark.parametrize('what', FACTS['names'])
def test_names_and_shapes_of_the_real_models_are_lavis(what):
    "ViT-g/14, Q-Former and OPT at the paper's sizes, on the meta device: written for LAVIS, our tensors have exactly LAVIS's names and shapes."
    from expblip.models import MODELS, build
    size = MODELS['full'] if what == 'step 1' else MODELS['full'].but(lm=what)
    step1, captioner = build(size, device='meta')
    state = {f'encoder.{k}': v for k, v in captioner.encoder.state_dict().items()} | (step1 if what == 'step 1' else captioner).state_dict()
    if what != 'step 1': state = {k: v for k, v in state.items() if part_of(k) not in ('text', 'ITG head')}  # LAVIS throws these away in step 2
    ours, theirs = table(from_ours(state, LAVIS)[0]), {k: v for k, v in FACTS['names'][what].items() if 'position_ids' not in k}
    assert ours == theirs and sum(map(len, ours.values())) > 600
