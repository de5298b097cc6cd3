"""Captions for others: every list reads back to the table, paths are relative and open, no name leaves, and a file is whole or not there."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from expblip.export import FORMATS, INSTRUCTIONS, export, item_id, read_list, short_id, write_list
from expblip.records import check_captions, check_records
from expblip.synthesis import caption_table, writer

calm = settings(deadline=None)  # a busy machine is no fault


@pytest.fixture
def world(tmp_path):
    "Two drawn faces, and photographs whose names are people's."
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    np.save(folder / "images.npy", np.arange(2 * 20 * 20 * 3, dtype=np.uint8).reshape(2, 20, 20, 3))
    for name in ("anna.JPG", "bert.png"):
        Image.new("RGB", (24, 24), "gray").save(folder / "photos" / name)
    rows = [("d/0", "images.npy:0", "train", [12], None), ("d/1", "images.npy:1", "test", [4, 7], None),
            ("photos/anna.JPG", "photos/anna.JPG", "train", [26], ["fear"]),
            ("photos/bert.png", str(folder / "photos/bert.png"), "val", None, ["anger"])]
    table = pd.DataFrame(rows, columns=["id", "image", "split", "au_present", "emotions"]).assign(dataset="d")
    table["au_absent"] = [None if aus is None else [1] for aus in table["au_present"]]
    records = check_records(table)
    return folder, records, check_captions(caption_table(records, writer("grammar")), records)


def test_every_caption_is_in_one_list_of_each_format(world, tmp_path):
    folder, records, captions = world
    done = export(captions, records, folder, tmp_path / "out")
    assert {name: count for name, count in done.items() if name.startswith("llava")} == {
        "llava-train.json": 5, "llava-test.json": 2, "llava-val.json": 1}
    assert {name for name in done if name.startswith("captions")} == {
        "captions-train-au.json", "captions-train-emotion.json", "captions-test-au.json", "captions-val-emotion.json"}
    for style in FORMATS:
        assert sum(count for name, count in done.items() if name.startswith(style)) == len(captions)
    for name, count in done.items():
        assert len(json.loads((tmp_path / "out" / name).read_text())) == count == len(list(read_list(tmp_path / "out" / name)))


@pytest.mark.parametrize("style", ["llava", "sharegpt"])
def test_conversations_read_back_to_the_table(world, tmp_path, style):
    folder, records, captions = world
    export(captions, records, folder, tmp_path / "out", [style])
    items = [one for split in ("train", "test", "val") for one in json.loads((tmp_path / "out" / f"{style}-{split}.json").read_text())]
    assert len({one["id"] for one in items}) == len(items)
    by_id = {item_id(row._asdict()): row for row in captions.itertuples()}
    for one in items:
        row, (human, gpt) = by_id[one["id"]], one["conversations"]
        assert set(one) == {"id", "conversations", "image" if style == "llava" else "images"}
        assert human == {"from": "human", "value": "<image>\n" + INSTRUCTIONS[row.aspect]} and gpt == {"from": "gpt", "value": row.text}
        paths = [one["image"]] if style == "llava" else one["images"]
        assert human["value"].count("<image>") == len(paths) == 1
        Image.open(tmp_path / "out" / paths[0]).load()


def test_the_authors_code_reads_the_caption_lists(world, tmp_path):
    "As their data sets do: lists are joined, the picture is opened below the storage, `image_id` is mapped to a running number."
    folder, records, captions = world
    done = export(captions, records, folder, tmp_path / "out", ["captions"])
    for aspect in ("au", "emotion"):
        annotations = []
        for name in done:
            if name.endswith(f"{aspect}.json"):
                annotations.extend(json.load(open(tmp_path / "out" / name)))
        numbers: dict = {}
        for one in annotations:
            assert set(one) == {"image", "caption", "image_id"}
            assert Image.open(os.path.join(tmp_path / "out", one["image"])).convert("RGB").size[0] in (20, 24)
            numbers.setdefault(one["image_id"], len(numbers))
        wanted = captions[captions["aspect"] == aspect]
        assert sorted(one["caption"] for one in annotations) == sorted(wanted["text"]) and len(numbers) == wanted["record"].nunique()


def test_pictures_are_the_records_own(world, tmp_path):
    folder, records, captions = world
    export(captions, records, folder, tmp_path / "out")
    stack = np.load(folder / "images.npy")
    for row in (0, 1):
        assert (np.asarray(Image.open(tmp_path / f"out/images/{short_id(f'd/{row}')}.png")) == stack[row]).all()
    assert (tmp_path / f"out/images/{short_id('photos/anna.JPG')}.jpg").read_bytes() == (folder / "photos/anna.JPG").read_bytes()
    np.save(folder / "images.npy", stack[::-1])
    export(captions, records, folder, tmp_path / "out")
    assert (np.asarray(Image.open(tmp_path / f"out/images/{short_id('d/0')}.png")) == stack[1]).all()


def test_no_name_and_no_absolute_path_leaves(world, tmp_path):
    folder, records, captions = world
    fused = captions[captions["record"] == "photos/anna.JPG"].head(1).assign(
        id="photos/anna.JPG/expression/exp", aspect="expression", use="fused",
        provenance=json.dumps({"au": "photos/anna.JPG/au/rule", "emotion": "", "seed": 1}))
    export(pd.concat([captions, fused]), records, folder, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    told = " ".join(path.name for path in files) + " ".join(path.read_text() for path in files if path.suffix == ".json")
    assert not re.search(r"anna|bert|photos/", told) and str(tmp_path) not in told


def test_pictures_that_stay_where_they_are(world, tmp_path):
    folder, records, captions = world
    photos = captions[captions["record"].str.startswith("photos")]
    export(photos, records, folder, tmp_path / "out", ["captions"], storage=folder / "photos")
    assert {one["image"] for one in read_list(tmp_path / "out/captions-train-au.json")} == {"anna.JPG"}
    assert not (tmp_path / "out/images").exists()
    with pytest.raises(ValueError, match="does not lie below the storage 'out'"):
        export(photos, records, folder, tmp_path / "out", storage=tmp_path / "out")
    with pytest.raises(ValueError, match="row of a stack"):
        export(captions, records, folder, tmp_path / "out", storage=folder)


def test_about_tells_who_wrote_what(world, tmp_path):
    folder, records, captions = world
    export(captions, records, folder, tmp_path / "out")
    about = {one["id"]: one for one in read_list(tmp_path / "out/about.json")}
    assert {one["id"] for one in read_list(tmp_path / "out/llava-train.json")} < set(about)
    assert [about[item_id(row._asdict())]["writer"] for row in captions.itertuples()] == captions["writer"].tolist()


@calm
@given(st.lists(st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text()))), max_size=5))
def test_a_list_reads_back(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("list") / "x.json"
    assert write_list(path, iter(items)) == len(items)
    assert json.loads(path.read_text()) == list(read_list(path)) == items


def test_a_list_is_written_an_item_at_a_time_and_whole_or_not_at_all(tmp_path):
    taken = []

    def many():
        for i in range(1000):
            taken.append(max(path.stat().st_size for path in tmp_path.iterdir()))
            yield {"value": "x" * 1000, "i": i}
        raise RuntimeError("stop")
    (tmp_path / "y.json").write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write_list(tmp_path / "y.json", many())
    assert (tmp_path / "y.json").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    assert taken[-1] > 900_000  # it was on the disk before the end


def test_mistakes_have_one_clear_message(world, tmp_path):
    folder, records, captions = world
    for call, words in (
            (lambda: export(captions, records[:2], folder, tmp_path / "out"), "caption of record 'photos/anna.JPG': no such record"),
            (lambda: export(captions, records, folder, tmp_path / "out", ["coco"]),
             "unknown format coco: expected some of llava, sharegpt, captions"),
            (lambda: export(captions, records, folder, tmp_path / "out", instructions={"au": "?"}), "no instruction for aspect emotion"),
            (lambda: export(captions, records, tmp_path, tmp_path / "out"), "'images.npy:0' of record 'd/0': no such file")):
        with pytest.raises(ValueError, match=words):
            call()
    assert not list((tmp_path / "out").rglob("*.json"))
    (tmp_path / "bad.json").write_text("[\n{},\n{]\n")
    with pytest.raises(ValueError, match="bad.json, line 3: not an item"):
        list(read_list(tmp_path / "bad.json"))


def test_a_model_that_said_nothing_teaches_nothing(world, tmp_path):
    folder, records, captions = world
    silent = captions.head(1).assign(id="x", text="", writer="model", use="predicted")
    assert sum(export(pd.concat([captions, silent]), records, folder, tmp_path / "out", ["llava"]).values()) == len(captions)
