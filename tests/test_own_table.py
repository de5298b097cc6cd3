"A table of one's own has a run folder of its own."
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from expblip.graph import GraphError
from expblip.io import write_json
from expblip.runs import plan

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("asked, name", [
    ("DATA=data/user/photos.csv", "photos"), ("DATA=my (own) faces.v2.csv", "my--own--faces.v2"), ("DATA=photos.csv RUN=other", "other"),
    ("DATA=фото.csv", "photos"), ("DATA=data/user/album", "album"),
    ("", "tiny"), ("SCALE=smoke", "smoke")])
def test_make_names_the_run_like_the_table(tmp_path, asked, name):
    for file in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / file, tmp_path / file)
    words = [asked] if asked.startswith("DATA") and "RUN" not in asked else asked.split()
    said = subprocess.run(["make", "-n", "paper", *words], cwd=tmp_path, capture_output=True, text=True).stdout
    assert f"--run {name} " in said


def test_a_run_folder_refuses_another_table(tmp_path):
    cell = {"cell_type": "code", "source": "data = 'drawn'\nscale = ''\nout = ''", "metadata": {"tags": ["parameters"]}, "outputs": []}
    (tmp_path / "data.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    (tmp_path / "pipeline.yaml").write_text("shortcuts: {data: data.data}\nstages:\n  data: {notebook: data.ipynb, scope: shared}\n")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("image\n")
    manifest = tmp_path / "outputs/tiny/shared/data/manifest.json"
    ask = lambda table: plan("tiny", "smoke", data=str(tmp_path / table) if table else "", root=tmp_path)
    ask("a.csv")
    mine = {"data": "a.csv"}
    for made, fine, other, named in (({}, "", "a.csv", "'drawn'"), (mine, "a.csv", "", "'a.csv'"), (mine, "a.csv", "b.csv", "'b.csv'")):
        write_json(manifest, {"key": {}, "outputs": {}, "all_params": made | {"scale": "smoke"}})
        ask(fine)
        with pytest.raises(GraphError, match="outputs/tiny was made from data .* and this asks for .*name another run") as caught:
            ask(other)
        assert named in str(caught.value)
