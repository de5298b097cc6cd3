"checkpoints: whole or refused; references to the frozen parts are checked; there and back again."
import json

import pytest
import torch
from torch import nn

from expblip.checkpoints import (
    CheckpointError, Start, fill, load_captioner, load_checkpoint, load_step1, part, save_checkpoint, save_start, save_step1, save_step2)
from expblip.encoders import DrawnEncoder, EncoderConfig
from expblip.io import TensorFileError
from expblip.lm import small_opt, train_tokenizer
from expblip.qformer import QFormer, QFormerConfig
from expblip.step1 import Step1
from expblip.step2 import ExpressionCaptioner

torch.set_num_threads(1)
TOK = train_tokenizer(["the face shows happiness."] * 5, 300)


def build(folder, seed: int = 0, half: bool = False):
    torch.manual_seed(seed)
    enc, qf = DrawnEncoder(EncoderConfig(32, (8, 16), 24, 1, 2, 32)), QFormer(QFormerConfig(len(TOK), 24, 32, 2, 2, 64, queries=4))
    one = Step1(qf, 6)
    save_start(folder, ExpressionCaptioner(enc, qf, small_opt(TOK, 32, 2, 2), TOK, one.ln_vision), one, half=half, data="toy")
    return Start(folder)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Start:
    return build(tmp_path_factory.mktemp("start") / "toy")


def test_there_and_back_exactly_and_in_half_precision(tmp_path):
    state = {"w": torch.randn(3, 4), "n": torch.arange(3)}
    save_checkpoint(tmp_path / "a", state, dict(kind="toy"))
    again, config = load_checkpoint(tmp_path / "a")
    assert all(torch.equal(state[k], again[k]) for k in state) and config["kind"] == "toy"
    save_checkpoint(tmp_path / "h", state, {}, half=True)
    again, _ = load_checkpoint(tmp_path / "h")
    assert again["w"].dtype == torch.float32 and torch.equal(again["w"], state["w"].half().float()) and torch.equal(again["n"], state["n"])


def test_a_truncated_file_is_named(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.arange(30.)}, {})
    file = tmp_path / "model.safetensors"; file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="model.safetensors: truncated, or not .*sha256 differs.*rerun the stage"): load_checkpoint(tmp_path)
    with pytest.raises(TensorFileError, match="model.safetensors: not a whole safetensors file"): load_checkpoint(tmp_path, check=False)


def test_another_files_weights_are_refused_unless_unchecked(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.arange(3.)}, {})
    file = tmp_path / "model.safetensors"; file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="sha256 differs"): load_checkpoint(tmp_path)
    assert set(load_checkpoint(tmp_path, check=False)[0]) == {"w"}


@pytest.mark.parametrize("gone", ("config.json", "model.safetensors"))
def test_a_missing_file_names_the_remedy(tmp_path, gone):
    save_checkpoint(tmp_path, {"w": torch.arange(3.)}, {})
    (tmp_path / gone).unlink()
    with pytest.raises(CheckpointError, match=f"no {gone} there.*make drawn-blip2"): load_checkpoint(tmp_path)


def test_an_unknown_format_is_refused(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.arange(3.)}, {})
    file = tmp_path / "config.json"; file.write_text(json.dumps(json.loads(file.read_text()) | dict(format=99)))
    with pytest.raises(CheckpointError, match="checkpoint format 99, this version reads 1"): load_checkpoint(tmp_path)


@pytest.mark.parametrize("state, words", (
    (dict(weight=torch.zeros(2, 2)), r"missing \['bias'\]"),
    (dict(weight=torch.zeros(2, 2), bias=torch.zeros(2), extra=torch.zeros(1)), r"unexpected \['extra'\]"),
    (dict(weight=torch.zeros(3, 2), bias=torch.zeros(2)), r"weight: \(3, 2\) in the file, \(2, 2\) expected")))
def test_filling_is_strict_and_changes_nothing_on_failure(state, words):
    module = nn.Linear(2, 2); before = module.weight.clone()
    with pytest.raises(CheckpointError, match=f"toy: the weights do not fit.*{words}"): fill(module, state, "toy")
    assert torch.equal(module.weight, before)


def test_part_cuts_out_whole_names():
    state = {"proj.weight": torch.zeros(1), "projection.weight": torch.ones(1), "qformer.proj.weight": torch.ones(1)}
    assert set(part(state, "proj")) == {"weight"} and part(state, "proj")["weight"] == 0


def test_a_start_gives_what_was_asked_for(start):
    x = torch.randn(2, 3, 32, 32)
    a, b = start.captioner().eval(), start.captioner().eval()
    assert torch.equal(a.prefix(x), b.prefix(x)) and a.qformer is not b.qformer
    only, none = Start(start.folder, "encoder"), Start(start.folder, "nothing")
    assert torch.equal(only.encoder()(x), start.encoder()(x)) and not torch.equal(none.encoder()(x), start.encoder()(x))
    assert not torch.equal(only.step1().qformer.query_tokens, start.step1().qformer.query_tokens)
    with pytest.raises(CheckpointError, match="unknown start 'all': use one of blip2, encoder, nothing"): Start(start.folder, "all")


def test_a_touched_language_model_is_refused(tmp_path):
    build(tmp_path / "toy", half=True)
    file = tmp_path / "toy/lm/config.json"; file.write_text(file.read_text() + " ")
    with pytest.raises(CheckpointError, match="lm/config.json: missing, or not the file.*make drawn-blip2"): Start(tmp_path / "toy")


def changed(folder, **entries):
    "The config.json of a folder with other entries; None takes one out."
    config = json.loads((folder / "config.json").read_text()) | entries
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


ENCODER, QFORMER = EncoderConfig(32, (8, 16), 24, 1, 2, 32).dict(), QFormerConfig(len(TOK), 24, 32, 2, 2, 64, queries=4).dict()


MISSPELT = {("widht" if k == "width" else k): v for k, v in ENCODER.items()}


@pytest.mark.parametrize("entries, words", (
    (dict(sha256=None), "'sha256' is missing, a str is needed"),
    (dict(files=None), "'files' is missing, a dict is needed"), (dict(files=["lm/config.json"]), "'files' is a list, a dict is needed"),
    (dict(files={}), "'files' lists no file of lm/"),
    (dict(encoder=None), "'encoder' is missing"), (dict(encoder=[96]), "'encoder' is a list"),
    (dict(encoder=MISSPELT), r"'encoder' lacks \['width'\] and has the unknown \['widht'\]"),
    (dict(encoder=ENCODER | dict(channels=8)), "'encoder' says channels = 8, a list of numbers is needed"),
    (dict(encoder=ENCODER | dict(width="24")), "'encoder' says width = '24', a number is needed"),
    (dict(qformer=None), "'qformer' is missing"), (dict(qformer="large"), "'qformer' is a str"),
    (dict(qformer=QFORMER | dict(hiden=3)), r"'qformer' has the unknown \['hiden'\]")))
def test_a_config_that_is_not_as_written_is_named_with_its_key(tmp_path, entries, words):
    build(tmp_path / "toy"); changed(tmp_path / "toy", **entries)
    with pytest.raises(CheckpointError, match=f"toy/config.json: {words}.*make drawn-blip2"): Start(tmp_path / "toy").captioner()


def test_a_trained_checkpoint_is_read_as_strictly_and_names_its_stage(start, tmp_path):
    save_step1(tmp_path / "1", start.step1(), start); save_step2(tmp_path / "2", start.captioner(), start)
    changed(tmp_path / "1", qformer=None); changed(tmp_path / "2", start={})
    with pytest.raises(CheckpointError, match="1/config.json: 'qformer' is missing.*rerun the stage"): load_step1(tmp_path / "1", start)
    with pytest.raises(CheckpointError, match="2/config.json: 'start.files' is missing.*rerun the stage"): load_captioner(tmp_path / "2", start)
    for text, words in (("[1]", "holds a list, not a mapping"), ("{", "not readable as JSON")):
        (tmp_path / "1/config.json").write_text(text)
        with pytest.raises(CheckpointError, match=f"config.json: {words}.*rerun the stage"): load_step1(tmp_path / "1", start)


def test_a_truncated_start_says_how_to_get_it_back(tmp_path):
    build(tmp_path / "toy")
    file = tmp_path / "toy/model.safetensors"; file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="model.safetensors: truncated.*restore the folder as it came, or rebuild it with `make drawn-blip2`"):
        Start(tmp_path / "toy")


def test_an_unlisted_file_beside_the_language_model_is_refused(tmp_path):
    lm = build(tmp_path / "toy").folder / "lm"
    for name in (".DS_Store", "__pycache__/a.pyc"): (lm / name).parent.mkdir(exist_ok=True); (lm / name).write_text("")
    Start(tmp_path / "toy")
    (lm / "chat_template.jinja").write_text("")
    with pytest.raises(CheckpointError, match="config.json does not list lm/chat_template.jinja, which would be loaded unchecked: move it out"):
        Start(tmp_path / "toy")


def test_the_start_that_ships_is_whole():
    assert Start().config["step"] == 0 and Start().captioner().qformer.query_tokens.shape[1] == 12


def test_step1_there_and_back(start, tmp_path):
    model = start.step1().eval()
    save_step1(tmp_path, model, start, model="au", seed=3)
    again, image = load_step1(tmp_path, start), torch.randn(2, 5, 24)
    assert torch.equal(model.qformer("query", model.ln_vision(image))[0], again.qformer("query", again.ln_vision(image))[0])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3 and not again.training


def test_step2_keeps_all_but_the_language_model(start, tmp_path):
    torch.manual_seed(1)
    model, x = start.captioner(), torch.randn(2, 3, 32, 32)
    for p in model.proj.parameters(): p.data.normal_()
    save_step2(tmp_path, model, start, model="exp", seed=0)
    assert not any(k.startswith("lm.") for k in load_checkpoint(tmp_path)[0])
    again = load_captioner(tmp_path, start)
    assert torch.equal(model.eval().prefix(x), again.prefix(x)) and again.lm is start.lm
    with pytest.raises(CheckpointError, match="not a step-1 checkpoint but step 2"): load_step1(tmp_path, start)
    with pytest.raises(CheckpointError, match="another frozen language model"): load_captioner(tmp_path, build(tmp_path / "other", seed=9))


def test_the_start_itself_speaks(start):
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_captioner(start.folder, start).prefix(x), start.captioner().eval().prefix(x))
