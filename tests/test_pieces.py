"""Pieces of a long calculation: found again by content, damaged ones made anew, nothing lost."""

import numpy as np
import pytest

from expblip.pieces import in_pieces, piece_name


def doubled(items):
    return [2 * item for item in items]


@pytest.mark.parametrize("number", [0, 1, 4, 9])
def test_order_is_kept_with_and_without_a_folder(tmp_path, number):
    items = list(range(number))
    for folder in (None, tmp_path):
        assert in_pieces(items, doubled, "double", folder, size=4).tolist() == doubled(items)
    assert len(list(tmp_path.glob("*.npy"))) == -(-number // 4)


def test_pieces_are_used_only_for_the_same_content(tmp_path):
    in_pieces([1, 2, 3], doubled, "double", tmp_path, size=2)
    assert in_pieces([1, 2, 4], lambda items: [0] * len(items), "double", tmp_path, size=2).tolist() == [2, 4, 0]
    assert in_pieces([1, 2, 3], lambda items: [0] * len(items), "another", tmp_path, size=2).tolist() == [0, 0, 0]
    assert piece_name("double", [("a", "b")]) != piece_name("double", [("a", "c")]) != piece_name("double", ["a", "c"])


@pytest.mark.parametrize("harm", [lambda data: data[:-5], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_piece_is_made_anew(tmp_path, harm):
    in_pieces([1, 2], doubled, "double", tmp_path)
    path = next(tmp_path.glob("*.npy"))
    path.write_bytes(harm(path.read_bytes()))
    assert in_pieces([1, 2], doubled, "double", tmp_path).tolist() == [2, 4] and np.load(path).tolist() == [2, 4]


def test_rows_and_losses(tmp_path):
    got = in_pieces(list("abc"), lambda items: np.ones((len(items), 5)), "rows", tmp_path, size=2)
    assert got.shape == (3, 5)
    with pytest.raises(ValueError, match="loses: 1 results for 3 items"):
        in_pieces(list("abc"), lambda items: [1], "loses", tmp_path)
    assert len(list(tmp_path.glob("*"))) == 2, "a failed piece leaves nothing"
