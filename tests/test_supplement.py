"""One probe for all AU sets, read as the supplement's tables; the same tables fine-tuned; the supplement's numbers as printed."""
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from expblip import finetuning
from expblip.checkpoints import Start
from expblip.finetuning import Tuned, job_labels, jobs, training_batches
from expblip.images import ImageStore
from expblip.io import project_root
from expblip.probes import TABLE3_AUS, probe_tasks, run_task
from expblip.supplement import S5_AUS, S8_AUS, emotions_again, run_supplement, supplement_rows, supplement_tasks
from expblip.training import Plan, fit


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


def test_labels_without_an_absent_au_are_skipped_as_by_the_other_probes(toy, capsys):
    "Nothing can be learned where every annotated AU is present; where one can, the others are named."
    frame, _, grid = toy
    bare = frame.assign(au_absent=[[] for _ in range(len(frame))])
    assert run_supplement(bare, frame[["id"]], {"qformer": grid}, "au") == []
    assert "all training images have the same labels" in capsys.readouterr().out
    assert [row for task in probe_tasks(bare) for row in run_task(task, bare, frame[["id"]], {"qformer": grid}, "au")] == []
    half = frame.assign(au_absent=[[number for number in numbers if number != 7] for numbers in frame["au_absent"]])
    assert all("of one kind only in training: AU7" in row["meaning"] for row in run_supplement(half, frame[["id"]], {"qformer": grid}, "au"))


def test_a_qformer_is_fine_tuned_and_scored(tmp_path):
    "Bright pictures have AU1; the Q-Former learns it, and its text side stays as it was."
    torch.manual_seed(0)
    n = 48
    bright = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 40, (n, 96, 96, 3))
    np.save(tmp_path / "images.npy", (noise + 150 * bright[:, None, None, None]).astype("uint8"))
    table = pd.DataFrame({"id": [f"r{k}" for k in range(n)], "image": [f"images.npy:{k}" for k in range(n)]})
    table = table.assign(dataset="drawn-rafau", subject=None, emotions=None, split=np.repeat(["train", "test"], n // 2))
    table["au_present"], table["au_absent"] = ([[1] if b == value else [] for b in bright] for value in (1, 0))
    store, job = ImageStore(list(table.image), tmp_path), jobs(table, "exp", "qformer")[0]
    rows, labels, aus = job_labels(job, table)
    net = Tuned(Start().captioner(), "qformer", len(aus))
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    batches = training_batches(store, rows, labels, net.encoder.image_size, 0)
    fit(net, net.trained(), batches, np.ones(len(rows)), Plan(24, 12, 3e-3, warmup=1, window=1), "toy")
    net.cpu()
    moved = {name.split(".")[0] for name, weight in net.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"encoder", "ln_vision", "qformer", "head"}
    assert all(torch.equal(weight, before[name]) for name, weight in net.named_parameters() if "ffn_text" in name or "words" in name)
    found = {row["name"]: row["value"] for row in finetuning.tested(net, job, table, store, "exp", "24 updates")}
    assert set(found) == {"tableS7/exp/qformer/fine_tuned/avg", "tableS7/exp/qformer/fine_tuned/AU1"} and min(found.values()) > 0.8


@pytest.mark.parametrize(("table", "aus"), [("S2", TABLE3_AUS), ("S3", S5_AUS), ("S4", TABLE3_AUS), ("S5", S5_AUS), ("S6", TABLE3_AUS),
                                            ("S7", S5_AUS), ("S8", S8_AUS)])
def test_printed_averages_are_those_of_the_printed_aus(table, aus):
    "A slip of a digit in the CSV would show."
    path, = (project_root() / "data" / "paper").glob(f"table{table}_*.csv")
    printed = pd.read_csv(path)
    names = [f"AU{number}" for number in aus]
    assert printed.columns[1:len(aus) + 1].tolist() == names and len(printed) in (11, 12, 14)
    assert (printed[names].mean(axis=1) - printed["avg"]).abs().max() < 0.11
