"memory: switches that save memory change no number (fewer bits: by a little), and save what they promise."
import sys
import weakref

import pytest
import torch
from test_resume import plan, work

from expblip import io, memory
from expblip.config import ConfigError, stage_config
from expblip.lm import load_lm, small_opt, train_tokenizer
from expblip.memory import Memory, MissingPackage, OffloadedAdamW, Remembered, arrange, lm_options, make_optimizer
from expblip.shards import shard
from expblip.training import fit

torch.set_num_threads(1)
CPU = torch.device("cpu")
WAYS = {  # step and switches
    "encoder": (2, dict(recompute="encoder")), "lm": (2, dict(recompute="lm")), "Q-Former": (2, dict(recompute="qformer")),
    "all": (2, dict(recompute="encoder+qformer+lm")), "Q-Former in step 1": (1, dict(recompute="qformer")),
    "visiting": (2, dict(offload="lm")), "all away": (2, dict(recompute="encoder", offload="lm+optimizer"))}


def gradients(step, switches, dropout=.1, n=6):
    "Losses and gradients of one batch, and the bytes that were remembered."
    import numpy as np
    model, named, batches = work(step, dropout)
    batch = batches(np.arange(n), np.arange(n))
    undo = arrange(model.train(), Memory(**switches), CPU)
    torch.manual_seed(3)
    with Remembered(model) as kept: out = model(**batch)
    out["loss"].backward()
    undo()
    assert not any("forward" in vars(m) for m in model.modules())
    return out, {k: p.grad for k, p in named if p.grad is not None}, kept.bytes


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_gradients_are_equal_and_less_is_remembered(way):
    step, switches = WAYS[way]
    (out, grads, all_of_it), (again, others, kept) = gradients(step, {}), gradients(step, switches)
    assert all(torch.equal(out[k], again[k]) for k in out) and grads.keys() == others.keys() and len(grads) > 20
    assert all(torch.equal(grads[k], others[k]) for k in grads) and kept < .95 * all_of_it


@pytest.mark.parametrize("pieces", (1, 4))
def test_pieces_keep_the_whole_pool(pieces):
    "Losses and gradients of the whole batch, at a part of its memory: what GradCache does."
    (out, grads, all_of_it), (again, others, kept) = gradients(1, {}, 0., 12), gradients(1, dict(pieces=pieces), 0., 12)
    for k in out: assert out[k].item() == pytest.approx(again[k].item(), abs=1e-6)
    assert grads.keys() == others.keys() and len(grads) > 20 and kept < .6 * all_of_it
    for k in grads: assert torch.allclose(grads[k], others[k], atol=2e-6), k


def test_a_visiting_layer_leaves_nothing_behind(monkeypatch):
    "The copies of a layer's weights are gone when the layer has been passed, in the forward pass and after the backward pass."
    visits, alive = [], []
    def there(x, device): y = x.clone(); visits.append(weakref.ref(y)); alive.append(sum(v() is not None for v in visits)); return y
    monkeypatch.setattr(memory, "_there", there)
    model, _, batches = work(2, 0.)
    model.lm = small_opt(model.tok, 16, 4, 2).requires_grad_(False)
    per_layer = len(list(memory.layers(model.lm)[0].parameters()))
    arrange(model, Memory(offload="lm"), CPU)
    import numpy as np
    out = model(**batches(np.arange(4), np.arange(4)))
    assert len(visits) == 4 * per_layer and max(alive) <= per_layer + 1 and not any(v() is not None for v in visits)
    out["loss"].backward()
    del out
    assert len(visits) == 8 * per_layer and max(alive) <= 2 * per_layer and not any(v() is not None for v in visits)


def trained(folder, resume=True, step=2, stop=None, **switches):
    "A training with these switches; `stop` ends it at that batch."
    class Stopped(Exception): pass
    model, named, batches = work(step, .1)
    made = iter(range(10**6))
    def make(i, at):
        if next(made) == stop: raise Stopped
        return batches(i, at)
    make.__module__, make.__qualname__ = "test_memory", "make"
    try: run = fit(model, named, make, batches.lengths, plan(step, steps=8, memory=Memory(**switches)), "small", folder / "log.jsonl",
                   resume=folder / "resume" if resume else None, save_every=0)
    except Stopped: return None
    return model.state_dict(), run["log"]


@pytest.mark.parametrize("switches", (dict(), dict(optimizer="fused"), dict(offload="optimizer"), dict(optimizer="8bit"), dict(pieces=3)), ids=str)
def test_stopped_and_gone_on_with_it_gives_the_same_bits(switches, tmp_path, capsys):
    step = 1 if "pieces" in switches or switches.get("optimizer") == "8bit" else 2
    (tmp_path / "a").mkdir(); (tmp_path / "b").mkdir()
    whole = trained(tmp_path / "a", step=step, **switches)
    assert trained(tmp_path / "b", step=step, stop=9, **switches) is None
    again = trained(tmp_path / "b", step=step, **switches)
    assert "small: goes on after update" in capsys.readouterr().out
    assert all(torch.equal(whole[0][k], again[0][k]) for k in whole[0]) and whole[1] == again[1]


def test_optimizers_agree(tmp_path):
    start = work(1)[0].state_dict()
    plain = trained(tmp_path, False, 1, optimizer="plain")[0]
    def apart(**switches):
        other = trained(tmp_path, False, 1, **switches)[0]
        return max((plain[k] - other[k]).abs().max().item() for k in plain if not k.endswith("key.bias") and plain[k].is_floating_point())
    assert apart(offload="optimizer") == apart(optimizer="auto") == 0 and 0 <= apart(optimizer="fused") < 1e-5
    flat = lambda state: torch.cat([x.flatten() for k, x in state.items() if x.is_floating_point() and not k.endswith("key.bias")])
    way, aside = flat(plain) - flat(start), flat(trained(tmp_path, False, 1, optimizer="8bit")[0]) - flat(plain)
    assert .001 < aside.norm() / way.norm() < .4  # rounded moments: nearly the same way


def test_moments_in_8_bits_are_a_quarter():
    net = torch.nn.Linear(256, 256)
    sizes = {}
    for how in ("plain", "8bit"):
        opt = make_optimizer([dict(params=[net.weight])], .01, Memory(optimizer=how), CPU)
        net(torch.randn(4, 256)).square().mean().backward(); opt.step()
        sizes[how] = sum(x.nbytes for x in opt.state[net.weight].values() if isinstance(x, torch.Tensor))
    assert sizes["8bit"] < .27 * sizes["plain"]
    assert isinstance(make_optimizer([dict(params=[net.weight])], .01, Memory(offload="optimizer"), CPU), OffloadedAdamW)


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    "A small language model in a folder."
    folder, tok = tmp_path_factory.mktemp("lm"), train_tokenizer(["the brow is raised and the lips part"] * 9, 320)
    torch.manual_seed(0)
    small_opt(tok, 64, 2, 2).save_pretrained(folder); tok.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("weights, near, share", (("bf16", .01, .51), ("int8", .01, .5), ("nf4", .05, .4)))
def test_fewer_bits_give_nearly_the_same_loss(opt, weights, near, share):
    "The frozen language model, loaded for real; the gradient for what comes before it passes through."
    def loss(lm):
        torch.manual_seed(1)
        x = torch.randn(3, 9, 64, requires_grad=True)
        y = torch.nn.functional.cross_entropy(lm(inputs_embeds=x.to(lm.dtype)).logits.float().flatten(0, 1), torch.arange(27))
        y.backward()
        return y.item(), x.grad, sum(p.nbytes for p in lm.parameters())
    full, few = (loss(load_lm(opt, options=lm_options(w))[0]) for w in ("fp32", weights))
    assert full[0] != few[0] and few[0] == pytest.approx(full[0], rel=near) and few[2] < share * full[2]
    assert torch.cosine_similarity(full[1].flatten(), few[1].flatten(), dim=0) > 1 - near


@pytest.mark.parametrize("ask", (lambda: lm_options("int8"), lambda: make_optimizer([], .1, Memory(optimizer="8bit"), CPU)))
def test_a_missing_package_is_named(ask, monkeypatch):
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"bits|int8.*pip install 'expblip\[small-cards\]'"): ask()


@pytest.mark.parametrize("switches, said", (
    (dict(recompute="heads"), "recompute 'heads' is not known"), (dict(offload="encoder"), "offload 'encoder' is not known"),
    (dict(optimizer="sgd"), "optimizer 'sgd' is not known"), (dict(shard="fsdp", offload="lm"), "leave out offload lm"),
    (dict(optimizer="8bit", offload="optimizer"), "leave out offload optimizer")))
def test_what_does_not_go_together_is_refused(switches, said):
    with pytest.raises(ValueError, match=said): Memory(**switches)


def test_a_part_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no part encoder"): arrange(work(1)[0], Memory(recompute="encoder"), CPU)
    with pytest.raises(ValueError, match="unknown lm_weights 'int3'"): lm_options("int3")


def test_one_process_alone_cuts_nothing(tmp_path):
    "A stage goes on alone with what its processes trained."
    alone, cut = trained(tmp_path, False), trained(tmp_path, False, shard="fsdp")
    assert all(torch.equal(alone[0][k], cut[0][k]) for k in alone[0])
    with pytest.raises(ValueError, match="shard fsdp needs several processes"): shard(work(1)[0], CPU)


@pytest.mark.parametrize("stage, given, said", (
    ("step2", dict(shard="fsdp"), "processes 1 has nobody to share with"), ("step1", dict(recompute="lm"), "must be one of none, qformer"),
    ("step2", dict(shard="fsdp", processes=2, lm_weights="nf4", offload="lm"), "does not go with offload lm and lm_weights nf4"),
    ("step2", dict(optimizer="8bit", offload="optimizer+lm"), "leave out offload optimizer")))
def test_the_stages_refuse_it_before_anything_runs(stage, given, said):
    with pytest.raises(ConfigError, match=said): stage_config(stage, device="cpu", **given)


def test_checkpoints_of_an_8_bit_optimizer_hold_plain_tensors(tmp_path):
    trained(tmp_path, step=1, optimizer="8bit")
    kept = io.load_tensors(max((tmp_path / "resume").glob("*.safetensors")))
    assert {x.dtype for k, x in kept.items() if k.endswith("/state1")} == {torch.uint8, torch.float32} and "bitsandbytes" in sys.modules
