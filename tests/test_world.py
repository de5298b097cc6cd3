"world: shaped like the paper's sets, reproducible, and honest about who knows what."
from dataclasses import replace

import numpy as np
import pytest

from expblip.faces import DRAWN_AUS, coded, legal
from expblip.facs import COMPOUNDS, DRAWN_PROTOTYPES, EMOTIONS
from expblip.records import au_labels, check_records
from expblip.world import (
    FRAMES, SETS, World, closest_emotion, draw_world, emotion_actions, random_actions, sequence_actions, vote)

SIZES = {"bp4d": 60, "disfa": 60, "rafau": 100, "emotionet": 20, "affectnet": 48, "rafdb": 22, "faceme": 30, "val": 0.2, "test": 0.25}


@pytest.fixture(scope="module")
def world() -> World:
    return draw_world(SIZES, seed=5)


def test_actions_are_legal_drawable_and_never_lose_the_prototype():
    rng = np.random.default_rng(0)
    for name, (consistent, _) in DRAWN_PROTOTYPES.items():
        for _ in range(40):
            aus = emotion_actions(rng, name)
            assert legal(aus) and (not consistent or aus & set(consistent)), name
    assert all(legal(aus) and aus for aus in (random_actions(rng) for _ in range(200)))
    kept = np.mean([12 in emotion_actions(rng, "happiness") for _ in range(400)])
    extra = np.mean([6 in emotion_actions(rng, "happiness") for _ in range(400)])
    assert 0.84 < kept < 0.96 and 0.3 < extra < 0.5


def test_closest_emotion():
    assert closest_emotion([]) == ["neutrality"] and closest_emotion([18]) == []
    for name in EMOTIONS[1:]:
        assert closest_emotion(DRAWN_PROTOTYPES[name][0]) == [name]


def test_a_sequence_starts_and_ends_at_rest_and_is_always_legal():
    frames = sequence_actions(np.random.default_rng(1), SETS["drawn-bp4d"].aus)
    assert len(frames) == FRAMES and not coded(frames[0][0]) and not coded(frames[-1][0])
    assert all(legal(coded(frame)) for frame, _ in frames) and any(coded(frame) for frame, _ in frames)
    assert all(emotions == ["neutrality"] for frame, emotions in frames if not coded(frame))


def test_votes():
    rng = np.random.default_rng(0)
    ballots = [vote(rng, ["fear"]) for _ in range(300)]
    assert 0.88 < np.mean(["fear" in labels for labels in ballots]) < 0.99 and any(not labels for labels in ballots)


def test_counts_and_labels_follow_the_sets(world):
    counts = world.counts()
    for name, made in SETS.items():
        n = SIZES[name.removeprefix("drawn-")]
        test = max(8, round(n * 0.25)) if "test" in made.splits else 0
        assert counts.loc[name].to_dict() == {"train": n, "val": max(8, round(n * 0.2)), "test": test}
        part = world.records[world.records["dataset"] == name]
        assert part["emotions"].isna().all() == bool(made.aus) and part["au_present"].notna().all() == bool(made.aus)
        for present, absent in zip(part["au_present"], part["au_absent"]):
            assert present is None or sorted(present + absent) == sorted(made.aus)


def test_no_record_has_both_kinds_and_truth_has_both(world):
    assert not (world.records["au_present"].notna() & world.records["emotions"].notna()).any()
    assert world.truth["id"].tolist() == world.records["id"].tolist() and len(world.faces) == len(world.truth)
    for face, record, true in zip(world.faces, world.records.itertuples(), world.truth.itertuples()):
        assert set(true.aus) == coded(face.aus) and legal(true.aus)
        assert record.au_present is None or set(record.au_present) == set(true.aus) & set(SETS[record.dataset].aus)
        assert record.dataset not in ("drawn-affectnet", "drawn-rafdb") or record.emotions == true.emotions
    check_records(world.records)


def test_people_are_in_one_split_only(world):
    people = {split: {world.faces[i].identity for i in part.index} for split, part in world.records.groupby("split")}
    assert not people["train"] & people["test"] and not people["train"] & people["val"] and not people["val"] & people["test"]


def test_every_drawn_au_occurs_in_the_wild():
    records = draw_world({"rafau": 500}, seed=0).records.query("split == 'train'")
    share = au_labels(records, DRAWN_AUS).mean(0)
    assert share.min() > 0.03, dict(zip(DRAWN_AUS, share))


def test_emotion_sets_have_their_classes(world):
    part = world.records[world.records["split"] == "test"]
    named = part[part["dataset"] == "drawn-affectnet"]["emotions"].map(tuple).value_counts()
    assert set(named.index) == {(name,) for name in EMOTIONS} and named.max() - named.min() <= 1
    pairs = {frozenset(x) for x in world.records[world.records["dataset"] == "drawn-rafdb"]["emotions"]}
    assert pairs == {frozenset(x) for x in COMPOUNDS.values()}
    assert world.records[world.records["dataset"] == "drawn-faceme"]["emotions"].map(len).max() >= 2


def test_same_seed_same_world_and_sets_do_not_disturb_each_other(world):
    again = draw_world(SIZES, seed=5)
    assert again.faces == world.faces and again.records.equals(world.records) and again.truth.equals(world.truth)
    assert draw_world({"rafdb": 11}, seed=5).faces != draw_world({"rafdb": 11}, seed=6).faces
    small = draw_world({"affectnet": 10, "bp4d": 20}, seed=5)
    for name in ("drawn-affectnet", "drawn-bp4d"):
        few, many = ([w.faces[i] for i, x in enumerate(w.records["id"]) if x.startswith(f"{name}/train/")] for w in (small, world))
        assert few == many[:len(few)]


def test_images_are_written_whole_and_equal(world, tmp_path):
    few = replace(world, faces=world.faces[:5] + world.faces[-3:])
    stack = np.load(few.write_images(tmp_path / "images.npy", 48), mmap_mode="r")
    assert stack.shape == (8, 48, 48, 3) and np.array_equal(stack, few.images(48)) and stack.std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_scales_and_an_empty_world():
    smoke = draw_world("smoke", seed=0)
    assert set(smoke.records["dataset"]) == set(SETS) and len(smoke.faces) < 600
    with pytest.raises(ValueError, match="empty world.*bp4d"):
        draw_world({"bp4d": 0})
