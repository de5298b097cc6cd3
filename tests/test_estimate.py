"estimate: parameters, work and memory by arithmetic, against models that are counted."
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from expblip import estimate
from expblip.estimate import Stack, Training, flops, qformer_parameters, sizes
from expblip.memory import Memory, Remembered, arrange
from expblip.models import MODELS, build
from expblip.qformer import QFormerConfig
from expblip.step2 import trainable

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=("base", "full"))
def large(request):
    "A model of full size without content, and its sizes."
    size = MODELS[request.param]
    return (*build(size, "meta"), sizes(size.encoder, size.lm, size.qformer))


def count(model): return sum(p.numel() for p in model.parameters())


def test_parameters_of_the_full_models_are_exact(large):
    step1, captioner, m = large
    whole, query = qformer_parameters(m.qformer)
    assert (m.encoder.parameters, m.lm.parameters, whole) == (count(captioner.encoder), count(captioner.lm), count(step1))
    assert query + m.encoder.parameters + count(captioner.proj) == sum(p.numel() for _, p in trainable(captioner))
    assert m.encoder.matrices == sum(p.numel() for n, p in captioner.encoder.named_parameters() if p.dim() == 2 and "layer" in n)


def test_a_name_that_nobody_knows_is_one_sentence():
    for given, told in ((dict(encoder="nope"), "encoder 'nope': not one of eva_vit_g, mae_vit_b, no model folder"),
                        (dict(lm="no/pe"), "lm 'no/pe': not one of facebook/opt-2.7b, facebook/opt-6.7b"),
                        (dict(encoder="data/drawn-blip2"), "is a drawn encoder: the estimate knows the layers of a ViT alone")):
        with pytest.raises(ValueError, match=told) as caught: sizes(**given)
        assert "huggingface" not in str(caught.value)


def counted(model, batch):
    "FLOP of an update, by torch's counter."
    with FlopCounterMode(display=False) as counter: model(**batch)["loss"].sum().backward()
    for p in model.parameters(): p.grad = None
    return counter.get_total_flops()


def step2_batch(captioner, b, t, device="meta"):
    size = captioner.encoder.image_size
    whole = dict(device=device, dtype=torch.long)
    return dict(pixels=torch.empty(b, 3, size, size, device=device), ids=torch.zeros(b, t, **whole), mask=torch.ones(b, t, **whole))


class Plain(torch.nn.Module):
    "Step 2 for tensors without content: every token is real, so none has to be looked up in a mask."
    def __init__(self, captioner): super().__init__(); self.captioner = captioner.train()
    def forward(self, pixels, ids, mask):
        c, q = self.captioner, self.captioner.qformer.cfg.queries
        embeds = torch.cat([c.prefix(pixels), c.lm.get_input_embeddings()(ids)], 1)
        states = c.lm.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, q - 1:-1]
        logits = c.lm.get_output_embeddings()(states.flatten(0, 1))
        return dict(loss=torch.nn.functional.cross_entropy(logits.float(), ids.flatten()))


@pytest.mark.parametrize("encoder", (True, False))
@pytest.mark.parametrize("text", (64, 128))
def test_work_of_the_full_models_in_step_2(large, text, encoder):
    "ViT-g + OPT-6.7B and ViT-B + OPT-2.7B on the meta device, forward and backward, within 1 %."
    _, captioner, m = large
    trainable(captioner, encoder)
    got = counted(Plain(captioner), step2_batch(captioner, 2, text)) / 2
    assert flops(m, 2, text, train_encoder=encoder) == pytest.approx(got, rel=.01)


@pytest.mark.parametrize("text", (32, 64, 128))
def test_work_of_the_full_q_former(large, text):
    "The passes of step 1 as it makes them, and every pass whole as LAVIS makes them, on the meta device, within 1 %."
    step1, _, m = large
    b, q, long = 2, step1.train().requires_grad_(True).qformer, dict(device="meta", dtype=torch.long)
    image, ids, mask = torch.empty(b, m.encoder.tokens, m.encoder.width, device="meta"), torch.zeros(b, text, **long), torch.ones(b, text, **long)
    for shared in (True, False):
        with FlopCounterMode(display=False) as counter:
            x = step1.ln_vision(image)
            looked = q.look(x) if shared else x
            rows, words = q("causal", looked, ids, mask)
            said = step1.text_features(ids, mask) if shared else torch.nn.functional.normalize(
                step1.text_proj(q("text", ids=ids, text_mask=mask)[1][:, 0]), dim=-1)
            pool = torch.einsum("nqd,md->nmq", step1.image_features(rows), said)
            pairs = torch.zeros(3 * b, 2, **long)
            scores = step1.match(looked, ids, mask, pairs) if shared else step1.itm_head(
                q("both", x.repeat(3, 1, 1), ids.repeat(3, 1), mask.repeat(3, 1))[0])
            (pool.sum() * 2 + q.logits(words[:, :-1]).sum() + scores.sum()).backward()
        assert flops(m, 1, text, b, shared=shared) == pytest.approx(counter.get_total_flops() / b, rel=.01), shared
        for p in step1.parameters(): p.grad = None


def test_work_is_that_of_published_tables():
    "TFLOP a sample, with ViT-g and OPT-6.7B or 2.7B, rounded as the tables of BLIP-2's reimplementations give it."
    m, small = sizes(), sizes(lm="facebook/opt-2.7b")
    for n, both, two, alone in ((64, 4.16, 2.62, .33), (128, 5.86, 3.30, .51)):
        assert flops(m, 2, n) / 1e12 == pytest.approx(both, rel=.05) and flops(small, 2, n) / 1e12 == pytest.approx(two, rel=.05)
        assert flops(m, 1, n, shared=False) / 1e12 == pytest.approx(alone, rel=.05)


def middle(layers=4):
    "Step 1 and step 2 of a middle size, with a ViT and an OPT as the large ones are, and its sizes."
    from transformers import OPTConfig, OPTForCausalLM, ViTConfig, ViTModel

    from expblip.encoders import HubEncoder
    from expblip.qformer import QFormer
    from expblip.step1 import Step1
    from expblip.step2 import ExpressionCaptioner
    torch.manual_seed(0)
    eye = ViTConfig(hidden_size=64, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=256, image_size=64, patch_size=8,
                    hidden_dropout_prob=0., attention_probs_dropout_prob=0.)
    mouth = OPTConfig(vocab_size=600, hidden_size=96, word_embed_proj_dim=96, ffn_dim=384, num_hidden_layers=layers, num_attention_heads=4,
                      max_position_embeddings=128, dropout=0., attention_dropout=0.)
    q = QFormerConfig(500, 64, 48, layers, 4, 192, queries=8, max_text=64, projection=32)
    step1 = Step1(QFormer(q), 3)
    captioner = ExpressionCaptioner(HubEncoder(ViTModel(eye, add_pooling_layer=False)), step1.qformer, OPTForCausalLM(mouth), None, step1.ln_vision)
    m = estimate.Sizes(Stack(64, layers, 256, 4, 65, 8), Stack(96, layers, 384, 4, vocab=600, positions=128), q)
    return step1, captioner, m


def batches(step, m, b, t):
    ids = torch.randint(4, 500, (b, t), generator=torch.Generator().manual_seed(0))
    if step == 2: return dict(pixels=torch.randn(b, 3, 64, 64), ids=ids, mask=torch.ones_like(ids))
    return dict(image=torch.randn(b, m.encoder.tokens, 64), ids=ids, mask=torch.ones_like(ids), group=torch.arange(b), draw=torch.rand(b, 2))


@pytest.mark.parametrize("step", (1, 2))
def test_work_of_a_small_model_on_the_cpu(step):
    "The real forward pass of either step, counted while it computes, within 2 %."
    step1, captioner, m = middle()
    if step == 2: trainable(captioner)
    with sdpa_kernel(SDPBackend.MATH): got = counted((step1 if step == 1 else captioner).train(), batches(step, m, 8, 24)) / 8
    assert flops(m, step, 24, 8) == pytest.approx(got, rel=.02)


MEASURED = [(1, {}), (1, dict(pieces=8)), (1, dict(recompute="qformer")), (2, {}), (2, dict(recompute="encoder")), (2, dict(recompute="lm")),
            (2, dict(recompute="encoder+qformer+lm")), (2, dict(train_encoder=False))]


@pytest.mark.parametrize("step, switches", MEASURED, ids=str)
def test_remembered_bytes_are_those_counted(step, switches):
    "Every byte that the backward pass keeps, counted by hooks in fp32 on the CPU: within 10 %."
    step1, captioner, m = middle(6)
    named = trainable(captioner, switches.get("train_encoder", True)) if step == 2 else list(step1.named_parameters())
    model = (step1 if step == 1 else captioner).train()
    arrange(model, Memory(**{k: v for k, v in switches.items() if k != "train_encoder"}), torch.device("cpu"))
    with Remembered(model) as kept: out = model(**batches(step, m, 16, 40))
    keys = sum(x.nbytes for pair in step1.qformer.look(torch.zeros(16, m.encoder.tokens, 64)) for x in pair)
    seen = {"pieces": keys, "recompute": 4 * keys}.get(next(iter(switches), ""), 0) * (step == 1)  # they travel in lists, where hooks do not see them
    t = Training(step, 16, 40, "fp32", "fp32", **switches)
    told = {k: v for k, v in estimate.activations(m, t).items() if k != "computed again"}
    assert len(named) > 10 and out["loss"].isfinite() and sum(told.values()) == pytest.approx(kept.bytes + seen, rel=.1), told


def test_memory_of_weights_gradients_and_moments_is_what_tensors_take():
    "Step 2 in fp32: bytes of parameters, gradients and AdamW's state, within 1 %; more switches, less memory."
    _, captioner, m = middle()
    named = trainable(captioner)
    opt = torch.optim.AdamW([p for _, p in named])
    captioner.train()(**batches(2, m, 2, 9))["loss"].backward(); opt.step()
    told = estimate.memory(m, Training(2, 2, 9, "fp32", "fp32"))
    state = sum(x.nbytes for s in opt.state.values() for x in s.values())
    assert told["gradients"] == pytest.approx(sum(p.grad.nbytes for _, p in named), rel=.01) and told["optimizer"] == pytest.approx(state, rel=.01)
    assert told["trained weights"] + told["frozen weights"] == pytest.approx(sum(p.nbytes for p in captioner.parameters()), rel=.01)
    total = lambda **x: sum(estimate.memory(sizes(), Training(**x)).values())
    few = dict(recompute="encoder", lm_weights="nf4")
    assert total() > total(recompute="encoder") > total(**few) > total(**few, offload="optimizer")
    assert estimate.largest_batch(sizes(), Training(), 24e9) == 0 < estimate.largest_batch(sizes(), Training(), 141e9)
