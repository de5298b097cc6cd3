"cli: captions from the shell, exit statuses, and a start that waits for nothing."
import csv
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from expblip.cli import completion, listed, main
from expblip.drawing import draw
from expblip.faces import Face


@pytest.fixture(scope="module")
def smile(tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "smile.png"
    Image.fromarray(draw(Face(aus={6: (.9, .9), 12: (.9, .9)}))).save(path)
    return path


def test_help_is_light():
    heavy = ("torch", "transformers", "pandas", "numpy", "matplotlib", "gradio")
    code = f"import sys; from expblip.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert not set({heavy}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_captions(smile, tmp_path, capsys):
    assert main(["caption", str(smile), "--device", "cpu", "--format", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert 12 in row["aus"] and row["image"] == str(smile)
    assert main(["caption", str(smile.parent), "--device", "cpu", "-o", str(tmp_path / "a.csv")]) == 0
    assert (tmp_path / "a.csv").read_text().count("smile.png") == 1


def test_exit_statuses(smile, capsys):
    assert main(["caption", str(smile), "no.jpg", "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert "smile.png: " in told.out and "no.jpg: no such file" in told.err
    assert main(["caption", str(smile), "--model", "./nowhere"]) == 2
    with pytest.raises(SystemExit) as ended: main(["captoin"])
    assert ended.value.code == 2


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["torch"]["good"] and rows["weights 'drawn'"]["found"] == "there"
    assert "cpu" in rows["device"]["found"] or "cuda" in rows["device"]["found"]
    assert "drawn-blip2" not in rows["outputs"]["found"] and "config.json" in rows["data/drawn-blip2"]["found"]
    assert rows["weights facebook/opt-6.7b"]["good"] is None
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "opt-6.7b" in line or " torch " in line] == ["ok", "-"]


# ---------------------------------------------------------------- one faulty input

def test_one_faulty_input_is_one_row_and_the_others_are_kept(smile, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(smile.read_bytes()[:60])
    given = [tmp_path / "empty", smile, tmp_path / "no.jpg", tmp_path / "broken.png", smile.parent]
    assert main(["caption", *map(str, given), "--device", "cpu", "-o", str(tmp_path / "x.csv")]) == 1
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [Path(row["image"]).name for row in rows] == ["empty", "smile.png", "no.jpg", "broken.png", "smile.png"]
    assert [bool(row["fault"]) for row in rows] == [True, False, True, True, False] == [not row["caption"] for row in rows]
    assert "no picture in this folder" in rows[0]["fault"] and "no such file" in rows[2]["fault"]
    told = capsys.readouterr().err
    assert all(f"{path}: " in told for path in (given[0], given[2], given[3]))


def test_without_any_picture_the_model_is_not_even_loaded(tmp_path, capsys, monkeypatch):
    from expblip import captioner
    monkeypatch.setattr(captioner.Captioner, "from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    assert main(["caption", str(tmp_path), "no.jpg", "-o", str(tmp_path / "x.csv")]) == 2
    told = capsys.readouterr().err
    assert "no picture to caption" in told and "no.jpg: no such file" in told and not (tmp_path / "x.csv").exists()
    for name in ("x.txt", "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        assert main(["caption", "no.jpg", "-o", str(tmp_path / name)]) == 2 and "written as .json, .jsonl or .csv" in capsys.readouterr().err


@pytest.mark.parametrize("args, told", [
    (["--batch", "0"], "'0': give a whole number from 1"), (["--batch", "-3"], "'-3': give a whole number from 1"),
    (["--format", "json", "-o", "x.csv"], "x.csv is written by its ending"), (["-o", "no/such/folder/x.csv"], "its folder does not exist")])
def test_what_cannot_be_meant_is_refused(args, told, smile, capsys):
    try: status = main(["caption", str(smile), *args])
    except SystemExit as end: status = end.code
    assert status == 2 and told in capsys.readouterr().err and not Path("no").exists()


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    assert listed([str(tmp_path / "fifo.jpg")]) == [(str(tmp_path / "fifo.jpg"), "a pipe or device; save it as a file first")]


def test_help_of_the_pipeline_names_the_command_that_was_typed(capsys):
    with pytest.raises(SystemExit): main(["run", "--help"])
    assert "usage: expblip " in capsys.readouterr().out


def test_inputs_in_order(smile, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("2.png", "1.JPG"): (tmp_path / "a" / name).write_bytes(smile.read_bytes())
    assert [(Path(name).name, bool(fault)) for name, fault in listed([str(tmp_path / "a"), "gone.png", str(smile)])] == [
        ("1.JPG", False), ("2.png", False), ("gone.png", True), ("smile.png", False)]


def test_what_was_finished_when_it_is_stopped_is_written(smile, tmp_path, capsys, monkeypatch):
    from expblip import captioner
    whole = captioner.Captioner.stream

    def stopped(self, *args, **options):
        yield next(whole(self, *args, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(captioner.Captioner, "stream", stopped)
    assert main(["caption", str(smile), str(smile), "--device", "cpu", "-o", str(tmp_path / "x.jsonl")]) == 130
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 1 and "holds 1 of 2 pictures" in capsys.readouterr().err


def test_quiet_says_nothing_but_faults(smile, capsys):
    assert main(["caption", str(smile), "no.jpg", "--device", "cpu", "-q"]) == 1
    assert capsys.readouterr().err == "no.jpg: no such file or folder\n"


# ---------------------------------------------------------------- estimate, page, completion

def estimated(capsys, *args):
    assert main(["estimate", "--json", *args]) == 0
    return {(row["group"], row["name"]): row for row in json.loads(capsys.readouterr().out)}


def test_estimate_of_the_drawn_world_is_what_the_reference_run_had(capsys):
    from expblip.checkpoints import Start
    root, start = Path(__file__).resolve().parents[1], Start()
    rows = estimated(capsys, "--scale", "tiny", "--device", "cpu")
    assert rows["parameters", "image encoder"]["value"] == sum(p.numel() for p in start.encoder().state_dict().values())
    assert rows["parameters", "language model, frozen"]["value"] == sum(p.numel() for p in start.lm.parameters())
    pictures = json.loads((root / "outputs/reference/shared/data/manifest.json").read_text())
    assert pictures["all_params"]["scale"] == "tiny" and rows["run", "pictures"]["value"] == 18392
    timed = json.loads((root / "outputs/reference/timings.json").read_text())
    assert rows["time", "CPU time, a seed (shared stages shared out)"]["value"] == pytest.approx(sum(r["cpu_seconds"] for r in timed) / 3)
    assert "measured" in rows["time", "CPU time, a seed (shared stages shared out)"]["source"]
    assert rows["files", "to fetch"]["value"] == "nothing" and rows["captions", "fuse: writer grammar"]["value"] == 0


def test_estimate_at_full_size_claims_no_time_and_names_what_to_fetch(capsys):
    from expblip.estimate import Training, memory, sizes
    rows = estimated(capsys, "--scale", "full", "--device", "cuda", "--images", "1000", "-p", "step2.batch=8", "-p", "step2.recompute=encoder")
    assert rows["parameters", "language model, frozen"]["value"] == 6_658_473_984
    t = Training(2, 8, 200, "bf16", "bf16", recompute="encoder")
    assert rows["memory", "step 2 of au, a GPU"]["value"] == pytest.approx(sum(memory(sizes(), t).values()))
    assert rows["disk", "features"]["value"] == 1000 * 257 * 1408 * 2
    assert rows["time", "of a run"]["value"] == "not known"
    assert "fetch" in rows["files", "to fetch or to mend"]["value"]
    few = estimated(capsys, "--scale", "full", "--device", "cuda", "--images", "1000", "-p", "step2.batch=8", "-p", "step2.lm_weights=nf4")
    assert few["memory", "step 2 of au, a GPU"]["value"] < estimated(capsys, "--scale", "full", "--device", "cuda", "--images", "1000", "-p",
                                                                     "step2.batch=8")["memory", "step 2 of au, a GPU"]["value"]


def test_estimate_prices_a_chat_model_by_the_table(capsys):
    asked = ["-p", "synthesize.writer=llm", "-p", "synthesize.llm_model=gpt-4o-mini"]
    rows = estimated(capsys, "--scale", "smoke", "--images", "1000", *asked)
    one = rows["captions", "synthesize: gpt-4o-mini, at most about"]
    double = estimated(capsys, "--scale", "smoke", "--images", "2000", *asked)["captions", "synthesize: gpt-4o-mini, at most about"]
    assert 0.01 < one["value"] < 1 and double["value"] == pytest.approx(2 * one["value"]) and "2026-05-01" in one["source"]
    assert main(["estimate", "--scale", "smoke", "--images", "9", "-p", "synthesize.writer=llm", "-p", "synthesize.llm_model=gpt-99"]) == 2
    assert "no price for model 'gpt-99'" in capsys.readouterr().err


def test_estimate_counts_a_table(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("image,emotions,au_present\na.jpg,happiness,\nb.jpg,,6+12\nc.jpg,sadness,\n")
    rows = estimated(capsys, "--scale", "tiny", "--data", str(tmp_path / "p.csv"))
    assert rows["run", "pictures"]["value"] == 3 and "p.csv" in rows["run", "pictures"]["source"]


@pytest.mark.parametrize("args, told", [
    (["--scale", "huge"], "'scale' is 'huge': it must be one of smoke, tiny, base, full"),
    (["-p", "step9.lr=1"], "-p step9.lr: no such stage; did you mean"),
    (["-p", "step2.bach=1"], "-p step2.bach: no such parameter; did you mean 'batch'?"),
    (["-p", "step2.batch=0"], "-p step2.batch=0: it must be a whole number from 1"),
    (["-p", "start.lmm=x", "--scale", "full"], "-p start.lmm: no such parameter; did you mean 'lm'?"),
    (["-p", "mae.mask=7"], "-p mae.mask=7: it must be a number from 0.1"), (["--data", "nowhere.csv"], "--data nowhere.csv: no such file or folder"),
    (["--data", "CITATION.cff"], "--data CITATION.cff: no table: name a .csv file")])
def test_estimate_refuses_what_a_run_would_refuse(args, told, capsys):
    assert main(["estimate", *args]) == 2
    assert told in capsys.readouterr().err


def test_page_is_launched_with_what_was_asked(monkeypatch):
    "The page's own command line gets the words, and takes whatever this one lets through."
    from expblip import demo_page
    asked = []
    monkeypatch.setattr(demo_page, "launch", lambda *given: asked.append(given) or types.SimpleNamespace(
        url="http://here", app=types.SimpleNamespace(block_thread=lambda: None), close=lambda: None))
    assert main(["page", "--model", "x", "--port", "7000", "--device", "cpu"]) == 0 and main(["page", "--host", "0.0.0.0"]) == 0
    assert asked == [("x", 7000, "127.0.0.1", False, "cpu"), ("drawn", None, "0.0.0.0", False, "auto")]


@pytest.mark.parametrize("typed, wanted", [
    (["cap"], {"caption"}), ([""], {"run", "status", "graph", "caption", "doctor", "estimate", "page", "completion"}),
    (["run", "--sc"], {"--scale"}), (["run", "--scale", ""], {"smoke", "tiny", "base", "full"}), (["caption", "--device", "c"], {"cuda", "cpu"}),
    (["completion", ""], {"bash", "zsh", "fish"}), (["caption", "setti"], {"settings.ini"}), (["estimate", "--js"], {"--json"})])
def test_completion_in_a_real_bash(typed, wanted, tmp_path_factory):
    words = " ".join(f"'{word}'" for word in ["expblip", *typed])
    code = f"{completion('bash')}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_expblip; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    got = subprocess.run(["bash", "--norc", "--noprofile", "-c", code], capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert got.returncode == 0 and set(got.stdout.split()) == wanted, got.stderr


def test_completion_for_the_other_shells(capsys):
    for shell, sign in (("zsh", "#compdef expblip"), ("fish", "complete -c expblip")):
        assert main(["completion", shell]) == 0
        said = capsys.readouterr().out
        assert sign in said and all(word in said for word in ("caption", "estimate", "scale", "smoke"))
