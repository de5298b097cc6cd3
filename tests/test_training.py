"training: order, schedule, groups, the loop's guard and log, accumulation, batches of both steps."
import json
import math
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from expblip import io, training
from expblip.images import ImageStore
from expblip.samples import Step1Batches, Step2Batches, captions_for
from expblip.training import BrokenLoss, Guard, Plan, ahead, awake, batch_order, curves, decay_groups, fit, rate

torch.set_num_threads(1)


@pytest.mark.parametrize("n, batch, window", ((64, 8, 8), (50, 7, 3), (5, 8, 1)))
def test_every_sample_once_an_epoch(n, batch, window):
    steps = n * batch * window // math.gcd(n, batch * window)  # whole epochs and whole windows
    steps = steps // batch
    seen = np.concatenate(list(batch_order(np.arange(n), batch, steps, 0, window)))
    assert (np.bincount(seen, minlength=n) == len(seen) // n).all()


def test_the_order_is_known_from_the_seed_and_differs_between_epochs():
    order = lambda seed: np.stack(list(batch_order(np.ones(32), 8, 8, seed, 1)))
    assert (order(0) == order(0)).all() and (order(0) != order(1)).any()
    assert (order(0)[:4].ravel() != order(0)[4:].ravel()).any()


def test_sorting_by_length_saves_padding():
    lengths = np.random.default_rng(0).integers(8, 60, 64)
    waste = lambda w: 1 - sum(lengths[i].sum() for i in batch_order(lengths, 8, 32, 0, w)) / sum(
        lengths[i].max() * 8 for i in batch_order(lengths, 8, 32, 0, w))
    assert waste(8) < waste(1) / 3


def test_the_schedule_warms_up_and_comes_down_to_the_floor():
    rates = [rate(s, 200, 1e-3, 1e-4, 30) for s in range(201)]
    assert np.allclose(rates[:30], np.arange(1, 31) / 30 * 1e-3) and max(rates) == pytest.approx(1e-3)
    assert (np.diff(rates[30:]) <= 0).all() and rates[200] == pytest.approx(1e-4)
    assert rates[115] == pytest.approx((1e-3 + 1e-4) / 2)  # half way down the cosine
    assert rate(0, 10, 1.) == 1. and rate(0, 1, 1., warmup=1) == 1.


def test_only_matrices_decay():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)); net.temp = nn.Parameter(torch.tensor(.07))
    decay, plain = decay_groups(list(net.named_parameters()), .1)
    assert [p.shape for p in decay["params"]] == [(4, 3)] and decay["weight_decay"] == .1
    assert len(plain["params"]) == 4 and plain["weight_decay"] == 0


def test_the_encoder_has_groups_of_its_own():
    net = nn.ModuleDict(dict(encoder=nn.Linear(3, 4), proj=nn.Linear(4, 2)))
    groups = decay_groups(list(net.named_parameters()), .1)
    assert {(g["encoder"], g["weight_decay"]): [p.shape for p in g["params"]] for g in groups} == {
        (False, .1): [(2, 4)], (False, 0.): [(2,)], (True, .1): [(4, 3)], (True, 0.): [(4,)]}


def test_the_encoder_sleeps_then_wakes():
    assert [awake(s, 0) for s in (0, 5)] == [1., 1.]
    assert [awake(s, 8) for s in (0, 4, 5, 6, 8, 80)] == [0., 0., .25, .5, 1., 1.]


class Two(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0)
        self.encoder, self.proj = nn.Linear(1, 3), nn.Linear(3, 1)

    def forward(self, x, y): return dict(loss=(self.proj(self.encoder(x))[:, 0] - y).square().mean())


@pytest.mark.parametrize("steps, moved", [(4, False), (8, True)])
def test_a_sleeping_encoder_does_not_move(steps, moved):
    net = Two(); before = [p.clone() for p in net.encoder.parameters()]
    fit(net, list(net.named_parameters()), make, np.ones(64), Plan(steps, 8, 1e-2, 1e-2, 0, encoder_warmup=8))
    assert moved != all(torch.equal(a, b) for a, b in zip(before, net.encoder.parameters()))


class Toy(nn.Module):
    def __init__(self): super().__init__(); self.lin = nn.Linear(1, 1)
    def forward(self, x, y): return dict(loss=(self.lin(x)[:, 0] - y).square().mean())


X = torch.linspace(-1, 1, 64)


def make(i, at=None): return dict(x=X[i][:, None], y=3 * X[i] + 1)


def trained(**changes):
    torch.manual_seed(0)
    net = Toy()
    out = fit(net, list(net.named_parameters()), make, np.ones(64), Plan(**(dict(steps=20, batch=16, lr=.1) | changes)))
    return net, out


def test_the_loop_fits_a_line_and_logs_it(tmp_path):
    torch.manual_seed(0)
    net, asked = Toy(), []
    def check(step): asked.append(step); net.eval(); return dict(val_loss=.5)
    run = fit(net, list(net.named_parameters()), make, np.ones(64), Plan(200, 16, .1, warmup=5), log=tmp_path / "log.jsonl", check=check, checks=4)
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == run["log"] and lines[-1]["step"] == 200 and lines[-1]["loss"] < 1e-2
    assert asked == [50, 100, 150, 200] and [x["step"] for x in lines if "val_loss" in x] == asked and net.training
    assert run["samples"] == 200 * 16 and 0 <= run["data_wait"] <= 1 and run["train_seconds"] > 0


def test_the_same_seed_gives_the_same_weights():
    a, b, c = trained()[0], trained()[0], trained(seed=1)[0]
    assert torch.equal(a.lin.weight, b.lin.weight) and not torch.equal(a.lin.weight, c.lin.weight)


@pytest.mark.parametrize("passes", (2, 4))
def test_accumulated_passes_equal_one_batch(passes):
    assert trained(accumulate=passes)[0].lin.weight.item() == pytest.approx(trained()[0].lin.weight.item(), abs=1e-5)


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="a batch of 2 cannot be split evenly over 1 processes and 4 passes"): trained(batch=2, accumulate=4)


def test_a_broken_loss_names_step_and_records_and_the_log_stays_whole(tmp_path):
    calls, net = [], Toy()
    def broken(i, at):
        calls.append(i); b = make(i)
        if len(calls) == 3: b["y"][0] = float("nan")
        return b
    with pytest.raises(BrokenLoss, match="toy: the loss of step 3 is nan") as e:
        fit(net, list(net.named_parameters()), broken, np.ones(64), Plan(9, 4, every=1), "toy", tmp_path / "log", lambda i: [f"face-{k}" for k in i])
    assert all(f"face-{k}" in str(e.value) for k in calls[2]) and len((tmp_path / "log").read_text().splitlines()) == 2
    assert net.lin.weight.isfinite().all()


class Late(Guard):
    "As on a GPU."
    def __init__(self, label, names, device): super().__init__(label, names, torch.device("cuda"))


@pytest.mark.parametrize("late", (False, True))
@pytest.mark.parametrize("broken, passes, every, saved, lines", [
    (5, 1, 3, 4, 1), (6, 1, 3, 5, 1), (5, 1, 100, 4, 0), (9, 2, 3, 4, 1)])  # at which pass, of how many an update
def test_a_broken_loss_that_is_seen_late_is_the_same_error_and_is_never_saved(late, broken, passes, every, saved, lines, tmp_path, monkeypatch):
    if late: monkeypatch.setattr(training, "Guard", Late)
    calls, net = [], Toy()
    def some(i, at):
        calls.append(i); b = make(i)
        if len(calls) == broken: b["y"][0] = float("inf")
        return b
    def run(save_every):
        calls.clear()
        with pytest.raises(BrokenLoss) as e:
            fit(net, list(net.named_parameters()), some, np.ones(64), Plan(9, 8, every=every, accumulate=passes), "toy", tmp_path / "log",
                lambda i: [f"face-{k}" for k in i], resume=tmp_path / "resume", save_every=save_every)
        return str(e.value)
    step, said = (broken - 1) // passes + 1, run(1e9)
    assert f"toy: the loss of step {step} is inf (records {', '.join(f'face-{k}' for k in calls[broken - 1])} ...)" in said
    assert net.lin.weight.isfinite().all() != late and len((tmp_path / "log").read_text().splitlines()) == lines
    assert not (tmp_path / "resume").exists()
    net.lin.reset_parameters()
    assert run(0.) == said and (tmp_path / "resume" / f"{saved:08}.json").exists() and not list((tmp_path / "resume").glob(f"*{saved + 1}.*"))
    tensors = [x for p in (tmp_path / "resume").glob("*.safetensors") for x in io.load_tensors(p).values()]
    assert tensors and all(x.isfinite().all() for x in tensors)


def test_step1_batches_pair_each_caption_with_its_picture_and_mark_twins():
    feats = np.arange(2 * 3 * 4, dtype="float16").reshape(2, 3, 4, 1)
    rows = [[4, 7, 5], [4, 8, 9, 5], [4, 7, 5], [4, 9, 5]]
    make_batch = Step1Batches(feats, np.array([0, 0, 1, 2]), rows, ["a", "b", "a", "c"], 1)
    b = make_batch(np.array([3, 1, 2, 0]), np.arange(4))
    assert b["group"].tolist() == [2, 1, 0, 0] and make_batch.lengths.tolist() == [3, 4, 3, 3]
    assert b["ids"].tolist()[0] == [4, 9, 5, 1] and b["mask"].sum(1).tolist() == [3, 4, 3, 3] and b["image"].dtype == torch.float32
    for got, r in zip(b["image"], (2, 0, 1, 0)): assert any(torch.equal(got, torch.from_numpy(feats[v, r]).float()) for v in (0, 1))


def test_step2_batches_augment_only_when_asked(tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8))
    store, rows = ImageStore([f"images.npy:{k}" for k in range(3)], tmp_path), [[2, 7, 9], [2, 9], [2, 8, 9]]
    plain, moved = (Step2Batches(store, np.array([2, 1, 0]), rows, 1, 8, augment=a) for a in (False, True))
    i, early, late = np.array([0, 1]), np.array([0, 1]), np.array([2, 3])
    assert torch.equal(plain(i)["pixels"], plain(i, late)["pixels"]) and not torch.equal(moved(i, early)["pixels"], moved(i, late)["pixels"])
    assert torch.equal(moved(i, late)["pixels"], moved(i, late)["pixels"])  # known from the running numbers alone
    assert torch.equal(moved(i, late)["pixels"][1:], moved(i[1:], late[1:])["pixels"])  # however the samples are spread
    with pytest.raises(ValueError, match="needs the running numbers"): moved(i)
    assert plain(i)["pixels"].shape == (2, 3, 8, 8) and torch.equal(plain(np.array([2]))["pixels"], plain(np.array([1, 2]))["pixels"][1:])


def test_captions_of_a_model_and_of_a_split():
    table = pd.DataFrame(dict(id=["a", "b"], split=["train", "val"]))
    text = pd.DataFrame(dict(record=["a", "a", "b"], aspect=["au", "emotion", "au"], text=["x", "y", "z"]))
    got = {(m, s): captions_for(text, table, m, s).text.tolist() for m in ("au", "emot", "exp") for s in ("train", "val")}
    assert got == {("au", "train"): ["x"], ("au", "val"): ["z"], ("emot", "train"): ["y"], ("emot", "val"): [],
                   ("exp", "train"): ["x", "y"], ("exp", "val"): ["z"]}
    with pytest.raises(ValueError, match="no training captions for model 'emot'.*no emotion labels"):
        captions_for(text[text.aspect == "au"], table, "emot", "train")


def test_curves_draw_chance_where_it_is_known():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    fig = curves([dict(step=s, itc=3., itm=.6, itg=2., loss=5.6) for s in (1, 2)], 16)
    lines = {ax.get_title(): [x.get_ydata()[0] for x in ax.lines] for ax in fig.axes}
    assert set(lines) == {"itc", "itm", "itg"} and lines["itc"][1] == pytest.approx(math.log(16)) and len(lines["itg"]) == 1
    plt.close(fig)


def test_batches_made_ahead_overlap_with_the_work_and_keep_their_order():
    made, orders = [], [np.array([k]) for k in range(12)]
    def slow(order): time.sleep(.02); made.append(int(order[0])); return dict(x=order)
    seen, ahead_of_us, waits = [], [], []
    batches = ahead(slow, orders)
    for k in range(12):
        t = time.monotonic(); order, batch = next(batches); waits.append(time.monotonic() - t)
        assert batch["x"] is order
        seen.append(int(order[0])); time.sleep(.03); ahead_of_us.append(len(made) - k - 1)
    assert seen == list(range(12)) == made and max(ahead_of_us) <= 3
    assert sum(waits[1:]) < .5 * 11 * .02  # unoverlapped it would be all of it
    with pytest.raises(StopIteration): next(batches)


def test_an_error_of_a_batch_comes_at_its_place_and_closing_stops_the_thread():
    made = []
    def some(order):
        made.append(int(order[0]))
        if order[0] == 4: raise ValueError("batch 4")
        return {}
    seen = []
    with pytest.raises(ValueError, match="batch 4"):
        for order, _ in ahead(some, (np.array([k]) for k in range(99))): seen.append(int(order[0]))
    assert seen == [0, 1, 2, 3] and len(made) < 10
    made.clear(); batches = ahead(some, (np.array([9]) for _ in range(99))); next(batches); batches.close()
    assert len(made) <= 4 and "batches" not in " ".join(t.name for t in threading.enumerate())


@pytest.mark.parametrize("wrong, told", [
    (dict(batch=0), "batch 0: give a number from 1"), (dict(accumulate=0, every=0), "accumulate 0: give a number from 1; every 0: give"),
    (dict(lr=float("nan")), "lr nan"), (dict(steps=-1), "steps -1: give a number from 0"), (dict(window=0), "window 0")])
def test_a_plan_that_makes_no_sense_is_refused_before_anything_is_built(wrong, told):
    with pytest.raises(ValueError, match=f"this plan cannot be trained by: {told}"): Plan(**(dict(steps=3) | wrong))
