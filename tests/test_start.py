"start: own parts by name, filled from a user's files, through the command that users type; what is missing is one clear error."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_smoke import module, pipeline, project  # noqa: F401
from transformers import BertTokenizerFast, Blip2VisionConfig

from expblip import config
from expblip.checkpoints import Start
from expblip.exchange import write_hf, write_lavis
from expblip.lm import small_opt, train_tokenizer
from expblip.models import ENCODERS, ModelSize, StartError, build, known_shape, make_start, named_size, qformer_shape
from expblip.qformer import QFormerConfig
from expblip.runs import plan
from expblip.weights import read_weights

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["the face shows the inner eyebrow raised, a wrinkled nose and parted lips", "it is a people who raises cheek and pulls lip corner"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    "What a user has on disk, small: an OPT folder, a BERT tokenizer, an image tower's folder, and blip2_pretrained.pth."
    tmp = tmp_path_factory.mktemp("parts")
    words = train_tokenizer(TEXTS * 9, 400)
    torch.manual_seed(0)
    for part in (small_opt(words, 32, 2, 2, 128), words): part.save_pretrained(tmp / "opt")
    letters = [chr(c) for c in range(97, 123)]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + x for x in letters), ",", "."]
    BertTokenizerFast(vocab={w: i for i, w in enumerate(names)}).save_pretrained(tmp / "bert")
    shape = dict(ENCODERS["eva_vit_g"], hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=56)
    Blip2VisionConfig.from_dict(shape).save_pretrained(tmp / "tower")
    q = QFormerConfig(len(names) + 1, 32, 64, 3, 1, 96, queries=5, max_text=64, projection=24, dropout=.1, gain=1.)
    toy = ModelSize(str(tmp / "tower"), str(tmp / "opt"), q, str(tmp / "bert"))
    models = build(toy, tok=words)
    write_lavis(tmp / "blip2_pretrained.pth", models[0], models[1].encoder)
    return tmp, toy, models


def named(tmp, *weights, **more): return named_size(str(tmp / "tower"), str(tmp / "opt"), str(tmp / "bert"), [str(tmp / w) for w in weights], **more)


def test_one_command_from_files_to_captions(parts, project):  # noqa: F811
    "The full scale's own graph and recipe; only the numbers are small."
    tmp, toy, models = parts
    small = dict(data=dict(size=56, bp4d=16, disfa=8, rafau=8, emotionet=8, affectnet=16, rafdb=8, faceme=8), features=dict(views=2),
                 step1=dict(steps=2, batch=4, max_tokens=48), step2=dict(steps=2, batch=4, max_tokens=48),
                 caption=dict(batch=8, max_new=6, decode="greedy", probe_limit=2),
                 start=dict(encoder=tmp / "tower", lm=tmp / "opt", text=tmp / "bert", weights=tmp / "blip2_pretrained.pth"))
    args = [x for stage, knobs in small.items() for name, value in knobs.items() for x in ("-p", f"{stage}.{name}={value}")]
    got = pipeline(project, "run", "--run", "full", "--scale", "full", "--device", "cpu", "--only", "caption-au", *args)
    assert got.returncode == 0, got.stdout[-5000:] + got.stderr[-3000:]
    run = project / "outputs/full"
    made = json.loads((run / "shared/start/config.json").read_text())
    assert made["qformer"]["hidden"] == 64 and made["weights"] == [str(tmp / "blip2_pretrained.pth")] and made["lm"] == str(tmp / "opt")
    tokens = np.load(run / "shared/features/features.npy", mmap_mode="r")
    assert tokens.dtype == np.float16 and tokens.shape[0] == 2 and tokens.shape[2:] == (17, 32)
    one, two = (json.loads((run / f"seed0/{step}-au/config.json").read_text()) for step in ("step1", "step2"))
    assert one["start"]["name"] == two["start"]["name"] == "start" and two["encoder"]["image_size"] == 56
    line = json.loads((run / "seed0/step2-au/log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 2 and np.isfinite(line["loss"])
    rows = (run / "seed0/caption-au/predictions.csv").read_text().splitlines()
    assert len(rows) > 5
    shown = (run / "shared/start/notebook.ipynb").read_text()
    assert "image encoder" in shown and "tensors loaded" in shown and "Q-Former" in shown


def test_the_large_scales_begin_from_the_stage_start_and_the_small_ones_do_not():
    drawn = [f"start.{knob}=data/drawn-blip2{below}" for knob, below in (("weights", ""), ("lm", "/lm"), ("text", "/lm"))]
    full = plan("x", "full", overrides=drawn).instances
    for instance in full.values():
        if "init" in instance.inputs: assert instance.params["init"] == "outputs/x/shared/start" and "shared/start" in instance.needs
    assert {i.stage for i in full.values() if "init" in i.inputs} == {"features", "step1", "step2", "caption", "detector", "attention"}
    tiny = plan("x", "tiny").instances
    assert "shared/start" not in tiny and not any("init" in i.inputs for i in tiny.values())
    assert "data/drawn-blip2/*.safetensors" in tiny["shared/features"].reads


def test_without_weights_one_error_says_what_to_fetch_before_anything_runs():
    for scale in ("base", "full"):
        got = module(ROOT, "expblip.pipeline", "run", "--run", "never", "--scale", scale)
        assert got.returncode and "nothing was run: start: no file of weights is named" in got.stdout + got.stderr
        assert "blip2_pretrained.pth" in got.stdout + got.stderr and "start.weights=" in got.stdout + got.stderr
        assert not (ROOT / "outputs/never").exists()
    words = dict(lm="data/drawn-blip2/lm", text="data/drawn-blip2/lm")
    with pytest.raises(config.ConfigError, match=r"weights names nowhere/blip2.pth, and no such file or folder is there: correct start.weights"):
        config.check_params("start", dict(scale="full", weights="nowhere/blip2.pth, data/drawn-blip2", **words))
    assert config.check_params("start", dict(scale="full", random=True, **words))
    assert config.check_params("start", dict(scale="full", weights=" data/drawn-blip2, data/drawn-blip2", **words))


def test_every_fault_of_every_part_is_told_at_once_before_anything_runs(parts, tmp_path):
    "A broken language model, a missing tokenizer and a truncated file of weights, with the command that users type."
    tmp, *_ = parts
    (tmp_path / "opt").mkdir()
    for path in (tmp / "opt").iterdir(): (tmp_path / "opt" / path.name).write_bytes(path.read_bytes())
    whole = (tmp / "opt/model.safetensors").read_bytes()
    (tmp_path / "opt/model.safetensors").write_bytes(whole[:-1000])
    (tmp_path / "cut.pth").write_bytes((tmp / "blip2_pretrained.pth").read_bytes()[:5000])
    given = [f"start.lm={tmp_path}/opt", f"start.text={tmp_path}", f"start.weights={tmp_path}/cut.pth", f"start.encoder={tmp}/tower"]
    got = module(ROOT, "expblip.pipeline", "run", "--run", "never", "--scale", "full", *(x for one in given for x in ("-p", one)))
    said = got.stdout + got.stderr
    assert got.returncode == 2 and said.count("nothing was run") == 1 and not (ROOT / "outputs/never").exists()
    assert f"opt/model.safetensors breaks off: {len(whole) - 1000:,} of {len(whole):,} bytes are there: fetch it again" in said
    assert "has no tokenizer (tokenizer.json or vocab.txt or" in said and "cut.pth breaks off after 5,000 bytes" in said


def test_weights_for_another_encoder_are_named_with_file_and_knob(parts):
    tmp, *_ = parts
    with pytest.raises(StartError, match=r"blip2_pretrained.pth: its Q-Former reads image tokens of width 32, and the image encoder "
                                         r"'data/drawn-blip2' gives 160: name the encoder .* in start.encoder, or other files in start.weights"):
        named_size("data/drawn-blip2", str(tmp / "opt"), str(tmp / "bert"), [str(tmp / "blip2_pretrained.pth")])


def test_a_home_folder_is_understood(parts, monkeypatch):
    tmp, *_ = parts
    monkeypatch.setenv("HOME", str(tmp))
    size = named_size("~/tower", "~/opt", "~/bert", ["~/blip2_pretrained.pth"])
    assert size.lm == str(tmp / "opt") and size.weights[0].path == str(tmp / "blip2_pretrained.pth")
    assert config.check_params("start", dict(encoder="~/tower", lm="~/opt", text="~/bert", weights="~/blip2_pretrained.pth"))


def test_missing_parts_are_named_with_the_file_that_holds_them(parts, tmp_path):
    tmp, toy, (one, two) = parts
    write_lavis(tmp_path / "eva.pth", two.encoder)
    with pytest.raises(StartError, match="no weights for the Q-Former in .*eva.pth: fetch blip2_pretrained.pth .*name it in start.weights"):
        named(tmp, tmp_path / "eva.pth")
    write_lavis(tmp_path / "q.pth", one)
    with pytest.raises(StartError, match="no weights for the image encoder in .*q.pth: fetch blip2_pretrained.pth or eva_vit_g.pth"):
        named(tmp, tmp_path / "q.pth")
    assert named(tmp, tmp_path / "q.pth", random=True).qformer.hidden == 64
    assert len(named(tmp, tmp_path / "q.pth", tmp_path / "eva.pth").weights) == 2
    with pytest.raises(StartError, match="lm 'no/such-model': neither a model folder .*name it in start.lm"):
        named_size(str(tmp / "tower"), "no/such-model", str(tmp / "bert"))
    with pytest.raises(StartError, match="text 'no/such-words': no tokenizer there.*name it in start.text"):
        named_size(str(tmp / "tower"), str(tmp / "opt"), "no/such-words")
    with pytest.raises(StartError, match="encoder 'eva_vit_x': not one of eva_vit_g, mae_vit_b"):
        named_size("eva_vit_x", str(tmp / "opt"), str(tmp / "bert"))


def test_three_formats_give_the_same_start(parts, tmp_path, capsys):
    "LAVIS's file, Hugging Face's folder (with what it has no place for beside it), and our own start."
    tmp, toy, (one, two) = parts
    write_lavis(tmp_path / "whole.pth", one, two)
    write_hf(tmp_path / "hf", two, one)
    first = Start(make_start(tmp_path / "a", named(tmp, tmp_path / "whole.pth")))
    second = Start(make_start(tmp_path / "b", named(tmp, tmp_path / "hf")))
    again = named_size(str(tmp_path / "a"), str(tmp / "opt"), str(tmp_path / "a/text"), [str(tmp_path / "a")])
    third = Start(make_start(tmp_path / "c", again))
    for other in (second, third):
        assert other.config["qformer"] | dict(gain=1.) == first.config["qformer"] | dict(gain=1.)
        assert other.state.keys() == first.state.keys() and all(torch.equal(v, other.state[k]) for k, v in first.state.items())
    assert "(Hugging Face)" in capsys.readouterr().out


def test_the_shape_of_a_qformer_is_read_off_its_tensors(parts, tmp_path):
    tmp, toy, (one, two) = parts
    found = qformer_shape(read_weights(tmp / "blip2_pretrained.pth"), 999)
    assert found == toy.qformer
    write_lavis(tmp_path / "step2.pth", two, without=("language model", "text", "ITG head"))
    assert qformer_shape(read_weights(tmp_path / "step2.pth"), 77).vocab == 77
    write_lavis(tmp_path / "eva.pth", two.encoder)
    assert qformer_shape(read_weights(tmp_path / "eva.pth"), 77) is None


def test_an_encoder_keeps_its_own_pixel_statistics(parts, tmp_path):
    tmp, toy, _ = parts
    tower = tmp_path / "tower"
    Blip2VisionConfig.from_dict(known_shape(toy.encoder, ENCODERS)).save_pretrained(tower)
    (tower / "preprocessor_config.json").write_text(json.dumps(dict(image_mean=[.5, .5, .5], image_std=[.5, .5, .5], do_resize=True)))
    size = named_size(str(tower), str(tmp / "opt"), str(tmp / "bert"), [str(tmp / "blip2_pretrained.pth")])
    assert size.parts()["image encoder"]["image_mean"] == [.5, .5, .5]
    first, plain = Start(make_start(tmp_path / "s", size)).encoder(), build(toy)[1].encoder
    plain.load_state_dict(first.state_dict())
    x = torch.randn(1, 3, 56, 56)
    assert first.statistics and not plain.statistics and not torch.allclose(first(x), plain(x), atol=1e-3)


def test_random_parts_let_the_full_graph_begin(tmp_path):
    "What a session on a GPU measures the stages with, small: the folders open, and the knobs are those of the pipeline."
    import importlib.util
    import os
    import shlex
    import subprocess
    import sys
    path = ROOT / "benchmarks/random_parts.py"
    got = subprocess.run([sys.executable, str(path), str(tmp_path), "--lm", "small"], capture_output=True, text=True, cwd=ROOT,
                         env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert got.returncode == 0, got.stderr[-2000:]
    asked = shlex.split(got.stdout.splitlines()[-1])
    spec = importlib.util.spec_from_file_location("random_parts", path)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    assert asked == module.knobs(tmp_path.resolve(), 20)
    instances = plan("x", "full", overrides=asked[1::2]).instances  # every name and value is checked here
    assert instances["seed0/step2-au"].params["steps"] == 20 and instances["shared/start"].params["random"] is True
    Blip2VisionConfig.from_dict(dict(ENCODERS["eva_vit_g"], hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                                     image_size=56)).save_pretrained(tmp_path / "tower")
    size = named_size(str(tmp_path / "tower"), str(tmp_path / "opt"), str(tmp_path / "bert"), [], random=True)
    start = Start(make_start(tmp_path / "start", size))
    assert len(start.text_tok) == 30523 and start.captioner().lm.config.vocab_size == 1200


def test_a_vision_folder_brings_its_weights_and_a_shape_alone_does_not(parts, tmp_path):
    "What start.encoder names is filled from there, pixel statistics too; a file that holds an image encoder still wins."
    from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel
    from expblip.encoders import hub_encoder
    from expblip.models import brings_weights
    tmp, _, _ = parts
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)).save_pretrained(tmp_path / "clip")
    (tmp_path / "clip/preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    BertModel(BertConfig(vocab_size=59, **sizes)).save_pretrained(tmp_path / "bert")
    size = named_size(str(tmp_path / "clip"), str(tmp / "opt"), str(tmp / "bert"), [str(tmp_path / "bert")])
    made = Start(make_start(tmp_path / "start", size)).encoder()
    wanted = hub_encoder(str(tmp_path / "clip"))
    pixels = torch.randn(2, 3, 28, 28)
    assert torch.equal(made(pixels), wanted(pixels)) and made.statistics == wanted.statistics == [(.5, .5, .5)] * 2
    assert brings_weights(str(tmp_path / "clip")) and not brings_weights(str(tmp / "tower")) and not brings_weights("data/drawn-blip2")
    with pytest.raises(StartError, match="no weights for the image encoder"): named_size(
        str(tmp / "tower"), str(tmp / "opt"), str(tmp / "bert"), [str(tmp_path / "bert")])
    with pytest.raises(ValueError, match="the folder of a vision model is named in start.encoder"): read_weights(tmp_path / "clip")
