"The how-tos: all that were promised, each with what it needs and what can go wrong, every message one that this package really says."
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("own_photographs", "own_data_set", "papers_data", "other_encoder", "other_llm", "one_gpu", "many_gpus", "slurm", "llm_writers", "llm_costs",
         "resume", "share_weights", "rerun_a_table", "write_a_stage")
OTHERS = {  # said by bash, torch and papermill
    "SLURM_JOB_NUM_NODES: unbound variable", "CUDA out of memory", "No kernel name found in notebook"}


def cells(name: str) -> list[dict]: return json.loads((ROOT / f"nbs/howto/{name}.ipynb").read_text())["cells"]
def text(cell: dict) -> str: return "".join(cell["source"])


@cache
def said() -> str:
    "All of the package's texts, literals that stand side by side made one, what is filled in made three dots, quotes left out."
    source = "\n".join(p.read_text() for p in sorted((ROOT / "expblip").glob("*.py")))
    source = re.sub(r"""["']\s*\n\s*f?["']""", "", source)
    for _ in range(3): source = re.sub(r"\{[^{}\n]*\}", "...", source)
    return re.sub(r"""["'\\]""", "", source)


def test_every_howto_of_the_list_is_there_and_in_the_index():
    assert {p.stem for p in (ROOT / "nbs/howto").glob("*.ipynb")} == set(PAGES)
    index = "".join(text(c) for c in json.loads((ROOT / "nbs/index.ipynb").read_text())["cells"])
    table = index.split("## How do I ...")[1].split("\n## ")[0]
    assert {Path(name).stem for name in re.findall(r"\]\((howto/\w+\.ipynb)\)", table)} == set(PAGES)
    readme = (ROOT / "README.md").read_text()
    assert {Path(name).stem for name in re.findall(r"\]\((nbs/howto/\w+\.ipynb)\)", readme)} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_howto_begins_with_what_is_needed_and_ends_with_what_can_go_wrong(name):
    page = cells(name)
    assert any(text(c).startswith("**You need**") for c in page[:3] if c["cell_type"] == "markdown")
    assert text(page[-1]).startswith("## What can go wrong")
    rows = text(page[-1]).splitlines()[2:]
    assert len(rows) >= 7 and all(len(re.split(r"(?<!\\)\|", row)) == 5 for row in rows), "message, cause, cure"


@pytest.mark.parametrize("name", PAGES)
def test_the_messages_are_the_package_s_own(name):
    known, unknown = said(), []
    for row in text(cells(name)[-1]).splitlines()[4:]:
        for message in re.findall(r"`([^`]+)`", row.split("|")[1]):
            parts = [re.sub(r"""["'\\]""", "", part).strip(" ():,") for part in message.split("...")]
            if message not in OTHERS: unknown += [part for part in parts if len(part) > 3 and part not in known]
    assert not unknown


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name):
    for link in re.findall(r"\]\((?!https?:)([^)#]+\.ipynb)\)", "".join(text(c) for c in cells(name) if c["cell_type"] == "markdown")):
        assert (ROOT / "nbs/howto" / link).is_file(), link


@pytest.mark.parametrize("name", PAGES)
def test_a_howto_does_the_thing_and_shows_what_is_refused(name):
    "Executed cells, and at least one failure that is shown: by `test_fail`, by an exception that is printed, or by a process that is killed."
    code = [c for c in cells(name) if c["cell_type"] == "code"]
    assert any(c["outputs"] for c in code)
    shown = "".join(map(text, code))
    assert re.search(r"test_fail\(|except \S+.* as \w+: print|returncode, -9|FAILED|rejected\(|photo_faults", shown)


@pytest.mark.parametrize("name", PAGES)
def test_knobs_that_a_howto_names_exist(name):
    "stage.knob=value in prose and commands."
    from expblip.config import stage_knobs
    from expblip.stages import STAGES
    words = "".join(text(c) for c in cells(name))
    named = {(stage, knob) for stage, knob in re.findall(r"\b([a-z]\w*)\.(\w+)=(?!=)", words) if stage in STAGES}
    assert not [f"{stage}.{knob}" for stage, knob in named if knob not in stage_knobs(stage)]


def test_another_start_is_told_to_every_stage_that_has_one():
    "The command names each stage of `make paper` with the parameter `init`, the sentence below it the others."
    import yaml

    from expblip.graph import notebook_parameters
    stages = yaml.safe_load((ROOT / "pipeline.yaml").read_text())["stages"]
    having = {name for name, stage in stages.items() if "init" in notebook_parameters(ROOT / stage["notebook"])}
    words = "".join(text(c) for c in cells("other_llm"))
    assert len(having) > 5 and having == set(re.findall(r"\b(\w+)\.init=my-start", words))
    command = re.search(r"make paper RUN=llama.*", words)[0]
    assert having - set(re.findall(r"(\w+)\.init=", command)) == {"finetune", "ablation"}, "these two are no part of the default run"


def test_the_jobs_of_the_slurm_page_name_what_the_scale_needs():
    "A start, the data: without them neither line could run."
    page = next(text(c) for c in cells("slurm") if "```bash\nexport KNOBS" in text(c))
    assert all(f"start.{knob}=" in page for knob in ("weights", "lm", "text"))
    jobs = re.findall(r"^.*\bsbatch .*", page, re.M)
    assert len(jobs) == 2 and all("DATA=" in job and ("$KNOBS" in job or "KNOBS" not in job) for job in jobs)
