"""METEOR of 2005, ROUGE-L's plain F and CIDEr against the packages, on random captions."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_metrics import GOLDEN, random_pairs

from expblip import metrics, wording


def test_the_formula_of_2005_equals_nltk_on_a_thousand_pairs():
    from nltk.translate.meteor_score import single_meteor_score

    none = SimpleNamespace(synsets=lambda word: [])
    pairs = random_pairs()
    theirs = [single_meteor_score(wanted.split(), said.split(), wordnet=none) for said, wanted in pairs]
    assert [wording.meteor_2005(*pair) for pair in pairs] == pytest.approx(theirs, abs=1e-12)
    assert np.std(theirs) > 0.1 and wording.meteor_2005("", "the jaw") == wording.meteor_2005("the jaw", "") == 0


def test_plain_rouge_equals_google_on_a_thousand_pairs():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=str.split))
    for said, wanted in random_pairs():
        assert wording.rouge_l_f1(said, wanted) == pytest.approx(scorer.score(wanted, said)["rougeL"].fmeasure, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_cider_equals_the_package_on_a_thousand_pairs(seed):
    from pycocoevalcap.cider.cider import Cider

    pairs = random_pairs(500 * (seed + 1))
    references = [[wanted, pairs[i - 1][1]][: 1 + i % 2] for i, (_, wanted) in enumerate(pairs)]
    mean, theirs = Cider().compute_score(dict(enumerate(references)), {i: [said] for i, (said, _) in enumerate(pairs)})
    ours = wording.cider([said for said, _ in pairs], references)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert ours.mean() == pytest.approx(mean) and ours.std() > 0.5


def test_golden_scores_of_the_other_implementations(monkeypatch):
    monkeypatch.setattr(wording, "tokenize", lambda texts: [text.lower().rstrip(".") for text in texts])
    monkeypatch.setattr(wording, "meteor", lambda pairs: [0.5] * len(pairs))
    got = wording.cross_check([(row[0], row[1][0]) for row in (GOLDEN[0], GOLDEN[2], GOLDEN[4])])
    assert list(got) == ["meteor", "meteor_2005", "rouge_l", "rouge_l_f1"]
    np.testing.assert_allclose(got["meteor_2005"], [0.7361, 0.6944, 0], atol=6e-5)
    np.testing.assert_allclose(got["rouge_l"], [0.75, 0.6540, 0], atol=6e-5)
    np.testing.assert_allclose(got["rouge_l_f1"], [0.75, 0.6471, 0], atol=6e-5)
    assert len(wording.cross_check([])) == 0


def test_each_test_set_and_model_has_its_own_weights(monkeypatch):
    monkeypatch.setattr(metrics, "tokenize", lambda texts: [text.lower() for text in texts])
    references = {"a": ["the jaw drops"], "b": ["the brow lowers"], "c": ["the jaw drops"]}
    rows = [("x", "a", "the jaw drops"), ("x", "b", "the brow lowers"), ("y", "c", "the jaw drops"), ("y", "none", "nothing")]
    table = pd.DataFrame(rows, columns=["dataset", "record", "text"]).assign(model="m", decode="greedy")
    got = wording.add_cider(table, references)["cider"].to_numpy()
    assert got[0] == pytest.approx(wording.cider(["the jaw drops", "the brow lowers"], [["the jaw drops"], ["the brow lowers"]])[0]) and got[0] > 0
    assert got[2] == 0 and np.isnan(got[3]), "one image alone has no rare words"
    for missing in (None, np.nan):
        np.testing.assert_array_equal(wording.add_cider(table.assign(decode=missing), references)["cider"], got)
    with pytest.raises(ValueError, match="2 captions and 1 lists"):
        wording.cider(["a", "b"], [["a"]])


def test_variety():
    got = wording.variety(["The jaw drops.", "The jaw drops.", "The brow lowers."])
    assert got == pytest.approx({"words": 3, "distinct_1": 5 / 9, "distinct_2": 4 / 6, "different": 2 / 3})
    assert np.isnan(wording.variety([])["words"])


def test_the_packages_are_named():
    told = {**metrics.implementation(), **wording.wording_implementation()}
    assert set(told) == {"meteor", "rouge_l", "tokens", "meteor_2005", "rouge_l_f1", "cider"}
    assert all(any(char.isdigit() for char in line) and "not installed" not in line for line in told.values())
