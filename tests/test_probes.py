"""Linear probes against scikit-learn, on masked labels and on the position question."""

import numpy as np
import pandas as pd
import pytest
import torch

from expblip.probes import READINGS, TABLE3_AUS, TABLE4_AUS, Task, fit_probes, linear_probe, probe_loss, probe_rows, probe_tasks, read_features
from expblip.probes import one_sided, read_listed, run_task, task_labels

torch.set_num_threads(1)


@pytest.fixture()
def toy():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(240, 6)) * [1, 5, 0.2, 1, 2, 1] + 2
    scores = (x - 2) @ rng.normal(size=(6, 3)) + rng.normal(size=(240, 3))
    return rng, x, (scores > 0.5).astype(float)


def test_masked_labels_equal_one_scikit_fit_per_au(toy):
    from sklearn.linear_model import LogisticRegression

    rng, x, y = toy
    y[rng.random(y.shape) < 0.4] = np.nan
    ours = fit_probes(torch.tensor(x).float(), y, l2=(1.0, 0.05))[-1](torch.tensor(x).float()).sigmoid()
    z = (x - x.mean(0)) / x.std(0)
    for k in range(3):
        known = ~np.isnan(y[:, k])
        theirs = LogisticRegression(C=1 / (0.05 * known.sum()), tol=1e-8, max_iter=1000).fit(z[known], y[known, k])
        np.testing.assert_allclose(ours[:, k], theirs.predict_proba(z)[:, 1], atol=3e-3)


def test_one_class_is_no_probe(toy, capsys):
    _, x, y = toy
    x = torch.tensor(x).float()
    with pytest.raises(ValueError, match=r"all 240 training images have the same label \(3\): a probe needs two kinds"):
        fit_probes(x, np.full(240, 3), classes=8)
    y[:, 0], y[:, 1] = 1, np.nan
    y[:5, 1] = 0
    with pytest.raises(ValueError, match="each of the 2 AUs is always present or always absent"): fit_probes(x, y[:, :2])
    assert one_sided(y) == [0, 1] and one_sided(np.array([1, 2])) == [] and len(fit_probes(x, y)) == 3
    records = pd.DataFrame({"id": [f"i{k}" for k in range(60)], "dataset": "d", "split": ["train"] * 40 + ["test"] * 20, "subject": "a",
                            "au_present": None, "au_absent": None, "emotions": [["happiness"]] * 40 + [["happiness"], ["fear"]] * 10})
    grids = {"qformer": torch.randn(60, 2, 3)}
    assert run_task(Task("probe/d", "d"), records, records[["id"]], grids, "au") == []
    assert "all training images have the same labels, so no result" in capsys.readouterr().out
    records["au_present"], records["au_absent"] = [[1], [1, 2]] * 30, [[2], []] * 30
    rows = run_task(Task("probe/d", "d", (1, 2)), records, records[["id"]], grids, "au")
    assert rows and all("of one kind only in training: AU1" in row["meaning"] for row in rows)


def test_softmax_equals_scikit(toy):
    from sklearn.linear_model import LogisticRegression

    rng, x, _ = toy
    kinds = ((x - 2) @ rng.normal(size=(6, 4))).argmax(1)
    result = linear_probe((torch.tensor(x).float(), kinds), (torch.tensor(x).float(), kinds), classes=8, l2=(0.05,))
    z = (x - x.mean(0)) / x.std(0)
    assert result.score == pytest.approx(LogisticRegression(C=1 / (0.05 * len(x)), tol=1e-8).fit(z, kinds).score(z, kinds), abs=0.01)


def test_missing_labels_have_no_gradient():
    logits = torch.zeros(3, 2, requires_grad=True)
    probe_loss(logits, torch.tensor([[1.0, float("nan")], [0, 1], [float("nan")] * 2])).backward()
    assert logits.grad is not None and logits.grad[0, 1] == 0 and (logits.grad[2] == 0).all() and logits.grad[0, 0] < 0


def test_two_runs_are_equal_and_constant_features_are_harmless(toy):
    _, x, y = toy
    x = torch.tensor(np.c_[x, np.full(len(x), 7.0)]).float()
    first, second = (fit_probes(x, y)[0] for _ in range(2))
    assert torch.equal(first.weight, second.weight) and first.weight[-1].abs().max() < 1e-6


def test_flattened_sees_position_and_pooled_does_not():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, (300, 2)).astype(float)
    faces = rng.normal(size=(300, 4, 3)).astype("float16") / 2
    faces[:, 0, 0] += 2 * labels[:, 0]
    faces[:, 3, 0] += 2 * labels[:, 1]
    score = {}
    for reading in READINGS:
        x = read_features(faces, reading)
        score[reading] = linear_probe((x[:150], labels[:150]), (x[200:], labels[200:]), validation=(x[150:200], labels[150:200])).score
    assert score["flattened"] > 0.85 > score["pooled"]


def test_penalty_is_chosen_on_validation_images():
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, (400, 1)).astype(float)
    x = torch.tensor(np.c_[labels + rng.normal(size=(400, 1)), rng.normal(size=(400, 60))]).float()
    parts = [(x[i], labels[i]) for i in (slice(0, 60), slice(60, 250), slice(250, 400))]
    grid = (0.3, 1e-4)
    scores = {strength: linear_probe(parts[0], parts[1], l2=(strength,)).score for strength in grid}
    assert linear_probe(parts[0], parts[2], parts[1], l2=grid).l2 == max(scores, key=scores.__getitem__)


def test_what_is_refused():
    with pytest.raises(ValueError, match="positions, width"):
        read_features(np.zeros((3, 4)), "pooled")
    with pytest.raises(ValueError, match="image 1 are not finite"):
        read_features(np.array([[[0.0]], [[np.nan]]]), "pooled")
    with pytest.raises(ValueError, match="equally many"):
        fit_probes(torch.zeros(3, 2), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="no test images"):
        linear_probe((torch.zeros(3, 2), np.zeros((3, 1))), (torch.zeros(0, 2), np.zeros((0, 1))))


def test_tasks_and_names_of_a_run():
    """Names follow the tables; unlabelled images and several emotions are left out; no test images means no result."""
    rng = np.random.default_rng(7)
    n = 90
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(n)], "split": np.resize(["train", "test", "val"], n)})
    frame["dataset"] = ["drawn-bp4d"] * 45 + ["drawn-affectnet"] * 45
    frame["au_present"] = pd.Series([[12] if i % 2 else [] for i in range(45)] + [None] * 45, dtype=object)
    frame["au_absent"] = pd.Series([[4] if i % 2 else [4, 12] for i in range(45)] + [None] * 45, dtype=object)
    feelings = [None] * 45 + [["fear"] if i % 2 else ["anger"] for i in range(44)] + [["fear", "anger"]]
    frame["emotions"] = pd.Series(feelings, dtype=object)
    tasks = probe_tasks(frame)
    assert [(task.table, task.dataset) for task in tasks] == [("table3", "drawn-bp4d"), ("table3", "drawn-affectnet")]
    signal = np.arange(n) % 2
    noise = torch.tensor(rng.normal(size=(2, n, 2, 3)))
    grids = {"image_encoder": (noise[0] + 4 * torch.tensor(signal)[:, None, None]).half(), "qformer": noise[1].half()}
    rows = [row for task in tasks for row in run_task(task, frame, frame[["id"]], grids, "exp")]
    values = {row["name"]: row["value"] for row in rows}
    assert values["table3/exp/image_encoder/pooled/AU12"] > 0.9 > values["table3/exp/qformer/pooled/AU12"]
    assert values["table3/exp/image_encoder/flattened/emotion_accuracy"] > 0.9 and "table3/exp/image_encoder/pooled/AU1" not in values
    assert task_labels(tasks[1], frame)[0].sum() == 44
    assert run_task(tasks[0], frame, frame[["id"]][45:], {"qformer": grids["qformer"][45:]}, "exp") == []
    with pytest.raises(ValueError, match="90 rows for 45 records"):
        run_task(tasks[0], frame, frame[["id"]][45:], grids, "exp")


def test_an_average_is_over_the_aus_that_have_an_f1():
    "AU27 is never present and never predicted: it has no figure, and the average is that of the others."
    rng, n = np.random.default_rng(8), 60
    on = np.arange(n) % 2 == 0
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(n)], "dataset": "rafau", "split": np.resize(["train", "train", "test", "test"], n)})
    frame["au_present"] = pd.Series([[4, 12] if i else [] for i in on], dtype=object)
    frame["au_absent"] = pd.Series([[27] if i else [4, 12, 27] for i in on], dtype=object)
    task, grid = Task("table4", "rafau", (4, 12, 27)), torch.tensor(rng.normal(size=(n, 2, 3)) + 3 * on[:, None, None])
    values = {row["figure"]: row["value"] for row in run_task(task, frame, frame[["id"]], {"qformer": grid}, "exp") if row["reading"] == "pooled"}
    assert set(values) == {"avg", "AU4", "AU12"} and values["avg"] > 0.8
    assert values["avg"] == pytest.approx((values["AU4"] + values["AU12"]) / 2, abs=1e-6)


def test_a_cut_list_of_features_says_what_to_do(tmp_path):
    path = tmp_path / "features.parquet"
    pd.DataFrame({"id": ["a", "b"], "model": "au"}).to_parquet(path)
    assert read_listed(tmp_path)["id"].tolist() == ["a", "b"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="features.parquet: not a whole Parquet file.*write the features again"):
        read_listed(tmp_path)


def test_a_limit_keeps_all_people_who_are_not_trained_on():
    n = 50
    frame = pd.DataFrame({"dataset": "drawn-rafau", "split": ["train"] * 30 + ["val"] * 5 + ["test"] * 15})
    rows = probe_rows(frame, 7)
    assert frame.loc[rows, "split"].value_counts().to_dict() == {"train": 7, "val": 5, "test": 15}
    assert len(set(rows)) == 27 and len(probe_rows(frame)) == n and len(probe_rows(frame, 10**6)) == n


@pytest.mark.parametrize("prefix", ["drawn-", ""])
def test_the_papers_tasks_take_the_drawn_sets_or_the_papers_own(prefix):
    frame = pd.DataFrame({"dataset": [f"{prefix}{name}" for name in ("rafau", "affectnet", "bp4d", "disfa")], "split": "test"})
    tasks = [(task.table, task.dataset, task.aus) for task in probe_tasks(frame)]
    assert tasks == [("table3", f"{prefix}bp4d", TABLE3_AUS), ("table3", f"{prefix}affectnet", ()), ("table4", f"{prefix}rafau", TABLE4_AUS)]
    assert len(TABLE3_AUS) == 12 and len(TABLE4_AUS) == 13
    assert [task.dataset for task in probe_tasks(frame[:2])] == [f"{prefix}affectnet", f"{prefix}rafau"]
    assert probe_rows(frame).tolist() == [0, 1, 2]


def test_delivered_sets_that_no_table_probes_get_tasks_of_their_own():
    labels = {"au_present": [[12], None], "au_absent": [[4], None], "emotions": [None, ["fear"]]}
    frame = pd.DataFrame({"dataset": ["gft", "rafdb"], "split": "test", **labels})
    assert [(task.table, task.aus) for task in probe_tasks(frame)] == [("probe/gft", (4, 12)), ("probe/rafdb", ())]


def test_a_mix_of_worlds_is_refused():
    with pytest.raises(ValueError, match="bp4d and drawn-bp4d in one run"):
        probe_tasks(pd.DataFrame({"dataset": ["drawn-bp4d", "bp4d"]}))


def test_an_au_never_annotated_in_training_has_no_score():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    known, never = (x[:, 0] > 0).astype(float), np.full(100, np.nan)
    train, test = (torch.tensor(x).float(), np.c_[known, never]), (torch.tensor(x).float(), np.c_[known, rng.random(100) < .6])
    found = linear_probe(train, test, test)
    assert np.isnan(found.per_class[1]) and found.score == found.per_class[0] > .9
    coded = [[1] if one else [] for one in known]
    records = pd.DataFrame({"id": [f"i{k}" for k in range(200)], "dataset": "d", "split": ["train"] * 100 + ["test"] * 100,
                            "subject": "a", "emotions": None,
                            "au_present": coded + [au + [2] for au in coded], "au_absent": [[] if au else [1] for au in coded] * 2})
    grid = torch.tensor(np.r_[x, x]).float()[:, None]
    assert {row["figure"] for row in run_task(Task("probe/d", "d", (1, 2)), records, records[["id"]], {"qformer": grid}, "au")} == {"avg", "AU1"}
