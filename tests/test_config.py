"config: one look-up order, and every wrong scale, name, type or range is one clear error."
import subprocess
import sys
from pathlib import Path

import pytest

from expblip.config import (
    COMMON, STAGES, ConfigError, Knob, check_params, resolve_device, resolve_precision, stage_config, stage_knobs)
from expblip.scales import RECIPES, SCALE_NAMES, SCALES
from expblip.stages import MODELS


def test_every_row_of_the_table_belongs_to_a_knob_and_holds_legal_values():
    for row, values in SCALES.items():
        stage, name, *model = row.split(".")
        knob = STAGES[stage][name]
        assert len(values) == len(SCALE_NAMES) and set(model) <= {*MODELS, "au", "emotion"}, row
        for value in values:
            assert value is None or knob.check(value) == value, row


def test_config_looks_up_the_numbers_of_scales():
    from expblip import config
    assert config.SCALES is SCALES and config.RECIPES is RECIPES and COMMON["scale"].choices == SCALE_NAMES


def test_every_default_is_legal_and_every_knob_has_help():
    for stage in STAGES:
        for name, knob in stage_knobs(stage).items():
            assert knob.help and (knob.default is None or knob.check(knob.default) == knob.default), (stage, name)
        assert not set(STAGES[stage]) & set(COMMON)


@pytest.mark.parametrize("scale", SCALE_NAMES)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_resolves_at_every_scale(stage, scale):
    words = "data/drawn-blip2/lm"  # at the two large scales the files are the user's, so small ones stand in
    files = dict(weights="data/drawn-blip2", lm=words, text=words) if stage == "start" else {}
    cfg = stage_config(stage, scale=scale, device="cpu", seed=3, **files)
    unset = [name for name, value in cfg.dict().items() if value is None and stage_knobs(stage)[name].kind is not str]
    assert not unset and cfg.seed == 3
    assert check_params(stage, cfg.dict()) == {k: v for k, v in cfg.dict().items() if v is not None}


def test_precision_is_resolved_and_shown():
    assert stage_config("step2", device="cpu", precision="fp32").precision == "fp32"
    assert stage_config("step2", device="cpu").precision in ("fp32", "bf16")
    assert resolve_precision("bf16", "cpu") == "bf16" and resolve_precision("auto", "mps") == "fp32"
    with pytest.raises(ConfigError, match="'precision' is 'fp16'.*one of auto, fp32, bf16"):
        stage_config("step2", device="cpu", precision="fp16")


def test_look_up_order(monkeypatch):
    assert stage_config("step2", scale="tiny", device="cpu").origin["lr"] == "scale tiny"
    assert stage_config("step2", scale="tiny", device="cpu", recipe="released_code").lr == RECIPES["released_code"].lr[1]
    assert stage_config("step2", scale="tiny", device="cpu", recipe="released_code", lr=0.5).lr == 0.5
    assert stage_config("step1", scale="full", device="cpu").warmup == RECIPES["paper"].warmup[0]
    assert stage_config("step1", scale="smoke", device="cpu").clip == 0 == COMMON["seed"].default
    assert stage_config("step1", scale="full", device="cpu", steps=None).steps == 0
    monkeypatch.setitem(SCALES, "step2.steps.exp", (7, 7, 7, 7))
    assert stage_config("step2", device="cpu", model="exp").steps == 7 != stage_config("step2", device="cpu", model="au").steps


@pytest.mark.parametrize("params, message", [
    ({"scale": "huge"}, "'scale' is 'huge'.*smoke, tiny, base, full"),
    ({"bacth": 3}, "unknown parameter 'bacth': did you mean 'batch'"),
    ({"zzz": 3}, "unknown parameter 'zzz': known are"),
    ({"batch": "64"}, "'batch' is '64'.*a whole number from 1"),
    ({"batch": 0}, "whole number from 1"),
    ({"batch": True}, "whole number"),
    ({"steps": 2.0}, "whole number"),
    ({"lr": float("nan")}, "a number from 0 to 1"),
    ({"lr": 2}, "a number from 0 to 1"),
    ({"detach_gather": 1}, "true or false"),
    ({"model": "exp-blip"}, "one of au, emot, mix, cat, exp"),
    ({"device": "gpu"}, "auto, cuda, mps, cpu"),
    ({"seed": -1}, "whole number from 0"),
    ({"recipe": "repo"}, "paper, supplement, released_code"),
    ({"lr": 1e-6}, "lr_min .* lies above"),
    ({"batch": 48, "accumulate": 5}, "accumulate 5 does not divide batch 48; take one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"),
])
def test_wrong_parameters(params, message):
    with pytest.raises(ConfigError, match=message):
        stage_config("step1", **({"scale": "tiny"} | params))


def test_all_faults_at_once_and_unknown_stage():
    with pytest.raises(ConfigError, match="(?s)bacth.*lr"):
        check_params("step1", {"bacth": 1, "lr": 7})
    with pytest.raises(ConfigError, match="unknown stage 'stepp1': did you mean 'step1'"):
        stage_config("stepp1")


@pytest.mark.parametrize("stage, params, message", [
    ("step2", {"lr_min": 0.5}, "lr_min 0.5 lies above lr 0.0003; lower lr_min or raise lr"),
    ("step1", {"recipe": "paper", "accumulate": 3}, "accumulate 3 does not divide batch 28"),
    ("blip2", {"hidden": 162}, "hidden 162 is no multiple of the 4 attention heads; take 160"),
    ("lm", {"width": 190}, "width 190 is no multiple of the 4 attention heads; take 188"),
    ("data", {"size": 2000}, "'size' is 2000: it must be a whole number from 16 to 1024"),
    ("", {"seed": 2**31}, "^parameter 'seed' is 2147483648: it must be a whole number from 0 to 2147483647"),
])
def test_values_that_are_wrong_together_or_absurd_are_refused_by_the_plain_check(stage, params, message):
    with pytest.raises(ConfigError, match=message):
        check_params(stage, params)


def test_several_choices_and_parsing():
    assert check_params("caption", {"decode": "greedy+sample"}) == {"decode": "greedy+sample"}
    with pytest.raises(ConfigError, match="several joined by"):
        check_params("caption", {"decode": "greedy+best"})
    knobs = stage_knobs("step1")
    assert [knobs[k].parse(t) for k, t in (("lr", "1e-4"), ("batch", "8"), ("detach_gather", "False"), ("model", "cat"))] == [1e-4, 8, False, "cat"]
    for name, text in (("batch", "8.5"), ("detach_gather", "no"), ("lr", "fast")):
        with pytest.raises(ValueError, match="must be"):
            knobs[name].parse(text)
    assert Knob(float, "x").check(1) == 1.0


def test_echo_and_unknown_attribute(capsys):
    cfg = stage_config("step2", scale="tiny", device="cpu", batch=5)
    cfg.echo()
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines() if line.startswith("batch")] == [["batch", "5", "given"]]
    with pytest.raises(AttributeError, match="did you mean 'batch'"):
        _ = cfg.bacth


def test_recipes_quote_the_conflicts():
    paper, code = RECIPES["paper"].of(2), RECIPES["released_code"].of(2)
    assert (paper["lr"], paper["lr_min"], paper["batch"], paper["warmup"]) == (1e-4, 5e-5, 32, 2000)
    assert (code["lr"], code["lr_min"], code["batch"], code["warmup"], code["max_tokens"]) == (1e-5, 0, 16, 1000, 32)
    assert RECIPES["supplement"].of(2)["layer_decay"] == 0.95 and paper["betas"] == (0.9, 0.999)


def test_device(monkeypatch):
    import torch
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == "mps"
    with pytest.raises(ConfigError, match="'cuda' is not available here: choose one of auto, mps, cpu"):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match="^device 'cuda' is not available here"):
        check_params("", {"device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_device("auto") == "cuda" and stage_config("data").device == "cpu"
    assert (stage_config("step1").device, stage_config("step1").precision) == ("cuda", "bf16")


def test_importing_and_checking_loads_no_torch():
    code = """import sys
from expblip.config import check_params, stage_config
stage_config("data", scale="tiny")
for device in ("auto", "cpu"): check_params("step2", {"device": device})
assert "torch" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("stage", ["synthesize", "fuse"])
@pytest.mark.parametrize("params, message", [
    ({}, "writer llm needs llm_model"), ({"llm_model": "m", "base_url": "localhost:8000"}, "must begin with http"),
    ({"llm_model": "m", "temperature": 0}, "variants 3 at temperature 0"), ({"llm_model": "m", "fallback": "gpt"}, "one of grammar, rule, leave"),
    ({"llm_model": "m", "budget": -1}, "a number from 0"), ({"llm_model": "m", "api_key": "x"}, "unknown parameter 'api_key'")])
def test_a_chat_model_is_checked_before_anything_runs(stage, params, message):
    with pytest.raises(ConfigError, match=message):
        check_params(stage, {"writer": "llm", **params})


def test_a_password_in_an_address_is_refused_and_not_repeated():
    for url in ("https://user:hunter2@host/v1", "user:hunter2@host"):
        with pytest.raises(ConfigError, match="holds a user name or password") as error:
            check_params("synthesize", {"writer": "llm", "llm_model": "m", "base_url": url})
        assert "hunter2" not in str(error.value)


def test_the_other_writers_need_none_of_it():
    assert stage_config("synthesize", writer="rule", temperature=0.0).llm_model == "" == stage_config("fuse").base_url
