"sheets: every cell a text, every row with its true line, every fault in its own words."
import pytest

from expblip.sheets import TableError, did_you_mean, read_table, unknown_columns


def sheet(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_cells_are_texts_and_the_index_is_the_line(tmp_path):
    table = read_table(sheet(tmp_path, "\ufeffimage , n\r\n\r\n\"a,b.jpg\",001\r\n , \r\n\"c\nd\",NA\r\ne,\r\n"))
    assert table.index.tolist() == [3, 5, 7] and list(table.columns) == ["image", "n"]
    assert table["n"].tolist() == ["001", "NA", ""] and table["image"].tolist() == ["a,b.jpg", "c\nd", "e"]


@pytest.mark.parametrize("content, fault", [
    ("", "the file is empty"),
    ("\n\n", "the file is empty"),
    (b"image\n\xe9.jpg\n", r"is not UTF-8 \(byte 0xe9\)"),
    ("image;n\na;1\n", "line 1: there is one column, 'image;n'; the separator seems to be semicolons"),
    ("image\tn\na\t1\n", "the separator seems to be tabs"),
    ("image,n\na,1,2\n", "line 2: 3 fields, but the header has 2"),
    ("image,n\n\na\n", "line 3: 1 fields, but the header has 2"),
    ("image,n\n\"a\nb\",1\nc\n", "line 4: 1 fields"),
    ("image\n\"a\n", "line 2: not readable as CSV"),
    ("image,image\na,b\n", "the column 'image' comes twice"),
])
def test_each_fault_has_its_words(tmp_path, content, fault):
    with pytest.raises(TableError, match=fault) as caught:
        read_table(sheet(tmp_path, content))
    assert "table.csv" in str(caught.value) and len(caught.value.faults) == 1


def test_folder_and_missing_file(tmp_path):
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_unknown_columns_name_the_nearest(tmp_path):
    table = read_table(sheet(tmp_path, "image,Emotion,x\na,b,c\n"))
    faults = unknown_columns(table, ("image", "emotions"))
    assert len(faults) == 2 and "'Emotion' is unknown (did you mean 'emotions'?)" in faults[0] and "did you mean" not in faults[1]
    assert did_you_mean("zzz", ["a"]) == ""
