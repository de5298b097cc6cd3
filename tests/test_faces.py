"Drawn faces: reproducible, legal, visible and FACS-faithful."
import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest

from expblip.drawing import contact_sheet, draw, draw_many
from expblip.faces import (BRINGS, CODED, DRAWN_AUS, SKINS, TRACE, Face, Identity, Scene, appearance, coded, express, legal, legalise,
                           sample_identity, sample_scene)
from expblip.geometry import LANDMARKS, features, landmarks, warp

PEOPLE = [Identity(skin=SKINS[0], hair_colour='red'), Identity(skin=SKINS[8], hair_colour='black', lip=(110, 56, 50)),
          Identity(skin=SKINS[4], age=.9, beard='stubble')]


def shown(au, v=1.):
    "An AU with what it brings along."
    return {a: (v, v) for a in {au} | ({BRINGS[au]} if au in BRINGS else set())}


def crowd(seed, n):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        who = sample_identity(rng)
        aus = legalise(rng.choice(DRAWN_AUS, rng.integers(5), replace=False).tolist(), rng)
        out.append(Face(who, sample_scene(rng, 'wild', who), express(rng, aus)))
    return out


def digest(seed=3, n=12):
    return hashlib.sha256(draw_many(crowd(seed, n)).tobytes()).hexdigest()


def test_same_bytes_in_another_process():
    code = 'import sys; sys.path.insert(0, "tests"); from test_faces import digest; print(digest())'
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest() == digest() != digest(seed=4)


def test_sampling_uses_only_the_generator_passed_in():
    np.random.seed(0); a = crowd(1, 3)
    np.random.seed(1); b = crowd(1, 3)
    assert a == b


# ---- legality
def test_legality_table():
    for ok in ((), (6, 12, 25), (4, 5, 7, 23), (1, 2, 5, 25, 27), (9, 10, 17), (1, 4, 15), (16, 25), (12, 14), (10, 12, 25), (1, 2, 4, 5, 20, 25)):
        assert legal(ok), ok
    for bad in ((26,), (27,), (16,), (22,), (25, 26, 27), (23, 24), (24, 25), (20, 23), (20, 24), (20, 25, 27), (12, 15),
                (5, 43), (7, 43), (18, 25), (12, 28), (12, 18)):
        assert not legal(bad), bad


def test_every_drawn_au_is_possible_alone():
    assert all(legal({a} | ({BRINGS[a]} if a in BRINGS else set())) for a in DRAWN_AUS)


def test_legalise_always_returns_a_legal_set_and_keeps_legal_ones():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        s = frozenset(rng.choice(DRAWN_AUS, rng.integers(0, 9), replace=False).tolist())
        out = legalise(s, rng)
        assert legal(out) and out <= s | {25}
        assert legalise(out, rng) == out
    for a, b in itertools.combinations(DRAWN_AUS, 2):
        assert legalise({a, b}, rng) & {a, b}


def test_express_stays_above_and_traces_below_the_coding_threshold():
    rng = np.random.default_rng(1); traced = total = 0
    for _ in range(500):
        aus = legalise(rng.choice(DRAWN_AUS, 3, replace=False).tolist(), rng); e = express(rng, aus)
        assert coded(e) == aus and legal(coded(e))
        weak = [max(v) for a, v in e.items() if a not in aus]
        assert all(v < TRACE for v in weak) and all(max(e[a]) >= CODED and max(e[a]) <= 1 for a in aus)
        traced += len(weak); total += len(DRAWN_AUS) - len(aus)
    assert .02 < traced / total < .07
    assert coded(express(rng, {12}, traces=False)) == set(express(rng, {12}, traces=False)) == {12}


def test_contempt_is_one_sided_and_other_emotions_are_not():
    rng = np.random.default_rng(2)
    for _ in range(20):
        assert min(express(rng, {12, 14}, emotion='contempt')[14]) == 0
        assert min(express(rng, {12}, emotion='happiness')[12]) > .3


# ---- pixels
BOX = dict(brow=('brow_', 'forehead'), eye=('eye_',), nose=('nose_', 'wing_', 'nostril_', 'eye_l_inner', 'eye_r_inner'),
           mouth=('mouth_', 'lip_', 'chin'))
REGION = {1: 'brow', 2: 'brow', 4: 'brow', 5: 'eye', 6: 'eye', 7: 'eye', 9: 'nose', 10: 'mouth', 43: 'eye'}


@pytest.mark.parametrize('who', range(len(PEOPLE)))
@pytest.mark.parametrize('au', DRAWN_AUS)
def test_every_action_is_visible_where_it_belongs(au, who):
    base, face = Face(PEOPLE[who]), Face(PEOPLE[who], aus=shown(au, CODED))
    change = np.abs(draw(face).astype(int) - draw(base).astype(int)).max(-1)
    assert (change > 20).sum() >= 12, f'AU{au} hardly changes the picture at the weakest coded intensity'
    xy = landmarks(base)[[k for k, n in enumerate(LANDMARKS) if n.startswith(BOX[REGION.get(au, 'mouth')])]]
    (x0, y0), (x1, y1) = xy.min(0) - 14, xy.max(0) + 14
    y, x = np.mgrid[:112, :112]; near = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    assert change[near].sum() > .6 * change.sum(), f'AU{au} changes the picture elsewhere'


def test_actions_differ_from_each_other_on_every_skin():
    for who in PEOPLE:
        pics = [draw(Face(who))] + [draw(Face(who, aus=shown(a, .8))) for a in DRAWN_AUS]
        for (i, a), (j, b) in itertools.combinations(enumerate(pics), 2):
            assert (np.abs(a.astype(int) - b).max(-1) > 20).sum() >= 15, (i, j)


def test_sizes_and_bulk():
    faces = crowd(5, 3)
    assert draw(faces[0], 64).shape == (64, 64, 3) and draw(faces[0], 64).dtype == np.uint8
    assert (draw_many(faces, 64)[1] == draw(faces[1], 64)).all()
    assert contact_sheet(faces, 64, 2).shape == (128, 128, 3) and draw_many([], 64).shape == (0, 64, 64, 3)


def test_same_person_other_scene_differs_but_neutral_lab_is_stable():
    a, b = Face(PEOPLE[0], Scene(noise=4, seed=1)), Face(PEOPLE[0], Scene(noise=4, seed=2))
    assert (draw(a) != draw(b)).any() and (landmarks(a) == landmarks(b)).all()


# ---- landmarks
def move(au, name, v=1.):
    return landmarks(Face(aus=shown(au, v)))[LANDMARKS.index(name)] - landmarks(Face())[LANDMARKS.index(name)]


@pytest.mark.parametrize('au, name, axis, sign', [
    (1, 'brow_l_inner', 1, -1), (2, 'brow_r_outer', 1, -1), (4, 'brow_l_inner', 1, 1), (4, 'brow_l_inner', 0, 1), (5, 'eye_l_upper', 1, -1),
    (6, 'eye_l_lower', 1, -1), (7, 'eye_r_lower', 1, -1), (43, 'eye_r_upper', 1, 1), (9, 'wing_l', 1, -1), (10, 'lip_upper', 1, -1),
    (12, 'mouth_r', 1, -1), (12, 'mouth_r', 0, 1), (12, 'mouth_l', 0, -1),
    (15, 'mouth_l', 1, 1), (16, 'lip_lower', 1, 1), (17, 'lip_inner_lower', 1, -1), (18, 'mouth_r', 0, -1), (20, 'mouth_r', 0, 1),
    (22, 'mouth_l', 0, 1),
    (23, 'lip_lower', 1, -1), (24, 'lip_lower', 1, -1), (25, 'lip_inner_lower', 1, 1), (26, 'chin', 1, 1), (27, 'chin', 1, 1),
    (28, 'lip_upper', 1, 1)])
def test_landmarks_move_as_the_action_says(au, name, axis, sign):
    assert sign * move(au, name)[axis] > .4
    assert sign * move(au, name)[axis] > sign * move(au, name, .5)[axis]


def test_landmarks_are_dense_finite_and_scale_with_the_picture():
    face = crowd(6, 1)[0]; a, b = landmarks(face, 112), landmarks(face, 224)
    assert len(LANDMARKS) == len(set(LANDMARKS)) >= 40
    assert a.shape == (len(LANDMARKS), 2) and a.dtype == np.float32 and np.isfinite(a).all()
    np.testing.assert_allclose(2 * a, b, rtol=1e-5)


def test_mirrored_intensities_mirror_the_landmarks():
    a, b = landmarks(Face(aus={12: (.9, .1), 1: (0., 1.)})), landmarks(Face(aus={12: (.1, .9), 1: (1., 0.)}))
    for l in (n for n in LANDMARKS if '_l' in n and n.replace('_l', '_r', 1) in LANDMARKS and not n.startswith('lip_lower')):
        np.testing.assert_allclose(a[LANDMARKS.index(l)] * (-1, 1) + (112, 0), b[LANDMARKS.index(l.replace('_l', '_r', 1))], atol=1e-3, err_msg=l)


def test_evidence_stays_inside_a_centre_crop_of_96():
    cut = []
    for f in crowd(7, 200):
        F = features(f); low = F['mouth']['lower'] + F['mouth']['tl'] + .08
        y = warp(np.array([[0., low], [0., -.625], [0., .90 + F['drop']]]), f.scene, 112)[:, 1]
        cut.append((y[0] > 103, y[1] < 8, y[2] > 103 and 17 in coded(f.aus)))
    assert np.mean(cut, axis=0).max() < .02


# ---- words and errors
def test_appearance_is_blind_to_expression_and_names_none():
    forbidden = ('smil', 'brow', 'lip', 'raise', 'closed', 'jaw', 'happ', 'sad', 'ang', 'fear', 'disgust', 'surpris', 'contempt', 'neutral', 'mouth')
    for f in crowd(8, 60):
        words = appearance(f)
        assert words == appearance(Face(f.identity, f.scene, {43: (1., 1.)}))
        assert {'hair', 'skin', 'glasses', 'beard', 'background', 'pose', 'gaze', 'light'} <= set(words)
        text = ' '.join(words.values()).replace('brown', '').replace('orange', '')
        assert not [w for w in forbidden if w in text], text


def test_pose_words_follow_the_picture():
    assert appearance(Face(scene=Scene(yaw=15)))['pose'] == 'turned to the right'
    tip = LANDMARKS.index('nose_tip')
    assert landmarks(Face(scene=Scene(yaw=15)))[tip, 0] > landmarks(Face())[tip, 0]
    assert landmarks(Face(scene=Scene(pitch=10)))[tip, 1] < landmarks(Face())[tip, 1]


@pytest.mark.parametrize('bad, says', [
    ({13: (1., 1.)}, 'AU 13 cannot be drawn'), ({12: (1.2, 1.)}, 'AU12 has intensity'), ({12: .5}, 'each from 0 to 1'), ({12: (1.,)}, 'AU12')])
def test_impossible_faces_are_refused(bad, says):
    with pytest.raises(ValueError, match=says): Face(aus=bad)


def test_other_errors_name_the_value():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='size=20 is too small'): draw(Face(), 20)
    with pytest.raises(ValueError, match='AU 99'): legal({99})
    with pytest.raises(ValueError, match='AU 8'): legalise({8}, rng)
    with pytest.raises(ValueError, match=r'\[23, 24\] cannot occur together'): express(rng, {23, 24})
    with pytest.raises(ValueError, match="'studio' is unknown"): sample_scene(rng, 'studio')


def test_wild_frequencies():
    rng = np.random.default_rng(9); scenes = [sample_scene(rng) for _ in range(1500)]
    assert .15 < np.mean([s.glasses != 'no glasses' for s in scenes]) < .21
    assert .02 < np.mean([s.hand != 0 for s in scenes]) < .04
    assert max(abs(s.yaw) for s in scenes) <= 20 and max(abs(s.roll) for s in scenes) <= 10
    lab = [sample_scene(rng, 'lab') for _ in range(200)]
    assert all(s.background == 'plain' and s.hand == 0 and abs(s.yaw) <= 5 for s in lab)
