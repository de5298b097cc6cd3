"""Maps of words: a planted cause is found, nothing else changes, and the pointing game counts as it should."""
import numpy as np
import pytest
import torch

from expblip.attention import (
    as_map, au_region, grid_of, occlusion, pointing_game, points, query_maps, shuffled, span_tokens, spans_of, word_maps)
from expblip.checkpoints import Start
from expblip.faces import Face
from expblip.qformer import QFormer, QFormerConfig

torch.set_num_threads(1)
TEXT = "It is a people who wrinkles nose and raises chin."


@pytest.fixture(scope="module")
def model():
    return Start().captioner().eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["query", "both", "causal"])
def test_asking_for_the_weights_changes_nothing(kind):
    torch.manual_seed(0)
    net = QFormer(QFormerConfig(50, 16, 32, 3, 4, 64, queries=5, max_text=8)).eval()
    image, text = torch.randn(2, 7, 16), dict(ids=torch.randint(0, 50, (2, 6)), text_mask=torch.ones(2, 6)) if kind != "query" else {}
    looks: list = []
    seen, plain = net(kind, image, **text, weights=looks), net(kind, image, **text)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, plain))
    assert len(looks) == 2 and torch.allclose(looks[0].sum(-1), torch.ones(2, 4, 5), atol=1e-5) and looks[0].requires_grad


def test_a_planted_cause_is_found(model, monkeypatch):
    "Only one place of the picture reaches the language model: the map must be highest there, whatever is said."
    place = 20  # token of the grid, class token not counted
    x = torch.randn(3, 96, 96)
    for layer in model.qformer.layers:
        if layer.cross is not None:
            bare = layer.cross.value.forward
            only = torch.zeros(37, 1)
            only[1 + place] = 1
            monkeypatch.setattr(layer.cross.value, "forward", lambda s, bare=bare, only=only: bare(s) * only)
    for one in word_maps(model, x, TEXT):
        assert one.heat.shape == (6, 6) and (one.heat >= 0).all()
        assert one.heat.sum() == 0 or int(one.heat.argmax()) == place
    assert any(one.heat.sum() > 0 for one in word_maps(model, x, TEXT))


def test_log_probability_is_that_of_the_training_loss(model):
    x = torch.randn(3, 96, 96)
    whole, = word_maps(model, x, TEXT, [(0, len(TEXT), "all")])
    ids, mask = model.rows([TEXT.lower()])
    tokens = int(mask.sum())
    assert -whole.log_prob < float(model(x[None], ids, mask)["loss"]) * tokens  # the loss also counts start and newline
    parts = word_maps(model, x, TEXT)
    assert [one.meaning for one in parts] == [9, 17] and all(whole.log_prob <= one.log_prob <= 0 for one in parts)
    hidden = occlusion(model, x, TEXT)
    assert [one.log_prob for one in hidden] == pytest.approx([one.log_prob for one in parts], abs=1e-3)
    assert hidden[0].heat.shape == (96, 96) and word_maps(model, x, "a man") == []


def test_spans_are_tokens_of_the_phrase(model):
    spans = spans_of(TEXT)
    mask = span_tokens(model.tok, TEXT, spans)
    row = model.rows([TEXT])[0][0]
    assert [model.tok.decode(row[m.bool()]).strip() for m in mask] == ["wrinkles nose", "raises chin"]
    with pytest.raises(ValueError, match="no part of a word"):
        span_tokens(model.tok, TEXT, [(400, 410, 1)])


def test_query_maps_and_grids(model):
    looks = query_maps(model, torch.randn(2, 3, 96, 96))
    assert looks.shape == (2, 2, 4, 12, 6, 6) and (looks.sum((-1, -2)) <= 1 + 1e-5).all()
    assert as_map(torch.arange(10.0)).tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]] and grid_of(677) == (1, 26)
    with pytest.raises(ValueError, match="form no square"):
        grid_of(31)


@pytest.mark.parametrize(("au", "above"), [(1, 0.45), (4, 0.5), (43, 0.55)])
def test_regions_lie_where_the_action_is(au, above):
    face = Face(aus={au: (1.0, 1.0)})
    rows = np.argwhere(au_region(face, au))[:, 0] / 112
    assert rows.mean() < above and np.argwhere(au_region(Face(aus={17: (1.0, 1.0)}), 17))[:, 0].mean() / 112 > 0.65
    with pytest.raises(ValueError, match="does not show AU12"):
        au_region(face, 12)


def test_the_pointing_game():
    region = np.zeros((12, 12), bool)
    region[:4, :4] = True
    hit, miss = torch.zeros(3, 3), torch.zeros(3, 3)
    hit[0, 0] = miss[2, 2] = 1
    game = pointing_game([hit, hit, miss], [region] * 3, [1, 1, 2], {"shuffled": [miss] * 3})
    assert game["hit"].tolist() == [1, 1, 0] and game["chance"].tolist() == pytest.approx([1 / 9] * 3) and game["shuffled"].tolist() == [0] * 3
    assert game["other"].tolist() == [0, 0, 1] and game["mean_map"].tolist() == [1, 1, 1] and points(hit, region)[1] > 0.5
    assert pointing_game([], [], []).empty


def test_a_map_without_weight_points_nowhere():
    region = np.zeros((12, 12), bool)
    region[:4, :4] = True  # where the first pixel is
    hit, none, odd = torch.zeros(3, 3), torch.zeros(3, 3), torch.full((3, 3), float("nan"))
    hit[0, 0] = 1
    assert all(np.isnan(points(heat, region)).all() for heat in (none, odd))
    game = pointing_game([none, odd, hit], [region] * 3, [1, 1, 2], {"shuffled": [none] * 3})
    assert game["hit"].isna().tolist() == game["weight"].isna().tolist() == [True, True, False] and game["shuffled"].isna().all()
    assert game["mean_map"].tolist() == [1, 1, 1] and game["other"].tolist()[:2] == [1, 1] and np.isnan(game["other"][2])
    assert pointing_game([none], [region], [1])["mean_map"].isna().all()


def test_a_letter_that_grows_in_lower_case_moves_no_span():
    text = "İİ ẞ: It is a people who WRINKLES nose and raises chin."
    assert [text[start:end] for start, end, _ in spans_of(text)] == ["WRINKLES nose", "raises chin"]


def test_shuffled_keeps_the_numbers_and_loses_their_place(model):
    other = shuffled(model)
    a, b = model.qformer.layers[0].cross.key.weight, other.qformer.layers[0].cross.key.weight
    assert not torch.equal(a, b) and torch.equal(a.flatten().sort()[0], b.flatten().sort()[0])
    assert torch.equal(model.encoder.vit.layernorm.weight, other.encoder.vit.layernorm.weight)
