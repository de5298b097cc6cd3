"The page on paper, supplement and code: each switch that it names exists, takes the value it names, and changes what is resolved."
import json
import re
from pathlib import Path

import pytest
import yaml

from expblip.config import STAGES, check_params, stage_config, stage_knobs
from expblip.scales import RECIPES

ROOT = Path(__file__).resolve().parents[1]
PAGE = json.loads((ROOT / "nbs/explanations/paper_code_ours.ipynb").read_text())
TEXT = "\n".join("".join(c["source"]) for c in PAGE["cells"] if c["cell_type"] == "markdown")
ROWS = [[x.strip() for x in line.strip("|").split("|")] for line in TEXT[TEXT.index("## Every contradiction"):].splitlines() if line.startswith("| ")]
SWITCHES = sorted(set(re.findall(r"`(\w+)\.(\w+)=([^`]+)`", "\n".join(row[-1] for row in ROWS))))


def test_every_row_is_whole():
    assert len(ROWS) > 25 and all(len(row) == 7 for row in ROWS)
    for row in ROWS[1:]: assert row[0] and row[4] and row[5] and re.search(r"`\w+\.\w+=", row[-1]), row


@pytest.mark.parametrize("stage, knob, value", SWITCHES)
def test_a_switch_that_is_named_exists_and_takes_the_value(stage, knob, value):
    assert knob in STAGES[stage], f"{stage}.{knob}"
    parsed = stage_knobs(stage)[knob].parse(value)
    more = dict(lr_min=0.) if knob == "lr" else {}
    if stage == "start":
        assert isinstance(parsed, str)  # files are the user's
        return
    assert check_params(stage, {knob: parsed} | more)[knob] == parsed
    cfg = stage_config(stage, scale="full", device="cpu", **({knob: parsed} | more))
    assert getattr(cfg, knob) == parsed and cfg.origin[knob] == "given"


def test_each_parameter_is_one_of_its_notebook_too():
    "So it can be given with papermill or -p."
    from expblip.graph import notebook_parameters
    notebooks = {name: s["notebook"] for name, s in yaml.safe_load((ROOT / "pipeline.yaml").read_text())["stages"].items()}
    for stage, knob, _ in SWITCHES: assert knob in notebook_parameters(ROOT / notebooks[stage]), (stage, knob)


def test_names_of_switches_elsewhere_on_the_page_exist_too():
    known = {k for stage in STAGES.values() for k in stage} | {f for r in RECIPES.values() for f in vars(r)} | set(RECIPES)
    table = TEXT[TEXT.index("The numbers agree once"):TEXT.index("Read and written are LAVIS")]
    for name in re.findall(r"`(\w+)(?:=[\w.-]+)?`", table): assert name in known | {"length_penalty"}, name


def test_fields_that_recipes_disagree_on_stand_in_the_table():
    told = {k for _, k, _ in SWITCHES}
    for step in (1, 2):
        found = [r.of(step) for r in RECIPES.values()]
        for field in found[0]:
            if len({str(f[field]) for f in found}) > 1: assert field in told, field


def test_the_two_tables_and_the_recipe_tell_the_same_of_the_supplement():
    "Its table 12 is of step 2 alone: what it gives is marked so wherever it stands, and the recipe takes step 1 from the code."
    first = {row.split("|")[1].strip(): row.split("|")[3].strip() for row in TEXT[:TEXT.index("**Ours.**")].splitlines() if row.startswith("| ")}
    second = {row[0]: row[2] for row in ROWS}
    assert first["peak learning rate, step 1"] == "not given" and first["peak learning rate, step 2"] == "1e-5"
    assert all("(step 2)" in second[what] for what in ("peak learning rate", "updates of the warm-up", "batch", "epochs", "betas of AdamW"))
    assert all("(step 2)" in first[what] for what in ("warm-up steps", "batch", "epochs", "betas of AdamW"))
    told, code = RECIPES["supplement"], RECIPES["released_code"]
    assert all(getattr(told, name)[0] == getattr(code, name)[0] for name in ("lr", "lr_min", "warmup", "batch", "epochs"))
    assert (told.lr[1], told.warmup[1], told.batch[1], told.epochs[1]) == (1e-5, 1000, 32, 20)
