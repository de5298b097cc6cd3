"resume: killed anywhere and gone on with, a training gives the same bits; what is half-written, damaged or another training's is never believed."
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from expblip import io
from expblip.lm import lm_rows, qformer_rows, small_opt, train_tokenizer
from expblip.resume import Checkpoints, digest, forget, run_key
from expblip.samples import Step1Batches, Step2Batches
from expblip.training import Plan, fit

torch.set_num_threads(1)
KILLS = int(os.environ.get("EXPBLIP_KILLS", 5))  # `make soak` asks for 50
WORDS = "the face raises brow cheek lip corner and pulls nose wrinkles".split()
TEXTS = [" ".join(random.Random(k).choices(WORDS, k=4 + k % 5)) for k in range(40)]


class Pictures:
    "Forty pictures in memory."
    data = np.random.default_rng(0).integers(0, 255, (40, 24, 24, 3), dtype=np.uint8)

    def __call__(self, rows): return torch.from_numpy(self.data[np.asarray(rows)])
    def state(self): return [digest(self.data)]


def work(step, dropout=.1):
    "Model, what is trained, batches: step 1 or step 2 at toy size, with everything that is drawn at random (dropout, views, crops, wrong pairs)."
    from expblip.encoders import DrawnEncoder, EncoderConfig
    from expblip.qformer import QFormer, QFormerConfig
    from expblip.step1 import Step1
    from expblip.step2 import ExpressionCaptioner, trainable
    tok = train_tokenizer(TEXTS, 320)
    torch.manual_seed(0)
    qformer = QFormer(QFormerConfig(len(tok), 16, 16, 2, 2, 32, queries=2, projection=8, dropout=dropout))
    if step == 1:
        features = np.random.default_rng(1).normal(size=(3, 40, 5, 16)).astype("float16")
        model = Step1(qformer, tok.convert_tokens_to_ids("[DEC]"), hard_after=12)
        return model, list(model.named_parameters()), Step1Batches(features, np.arange(40), qformer_rows(tok, TEXTS), TEXTS, tok.pad_token_id)
    model = ExpressionCaptioner(DrawnEncoder(EncoderConfig(16, (4, 8), 16, 1, 2, 16)), qformer, small_opt(tok, 16, 1, 2), tok)
    return model, trainable(model), Step2Batches(Pictures(), np.arange(40), lm_rows(tok, TEXTS), tok.pad_token_id, 16)


def plan(step, **changes):
    rest = dict(encoder_warmup=12, encoder_share=.5, clip=1.) if step == 2 else {}
    return Plan(**(dict(steps=20, batch=8, lr=1e-2, warmup=3, accumulate=2, every=1, window=2) | rest | changes))


def train(step, folder, dies=None, save_every=0., **changes):
    "Train into a folder; `dies` may end the process."
    torch.set_num_threads(1)  # the bits depend on it, and other tests may have changed it
    model, named, batches = work(step)
    if dies: batches = dies(model, batches)
    run = fit(model, named, batches, batches.lengths, plan(step, **changes), f"step {step}", folder / "log.jsonl", check=lambda s: dict(val=s / 7),
              resume=folder / "resume", save_every=save_every)
    return model, run


def left_behind(model, folder):
    "All bits that matter at the end."
    moments = io.load_tensors(max((folder / "resume").glob("*.safetensors")))
    weights = {k: digest(v) for k, v in model.state_dict().items()} | {k: digest(v) for k, v in model.named_buffers()}
    return weights, {k: digest(v) for k, v in moments.items()}, (folder / "log.jsonl").read_text(), digest(torch.get_rng_state())


def child(step, folder, how, begun):
    "A training in a process of its own; writes down what is left at its end."
    torch.set_num_threads(1)
    def ready(model, batches): begun.set(); return how(model, batches) if how else batches
    model, _ = train(step, folder, ready)
    io.write_json(folder / "end.json", left_behind(model, folder))


def killed_inside_a_save(model, batches):
    "Die just before the seventh checkpoint gets its name, and in later lives not at all."
    usual, count = io.os.replace, iter(range(10**6))
    def replace(a, b):
        if str(b).endswith(".safetensors") and next(count) == 6 and not (Path(b).parent.parent / "died").exists():
            (Path(b).parent.parent / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        usual(a, b)
    io.os.replace = replace
    return batches


def killed_between_passes(model, batches):
    "Die in the second forward pass of the ninth update."
    usual, count = model.forward, iter(range(10**6))
    def forward(**batch):
        if next(count) == 17: os.kill(os.getpid(), signal.SIGKILL)
        return usual(**batch)
    model.forward = forward
    return batches


@pytest.fixture(scope="module")
def start():
    "Starts processes that have torch already and nothing else; forked, so that a life costs little."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["expblip.training", "expblip.step1", "expblip.step2", "accelerate", Path(__file__).stem])
    def run(*args):
        begun = context.Event()
        process = context.Process(target=child, args=(*args, begun))
        process.start()
        assert begun.wait(60)
        return process
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "What trainings that nobody stopped leave behind, and the seconds they took."
    found = {}
    for step in (1, 2):
        folder, begin = tmp_path_factory.mktemp(f"whole{step}"), time.monotonic()
        model, _ = train(step, folder)
        found[step] = json.loads(json.dumps(left_behind(model, folder))), time.monotonic() - begin
    return found


@pytest.mark.parametrize("step", (1, 2))
def test_killed_at_random_moments_it_ends_with_the_same_bits(step, start, whole, tmp_path):
    "SIGKILL again and again, at any moment; weights, buffers, optimizer, random state, order and log are those of an undisturbed training."
    chance, (end, seconds), kills, found = random.Random(step), whole[step], 0, [0]
    newest = lambda: max([0, *Checkpoints(tmp_path / "resume", {}).steps()])
    while not (tmp_path / "end.json").exists():
        process, goal = start(step, tmp_path, None), found[-1] + chance.randint(0, 3)
        if kills < KILLS:
            while process.is_alive() and newest() < goal: time.sleep(.001)  # a few updates further, however slow the machine is
            process.join(chance.random() * seconds / 10)  # and then any moment of the next two
        if process.is_alive() and kills < KILLS: process.kill(); kills += 1
        process.join()
        found.append(newest())
        if (tmp_path / "end.json").exists():
            assert json.loads((tmp_path / "end.json").read_text()) == end
            if kills < KILLS: shutil.rmtree(tmp_path); tmp_path.mkdir(); found.append(0)  # done too early: from the top
    assert kills == KILLS and len({f for f in found if 0 < f < 20}) > 1, found  # it was stopped at several updates


@pytest.mark.parametrize("step", (1, 2))
@pytest.mark.parametrize("how", (killed_inside_a_save, killed_between_passes), ids=lambda f: f.__name__)
def test_killed_at_the_worst_moments_it_ends_with_the_same_bits(step, how, start, whole, tmp_path):
    lives = 0
    while not (tmp_path / "end.json").exists() and lives < 3:
        process, lives = start(step, tmp_path, how if not lives else None), lives + 1
        process.join()
        if lives == 1: assert process.exitcode == -signal.SIGKILL
        if lives == 1: assert 0 < max(int(p.stem) for p in (tmp_path / "resume").glob("*.json")) < 9
    assert lives == 2 and json.loads((tmp_path / "end.json").read_text()) == whole[step][0]


class Toy(nn.Module):
    def __init__(self, width=3):
        super().__init__(); torch.manual_seed(0)
        self.lin, self.frozen = nn.Linear(width, 1), nn.Linear(width, 1).requires_grad_(False)
    def forward(self, x, y): return dict(loss=((self.lin(x) + self.frozen(x))[:, 0] - y).square().mean())


X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))


def make(i, at): return dict(x=X[i], y=X[i].sum(1))


def fitted(folder, model=None, batches=make, lengths=None, **changes):
    model = model or Toy()
    lengths = np.ones(32) if lengths is None else lengths
    settings = Plan(**(dict(steps=6, batch=8, lr=.1, warmup=0, every=1) | changes))
    run = fit(model, list(model.lin.named_parameters()), batches, lengths, settings, "toy", folder / "log.jsonl", resume=folder / "resume",
              save_every=0)
    return model, run


def test_the_last_two_checkpoints_stay_and_frozen_weights_are_in_none(tmp_path):
    model, _ = fitted(tmp_path)
    assert sorted(p.name for p in (tmp_path / "resume").iterdir()) == [f"{s:08}.{e}" for s in (5, 6) for e in ("json", "safetensors")]
    kept = io.load_tensors(tmp_path / "resume" / "00000006.safetensors")
    assert {k.split("/")[0] for k in kept} == {"weight", "0", "1"} and torch.equal(kept["weight/weight"], model.lin.weight)
    told = io.read_json(tmp_path / "resume" / "00000006.json")
    assert set(told["key"]["start"]) == {"lin", "frozen"} and told["sha256"] == io.sha256_file(tmp_path / "resume" / "00000006.safetensors")
    forget(tmp_path / "resume")
    assert not (tmp_path / "resume").exists()


def test_a_finished_training_is_not_trained_again(tmp_path, capsys):
    a, first = fitted(tmp_path)
    def never(i, at): raise AssertionError("a batch was made")
    never.__module__, never.__qualname__ = make.__module__, make.__qualname__
    b, again = fitted(tmp_path, batches=never)
    assert "toy: goes on after update 6 of 6" in capsys.readouterr().out and torch.equal(a.lin.weight, b.lin.weight)
    assert again["log"] == first["log"] == [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert again["train_seconds"] >= first["train_seconds"] * .5


def changed_frozen():
    model = Toy()
    model.frozen.weight.data += 1e-6
    return model


class Other(Toy):
    def forward(self, x, y): return dict(loss=2 * super().forward(x, y)["loss"])


class Keyed:
    def __init__(self, key): self.name = key
    def __call__(self, i, at): return make(i, at)
    def key(self): return self.name


@pytest.mark.parametrize("change, said", [
    (dict(lr=.2), "plan.lr was 0.1, is 0.2"), (dict(steps=7), "plan.steps was 6, is 7"), (dict(model=changed_frozen), "start.frozen changed"),
    (dict(batches=Keyed("b")), "data changed"), (dict(lengths=np.arange(32)), "data changed")], ids=lambda x: str(x)[:20])
def test_another_training_starts_anew_and_says_why(tmp_path, capsys, change, said):
    fitted(tmp_path, batches=Keyed("a"))
    change = {k: v() if k == "model" else v for k, v in change.items()}
    expected = fitted(tmp_path / "fresh", **(dict(batches=Keyed("a")) | change))[0]
    capsys.readouterr()
    change = {k: changed_frozen() if k == "model" else v for k, v in change.items()}
    got = fitted(tmp_path, **(dict(batches=Keyed("a")) | change))[0]
    out = capsys.readouterr().out
    assert said in out and "belongs to another training" in out and "starting anew" in out and torch.equal(got.lin.weight, expected.lin.weight)


def test_other_code_is_another_training(monkeypatch):
    key = lambda model: run_key(model, make, np.ones(4))["code"]
    assert key(work(2)[0]).keys() >= {"expblip.step2", "expblip.qformer", "expblip.encoders", "expblip.training"}
    monkeypatch.setattr(Toy, "__module__", "__main__"); monkeypatch.setattr(Other, "__module__", "__main__")
    assert key(Toy())["Toy"] != key(Other())["Other"]  # a class of a notebook counts by what it does


@pytest.mark.parametrize("harm", ("cut", "flipped", "no tensors", "half a description", "no sense"))
def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys, harm):
    expected, _ = fitted(tmp_path)
    tensors, told = (tmp_path / "resume" / f"00000006.{e}" for e in ("safetensors", "json"))
    whole = tensors.read_bytes()
    if harm == "cut": tensors.write_bytes(whole[:-9])
    if harm == "flipped": tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    if harm == "no tensors": tensors.unlink()
    if harm == "half a description": told.write_text(told.read_text()[:100])
    if harm == "no sense": told.write_text("[]")
    capsys.readouterr()
    model, run = fitted(tmp_path)
    assert "goes on after update 5 of 6" in capsys.readouterr().out and torch.equal(model.lin.weight, expected.lin.weight)
    assert [x["step"] for x in run["log"]] == list(range(1, 7))


def test_leftovers_of_a_save_are_cleared_away(tmp_path):
    (tmp_path / "resume").mkdir()
    for name in (".00000002-x.safetensors", "00000002.safetensors"): (tmp_path / "resume" / name).write_bytes(b"half")
    _, run = fitted(tmp_path)
    assert len(list((tmp_path / "resume").iterdir())) == 4 and len(run["log"]) == 6


def test_with_and_without_checkpoints_the_numbers_are_the_same(tmp_path):
    a, b = Toy(), fitted(tmp_path)[0]
    fit(a, list(a.lin.named_parameters()), make, np.ones(32), Plan(6, 8, .1, warmup=0, every=1))
    assert torch.equal(a.lin.weight, b.lin.weight)


@pytest.mark.parametrize("step", (1, 2))
def test_the_batch_thread_changes_no_bit(step, whole, tmp_path, monkeypatch):
    "Stopped with the thread that makes batches ahead, gone on with without it."
    from expblip import training
    class Cut(Exception): pass
    def dies(model, batches):
        made, usual = iter(range(99)), batches.__class__.__call__
        def call(self, i, at):
            if next(made) == 21: raise Cut
            return usual(self, i, at)
        monkeypatch.setattr(batches.__class__, "__call__", call)
        return batches
    with pytest.raises(Cut): train(step, tmp_path, dies)
    monkeypatch.undo()
    monkeypatch.setattr(training, "ahead", lambda make, orders: ((order, make(order)) for order in orders))
    model, _ = train(step, tmp_path)
    assert json.loads(json.dumps(left_behind(model, tmp_path))) == whole[step][0]


def test_checkpoints_come_no_more_often_than_asked(tmp_path, monkeypatch):
    saves, usual = [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (saves.append(step), usual(self, step, *rest)))
    model = Toy()
    fit(model, list(model.lin.named_parameters()), make, np.ones(32), Plan(6, 8, .1, warmup=0), resume=tmp_path, save_every=1e9)
    assert saves == [6]  # the end alone


def test_a_digest_tells_types_shapes_and_files_apart(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4)); mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    things = [np.arange(4), np.arange(4).reshape(2, 2), np.arange(4.), torch.zeros(2, dtype=torch.bfloat16), mapped, "a", ["a"], None]
    assert len({digest(x) for x in things}) == len(things) and digest(np.arange(4)) == digest(torch.arange(4))
    before = digest(mapped); os.utime(tmp_path / "a.npy", ns=(1, 1))
    assert digest(mapped) != before
