"manifest: the pictures that a table names count for freshness, however table and path are written."
import pytest

from expblip.manifest import outside_files


@pytest.mark.parametrize("header", ["image,subject", "\ufeffimage,subject", " image , subject"])
def test_pictures_of_a_table_count(tmp_path, header):
    folder = tmp_path / "my [album]"
    folder.mkdir()
    (folder / "a[1].jpg").write_bytes(b"x")
    (folder / "photos.csv").write_text(f"{header}\n a[1].jpg ,anna\nnone.jpg,ben\n", encoding="utf-8")
    assert outside_files(["my [album]/photos.csv"], tmp_path) == [str(folder / "photos.csv"), str(folder / "a[1].jpg")]
    assert outside_files(["my [album]/*.csv"], tmp_path) == outside_files([str(folder / "photos.csv")], tmp_path)


def test_patterns_still_work(tmp_path):
    for name in ("a/1.json", "a/b/2.json", "a/3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = lambda pattern: [name.removeprefix(f"{tmp_path}/") for name in outside_files([pattern], tmp_path)]
    assert found("a/*.json") == ["a/1.json"] and found("a/**/*.json") == ["a/1.json", "a/b/2.json"] and found("a/b/[0-9].json") == ["a/b/2.json"]
    assert len(found("a")) == 3 and found("none/*.json") == [] and found("none.csv") == []


def test_a_table_at_fault_names_no_picture(tmp_path):
    (tmp_path / "bad.csv").write_text("image,subject\na.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert outside_files(["bad.csv"], tmp_path) == [str(tmp_path / "bad.csv")]
