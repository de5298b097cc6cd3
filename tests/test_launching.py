"What the page Many GPUs tells to type, on CPUs: torchrun, accelerate launch, FSDP by its switch, and tools/slurm.sh on a cluster of stubs."
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_processes import notebook

from expblip import io
from expblip.launch import TrainingFailed, run_cells

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def guard_stays(monkeypatch):
    "What a cell puts into the package while it runs in this process is taken out again."
    from expblip import training
    monkeypatch.setattr(training, "Guard", training.Guard)


SLURM = ROOT / "tools" / "slurm.sh"
ACCELERATE = f"{sys.executable} -m accelerate.commands.launch --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
PARAMETERS = """me = ''  # this notebook
out = ''  # its folder
processes = 1  # that train side by side
shard = 'none'  # or fsdp
dies = 0  # after so many updates, once
breaks = 0  # at this update, in the second process"""
MODEL = """import os
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn

from expblip import training
from expblip.io import atomic_write
from expblip.launch import launch
from expblip.memory import Memory
from expblip.training import Plan, fit
torch.manual_seed(0)
X = torch.linspace(-1, 1, 64)
class Toy(nn.Module):
    def __init__(self):
        super().__init__(); self.layers = nn.ModuleList([nn.Linear(1, 4), nn.Linear(4, 1)])
    def forward(self, x, y):
        atomic_write(Path(out, f'rank-{os.environ.get("RANK", "none")}'), f'{os.environ.get("WORLD_SIZE", 1)} {type(self).__name__}')
        for layer in self.layers: x = layer(x)
        return dict(loss=(x[:, 0] - y).square().mean())
def batches(i, at):
    if dies and at[0] // 16 == dies + 3 and not Path(out, 'died').exists():  # batches are made in advance
        Path(out, 'died').touch(); os.kill(os.getpid(), signal.SIGKILL)
    broken = at[0] // 16 == breaks - 1 and os.environ.get('RANK') == '1'
    return dict(x=X[i][:, None], y=3 * X[i] + (float('nan') if broken else 1))
if breaks:  # the losses are seen late, as on GPUs
    class Guard(training.Guard):
        def __init__(self, label, names, device): super().__init__(label, names, torch.device('cuda'))
    training.Guard = Guard
net = Toy()"""
TRAINING = """launch(me, dict(me=me, out=out, processes=processes, shard=shard, dies=dies, breaks=breaks))
run = fit(net, list(net.named_parameters()), batches, np.ones(64), Plan(12, 16, .05, warmup=0, every=4 if breaks else 1, memory=Memory(shard=shard)),
          'toy', Path(out) / 'log.jsonl', resume=Path(out) / 'resume', save_every=0)"""


@pytest.fixture
def stage(tmp_path):
    "A toy stage notebook, and its parameters."
    return dict(me=notebook(tmp_path / "stage.ipynb", PARAMETERS, MODEL, TRAINING), out=str(tmp_path / "out"))


def trained(stage, **params):
    "Run the notebook up to its result; gives the lines of the log, who trained, and what was said in the notebook itself."
    params = stage | params
    Path(params["out"]).mkdir(exist_ok=True)
    scope = run_cells(stage["me"], params)
    return scope["run"]["log"], who(params), {k: v.tolist() for k, v in scope["net"].state_dict().items()}


def who(stage): return {p.name: p.read_text() for p in Path(stage["out"]).glob("rank-*")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    "One process."
    folder = tmp_path_factory.mktemp("alone")
    stage = dict(me=notebook(folder / "stage.ipynb", PARAMETERS, MODEL, TRAINING), out=str(folder / "out"))
    log, seen, state = trained(stage)
    assert seen == {"rank-none": "1 Toy"} and log[-1]["loss"] < log[0]["loss"] / 2
    return log, state


def same(got, alone):
    for a, b in zip(got[0], alone[0], strict=True): assert a == pytest.approx(b, abs=1e-5)
    for name, x in alone[1].items():
        for a, b in zip(got[2][name], x, strict=True): assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("launcher, params, kind", [
    (None, {}, "Toy"),
    (None, dict(shard="fsdp"), "FSDPToy"),
    (f"{ACCELERATE} --multi_gpu", {}, "Toy"),
    (f"{ACCELERATE} --use_fsdp", {}, "FSDPToy")], ids=["torchrun", "torchrun, shards", "accelerate", "accelerate, shards"])
def test_a_stage_trains_in_two_processes(launcher, params, kind, stage, alone, monkeypatch, capfd):
    if launcher: monkeypatch.setenv("EXPBLIP_LAUNCHER", launcher)
    got = trained(stage, processes=2, **params)
    assert got[1] == {f"rank-{k}": f"2 {kind}" for k in "01"}  # and the notebook itself computed nothing
    assert "toy: goes on after update 12 of 12" in capfd.readouterr().out
    same(got, alone)


def test_accelerate_launch_without_the_notebook_around_it(stage, alone, tmp_path):
    "The command of the page, by hand: training ends with a finished checkpoint, which the notebook then picks up."
    Path(stage["out"]).mkdir()
    values = io.write_json(tmp_path / "parameters.json", stage)
    command = [*shlex.split(ACCELERATE), "--multi_gpu", "-m", "expblip.launch", stage["me"], str(values)]
    got = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert got.returncode == 0, got.stderr[-3000:]
    assert who(stage) == {f"rank-{k}": "2 Toy" for k in "01"}
    for p in Path(stage["out"]).glob("rank-*"): p.unlink()
    got = trained(stage)
    assert got[1] == {}
    same(got, alone)


def test_a_loss_that_breaks_in_one_process_is_named_and_not_saved_by_another(stage):
    "The averaged gradient has spoilt the first process's weights, though its own loss of that update is finite."
    with pytest.raises(TrainingFailed, match="^BrokenLoss: toy: the loss of step 6 is nan"): trained(stage, processes=2, breaks=6)
    saved = sorted(p.stem for p in (Path(stage["out"]) / "resume").glob("*.json"))
    assert saved == ["00000004"]
    assert all(x.isfinite().all() for x in io.load_tensors(Path(stage["out"]) / "resume" / "00000004.safetensors").values())


STUBS = {
    "scontrol": "#!/bin/sh\n[ \"$1 $2 $3\" = 'show hostnames node[1-2]' ] && printf '127.0.0.1\\nnode2\\n'\n",
    "srun": """#!{python}
import os, subprocess, sys, time
flags = [x for x in sys.argv[1:] if x.startswith('--')][:4]
assert flags == ['--nodes=2', '--ntasks=2', '--ntasks-per-node=1', '--kill-on-bad-exit=1'] and sys.argv[5] == 'torchrun', sys.argv
each = lambda k: os.environ | dict(SLURM_PROCID=str(k), SLURM_NODEID=str(k), SLURM_LOCALID='0', SLURM_NTASKS='2')
nodes = [subprocess.Popen([sys.executable, '-m', 'torch.distributed.run', '--local-addr=127.0.0.1', *sys.argv[6:]], env=each(k)) for k in range(2)]
while None in (codes := [node.poll() for node in nodes]):
    if any(codes): [node.terminate() for node in nodes]
    time.sleep(.1)
sys.exit(max(map(abs, codes)))
""",
    "make": """#!{python}
import json, os, sys
from expblip.launch import TrainingFailed, run_cells
target, knobs, *rest = sys.argv[1:]
assert target == 'paper' and rest == ['SCALE=full', 'RUN=mine'], sys.argv
knobs = dict(x.split('=') for x in knobs.removeprefix('P=').split())
stage = json.loads(os.environ['STAGE']) | dict(processes=int(knobs['step2.processes']), shard=knobs.get('step2.shard', 'none'))
run_cells(stage['me'], stage)
"""}


def job(stage, folder, **more):
    "Run tools/slurm.sh as SLURM would on the first of two nodes of one GPU each."
    folder.mkdir(exist_ok=True)
    for name, text in STUBS.items():
        (folder / name).write_text(text.replace("{python}", sys.executable))
        (folder / name).chmod(0o755)
    while True:
        with socket.socket() as free: free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
        if 20000 <= port < 40000: break
    env = dict(SLURM_JOB_ID=str(port - 20000), SLURM_JOB_NUM_NODES="2", SLURM_JOB_NODELIST="node[1-2]", SLURM_GPUS_ON_NODE="1",
               SLURM_SUBMIT_DIR=str(ROOT), PATH=f"{folder}:{os.environ['PATH']}", PYTHONPATH=str(ROOT), STAGE=json.dumps(stage), OMP_NUM_THREADS="1")
    Path(stage["out"]).mkdir(exist_ok=True)
    return subprocess.run(["bash", str(SLURM), "SCALE=full", "RUN=mine"], env=os.environ | env | more, capture_output=True, text=True, timeout=120)


def test_the_slurm_script_is_bash_and_asks_for_what_it_says():
    assert subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True).stderr == ""
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SLURM.read_text(), re.M))
    assert asked["ntasks-per-node"] == "1" and "requeue" in asked and asked["open-mode"] == "append"


def test_the_knobs_of_the_page_and_of_the_script_are_accepted_at_the_scale_they_name(tmp_path):
    from expblip.config import check_params
    page = json.loads((ROOT / "nbs/howto/many_gpus.ipynb").read_text())
    said = ["".join(c["source"]) for c in page["cells"] if c["cell_type"] == "markdown"]
    asked = [found for text in said for found in re.findall(r'make paper SCALE=(\w+) P="([^"]+)"', text)]
    for gpus, nodes in ((8, 4), (8, 1), (6, 1), (1, 3)):  # what the script asks for on such a cluster
        (tmp_path / "make").write_text("#!/bin/sh\necho $2\n"); (tmp_path / "make").chmod(0o755)
        (tmp_path / "scontrol").write_text("#!/bin/sh\necho node1\n"); (tmp_path / "scontrol").chmod(0o755)
        env = dict(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES=str(nodes), SLURM_JOB_NODELIST="node[1-4]",
                   SLURM_GPUS_ON_NODE=str(gpus), SLURM_SUBMIT_DIR=str(ROOT))
        got = subprocess.run(["bash", str(SLURM)], env=env, capture_output=True, text=True)
        assert f"step1.processes={gpus * nodes} " in got.stdout, got.stderr
        asked.append(("full", got.stdout.strip().removeprefix("P=")))
    assert len(asked) >= 7
    for scale, knobs in asked:
        stages: dict = {}
        for stage, name, value in re.findall(r"(\w+)\.(\w+)=(\S+)", knobs):
            stages.setdefault(stage, {})[name] = int(value) if value.isdigit() else value
        for stage, values in stages.items(): assert check_params(stage, dict(scale=scale, **values))["processes"] == values["processes"]


def test_the_slurm_script_trains_on_two_nodes_and_goes_on_after_it_was_pre_empted(stage, alone, tmp_path):
    "The first time in shards, until one process is killed; the second time without."
    got = job(stage | dict(dies=5), tmp_path / "cluster", KNOBS="step2.shard=fsdp")
    assert got.returncode and "TrainingFailed" in got.stderr and who(stage) == {f"rank-{k}": "2 FSDPToy" for k in "01"}
    left = max(int(p.stem) for p in (Path(stage["out"]) / "resume").glob("*.json"))
    assert 3 <= left < 9
    got = job(stage | dict(dies=5), tmp_path / "cluster")
    assert got.returncode == 0, got.stderr[-3000:]
    assert who(stage) == {f"rank-{k}": "2 Toy" for k in "01"}
    assert f"toy: goes on after update {left} of 12" in got.stdout and "toy: goes on after update 12 of 12" in got.stdout
    same(trained(stage | dict(dies=5)), alone)
