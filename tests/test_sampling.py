"The sampling rule against a slow, obvious version; folds and splits as properties."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.sampling import (
    BP4D_FOLDS, DISFA_FOLDS, GAPS, PAPER_RULE, Rule, check_split, kept_frames, random_split, rule_variants, set_apart, split_people,
)

settings.register_profile('calm', deadline=None)  # a busy machine is no fault
settings.load_profile('calm')


@st.composite
def codings(draw):
    "Some sequences with gaps, and label vectors of which some are not annotated."
    sequence, frame = [], []
    for name in range(draw(st.integers(1, 3))):
        numbers = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
        sequence += [f's{name}'] * len(numbers)
        frame += numbers
    labels = draw(st.lists(st.lists(st.sampled_from([0., 1., float('nan')]), min_size=2, max_size=2), min_size=len(frame), max_size=len(frame)))
    return sequence, frame, np.array(labels)


def slowly(sequence, frame, labels, rule):
    "One frame at a time."
    out, first = [], 0
    for k in range(len(frame)):
        if k == 0 or sequence[k] != sequence[k - 1]: first = k
        grid = (k - first) % rule.every == 0 if rule.grid == 'index' else frame[k] % rule.every == rule.grid
        differs = False
        if k > first:
            differs = repr(labels[k].tolist()) != repr(labels[k - 1].tolist())
            if frame[k] != frame[k - 1] + 1 and rule.gaps != 'listed': differs = rule.gaps == 'change'
        out.append(grid or differs)
    return out


@given(codings(), st.sampled_from(['index', 0, 3]), st.sampled_from(GAPS), st.integers(4, 12))
def test_the_rule_is_the_slow_rule(coding, grid, gaps, every):
    rule = Rule(every, grid, gaps)
    assert kept_frames(*coding, rule).tolist() == slowly(*coding, rule)


@given(codings())
def test_every_change_is_kept_and_every_sequence_begins(coding):
    sequence, frame, labels = coding
    kept = kept_frames(sequence, frame, labels)
    first = [k == 0 or sequence[k] != sequence[k - 1] for k in range(len(frame))]
    assert kept[first].all()
    assert kept_frames(sequence, frame, labels, Rule(1)).all()


@given(codings(), st.integers(0, 100))
def test_variants_count_what_the_rule_keeps(coding, paper):
    sequence, frame, labels = coding
    table = rule_variants(sequence, frame, {'all': labels}, paper)
    assert (table.images - paper == table.difference).all() and table.difference.abs().is_monotonic_increasing
    plain = table[(table.grid == 'index') & table.gaps.str.contains('listed')]
    assert plain.images.tolist() == [kept_frames(sequence, frame, labels, PAPER_RULE).sum()]


def test_nothing_is_kept_of_nothing():
    assert kept_frames([], [], np.zeros((0, 3))).tolist() == []


@pytest.mark.parametrize('folds', [BP4D_FOLDS, DISFA_FOLDS])
def test_folds_share_nobody(folds):
    people = [name for fold in folds.values() for name in fold]
    assert len(people) == len(set(people))


@given(st.lists(st.sampled_from('abcdefgh'), min_size=1, max_size=60), st.floats(0, .9), st.integers(0, 5))
def test_no_person_is_on_two_sides(people, share, seed):
    split = set_apart(split_people(people, {people[0]}), people, share, seed)
    sides = {who: {s for w, s in zip(people, split) if w == who} for who in people}
    assert all(len(s) == 1 for s in sides.values()) and sides[people[0]] == {'test'}
    assert (split == set_apart(split_people(people, {people[0]}), people, share, seed)).all()


@given(st.integers(0, 200), st.floats(0, 1), st.integers(0, 9))
def test_random_splits_have_their_size(n, share, seed):
    assert (random_split(n, share, seed) == 'test').sum() == round(share * n)


@pytest.mark.parametrize('seed, shares, told', [
    (0, {'val': 1.5}, 'val is 1.5: a share'), (0, {'val': .1, 'test': -1}, 'test is -1: a share'), (-1, {}, 'seed is -1')])
def test_shares_and_seed(seed, shares, told):
    check_split(0, val=0, test=1)
    with pytest.raises(ValueError, match=told):
        check_split(seed, **shares)
