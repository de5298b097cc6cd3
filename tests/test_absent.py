"absent: a stage without work says why, its readers say the same, and the pipeline takes it for a good end."
import json

import pytest

from expblip.absent import absences, enter, leave, why_absent
from expblip.io import write_json
from expblip.page import examples
from expblip.report import collect


def test_the_reason_is_handed_on(tmp_path):
    one, two = tmp_path / "seed0/step1-au", tmp_path / "seed0/step2-au"
    with pytest.raises(SystemExit):
        leave(one, "no labels")
    with pytest.raises(SystemExit):
        enter(two, tmp_path / "shared/data", one)
    assert why_absent(two) == "no labels" and absences(tmp_path) == {"no labels": ["step1-au", "step2-au"]}
    enter(two, tmp_path / "shared/data")
    assert why_absent(two) == "" and absences(tmp_path) == {"no labels": ["step1-au"]}


def test_a_file_is_never_absent(tmp_path):
    (tmp_path / "captions.csv").write_text("id\n")
    assert why_absent(tmp_path / "captions.csv") == "" and why_absent(tmp_path / "none") == ""


def test_what_an_absent_stage_left_earlier_does_not_count(tmp_path):
    write_json(tmp_path / "seed0/step1-au/results.json", [{"name": "x", "value": 1, "meaning": "m"}])
    assert len(collect(tmp_path)) == 1
    with pytest.raises(SystemExit):
        leave(tmp_path / "seed0/step1-au", "no labels")
    assert len(collect(tmp_path)) == 0 and examples(tmp_path) == ([], None)


def notebook(path, code):
    cells = [{"cell_type": "code", "source": source, "metadata": {"tags": tags}, "outputs": [], "execution_count": None}
             for source, tags in (("out = ''\nbefore = ''", ["parameters"]), (code, []), ("raise ValueError('went on')", []))]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))


def test_the_pipeline_goes_on(tmp_path, capsys):
    from expblip.manifest import read_manifest
    from expblip.pipeline import main

    (tmp_path / "settings.ini").write_text("[DEFAULT]\n")
    (tmp_path / "pipeline.yaml").write_text(
        "package: pkg\nstages:\n  one: {notebook: one.ipynb, outs: [model.txt]}\n"
        "  two: {notebook: two.ipynb, inputs: {before: one}, outs: [model.txt, '*.json']}\n")
    notebook(tmp_path / "one.ipynb", "from expblip.absent import leave\nleave(out, 'no labels')")
    notebook(tmp_path / "two.ipynb", "from expblip.absent import enter\nenter(out, before)")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["run", "--run", "demo", "--scale", "smoke"]) == 0, capsys.readouterr().out
        folder = tmp_path / "outputs/demo/seed0/two"
        assert why_absent(folder) == "no labels" and list(read_manifest(folder)["outputs"]) == ["absent.json"]
        assert main(["status", "--run", "demo"]) == 0
