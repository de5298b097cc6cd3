"records: missing is never zero; every bad table is one error that lists all faults with row and value."
import numpy as np
import pandas as pd
import pytest

from expblip.facs import EMOTIONS, NO_AU_CAPTION
from expblip.records import (
    CAPTION_COLUMNS, RECORD_COLUMNS, CaptionError, RecordError, au_labels, captions_file, check_records, emotion_labels, image_source, read_captions,
    read_records, read_truth, write_captions, write_records, write_truth)


def records(**changes):
    table = pd.DataFrame({
        "id": ["a", "b", "c"], "image": ["images.npy:0", "images.npy:1", "x.jpg"], "dataset": "d", "split": ["train", "val", "test"],
        "subject": ["001", None, "2"], "frame": [3, None, None], "au_present": [[12, 6], [], None], "au_absent": [[1], [4, 2], None],
        "emotions": [None, None, ["happiness", "surprise"]]})
    return table.assign(**changes)


def captions(**changes):
    return pd.DataFrame({"id": ["1", "2"], "record": ["a", "c"], "text": ["It is a people who raises cheek.", "The face shows happiness."],
                         "aspect": ["au", "emotion"], "writer": "rule", "use": "label", "model": None, "provenance": None}).assign(**changes)


def test_round_trip_keeps_missing_missing(tmp_path):
    back = read_records(write_records(records(), tmp_path / "r.parquet"))
    assert list(back.columns) == list(RECORD_COLUMNS)
    assert back["au_present"].tolist() == [[6, 12], [], None] and back["au_absent"].tolist() == [[1], [2, 4], None]
    assert back["emotions"].tolist() == [None, None, ["happiness", "surprise"]]
    assert back["subject"].tolist() == ["001", None, "2"] and back["sequence"].tolist() == [None] * 3
    assert back["frame"][0] == 3 and back["frame"].isna().tolist() == [False, True, True]
    again = read_records(write_records(back, tmp_path / "r2.parquet"))
    assert (tmp_path / "r.parquet").read_bytes() == (tmp_path / "r2.parquet").read_bytes() and len(again) == 3


def test_empty_table_round_trips(tmp_path):
    assert len(read_records(write_records(records().iloc[:0], tmp_path / "r.parquet"))) == 0
    assert len(read_captions(write_captions(captions().iloc[:0], tmp_path / "c.parquet"))) == 0


def test_labels_are_nan_where_not_annotated():
    labels = au_labels(check_records(records()), [1, 12, 2, 27])
    np.testing.assert_array_equal(labels, np.float32([[0, 1, np.nan, np.nan], [np.nan, np.nan, 0, np.nan], [np.nan] * 4]))
    assert labels.dtype == np.float32
    emotions = emotion_labels(check_records(records()))
    assert np.isnan(emotions[:2]).all() and emotions[2].sum() == 2 and emotions.shape == (3, len(EMOTIONS))


@pytest.mark.parametrize("changes, fault", [
    ({"id": ["a", "b", "a"]}, r"row 2, column 'id', value 'a': duplicate of row 0"),
    ({"split": ["train", "tset", "test"]}, r"row 1, column 'split', value 'tset': must be one of train, val, test"),
    ({"au_present": [[99], [], None]}, r"row 0, column 'au_present', value \[99\]"),
    ({"au_absent": [[6], [1], None]}, r"row 0: AU 6 is both present and absent"),
    ({"au_absent": [[6, 6], [1], None]}, r"twice"),
    ({"emotions": [["hapy"], None, None]}, r"row 0, column 'emotions', value \['hapy'\]"),
    ({"emotions": [[], None, None]}, r"name an emotion"),
    ({"au_present": [[], [], None], "au_absent": [[], [1], None]}, r"leave both cells empty"),
    ({"frame": [1.5, 0, 1]}, r"whole number"),
    ({"frame": [-1, 0, 1]}, r"whole number"),
    ({"image": ["", "x", "y"]}, r"row 0, column 'image'"),
    ({"emotion": "happy"}, r"column 'emotion' is unknown"),
])
def test_bad_records_name_row_and_value_and_write_nothing(tmp_path, changes, fault):
    with pytest.raises(RecordError, match=fault):
        write_records(records(**changes), tmp_path / "r.parquet")
    assert not list(tmp_path.iterdir())


def test_all_faults_are_listed_at_once():
    with pytest.raises(RecordError) as caught:
        check_records(records(id="a", split="x").drop(columns="dataset"))
    assert len(caught.value.faults) == 6


def test_missing_column_and_damaged_file(tmp_path):
    with pytest.raises(RecordError, match="column 'image' is missing"):
        check_records(records().drop(columns="image"))
    write_records(records(), tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes((tmp_path / "r.parquet").read_bytes()[:200])
    with pytest.raises(RecordError, match=r"r\.parquet.*\n.*not a whole Parquet file.*rerun"):
        read_records(tmp_path / "r.parquet")
    with pytest.raises(RecordError, match="no such file"):
        read_records(tmp_path / "none.parquet")


def test_image_source():
    assert image_source("images.npy:17") == ("images.npy", 17) and image_source("a:b/x.jpg") == ("a:b/x.jpg", None)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_captions_round_trip(tmp_path, suffix):
    table = captions(decode=["greedy", "beam"], text=["", "Naïve, “quoted” text."], writer="model")
    back = read_captions(write_captions(table, tmp_path / f"c.{suffix}"), check_records(records()))
    assert list(back.columns) == [*CAPTION_COLUMNS, "decode"]
    assert back["text"].tolist() == table["text"].tolist() and back["model"].tolist() == [None, None]
    assert back["decode"].tolist() == ["greedy", "beam"]


@pytest.mark.parametrize("changes, fault", [
    ({"text": ["The face shows AU99.", "x"]}, r"row 0, column 'text'.*AU99.*unknown"),
    ({"text": ["The face shows AU13.", "x"]}, r"AU13"),
    ({"text": ["It raises cheek, au 99.", "x"]}, r"row 0, column 'text': names 'au 99', which is unknown"),
    ({"text": ["It raises cheek, AU-99.", "x"]}, r"names 'AU-99'"),
    ({"modle": "exp"}, r"column 'modle' is unknown \(did you mean 'model'\?\)"),
    ({"text": ["a\nb", "x"]}, "one line"),
    ({"text": ["", "x"]}, "row 0, column 'text': must not be empty"),
    ({"text": ["x" * 5000, "x"]}, "5000 characters"),
    ({"aus": ["1+99", "4"]}, r"row 0, column 'aus', value '1\+99'"),
    ({"id": "1"}, "row 1, column 'id', value '1': duplicate of row 0"),
    ({"aspect": ["aus", "au"]}, "must be one of au, emotion"),
    ({"writer": "gpt"}, "must be one of rule"),
    ({"use": None}, "must be one of label"),
    ({"record": ["a", "z"]}, "row 1, column 'record', value 'z': no such record"),
])
def test_bad_captions(tmp_path, changes, fault):
    captions(**changes).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(CaptionError, match=fault):
        read_captions(tmp_path / "c.parquet", check_records(records()))
    if "record" not in changes:
        with pytest.raises(CaptionError):
            write_captions(captions(**changes), tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_label_caption_must_state_an_action(tmp_path, suffix):
    path = write_captions(captions(text=["A nice day.", "A nice day."]), tmp_path / f"mine.{suffix}")
    with pytest.raises(CaptionError, match=r"1 fault\n.*(line 2|row 0), column 'text', value 'A nice day.': states no facial action"):
        read_captions(path)
    read_captions(write_captions(captions(text=[NO_AU_CAPTION, "x"]), tmp_path / f"rest.{suffix}"))


def test_a_model_may_say_anything(tmp_path):
    read_captions(write_captions(captions(text="au 99", writer="model", use="predicted"), tmp_path / "p.parquet"))


def test_captions_file(tmp_path):
    assert captions_file(tmp_path) == tmp_path / "captions.parquet"
    assert captions_file(tmp_path / "mine.csv") == tmp_path / "mine.csv" and captions_file(tmp_path / "x.parquet") == tmp_path / "x.parquet"


def test_hand_edited_csv_names_the_line(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("id,record,text,aspect,writer,use\n1,a,It raises cheek.,au,rule,label\n\n1,a,It raises cheek and AU99.,au,rule,label\n")
    with pytest.raises(CaptionError) as caught:
        read_captions(path)
    assert [fault.split(",")[0] for fault in caught.value.faults] == ["line 4", "line 4"] and "duplicate of line 2" in str(caught.value)
    path.write_text("id,record,aspect,writer,use\n1,a,au,rule,label\n")
    with pytest.raises(CaptionError, match=r"c\.csv(.|\n)*column 'text' is missing"):
        read_captions(path)


def test_truth_may_be_empty_but_never_missing(tmp_path):
    truth = pd.DataFrame({"id": ["a", "b"], "aus": [[], [12, 6]], "emotions": [["neutrality"], []]})
    back = read_truth(write_truth(truth, tmp_path / "t.parquet"))
    assert back["aus"].tolist() == [[], [6, 12]] and back["emotions"].tolist() == [["neutrality"], []]
    with pytest.raises(RecordError, match="row 1, column 'aus'"):
        write_truth(truth.assign(aus=[[], None]), tmp_path / "x.parquet")
