"photos: a user's table becomes records; a bad row is one clear error with its line."
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expblip.facs import AUS
from expblip.photos import deal_splits, photo_faults, read_folder, read_photos
from expblip.records import RecordError, au_labels


@pytest.fixture
def photos(tmp_path):
    for name in "abcdef":
        Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / f"{name}.jpg")

    def table(text):
        (tmp_path / "photos.csv").write_text(text, encoding="utf-8")
        return tmp_path / "photos.csv"
    return table


def test_photos_only_image(photos):
    table = read_photos(photos("image\n" + "".join(f"{n}.jpg\n" for n in "abcdef")))
    assert set(table["split"]) == {"train", "val", "test"} and table["emotions"].isna().all() and table["au_present"].isna().all()
    assert np.isnan(au_labels(table, list(AUS))).all()


def test_photos_all_columns(photos):
    header = "\ufeffimage,subject,split,emotions,au_present,au_absent\n"
    table = read_photos(photos(header + "a.jpg,001,train,happy+Surprised,12+6,4\nb.jpg,001,,neutral,,AU12\nc.jpg,2,test,,,\n"))
    assert table["emotions"].tolist() == [["happiness", "surprise"], ["neutrality"], None]
    assert table["au_present"].tolist() == [[6, 12], [], None] and table["au_absent"].tolist() == [[4], [12], None]
    assert table["split"].tolist() == ["train", "train", "test"] and table["subject"].tolist() == ["001", "001", "2"]
    assert table["id"].is_unique


def test_blanks_do_not_count(photos):
    table = read_photos(photos("image,subject,split\n a.jpg,anna,test\nb.jpg ,anna , \n , , \n\nc.jpg,ben,train\n"))
    assert table["subject"].tolist() == ["anna", "anna", "ben"] and table["split"].tolist() == ["test", "test", "train"]
    assert [name.rpartition("/")[2] for name in table["image"]] == ["a.jpg", "b.jpg", "c.jpg"] and table["id"].tolist()[0] == "photos/a.jpg"


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(RecordError, match="is a folder"):
        read_photos(tmp_path)


@pytest.mark.parametrize("text, fault", [
    ("image\na.jpg\ncut.jpg\n", r"line 3, column 'image', value 'cut.jpg': cannot be read as a picture"),
    ("image\nzero.jpg\n", r"line 2.*zero.jpg.*cannot be read"),
    ("image\nnone.jpg\n", r"line 2.*none.jpg.*no such file"),
    ("image,emotions\na.jpg,happy\nb.jpg,hapy\n", r"line 3, column 'emotions', value 'hapy'"),
    ("image,au_present\na.jpg,1+99\n", r"line 2, column 'au_present', value '1\+99'"),
    ("image,au_present,au_absent\na.jpg,1+4,4\n", r"line 2: AU 4 is both present and absent"),
    ("image,subject,split\na.jpg,1,train\nb.jpg,1,test\n", r"line 3: subject 1 is in train and in test"),
    ("image,split\na.jpg,tset\n", r"line 2, column 'split', value 'tset'"),
    ("image,emotion\na.jpg,happy\n", r"column 'emotion' is unknown"),
    ("image\na.jpg\na.jpg\n", r"1 fault\n.*line 3, column 'image', value 'a.jpg': the same picture as in line 2"),
    ("image\na.jpg\n./a.jpg\n", r"line 3, column 'image', value './a.jpg': the same picture as in line 2"),
    ("image,subject\n,1\n", r"line 2, column 'image'.*must not be empty"),
    ("file\na.jpg\n", r"needs a column 'image'; the columns found are 'file'"),
    ("Image,subject\na.jpg,1\n", r"needs a column 'image' \(write 'image' for 'Image'\); the columns found are 'Image', 'subject'"),
    ("image;subject\na.jpg;1\n", r"'image;subject'; the separator seems to be semicolons"),
    ("image\tsubject\na.jpg\t1\n", r"the separator seems to be tabs"),
    ("image\n", r"at least one row, there is only a header; the columns found are 'image'"),
    ("image,subject\n\na.jpg,1,2\n", r"line 3: 3 fields, but the header has 2"),
    ("image,subject\na.jpg\n", r"line 2: 1 fields, but the header has 2"),
    ("", r"the file is empty"),
])
def test_bad_photos(photos, tmp_path, text, fault):
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    (tmp_path / "zero.jpg").write_bytes(b"")
    with pytest.raises(RecordError, match=fault) as caught:
        read_photos(photos(text))
    assert "photos.csv" in str(caught.value)


def test_deal_splits_is_seeded_and_keeps_people_together():
    people = [f"p{i // 2}" for i in range(100)]
    dealt = deal_splits(people, seed=1)
    assert dealt == deal_splits(people, seed=1) != deal_splits(people, seed=2)
    assert all(dealt[i] == dealt[i + 1] for i in range(0, 100, 2))
    assert {name: dealt.count(name) for name in set(dealt)} == {"train": 60, "val": 10, "test": 30}


def test_faults_come_in_the_order_of_the_lines(photos, tmp_path):
    (tmp_path / "zero.jpg").write_bytes(b"")
    rows = ["a.jpg,1,train,hapy,", "b.jpg,1,test,,", "none.jpg,,,,", "c.jpg,,tset,,1+99", "zero.jpg,,,,", ",,,,1", *["d.jpg,,,,"] * 2, "e.jpg,,,,77"]
    table = photos("image,subject,split,emotions,au_present\n" + "\n".join(rows))
    with pytest.raises(RecordError) as caught:
        read_photos(table)
    lines = [int(fault.split()[1].strip(",:")) for fault in caught.value.faults]
    assert lines == sorted(lines) == [2, 3, 4, 5, 5, 6, 7, 9, 10]
    found = photo_faults(table)
    assert list(found) == ["line", "column", "value", "fault"] and found["line"].tolist() == lines
    assert found.iloc[0].tolist()[1:3] == ["emotions", "hapy"] and found["fault"].iloc[0].startswith("unknown emotion 'hapy'")
    assert found.iloc[1].tolist()[1:3] == [None, None] and found["fault"].iloc[1].startswith("subject 1 is in train and in test")
    assert found.iloc[5].tolist()[1:3] == ["image", "zero.jpg"]


@pytest.mark.parametrize("text, line, column, value, fault", [
    ("image,emotions\na.jpg,it's: 'x'\n", 2, "emotions", "it's: 'x'", "unknown emotion"),
    ("image,emotion\na.jpg,happy\n", None, "emotion", None, "is unknown"),
    ("image,subject\n\na.jpg,1,2\n", 3, None, None, "3 fields"),
    ("file\na.jpg\n", None, None, None, "needs a column 'image'"),
    ("", None, None, None, "the file is empty"),
])
def test_faults_as_a_table(photos, text, line, column, value, fault):
    row = photo_faults(photos(text)).iloc[0]
    assert (None if row["line"] is pd.NA else row["line"]) == line and [row["column"], row["value"]] == [column, value]
    assert row["fault"].startswith(fault)


def test_no_fault_no_row(photos):
    found = photo_faults(photos("image\na.jpg\n"))
    assert found.empty and found["line"].dtype == "Int64"


def test_a_folder_with_nothing(photos, tmp_path):
    for name in ("sub folder/x.PNG", ".hidden/y.png", "._a.jpg", "sub folder/.z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (32, 32)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("image")
    (tmp_path / "prices.csv").write_text("item,price\n")
    table = read_folder(tmp_path)
    assert table["id"].tolist() == [f"photos/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "sub folder/x.PNG")]
    assert all(Path(name).is_file() for name in table["image"]) and set(table["split"]) == {"test"}
    assert table[["subject", "au_present", "au_absent", "emotions"]].isna().all(axis=None)


def test_a_folder_at_fault(photos, tmp_path):
    with pytest.raises(RecordError, match="is no folder; correct the path"):
        read_folder(tmp_path / "none")
    (tmp_path / "heic").mkdir()
    (tmp_path / "heic" / "a.heic").touch()
    with pytest.raises(RecordError, match="holds no picture among 1 files; pictures end in .jpg"):
        read_folder(tmp_path / "heic")
    for name in ("cut.jpg", "zero.png"):
        (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes()[:300] if name == "cut.jpg" else b"")
    with pytest.raises(RecordError, match="(?s)2 faults.*picture 'cut.jpg': cannot be read as a picture.*picture 'zero.png'") as caught:
        read_folder(tmp_path)
    assert not any(str(tmp_path) in fault for fault in caught.value.faults)
    photos("\ufeffimage,subject\na.jpg,1\n")
    with pytest.raises(RecordError, match="holds the table 'photos.csv'; name that"):
        read_folder(tmp_path)


def test_a_linked_folder_belongs_to_the_album(tmp_path):
    (tmp_path / "album").mkdir(), (tmp_path / "elsewhere").mkdir()
    for place in ("album/a.png", "elsewhere/b.png"): Image.new("RGB", (32, 32)).save(tmp_path / place)
    (tmp_path / "album" / "more").symlink_to(tmp_path / "elsewhere")
    assert read_folder(tmp_path / "album")["id"].tolist() == ["photos/a.png", "photos/more/b.png"]
