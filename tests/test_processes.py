"Two processes (gloo, CPU) train as one: the same losses and weights, both steps, at the same global batch. Run by torchrun, this file trains."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_resume import plan, work

from expblip import io
from expblip.launch import TrainingFailed, launch, run_cells
from expblip.memory import Memory
from expblip.shards import whole_state
from expblip.training import fit

ROOT = Path(__file__).resolve().parents[1]
WAYS = {  # name -> step, settings of the loop, settings of the model
    "step 1": (1, dict(accumulate=1), {}),
    "step 1, live gather": (1, dict(accumulate=1), dict(detach=False)),
    "step 1, hard negatives of equal words": (1, dict(accumulate=1), dict(identical_negatives=True)),
    "step 1, passes": (1, dict(accumulate=2), {}),
    "step 2": (2, dict(accumulate=1), {}),
    "step 2, passes": (2, dict(accumulate=2), {}),
}
CUT = {  # the same, cut into shards in the two processes, and with the switches for small cards that go with it
    "step 1, shards": (1, dict(accumulate=1), dict(shard="fsdp")),
    "step 1, shards, passes, clipped": (1, dict(accumulate=2, clip=.5), dict(shard="fsdp")),
    "step 1, shards, pieces": (1, dict(accumulate=1), dict(shard="fsdp", pieces=3)),
    "step 2, shards": (2, dict(accumulate=1), dict(shard="fsdp")),
    "step 2, shards, passes, recomputed": (2, dict(accumulate=2), dict(shard="fsdp", recompute="encoder+qformer+lm")),
    "step 2, visiting, fused": (2, dict(accumulate=1), dict(offload="lm", optimizer="fused")),
}
STOPPED = ("step 1", "step 2", "step 1, shards", "step 2, shards")


class Stopped(Exception): pass


def train(way, folder, stop=None):
    "Train one of the ways; `stop` ends it at that batch."
    step, settings, switches = (WAYS | CUT)[way]
    model, named, batches = work(step, dropout=0.)
    if way in WAYS:
        for name, value in switches.items(): setattr(model, name, value)
    elif "RANK" in os.environ: settings = settings | dict(memory=Memory(**switches))
    else: settings = settings | dict(memory=Memory(optimizer=switches.get("optimizer", "auto")))
    made = iter(range(10**6))
    def make(i, at):
        if next(made) == stop: raise Stopped
        return batches(i, at)
    make.__module__ = "test_processes"
    run = fit(model, named, make, batches.lengths, plan(step, **settings), way, folder / f"{way}.jsonl", resume=folder / way, save_every=0)
    return model, run


def main(folder):
    "What each of the two processes does."
    torch.set_num_threads(1)
    for way in WAYS | CUT:
        model, _ = train(way, folder)
        state = whole_state(model)
        if os.environ["RANK"] == "0": io.save_tensors(folder / f"{way}.safetensors", state)
    for way in STOPPED:
        try: train(way, folder / "stopped", 9)
        except Stopped: pass
    for way in STOPPED[2:]: train(way, folder / "alone")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "A folder with what two processes made."
    folder = tmp_path_factory.mktemp("two")
    (folder / "stopped").mkdir()
    (folder / "alone").mkdir()
    for way in STOPPED[2:]:
        with pytest.raises(Stopped): train(way, folder / "alone", 9)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, str(folder)]
    got = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert got.returncode == 0, got.stdout[-2000:] + got.stderr[-6000:]
    return folder


def lines(path): return [json.loads(x) for x in path.read_text().splitlines()]


def unlike(model, tensors, apart=2e-5, part=""):
    "Weights that differ; keys' biases do not count: a softmax does not see them, so their gradient is rounding and Adam makes steps of it."
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("key.bias") and (not part or part + k in tensors)}
    far = {k: (v - tensors[part + k]).abs().max().item() for k, v in state.items()}
    return {k: d for k, d in far.items() if d > apart}


@pytest.mark.parametrize("way", WAYS | CUT)
def test_two_processes_train_as_one(way, two, tmp_path):
    start = work((WAYS | CUT)[way][0], 0.)[0].state_dict()
    model, run = train(way, tmp_path)
    assert unlike(model, io.load_tensors(two / f"{way}.safetensors")) == {} and len(unlike(model, start, 5e-3)) > 20  # and it did train
    for a, b in zip(run["log"], lines(two / f"{way}.jsonl"), strict=True): assert a == pytest.approx(b, abs=3e-5)


def test_passes_equal_a_whole_batch_where_no_pool_is_involved(tmp_path):
    "Step 2: a pass with more tokens counts for more. Step 1: ITC's pool shrinks, so the loss is another."
    (a, b), (c, d) = [[train(f"step {s}{more}", tmp_path) for more in ("", ", passes")] for s in (1, 2)]
    assert unlike(c[0], d[0].state_dict(), 1e-4) == {} and c[1]["log"][0]["loss"] == pytest.approx(d[1]["log"][0]["loss"], abs=2e-5)
    assert b[1]["log"][0]["itc"] < a[1]["log"][0]["itc"] - .1


@pytest.mark.parametrize("way", STOPPED)
def test_stopped_in_two_processes_it_goes_on_in_one(way, two, tmp_path, capsys):
    shutil.copytree(two / "stopped", tmp_path, dirs_exist_ok=True)
    model, run = train(way, tmp_path)
    assert f"{way}: goes on after update" in capsys.readouterr().out
    assert unlike(model, io.load_tensors(two / f"{way}.safetensors")) == {}
    for a, b in zip(run["log"], lines(two / f"{way}.jsonl"), strict=True): assert a == pytest.approx(b, abs=3e-5)


@pytest.mark.parametrize("way", STOPPED[2:])
def test_stopped_in_one_process_it_goes_on_in_shards(way, two, tmp_path):
    model, run = train(way, tmp_path)
    assert unlike(model, io.load_tensors(sorted((two / "alone" / way).glob("*.safetensors"))[-1]), part="weight/") == {}
    for a, b in zip(run["log"], lines(two / "alone" / f"{way}.jsonl"), strict=True): assert a == pytest.approx(b, abs=3e-5)


def test_every_sample_is_in_one_process_only(tmp_path, monkeypatch):
    "Together the processes see the samples, and the chance, of one."
    import accelerate
    seen = {}
    for ranks in (1, 2, 4):
        for rank in range(ranks):
            class Fake(accelerate.Accelerator):
                num_processes, process_index = ranks, rank  # noqa: B023
                is_main_process = True
                def reduce(self, x, how): return x
            monkeypatch.setattr(accelerate, "Accelerator", Fake)
            model, named, batches = work(2)
            def make(i, at): seen.setdefault(ranks, []).extend(zip(at.tolist(), i.tolist())); return batches(i, at)  # noqa: B023
            fit(model, named, make, batches.lengths, plan(2, steps=4, accumulate=2))
    assert sorted(seen[2]) == sorted(seen[4]) == seen[1] and [at for at, _ in seen[1]] == list(range(32))


def notebook(path, *cells):
    tagged = lambda i: dict(tags=["parameters"]) if not i else {}
    cells = [dict(cell_type="code", id=str(i), metadata=tagged(i), source=s, outputs=[], execution_count=None) for i, s in enumerate(cells)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return str(path)


def test_cells_run_until_the_training_is_done(tmp_path):
    book = notebook(tmp_path / "a.ipynb", "n = 1  # a number\nout = ''  # folder", "seen = [n]", "run = dict(n=n)", "1 / 0")
    assert run_cells(book, dict(n=5))["seen"] == [5]
    with pytest.raises(ZeroDivisionError): run_cells(book, {}, until="never")


def test_one_process_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    launch(str(tmp_path / "none.ipynb"), dict(processes=1))


@pytest.mark.parametrize("how, said", [
    ("raise ValueError('the disk is full')", "^ValueError: the disk is full$"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the 2 training processes ended with 1\n")])
def test_a_process_that_fails_says_why(tmp_path, how, said):
    book = notebook(tmp_path / "a.ipynb", "out = ''  # folder", f"import os\nif os.environ['RANK'] == '1': {how}\nimport time; time.sleep(60)")
    with pytest.raises(TrainingFailed, match=said): launch(book, dict(processes=2, out=str(tmp_path)))
    assert list(tmp_path.glob(".launch*")) == []


def test_another_launcher_may_be_named(tmp_path, monkeypatch, capfd):
    "Its command comes before `-m expblip.launch`; parameters that the notebook does not have are left out, and only its training speaks."
    monkeypatch.setenv("EXPBLIP_LAUNCHER", f"{sys.executable}")
    cell = "from expblip.launch import launch\nprint('before')\nlaunch('', {})\nrun = 1\nprint(f'{n} in training', flush=True)"
    book, said = notebook(tmp_path / "a.ipynb", "n = 1  # a number\nout = ''  # folder", cell), []
    launch(book, dict(processes=2, n=7, weight_decay=.1, out=str(tmp_path)), said.append)
    assert said == ["7 in training"]


if __name__ == "__main__": main(Path(sys.argv[1]))
