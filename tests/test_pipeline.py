"""The pipeline on throw-away notebooks: freshness rule by rule, failures of every kind, kill -9, parallel branches, one lock."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from expblip import manifest as manifests
from expblip.graph import GraphError, expand, notebook_parameters, read_graph
from expblip.manifest import module_hashes, read_manifest, stale
from expblip.pipeline import _longest_first, main, run
from expblip.runs import RunLock, plan

GRAPH = """
package: pkg
stages:
  start: {notebook: start.ipynb, scope: shared, reads: ["{table}"], outs: [n.txt]}
  left: {notebook: step.ipynb, inputs: {before: start}, outs: [n.txt, "*.json"]}
  right: {notebook: step.ipynb, params: {add: 10}, inputs: {before: start}, outs: [n.txt]}
  total: {notebook: total.ipynb, scope: shared, inputs: {parts: [left, right]}, outs: [n.txt]}
"""
START = ["from pkg.helper import one", "open(f'{out}/n.txt', 'w').write(str(one() * n))"]
STEP = ["n = int(open(f'{before}/n.txt').read()) + add", "open(f'{out}/n.txt', 'w').write(str(n))"]
TOTAL = ["n = sum(int(open(f'{part}/n.txt').read()) for part in parts)", "open(f'{out}/n.txt', 'w').write(str(n))"]


def notebook(path: Path, parameters: str, code: list[str], prose: str = "# A stage") -> None:
    more = {"code": {"outputs": [], "execution_count": None}, "markdown": {}}
    cell = lambda kind, source: {"cell_type": kind, "source": source, "metadata": {}} | more[kind]
    cells = [cell("markdown", prose), cell("code", parameters), *(cell("code", source) for source in code)]
    cells[1]["metadata"]["tags"] = ["parameters"]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))


def make(root: Path) -> Path:
    (root / "pkg").mkdir(parents=True)
    (root / "settings.ini").write_text("[DEFAULT]\n")
    (root / "pipeline.yaml").write_text(GRAPH)
    (root / "pkg" / "__init__.py").write_text("")
    (root / "pkg" / "helper.py").write_text("from .deep import value\n\n\ndef one():\n    return value\n")
    (root / "pkg" / "deep.py").write_text("value = 1\n")
    (root / "pkg" / "unused.py").write_text("x = 1\n")
    (root / "table.csv").write_text("image\na.jpg\n")
    (root / "a.jpg").write_bytes(b"first")
    notebook(root / "start.ipynb", "scale = ''\nout = ''\nn: int = 2  # a number\ntable = 'table.csv'", START)
    notebook(root / "step.ipynb", "out = ''\nbefore = ''\nadd = 1\nseed = 0", STEP)
    notebook(root / "total.ipynb", "out = ''\nparts = ['']", TOTAL)
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, shared by the tests that only ask what would be stale."""
    root = make(tmp_path_factory.mktemp("project"))
    work = plan("demo", "smoke", root=root)
    assert run(work) == 0 and set(work.done.values()) == {"done"}
    return root


@pytest.fixture
def project(tmp_path):
    return make(tmp_path / "project")


def reasons(root: Path, **options) -> dict[str, str]:
    work = plan(options.pop("name", "demo"), options.pop("scale", "smoke"), root=root, **options)
    found = {name.split("/")[1]: stale(instance, work.instances, root, "pkg") for name, instance in work.instances.items()}
    return {name: reason for name, reason in found.items() if reason}


def touched(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, ns=(time.time_ns(), time.time_ns()))


def test_result_and_manifest(finished):
    assert (finished / "outputs/demo/shared/total/n.txt").read_text() == str((2 + 1) + (2 + 10))
    manifest = read_manifest(finished / "outputs/demo/seed0/left")
    assert manifest["all_params"]["before"] == "outputs/demo/shared/start" and manifest["seconds"] > 0 and manifest["cpu_seconds"] > 0
    assert {"commit", "versions", "machine", "device", "seed", "started", "peak_mib"} <= set(manifest)
    assert set(read_manifest(finished / "outputs/demo/shared/start")["key"]["modules"]) == {"pkg.helper", "pkg.deep"}
    assert not list((finished / "outputs").rglob("*running*"))


def test_second_run_does_no_work(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in (finished / "outputs/demo").rglob("n.txt")}
    work = plan("demo", "smoke", root=finished)
    assert run(work) == 0 and set(work.done.values()) == {"fresh"}
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert "0 of 4 stages ran" in capsys.readouterr().out


@pytest.mark.parametrize(
    "file, content, expected",
    [
        ("pkg/deep.py", "value = 3\n", {"start": "module pkg.deep changed"}),
        ("pkg/deep.py", '"Better words."\nvalue = 1  # one\n', {}),
        ("pkg/unused.py", "x = 2\n", {}),
        ("table.csv", "image\na.jpg\n\n", {"start": "file table.csv changed"}),
        ("table.csv", "image\na.jpg\n", {}),
        ("a.jpg", b"other", {"start": "file a.jpg changed"}),
        ("outputs/demo/shared/start/n.txt", "7", {"start": "output n.txt is changed"}),
        ("outputs/demo/shared/start/n.txt", "2", {}),
        ("outputs/demo/shared/start/other.txt", "not declared", {}),
    ],
)
def test_what_makes_stale(finished, file, content, expected):
    path = finished / file
    old = path.read_bytes() if path.exists() else None
    touched(path, content)
    try:
        assert reasons(finished) == expected
    finally:
        path.unlink() if old is None else touched(path, old)
    assert reasons(finished) == {}


def test_stages_may_ask_at_the_same_time():
    """Python 3.11 raises SystemError when two threads build syntax trees at once and a garbage collection lets them take turns."""
    project = Path(__file__).resolve().parents[1]
    turns, old = (lambda *_: time.sleep(0)), gc.get_threshold()

    def ask(_):
        manifests._module.cache_clear()
        return module_hashes(project / "nbs/stages/10_data.ipynb", project / "expblip")

    gc.callbacks.append(turns)
    gc.set_threshold(50)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(ask, range(4)))
    finally:
        gc.callbacks.remove(turns)
        gc.set_threshold(*old)
    assert len(found[0]) > 3 and all(each == found[0] for each in found)


def test_notebook_edits(finished):
    path = finished / "step.ipynb"
    old = path.read_text()
    notebook(path, "out = ''\nbefore = ''\nadd = 1\nseed = 0", STEP, prose="# Other words, and more of them")
    assert reasons(finished) == {}
    notebook(path, "out = ''\nbefore = ''\nadd = 1\nseed = 0", [STEP[0], STEP[1] + "\nprint(n)"])
    assert reasons(finished) == {"left": "code changed", "right": "code changed"}
    path.write_text(old)


def test_parameters_and_lost_outputs(finished):
    assert reasons(finished, overrides=["right.add=11"]) == {"right": "parameter add changed"}
    assert reasons(finished, scale="tiny") == {"start": "parameter scale changed"}
    assert reasons(finished, device="cpu") == {}
    assert set(reasons(finished, name="fresh-folder")) == {"start", "left", "right", "total"}
    lost = finished / "outputs/demo/seed0/left/n.txt"
    text, times = lost.read_text(), lost.stat()
    lost.unlink()
    assert reasons(finished) == {"left": "output n.txt is missing"}
    lost.write_text(text)
    os.utime(lost, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_renamed_run_folder_stays_fresh(finished):
    (finished / "outputs/demo").rename(finished / "outputs/moved")
    assert reasons(finished, name="moved") == {}
    (finished / "outputs/moved").rename(finished / "outputs/demo")


@pytest.mark.parametrize(
    "override, message",
    [
        ("left.ad=1", r"left.ad: step.ipynb has no such parameter \(did you mean 'add'\?\)"),
        ("left.add=many", r"left.add: needs int, got 'many' \(str\)"),
        ("left.add=true", r"needs int, got True"),
        ("lefd.add=1", r"no stage or instance 'lefd' \(did you mean 'left'\?\)"),
        ("add=1", r"write it as stage.knob=value"),
        ("left.before=elsewhere", r"left.before: before is set by the graph"),
        ("start.table=none.csv", r"nothing was run: start.table: 'none.csv': no file 'none.csv' there; name what exists"),
    ],
)
def test_parameters_are_refused_before_anything_runs(project, override, message):
    with pytest.raises(GraphError, match=message):
        plan("demo", "smoke", overrides=[override], root=project)
    assert not (project / "outputs").exists()


def test_rules_of_the_configuration(project):
    (project / "pipeline.yaml").write_text("rules: expblip.config:check_params\n" + GRAPH)
    with pytest.raises(GraphError, match="unknown stage 'left'"):
        plan("demo", "smoke", root=project)


REAL = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": "huge"}, r"^nothing was run: parameter 'scale' is 'huge': it must be one of smoke, tiny, base, full \(the dial\)$"),
        ({"device": "gpu"}, r"^nothing was run: parameter 'device' is 'gpu': [^\n]*$"),
        ({"seeds": [2**31]}, r"^nothing was run: parameter 'seed' is 2147483648: [^\n]*$"),
        ({"overrides": ["step1.stepz=3"]}, r"^nothing was run: step1.stepz: \S+ has no such parameter \(did you mean 'steps'\?\)$"),
        ({"overrides": ["step1.batch=0"]}, r"^nothing was run: step1: parameter 'batch' is 0: [^\n]*$"),
        ({"overrides": ["step1-au.batch=0"]}, r"^nothing was run: step1-au: parameter 'batch' is 0: [^\n]*$"),
        ({"overrides": ["step2.accumulate=5"]}, r"^nothing was run: step2: accumulate 5 does not divide batch 32; [^\n]*$"),
        ({"overrides": ["step1-exp.lr_min=0.5"]}, r"^nothing was run: step1-exp: lr_min 0.5 lies above lr [^\n]*$"),
        ({"overrides": ["step2.init=/nope"]}, r"^nothing was run: step2.init: '/nope': no file '/nope/\*.safetensors' there; [^\n]*$"),
        ({"overrides": ["data.data=nope.csv"]}, r"^nothing was run: data.data: 'nope.csv': no file 'nope.csv' there; [^\n]*$"),
        ({"overrides": ["step2.model=emot"]}, r"^-p step2.model: model is set by the graph"),
        ({"overrides": ["mae.mask=7"]}, r"^nothing was run: mae: parameter 'mask' is 7: it must be a number from 0.1 to 0.95 [^\n]*$"),
        ({"overrides": ["ablation.stepz=7"]}, r"^nothing was run: ablation.stepz: \S+ has no such parameter \(did you mean 'steps'\?\)$"),
        ({"overrides": ["mae.mask=7", "step2.batch=0"]}, r"^nothing was run:\n  step2: parameter 'batch' is 0: [^\n]*\n  mae: param"),
        ({"overrides": ["step1.batch=1"]}, r"^nothing was run: step1: batch 1 in 1 passes leaves ITC and ITM one picture and no negatives; [^\n]*$"),
        ({"overrides": ["step1.batch=4", "step1.accumulate=4"]}, r"^nothing was run: step1: batch 4 in 4 passes leaves ITC [^\n]*$"),
        ({"overrides": ["start.weights=gone.pth, more.pth"]}, r"^nothing was run: start: weights names gone.pth, .*; weights names more.pth, "),
    ],
)
def test_the_real_graph_refuses_in_one_sentence(options, message):
    with pytest.raises(GraphError, match=message):
        plan("refused", **{"scale": "tiny"} | options, root=REAL)


def test_the_real_graph_plans_at_every_scale():
    for scale in ("smoke", "tiny", "base", "full"):
        large = scale in ("base", "full")  # there the files are the user's, so small ones stand in
        files = ["start.weights=data/drawn-blip2", "start.lm=data/drawn-blip2/lm", "start.text=data/drawn-blip2/lm"] * large
        assert all(plan("planned", scale, 2, files, only=only, root=REAL).instances for only in ((), ("blip2", "ablation")))


def test_graph_faults(project):
    (project / "pipeline.yaml").write_text("stages: {a: {notebook: start.ipynb, needs: [b]}, b: {notebook: start.ipynb, needs: [a]}}")
    with pytest.raises(GraphError, match="in a circle: seed0/a, seed0/b"):
        plan(root=project)
    (project / "pipeline.yaml").write_text("stages: {a: {notebook: start.ipynb, neds: [b]}}")
    with pytest.raises(GraphError, match="unknown key 'neds'"):
        plan(root=project)
    (project / "pipeline.yaml").write_text("stages: {a: {notebook: none.ipynb}}")
    with pytest.raises(GraphError, match="no such notebook"):
        plan(root=project)


def test_only_exactly_the_dependants_rerun(finished):
    work = plan("demo", "smoke", overrides=["right.add=20"], root=finished)
    assert run(work) == 0
    assert work.done == {"shared/start": "fresh", "seed0/left": "fresh", "seed0/right": "done", "shared/total": "done"}
    work = plan("demo", "smoke", root=finished)
    assert run(work) == 0 and work.done["shared/total"] == "done"


ENDS = {
    "error": ("raise ValueError('the loss is not finite')", "ValueError: the loss is not finite"),
    "exit 0": ("import sys; sys.exit(0)", "sys.exit"),
    "exit 1": ("import sys; sys.exit(1)", "SystemExit: 1"),
    "dead kernel": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
    "memory": ("raise MemoryError()", "MemoryError"),
    "no output": ("import os; os.remove(f'{out}/n.txt')", "without writing n.txt"),
}


def test_failures(project, capsys):
    """Each kind of bad end, side by side: the notebook shows it, dependants are skipped, the independent branch goes on."""
    stages = "".join(f"  bad{k}: {{notebook: bad{k}.ipynb, outs: [n.txt]}}\n" for k in range(len(ENDS)))
    stages += f"  after: {{notebook: total.ipynb, scope: shared, inputs: {{parts: [{', '.join(f'bad{k}' for k in range(len(ENDS)))}]}}}}\n"
    (project / "pipeline.yaml").write_text("package: pkg\nstages:\n" + stages + "  good: {notebook: start.ipynb, outs: [n.txt]}\n")
    for k, (code, _) in enumerate(ENDS.values()):
        notebook(project / f"bad{k}.ipynb", "out = ''", ["open(f'{out}/n.txt', 'w').write('1')", code])
    work = plan("demo", "smoke", root=project)
    assert run(work) == 1
    assert work.done["seed0/good"] == "done" and work.done["shared/after"] == "skipped"
    printed = capsys.readouterr().out
    for k, (_, message) in enumerate(ENDS.values()):
        folder = project / f"outputs/demo/seed0/bad{k}"
        assert work.done[f"seed0/bad{k}"] == "failed" and message in work.problems[f"seed0/bad{k}"]
        assert not (folder / "manifest.json").exists() and not (folder / "notebook.ipynb").exists()
        assert f"FAILED seed0/bad{k}" in printed
        if message != "without writing n.txt":
            cells = json.loads((folder / "notebook.failed.ipynb").read_text())["cells"]
            assert any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("count, more", [(3, 0), (40, 11)])
def test_the_first_failure_is_the_last_thing_said(project, capsys, count, more):
    "The whole message, up to thirty lines, below the table; what was skipped is one line and is not told stage by stage."
    faults = [f"- line {k}: no such file" for k in range(count)]
    message = "\n".join(["faults", *faults])
    notebook(project / "start.ipynb", "scale = ''\nout = ''\nn: int = 2\ntable = 'table.csv'", [f"raise ValueError({message!r})"])
    assert run(plan("demo", "smoke", root=project)) == 1
    printed = capsys.readouterr().out
    table, _, end = printed.partition("stages ran in")
    assert "skipped, since they need what failed: seed0/left, seed0/right, shared/total" in end and "skipped" not in table
    want = ["cell 4: ValueError: faults", *faults][:30] + [f"... and {more} more lines"] * bool(more)
    lines = end.rstrip("\n").splitlines()
    assert lines[-len(want):] == want
    assert lines[-len(want) - 1] == "FAILED shared/start  (see outputs/demo/shared/start/notebook.failed.ipynb)"


def test_of_several_failures_the_first_stands_last(project, capsys):
    notebook(project / "step.ipynb", "out = ''\nbefore = ''\nadd = 1\nseed = 0", ["raise ValueError(f'{add} broke')"])
    work = plan("demo", "smoke", root=project, workers=1)
    assert run(work) == 1 and set(work.problems) == {"seed0/left", "seed0/right"}
    first, second = work.problems
    end = capsys.readouterr().out.partition("stages ran in")[2]
    assert end.index(f"FAILED {second}: {work.problems[second]}") < end.index(f"FAILED {first}  (see") and end.strip().endswith(work.problems[first])


def test_resume_after_a_failure_runs_only_the_rest(project):
    notebook(project / "total.ipynb", "out = ''\nparts = ['']", ["1 / 0"])
    assert run(plan("demo", "smoke", root=project)) == 1
    notebook(project / "total.ipynb", "out = ''\nparts = ['']", TOTAL)
    work = plan("demo", "smoke", root=project)
    assert run(work) == 0 and [name for name, state in work.done.items() if state == "done"] == ["shared/total"]
    assert not (project / "outputs/demo/shared/total/notebook.failed.ipynb").exists()


def command(root: Path, *words: str) -> subprocess.Popen:
    (root / "scratch").mkdir()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "TMPDIR": str(root / "scratch")}
    call = [sys.executable, "-m", "expblip.pipeline", "run", "--run", "demo", "--scale", "smoke", *words]
    return subprocess.Popen(call, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_then_resumed(project, how):
    """The command is killed (or stopped by Ctrl-C) while `left` sleeps: its kernel ends too, `start` stays, the next run does the rest."""
    (project / "pipeline.yaml").write_text("preload: [decimal]\n" + GRAPH)
    sleepy = "import os, time, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(0 if os.path.exists('awake') else 60)"
    notebook(project / "step.ipynb", "out = ''\nbefore = ''\nadd = 1\nseed = 0", [sleepy, *STEP])
    process = command(project, "-n", "1")
    deadline = time.monotonic() + 40
    while not (project / "pid").exists() or not (project / "pid").read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.05)
    with pytest.raises(GraphError, match="another pipeline command"):
        RunLock(project / "outputs/demo").__enter__()
    process.send_signal(how)
    assert process.wait(20) == (-9 if how == signal.SIGKILL else 130)
    assert how == signal.SIGKILL or not list((project / "scratch").iterdir())
    kernel = int((project / "pid").read_text())
    while alive(kernel):
        assert time.monotonic() < deadline, "the kernel outlived the command"
        time.sleep(0.05)
    (project / "awake").touch()
    work = plan("demo", "smoke", root=project)
    assert run(work) == 0
    assert work.done == {"shared/start": "fresh", "seed0/left": "done", "seed0/right": "done", "shared/total": "done"}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc").exists() else os.kill(pid, 0) is None
    except OSError:
        return False


def test_branches_overlap_and_progress_is_shown(project, capsys):
    """`left` waits for `right` and the other way round: only side by side can both end."""
    meet = (
        "import os, time\nopen(f'met-{add}', 'w').close()\nend = time.time() + 30\n"
        "open(os.environ['EXPBLIP_PROGRESS'], 'w').write(f'waiting {add}')\n"
        "while len([name for name in os.listdir() if name.startswith('met-')]) < 2:\n    assert time.time() < end, 'alone'\n    time.sleep(0.02)\n"
        "time.sleep(0.6)"
    )
    notebook(project / "step.ipynb", "out = ''\nbefore = ''\nadd = 1\nseed = 0", [meet, *STEP])
    work = plan("demo", "smoke", workers=2, root=project)
    assert run(work, progress_every=0.1) == 0
    assert "seed0/left: waiting 1" in capsys.readouterr().out


def test_resume_folder_survives_only_for_the_same_work(project):
    code = "import os\nos.makedirs(f'{out}/resume', exist_ok=True)\nseen = os.listdir(f'{out}/resume')\nopen(f'{out}/resume/step-3', 'w').close()"
    notebook(project / "start.ipynb", "out = ''\nn = 2", [code, "assert seen, 'first time'", "open(f'{out}/n.txt', 'w').write('1')"])
    first = lambda *words: run(plan("demo", "smoke", only=["start"], overrides=words, root=project))
    assert first("start.n=3") == 1
    assert first("start.n=4") == 1
    assert first("start.n=4") == 0


def test_foreach_seeds_and_own_folders(project):
    (project / "pipeline.yaml").write_text(
        "stages:\n  data: {notebook: start.ipynb, scope: shared}\n"
        "  step: {notebook: step.ipynb, foreach: {model: [au, exp]}, params: {add: {au: 1, exp: 2}},\n"
        "         inputs: {before: {au: data, exp: step-au}, other: {au: null, exp: data}}}\n"
        "  report: {notebook: total.ipynb, scope: shared, inputs: {parts: 'step-*'}}\n"
    )
    found = expand(read_graph(project / "pipeline.yaml"), "r", seeds=[0, 2], overrides=[("step-exp", "add", 5), ("step", "add", 4)])
    assert found["seed2/step-exp"].params["add"] == 5 and found["seed2/step-au"].params["add"] == 4
    assert found["seed2/step-exp"].params["before"] == "outputs/r/seed2/step-au" and found["seed2/step-exp"].params["seed"] == 2
    assert found["seed2/step-au"].params["other"] == "" and found["seed2/step-exp"].params["other"] == "outputs/r/shared/data"
    assert len(found["shared/report"].params["parts"]) == 4
    for label, knob in (("step-exp", "before"), ("step", "other"), ("step", "model"), ("data", "out")):
        with pytest.raises(GraphError, match=f"-p {label}.{knob}: {knob} is set by the graph .* leave it out"):
            expand(read_graph(project / "pipeline.yaml"), overrides=[(label, knob, "x")])


def test_parameters_cell_must_be_literal(project):
    notebook(project / "bad.ipynb", "out = ''\nn = len('x')", [])
    with pytest.raises(GraphError, match="only `name = literal`"):
        notebook_parameters(project / "bad.ipynb")


def test_command_line(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["run", "--run", "demo", "-p", "left.ad=1"]) == 2
    assert "did you mean 'add'" in capsys.readouterr().err
    assert main(["graph"]) == 0 and "seed0/left" in capsys.readouterr().out
    assert main(["status", "--run", "demo"]) == 1 and "never run" in capsys.readouterr().out


def test_the_real_graph_holds_together():
    root = Path(__file__).resolve().parents[1]
    found = expand(read_graph(root / "pipeline.yaml"), "r", "smoke", [0, 1, 2])
    assert {"shared/data", "seed0/step1-au", "seed2/step2-exp", "seed1/caption-blip2", "seed0/metrics", "report"} <= set(found)
    assert all(need in found for instance in found.values() for need in instance.needs)


def test_the_longest_chain_goes_first():
    "On the real graph: the specialists before the detectors; afterwards doit is as before."
    from doit.control import TaskDispatcher
    usual = TaskDispatcher._get_next_node
    def task(name): return SimpleNamespace(task=SimpleNamespace(name=f"stage:{name}"))
    with _longest_first(plan("order", "smoke", checked=False)):
        ready, order = deque(map(task, ("report", "seed0/detector-au", "seed0/step1-au", "shared/data"))), []
        while ready: order.append(TaskDispatcher._get_next_node(None, ready, []).task.name)
    assert order == [f"stage:{name}" for name in ("shared/data", "seed0/step1-au", "seed0/detector-au", "report")]
    assert TaskDispatcher._get_next_node is usual


def test_what_comes_after_waits_and_counts_but_asks_nobody(project):
    """`after`: results of a stage that nobody has to run; where it ran they count, and where both run it comes first."""
    extra = "  extra: {notebook: step.ipynb, inputs: {before: start}, outs: [n.txt]}\n  total: {after: [extra], "
    (project / "pipeline.yaml").write_text("default: [total]\n" + GRAPH.lstrip().replace("  total: {", extra))
    first = plan("demo", "smoke", root=project)
    assert run(first) == 0 and "seed0/extra" not in first.instances and not reasons(project)
    both = plan("demo", "smoke", only=["extra", "total"], root=project)
    assert run(both) == 0 and [name for name, state in both.done.items() if state == "done"] == ["seed0/extra", "shared/total"]
    assert both.reasons["shared/total"] == "inputs changed" or "seed0/extra" in both.reasons["shared/total"]
    assert not reasons(project)
