"columns: whole columns answer as the loops do, at any size, and leave to the loops what they cannot answer."
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expblip import records as R
from expblip.columns import ROWS, list_bits, open_columns, to_cells
from expblip.facs import AUS, EMOTIONS

NAN = float("nan")
GOOD = {
    "id": ["a", "b", "d/1.jpg", "ä"], "image": ["x.jpg", "images.npy:3"], "dataset": ["d", "e"], "split": list(R.SPLITS),
    "subject": ["001", None, NAN, pd.NA], "sequence": ["T1", None], "frame": [0, 3, 2.0, None, NAN, pd.NA],
    "au_present": [[6, 12], [], None, [1]], "au_absent": [[4], [2, 25], None, [7]], "emotions": [None, ["happiness"], ["happiness", "surprise"], NAN]}
ODD = {
    "id": ["a", None, "", 7, " ", b"a", True], "image": ["", None, 1.5, "\t"], "dataset": [None, 3, ""], "split": ["tset", None, ""],
    "subject": [" ", 7, 1.5, b"x"], "sequence": [3, True], "frame": ["4", -1, 1.5, True, "x", 2**70, float("inf")],
    "au_present": [[12, 6], "1+4", [99], [6, 6], ["AU4"], [1.0], [True], (1, 2), np.array([4]), [None], [6, 4.5], 4, NAN],
    "au_absent": [[6], [12, 1], {4}, [NAN], "", ["1", 4]],
    "emotions": [[], "happy", ["fear", "anger"], ["happiness", "happiness"], ["hapy"], [None], ("fear",)]}


def any_table(dice):
    "A few rows, each cell drawn from the good ones or, in some tables, from the odd ones; in some a column is missing, unknown or in another place."
    rows, odd = dice.randint(0, 4), dice.choice([0, 0, .05, .3])
    columns = {name: [dice.choice(ODD[name] if dice.random() < odd else cells) for _ in range(rows)] for name, cells in GOOD.items()}
    if dice.random() < .8:
        columns["id"] = [f"{i}/{name}" if isinstance(name, str) and name.strip() else name for i, name in enumerate(columns["id"])]
    for i in range(rows):  # mostly agreeing halves
        if dice.random() < .9 and (columns["au_present"][i] is None) != (columns["au_absent"][i] is None):
            columns["au_present"][i] = columns["au_absent"][i] = None
    table = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}).set_axis(range(2, rows + 2))
    if all(type(frame) is int and frame < 9 for frame in columns["frame"]):
        table["frame"] = table["frame"].astype("int64")
    if dice.random() < .1:
        table = table.drop(columns=dice.choice(list(GOOD)))
    return table.assign(more=1) if dice.random() < .05 else table[dice.sample(list(table), len(table.columns))]


def outcome(table):
    "What a check returns or says, typed."
    try:
        return [(name, str(cells.dtype), [(type(cell), str(cell)) for cell in cells]) for name, cells in R.check_records(table).items()]
    except R.RecordError as error:
        return error.faults


def test_whole_columns_and_loops_agree(monkeypatch):
    "The same rows or the same words, whichever way was taken; and both ways are taken often."
    dice, ways = random.Random(0), []
    monkeypatch.setattr(R, "to_columns", lambda *given, real=R.to_columns: ways.append(1) or real(*given))
    tables = [any_table(dice) for _ in range(1500)]
    quick = [outcome(table) for table in tables]
    whole = [(w := R.to_columns(table, R.RECORD_SCHEMA)) is not None and R._as_is(w) is not None for table in tables]
    assert 200 < sum(whole) < 1200 and len(ways) == 3000
    monkeypatch.setattr(R, "_as_is", lambda _: None)
    for table, first in zip(tables, quick):
        assert outcome(table) == first
    assert all(isinstance(first[0], tuple) for first, took in zip(quick, whole) if took), "nothing that is in form has a fault"


def many(n):
    same = {"image": "x.jpg", "dataset": "d", "split": "train"} | dict.fromkeys(("subject", "sequence", "frame", "au_present", "au_absent"))
    felt = pd.Series([[EMOTIONS[i % 8]] for i in range(n)], dtype=object)
    return pd.DataFrame({"id": [f"d/{i}" for i in range(n)], **same, "emotions": felt}).astype(object)


def test_a_written_file_never_takes_the_slow_way(tmp_path, monkeypatch):
    R.write_records(many(ROWS + 5), tmp_path / "r.parquet")
    monkeypatch.setattr(R, "_tidy", lambda *_: pytest.fail("slow"))
    back = R.read_records(tmp_path / "r.parquet")
    assert len(back) == ROWS + 5 and len(set(map(id, back["emotions"]))) == 8 and len(set(map(id, back["dataset"]))) == 1
    R.check_records(back)
    parts = list(R.scan_records(tmp_path / "r.parquet"))
    assert [len(part) for part in parts] == [ROWS, 5]
    pd.testing.assert_frame_equal(pd.concat(parts), back)


@pytest.mark.parametrize("row, column, cell, fault", [
    (ROWS + 1, "split", "tset", f"row {ROWS + 1}, column 'split', value 'tset'"), (3, "id", "", "row 3, column 'id'"),
    (ROWS + 1, "id", "d/7", f"row {ROWS + 1}, column 'id', value 'd/7': duplicate of row 7"),
    (2, "emotions", ["hapy"], r"row 2, column 'emotions', value \['hapy'\]")])
def test_an_edited_file_is_checked(tmp_path, row, column, cell, fault):
    "Whoever changes a written file in place, metadata and all, is found out, whole or piece by piece."
    path = R.write_records(many(ROWS + 5), tmp_path / "r.parquet")
    table = pq.read_table(path)
    cells = table[column].to_pylist()
    cells[row] = cell
    k = table.schema.get_field_index(column)
    pq.write_table(table.set_column(k, table.schema.field(k), [cells]), path)
    with pytest.raises(R.RecordError, match=fault):
        R.read_records(path)
    with pytest.raises(R.RecordError, match=fault):
        list(R.scan_records(path))


def test_a_foreign_file_is_tidied_in_pieces(tmp_path):
    "Unsorted lists and text frames from somebody else's writer, behind a first piece in form."
    table = many(ROWS + 5)
    table.loc[ROWS + 2, ["au_present", "au_absent", "frame"]] = pd.Series([[12, 6], [4, 1], 7], ["au_present", "au_absent", "frame"])
    columns = {name: pa.array(table[name].tolist(), R.RECORD_SCHEMA.field(name).type) for name in R.RECORD_COLUMNS}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    parts = list(R.scan_records(tmp_path / "r.parquet"))
    assert [len(part) for part in parts] == [ROWS, 5] and parts[1].index[0] == ROWS and parts[1]["au_present"][ROWS + 2] == [6, 12]


def test_scan_needs_a_file(tmp_path):
    with pytest.raises(R.RecordError, match=r"run the stage that writes it \(data\), or"):  # as a stage says that is run by hand too early
        R.read_records(tmp_path / "outputs/dev/shared/data/records.parquet")
    with pytest.raises(R.RecordError, match="no such file"):
        next(R.scan_records(tmp_path / "none.parquet"))
    assert list(R.scan_records(R.write_records(many(0), tmp_path / "r.parquet"))) == []


def test_label_arrays_are_those_of_the_loops():
    dice = random.Random(1)
    lists = [None if dice.random() < .3 else sorted(dice.sample(sorted(AUS), dice.randint(0, 5))) for _ in range(200)]
    other = [None if x is None else [n for n in AUS if n not in x][:3] for x in lists]
    names = [None if dice.random() < .3 else dice.sample(EMOTIONS, 2) for _ in range(200)]
    table = pd.DataFrame({"au_present": lists, "au_absent": other, "emotions": names}, dtype=object)
    wanted = [12, 1, 99, 4]
    slow = [[NAN if x is None else 1 if n in x else 0 if n in y else NAN for n in wanted] for x, y in zip(lists, other)]
    np.testing.assert_array_equal(R.au_labels(table, wanted), np.float32(slow))
    np.testing.assert_array_equal(R.emotion_labels(table), np.float32([[NAN] * 8 if x is None else [n in x for n in EMOTIONS] for x in names]))


def test_list_bits_of_slices_and_nulls():
    "A slice of a larger column, as a reader may hand over, counts its own lists only; an item that is null is unknown."
    cells = pa.chunked_array([pa.array([[1], [2, 4], None, [], [4]], pa.list_(pa.int16())).slice(1, 3), pa.array([[1, 2]], pa.list_(pa.int16()))])
    assert list_bits(cells, (1, 2, 4)).tolist() == [6, -1, 0, 3]
    assert list_bits(pa.chunked_array([pa.array([[1, None]], pa.list_(pa.int16()))]), (1, 2)) is None
    assert to_cells(pa.table({"x": cells}))["x"].tolist() == [[2, 4], None, [], [1, 2]]


def test_row_groups(tmp_path):
    file = open_columns(R.write_records(many(2 * ROWS), tmp_path / "r.parquet"))
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [ROWS, ROWS]
