"manifest: the pictures that a table names count for freshness, however table and path are written."
import subprocess

import pytest

from expblip.manifest import environment, file_states, outside_files


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
    assert found("a") == ["a"] and found("none/*.json") == [] and found("none.csv") == []


def test_a_folder_is_known_by_names_sizes_and_times_and_links_are_followed(tmp_path):
    "Delivered data sets are linked into place, and too large to be read before anything runs."
    delivered, data = tmp_path / "delivered", tmp_path / "data"
    (delivered / "aligned").mkdir(parents=True), data.mkdir()
    (delivered / "labels.txt").write_text("1.jpg 12")
    (delivered / "aligned" / "1.jpg").write_bytes(b"x")
    (data / "rafau").symlink_to(delivered)
    (delivered / "circle").symlink_to(data)
    state = lambda: file_states(tmp_path, outside_files(["data"], tmp_path))[str(data)]["sha256"]
    first = state()
    assert state() == first
    (delivered / "labels.txt").write_text("1.jpg 12+25")
    second = state()
    (delivered / "aligned" / "2.jpg").write_bytes(b"x")
    assert len({first, second, state()}) == 3
    (delivered / "aligned" / "2.jpg").unlink()
    assert state() == second


def test_a_table_at_fault_names_no_picture(tmp_path):
    (tmp_path / "bad.csv").write_text("image,subject\na.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert outside_files(["bad.csv"], tmp_path) == [str(tmp_path / "bad.csv")]


def test_a_commit_is_marked_by_changed_code_and_not_by_a_run(tmp_path):
    "The committed reference run lies where runs write: writing there changes no code."
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    for name in ("code.py", "outputs/run.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "-q"); git("add", "."); git("commit", "-qm", "x")
    commit = environment(tmp_path)["commit"]
    assert len(commit) == 40
    (tmp_path / "outputs/run.json").write_text("2")
    assert environment(tmp_path)["commit"] == commit
    (tmp_path / "code.py").write_text("2")
    assert environment(tmp_path)["commit"] == commit + "+"
