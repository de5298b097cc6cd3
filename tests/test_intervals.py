"""Bootstrap by subject against resampled rows scored by scikit-learn."""
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from expblip.intervals import accuracy_parts, difference_interval, f1_parts, person_weights, ratio_intervals


@pytest.fixture()
def answers():
    rng = np.random.default_rng(4)
    truth = (rng.random((160, 2)) < (0.5, 0.3)).astype(float)
    guess = np.where(rng.random(truth.shape) < 0.75, truth, 1 - truth)
    truth[rng.random(truth.shape) < 0.25] = np.nan
    return truth, guess, [f"p{k % 9}" for k in range(160)]


@pytest.mark.parametrize(("parts", "score"), [(f1_parts, f1_score), (accuracy_parts, accuracy_score)])
def test_equal_to_rows_drawn_by_hand(answers, parts, score):
    truth, guess, people = answers
    who, weights = person_weights(people, 60, 3)
    slow = []
    for times in weights:
        rows = np.repeat(np.arange(160), times[who].astype(int))
        slow.append([score(t[~np.isnan(t)], p[~np.isnan(t)]) for t, p in zip(truth[rows].T, guess[rows].T)])
    found = ratio_intervals(*parts(truth, guess), people, draws=60, seed=3)
    want = np.percentile(np.c_[np.array(slow), np.mean(slow, 1)], (2.5, 97.5), axis=0).T
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_frames_of_one_person_are_one_answer(answers):
    truth, guess, _ = answers
    truth, guess = np.repeat(truth[:20], 8, 0), np.repeat(guess[:20], 8, 0)  # eight frames of one person are answered alike
    wide, narrow = (np.ptp(ratio_intervals(*accuracy_parts(truth, guess), people)[-1])
                    for people in (np.repeat([f"p{k}" for k in range(20)], 8).tolist(), [None] * 160))
    assert wide > 1.5 * narrow > 0


def test_a_class_without_a_ratio_has_no_interval_and_empty_input_is_refused(answers):
    truth, guess, people = answers
    found = ratio_intervals(*f1_parts(np.c_[truth, np.zeros(160)], np.c_[guess, np.zeros(160)]), people)
    assert np.isnan(found[2]).all() and not np.isnan(found[[0, 1, 3]]).any()
    with pytest.raises(ValueError, match="at least one of each"):
        person_weights([])


def test_few_people_have_no_interval_and_a_difference_lies_in_its_own(answers):
    truth, guess, people = answers
    parts, others = f1_parts(truth, guess), accuracy_parts(truth, guess)
    few = [f"p{k % 4}" for k in range(160)]
    assert np.isnan(ratio_intervals(*parts, few)).all() and not np.isnan(ratio_intervals(*parts, [f"p{k % 5}" for k in range(160)])).any()
    assert np.isnan(difference_interval([parts], [others], few)[1:]).all()
    assert np.isnan(ratio_intervals(*parts, ["a"] * 160)).all() and np.isnan(difference_interval([parts], [others], ["a"] * 160)[1:]).all()
    alone = np.where(np.array([p == "p0" for p in people])[:, None] | [True, False], truth, np.nan)  # the second class: of one person
    assert np.isnan(ratio_intervals(*f1_parts(alone, guess), people)).any(1).tolist() == [False, True, False]
    ones = np.ones((160, 1))
    gap, low, high = difference_interval([(ones / 3, ones)], [(ones / 7, ones)], people)  # the same for everybody
    assert abs(gap - low) < 1e-12 and abs(gap - high) < 1e-12
    import pandas as pd
    with pytest.raises(ValueError, match=r"the person of image 1 is pd.NA \(2 such\): write None"): person_weights(["a", pd.NA, pd.NA])
