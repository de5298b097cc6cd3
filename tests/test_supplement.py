"""One probe for all AU sets, read as the supplement's tables; the same tables fine-tuned; the supplement's numbers as printed."""
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from expblip.finetuning import jobs
from expblip.io import project_root
from expblip.probes import TABLE3_AUS
from expblip.supplement import S5_AUS, S8_AUS, emotions_again, run_supplement, supplement_rows, supplement_tasks


@pytest.fixture(scope="module")
def toy():
    rng, n = np.random.default_rng(2), 600
    shown = rng.integers(0, 2, (n, 3)).astype(float)  # AUs 1, 4, 7
    sets = np.repeat(["drawn-bp4d", "drawn-rafau", "drawn-disfa"], n // 3)
    coded = {"drawn-bp4d": (1, 4), "drawn-rafau": (1, 7), "drawn-disfa": (4,)}
    at = {1: 0, 4: 1, 7: 2}
    frame = pd.DataFrame({"id": [f"r{k}" for k in range(n)], "dataset": sets, "split": np.resize(["train", "test", "train", "val"], n)})
    frame["subject"] = [f"p{k % 20}" if name != "drawn-rafau" else None for k, name in enumerate(sets)]
    for column, value in (("au_present", 1), ("au_absent", 0)):
        frame[column] = [[number for number in coded[name] if shown[k, at[number]] == value] for k, name in enumerate(sets)]
    frame["emotions"] = None
    grid = torch.tensor(shown[:, None] + rng.normal(size=(n, 1, 3)) * 0.7).float()
    return frame, shown, grid


def test_equal_to_scikit_on_the_union_of_the_sets(toy):
    frame, shown, grid = toy
    rows = run_supplement(frame, frame[["id"]], {"qformer": grid}, "au")
    value = {row["name"]: row["value"] for row in rows}
    strength = float(rows[0]["meaning"].split("penalty ")[1].split(" ")[0])
    train = (frame["split"] == "train").to_numpy()
    x = grid[:, 0].numpy()
    z = (x - x[train].mean(0)) / x[train].std(0)
    for dataset, table, number, column in (("drawn-bp4d", "tableS4", 4, 1), ("drawn-rafau", "tableS5", 1, 0), ("drawn-rafau", "tableS5", 7, 2)):
        owners = [name for name in frame["dataset"].unique() if number in {"drawn-bp4d": (1, 4), "drawn-rafau": (1, 7), "drawn-disfa": (4,)}[name]]
        known, test = train & frame["dataset"].isin(owners).to_numpy(), ((frame["dataset"] == dataset) & (frame["split"] == "test")).to_numpy()
        said = LogisticRegression(C=1 / (strength * known.sum()), tol=1e-8).fit(z[known], shown[known, column]).predict(z[test])
        assert value[f"{table}/au/qformer/pooled/AU{number}"] == pytest.approx(f1_score(shown[test, column], said), abs=0.02)
        if table == "tableS5":
            assert value[f"tableS8/au/qformer/pooled/AU{number}"] == pytest.approx(accuracy_score(shown[test, column], said), abs=0.02)
    assert value["tableS8/au/qformer/pooled/avg_f1"] == pytest.approx(value["tableS5/au/qformer/pooled/avg"], abs=1e-6)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_what_is_trained_and_tested_where(toy):
    frame, _, _ = toy
    tasks, sets = supplement_tasks(frame)
    assert [len(task.aus) for task in tasks] == [12, 17, 12] and sets == ["drawn-rafau", "drawn-bp4d", "drawn-disfa"]
    rows = frame.loc[supplement_rows(frame, 10)]
    assert rows.query("split == 'train'")["dataset"].value_counts().to_dict() == {name: 10 for name in sets}
    assert not ((rows["dataset"] == "drawn-disfa") & (rows["split"] == "test")).any()
    assert [[task.table for task in job.tasks] for job in jobs(frame, "au", "qformer")] == [["tableS6", "tableS7"]]
    assert [[task.table for task in job.tasks] for job in jobs(frame, "blip2", "image_encoder")] == [
        ["tableS6", "tableS7", "tableS4", "tableS5", "tableS8"], ["table3"], ["table4"]]


def test_emotions_are_told_again_under_the_supplements_name():
    rows = [{"table": "table3", "figure": name, "name": f"table3/au/qformer/pooled/{name}", "value": 0.5} for name in ("avg", "emotion_accuracy")]
    assert [row["name"] for row in emotions_again(rows)] == ["tableS4/au/qformer/pooled/emotion_accuracy"]


def test_a_set_that_is_absent_is_left_out(toy):
    frame, _, grid = toy
    rows = run_supplement(frame[:200], frame[["id"]][:200], {"qformer": grid[:200]}, "au")
    assert {row["table"] for row in rows} == {"tableS4"}


@pytest.mark.parametrize(("table", "aus"), [("S2", TABLE3_AUS), ("S3", S5_AUS), ("S4", TABLE3_AUS), ("S5", S5_AUS), ("S6", TABLE3_AUS),
                                            ("S7", S5_AUS), ("S8", S8_AUS)])
def test_printed_averages_are_those_of_the_printed_aus(table, aus):
    "A slip of a digit in the CSV would show."
    path, = (project_root() / "data" / "paper").glob(f"table{table}_*.csv")
    printed = pd.read_csv(path)
    names = [f"AU{number}" for number in aus]
    assert printed.columns[1:len(aus) + 1].tolist() == names and len(printed) in (11, 12, 14)
    assert (printed[names].mean(axis=1) - printed["avg"]).abs().max() < 0.11
