"Recipes: every field of every source reaches the training, each switch changes what it says, and LAVIS's rules are restated literally beside ours."
import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_resume import Pictures, left_behind, plan, train, work

from expblip import images, pretraining
from expblip.checkpoints import DRAWN_BLIP2, Start, load_captioner, load_step1, save_step1, save_step2
from expblip.config import STAGES, ConfigError, stage_config
from expblip.images import DRAWS, OPERATIONS, augmented, randaugment, training_view
from expblip.scales import RECIPES
from expblip.step1 import NEGATIVES, Step1, hard_negatives
from expblip.samples import Step2Batches
from expblip.training import Plan, decay_groups, dice, encoder_layer, fit, pace_of, rate

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
FACES = torch.from_numpy(Pictures.data[:8]).permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------ complete, printed, used

@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("step", (1, 2))
def test_every_field_of_a_recipe_is_a_parameter_of_its_stage_and_resolves(recipe, step, capsys):
    fields = RECIPES[recipe].of(step)
    stage = f"step{step}"
    other = {1: {"layer_decay", "lm_dropout"}, 2: {"negatives", "identical_negatives"}}[step]  # the other step's
    assert {f for f in fields if f not in STAGES[stage]} == other | {"betas"}
    cfg = stage_config(stage, scale="tiny", device="cpu", recipe=recipe)
    assert {f: getattr(cfg, f) for f in fields if f not in other | {"betas"}} == {f: v for f, v in fields.items() if f not in other | {"betas"}}
    cfg.echo()
    lines = capsys.readouterr().out.splitlines()
    for f in fields:
        if f not in other | {"betas"}: assert any(x.split()[0] == f and f"recipe {recipe}" in x for x in lines), f


@pytest.mark.parametrize("stage", ("30_step1", "40_step2"))
def test_every_parameter_of_a_training_stage_is_passed_on_and_read(stage):
    "Declared, given to stage_config, and then read from cfg."
    cells = ["".join(c["source"]) for c in json.loads((ROOT / f"nbs/stages/{stage}.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    declared = {x.targets[0].id for x in ast.parse(cells[0]).body}
    call = next(x for x in ast.walk(ast.parse(cells[1])) if isinstance(x, ast.Call) and getattr(x.func, "id", "") == "stage_config")
    assert {k.arg for k in call.keywords} == declared
    read = {x.attr for c in cells[2:] for x in ast.walk(ast.parse(c)) if isinstance(x, ast.Attribute) and getattr(x.value, "id", "") == "cfg"}
    assert declared - read <= {"scale", "recipe", "steps", "epochs", "max_epochs", "processes"}  # resolved before, in cfg.updates, in launch
    fixed = {"scale", "seed", "device", "out"}
    assert set(STAGES[stage[3:]]) - declared == set() and declared - fixed <= set(STAGES[stage[3:]])


# ------------------------------------------------------------------------------ learning rates

def lavis(cur_epoch, cur_step, max_epoch, init_lr, min_lr, warmup_steps, warmup_start_lr):
    "LAVIS's rule in words of its own: in epoch 0 the rate rises by steps and is capped; later it depends on the epoch alone."
    if cur_epoch == 0: return min(init_lr, warmup_start_lr + (init_lr - warmup_start_lr) * cur_step / max(warmup_steps, 1))
    return (init_lr - min_lr) * .5 * (1. + math.cos(math.pi * cur_epoch / max_epoch)) + min_lr


@pytest.mark.parametrize("warmup", (0, 3, 5000))
def test_schedule_lavis_is_lavis_s_rule(warmup):
    p = Plan(50, 8, 1e-4, 1e-5, warmup, lr_warmup=1e-6, schedule="lavis")
    pace = pace_of(p, 87)  # ten whole batches an epoch
    assert [pace(s) for s in range(50)] == pytest.approx([lavis(s // 10, s % 10, 5, 1e-4, 1e-5, warmup, 1e-6) for s in range(50)], rel=1e-12)
    assert pace_of(Plan(50, 8, 1e-4, 1e-5, warmup, lr_warmup=1e-6, schedule="lavis", an_epoch=10), 9999)(49) == pace(49)
    with pytest.raises(ValueError, match="unknown schedule 'sharp': use smooth or lavis"): pace_of(Plan(5, schedule="sharp"), 9)


def test_the_smooth_schedule_may_start_above_zero():
    assert rate(0, 10, 1., 0., 4, .2) == pytest.approx(.4) and rate(3, 10, 1., 0., 4, .2) == 1.
    assert [rate(s, 10, 1e-3, 1e-5, 4) for s in range(4)] == [1e-3 * (s + 1) / 4 for s in range(4)]


def run(step, **changes):
    model, named, batches = work(step, 0.)
    made = fit(model, named, batches, batches.lengths, plan(step, **(dict(steps=4, accumulate=1, encoder_warmup=0) | changes)))
    return model.state_dict(), made["log"]


def test_each_setting_of_the_optimizer_changes_the_weights():
    plain = run(2)[0]
    for change in (dict(lr_warmup=1e-3), dict(schedule="lavis"), dict(betas=(.5, .999)), dict(betas=(.9, .9)), dict(layer_decay=.5),
                   dict(decay_all=True, weight_decay=.5)):
        other = run(2, **change)[0]
        assert any(not torch.equal(v, other[k]) for k, v in plain.items()), change
    same = run(2, lr_warmup=0., schedule="smooth", betas=(.9, .999), layer_decay=1., decay_all=False)[0]
    assert all(torch.equal(v, same[k]) for k, v in plain.items())


def test_the_log_shows_lavis_s_rates():
    log = run(2, steps=10, warmup=3, lr_warmup=1e-4, schedule="lavis")[1]
    assert [x["lr"] for x in log] == pytest.approx([lavis(s // 5, s % 5, 2, 1e-2, 0., 3, 1e-4) for s in range(10)])


# ------------------------------------------------------------------------------ groups

def test_decay_all_is_one_group_with_everything():
    model, named, _ = work(1)
    (group,) = decay_groups(named, .05, decay_all=True)
    assert len(group["params"]) == len(named) and group["weight_decay"] == .05
    assert any(p is model.temp for p in group["params"]) and any(p is model.qformer.query_tokens for p in group["params"])
    bare = next(g for g in decay_groups(named, .05) if g["weight_decay"] == 0)
    assert any(p is model.temp for p in bare["params"]) and not any(p is model.qformer.query_tokens for p in bare["params"])


def test_layer_decay_follows_the_depth():
    "Numbered as LAVIS numbers: embeddings 0, block i i+1, of L+1; the share is decay to the power of what is missing to L+1."
    from expblip.models import MODELS, build
    for scale, deep in (("full", 39), ("base", 12)):
        _, captioner = build(MODELS[scale], "meta")
        named = [(n, p) for n, p in captioner.named_parameters() if not n.startswith("lm.")]
        share = {id(p): g["share"] for g in decay_groups(named, .05, layer_decay=.95) for p in g["params"]}
        told = {n: share[id(p)] for n, p in named}
        for n, got in told.items():
            layer = encoder_layer(n)
            want = .95**(deep - layer) if layer is not None else 1. if "embeddings" not in n else .95**(deep + 1)
            assert got == pytest.approx(want), n
        assert len(set(told.values())) == deep + 2 and told["proj.weight"] == told["qformer.query_tokens"] == 1.
    assert {g["share"] for g in decay_groups(work(2)[1], .05)} == {1.}  # off


# ------------------------------------------------------------------------------ RandAugment

def test_operations_are_pil_s():
    for k in range(8):
        picture = Image.fromarray(Pictures.data[k])
        assert np.array_equal(augmented(FACES[k:k + 1].float(), "equalize", 5)[0].permute(1, 2, 0), np.asarray(ImageOps.equalize(picture)))
        for name, level, matrix in (("shear_x", 4, (1, .12, 0, 0, 1, 0)), ("shear_y", 4, (1, 0, 0, .12, 1, 0)),
                                    ("translate_x", 6, (1, 0, 6, 0, 1, 0)), ("translate_y", 6, (1, 0, 0, 0, 1, 6))):
            grey = Image.fromarray(np.full((64, 64, 3), 128, "uint8")); grey.paste(picture, (20, 20))  # away from the rim, where PIL cuts hard
            ours = augmented(torch.from_numpy(np.asarray(grey).copy()).permute(2, 0, 1)[None].float(), name, level)[0].permute(1, 2, 0)
            if "shear" in name:  # PIL counts from corners, OpenCV and we from the pixels' middles
                x, y, c, d, e, f = matrix
                matrix = (x, y, c + .5 * (1 - x - y), d, e, f + .5 * (1 - d - e))
            theirs = np.asarray(grey.transform((64, 64), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3))
            assert np.abs(ours.numpy() - theirs).max() <= 2, name


def test_levels_are_lavis_s():
    x = FACES.float()
    assert torch.equal(augmented(x, "brightness", 10), (x * 1.9).clamp(max=255).floor()) and torch.equal(augmented(x, "identity", 9), x)
    assert torch.equal(augmented(x, "brightness", 5), x) and torch.equal(augmented(x, "sharpness", 5), x)  # the factor is 1 there
    assert not torch.equal(augmented(x, "sharpness", 7), x)
    still = torch.full((1, 3, 9, 9), 77.)
    assert torch.equal(augmented(still, "equalize", 5), still) and torch.equal(augmented(still, "sharpness", 9), still)
    assert "autocontrast" not in OPERATIONS and "rotate" not in OPERATIONS and len(OPERATIONS) == 8


def test_two_operations_each_half_of_the_time():
    u = torch.rand(4000, DRAWS, generator=torch.Generator().manual_seed(0))
    noise = torch.randint(0, 255, (1, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).expand(4000, -1, -1, -1)
    changed = (randaugment(noise, u, 7) != noise).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(1 - (1 - .5 * 7 / 8)**2, abs=.03)
    assert torch.equal(randaugment(noise[:9], u[:9], 7), randaugment(noise, u, 7)[:9])  # a picture does not depend on its batch


def test_batches_with_randaugment_are_known_from_the_running_number():
    rows = [[0, 1]] * 40
    def make(strength): return Step2Batches(Pictures(), np.arange(40), rows, 0, 16, 3, True, randaugment=strength)
    at = np.arange(8)
    plain, strong = make(0)(at, at)["pixels"], make(7)(at, at)["pixels"]
    assert torch.equal(strong, make(7)(at, at)["pixels"]) and not torch.equal(plain, strong) and make(7).key() != make(0).key()
    assert torch.equal(make(7)(at[4:], at[4:])["pixels"], strong[4:])
    u = dice(3, at, 4 + DRAWS)
    assert torch.equal(u[:, :4], dice(3, at, 4))  # the crop is the same with and without
    still = u.clone(); still[:, [5, 8]] = .9  # neither operation is done
    near = training_view(Pictures()(at), 16, still, strength=7)
    assert (near - plain).abs().max() < .5 / 255 / .26 + 1e-5  # rounding to bytes alone
    held = Step2Batches(Pictures(), np.arange(40), rows, 0, 16, 3, False, randaugment=7)
    assert torch.equal(held(at)["pixels"], images.evaluation_view(Pictures()(at), 16))  # validation never


def test_step_1_refuses_views_that_were_made_otherwise(tmp_path):
    pretraining.views_agree(tmp_path, False)
    with pytest.raises(ConfigError, match="made without RandAugment, and step1.randaugment is True: run features with randaugment=true"):
        pretraining.views_agree(tmp_path, True)
    (tmp_path / "views.json").write_text('{"views": 1, "randaugment": true}')
    with pytest.raises(ConfigError, match="the only view is the plain one"): pretraining.views_agree(tmp_path, True)
    with pytest.raises(ConfigError, match="made with RandAugment, and step1.randaugment is False"): pretraining.views_agree(tmp_path, False)
    first = Start(DRAWN_BLIP2).encoder()
    seen = {s: pretraining.encode_views(first, Pictures.data[:4], 4, 2, 0, strength=s) for s in (0, 7)}
    assert np.array_equal(seen[0][0], seen[7][0]) and not np.array_equal(seen[0][1], seen[7][1])


# ------------------------------------------------------------------------------ negatives

def test_negatives_lavis102_is_its_rule():
    g = torch.Generator().manual_seed(0)
    sim = torch.randn(6, 6, generator=g) * 3
    own = torch.eye(6, dtype=torch.bool)
    w = sim.softmax(1) + 1e-4
    w.fill_diagonal_(0)
    u = torch.rand(4000, generator=g)
    for i in range(6):
        drawn, ok = hard_negatives(sim[i:i + 1].expand(4000, -1), own[i:i + 1].expand(4000, -1), u, "lavis102")
        got = torch.bincount(drawn, minlength=6) / 4000
        assert ok.all() and got[i] == 0 and torch.allclose(got, w[i] / w[i].sum(), atol=.03)
    peaked = torch.tensor([[50., 0., 0.]])
    assert hard_negatives(peaked, own[:1, :3], torch.tensor([.9]), "lavis102")[0].item() == 2
    with pytest.raises(ValueError, match="unknown rule 'soft' for negatives: use one of masked, lavis102"): hard_negatives(sim, own, None, "soft")


def test_the_two_rules_differ_where_the_own_pair_takes_all():
    "Masked first, the next best takes all; afterwards, 1e-4 makes the rest nearly equal."
    sim = torch.tensor([[40., 10., 0.]]).expand(1000, -1)
    own = torch.tensor([[True, False, False]]).expand(1000, -1)
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    share = {rule: (hard_negatives(sim, own, u, rule)[0] == 1).float().mean().item() for rule in NEGATIVES}
    assert share["masked"] > .99 and share["lavis102"] == pytest.approx(.5, abs=.05)


# ------------------------------------------------------------------------------ language model, ln_vision

def test_lm_dropout_makes_the_frozen_model_noisy_in_training_only(tmp_path):
    import shutil

    from transformers import AutoConfig

    from expblip.io import sha256_file
    shutil.copytree(ROOT / DRAWN_BLIP2, tmp_path / "start")
    lm = AutoConfig.from_pretrained(tmp_path / "start/lm")
    lm.dropout = .3; lm.save_pretrained(tmp_path / "start/lm")
    config = json.loads((tmp_path / "start/config.json").read_text())
    config["files"]["lm/config.json"] = sha256_file(tmp_path / "start/lm/config.json")
    (tmp_path / "start/config.json").write_text(json.dumps(config))
    def losses(live):
        net = Start(tmp_path / "start", lm_dropout=live).captioner().train()
        ids, mask = net.rows(["the face shows happiness"] * 2)
        x = torch.zeros(2, 3, 96, 96)
        torch.manual_seed(0)
        with torch.no_grad(): train_ = [net(x, ids, mask)["loss"].item() for _ in range(2)]
        net.eval()
        with torch.no_grad(): return train_, [net(x, ids, mask)["loss"].item() for _ in range(2)]
    (a, b), (c, d) = losses(True)
    assert abs(a - b) > 1e-4 and c == d
    (a, b), (c, d) = losses(False)
    assert a == pytest.approx(b) and c == d


def test_ln_eps_is_used_and_kept(tmp_path):
    start = Start(DRAWN_BLIP2)
    one = start.step1(ln_eps=1e-2)
    x = torch.randn(1, 37, 160) * .1
    assert not torch.allclose(one.ln_vision(x), start.step1().ln_vision(x), atol=1e-3)
    save_step1(tmp_path / "1", one, start)
    again = load_step1(tmp_path / "1", start)
    assert again.ln_vision.eps == 1e-2
    two = start.captioner(again)
    save_step2(tmp_path / "2", two, start)
    assert load_captioner(tmp_path / "2", start).ln_vision.eps == 1e-2
    assert load_captioner(start.folder, start).ln_vision.eps == Step1.__init__.__defaults__[3] == 1e-5


# ------------------------------------------------------------------------------ and resume still exact

def test_a_stopped_training_with_every_switch_goes_on_bit_by_bit(tmp_path, monkeypatch):
    class Cut(Exception): pass
    changes = dict(schedule="lavis", lr_warmup=1e-4, betas=(.8, .99), decay_all=True, layer_decay=.9)
    usual = Step2Batches.__init__
    monkeypatch.setattr(Step2Batches, "__init__", lambda self, *a, **k: (usual(self, *a, **k), setattr(self, "randaugment", 7))[0])
    (tmp_path / "a").mkdir(); (tmp_path / "b").mkdir()
    whole = left_behind(train(2, tmp_path / "a", **changes)[0], tmp_path / "a")
    def dies(model, batches):
        made, call = iter(range(99)), Step2Batches.__call__
        def once(self, i, at):
            if next(made) == 21: raise Cut
            return call(self, i, at)
        monkeypatch.setattr(Step2Batches, "__call__", once)
        return batches
    with pytest.raises(Cut): train(2, tmp_path / "b", dies, **changes)
    monkeypatch.setattr(Step2Batches, "__call__", CALL)
    assert left_behind(train(2, tmp_path / "b", **changes)[0], tmp_path / "b") == whole


CALL = Step2Batches.__call__
