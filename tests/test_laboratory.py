"BP4D, DISFA and GFT from end to end on trees of drawn faces, and the ways in which delivered folders go wrong."
import shutil

import pytest

from expblip.fixtures import damage
from expblip.fixtures_lab import write_bp4d, write_disfa, write_gft
from expblip.laboratory import BP4D_AUS, GftFormat, load_bp4d, load_disfa, load_gft
from expblip.releases import MISSING, ReleaseError
from expblip.sampling import Rule
from expblip.videos import read_sources

EVERY = Rule(every=1)
CODES = GftFormat(codes={'0': 0, '1': 1, '-1': MISSING})


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp('trees')
    writers = {'bp4d': write_bp4d, 'disfa': write_disfa, 'gft': write_gft}
    return root, {name: write(root / name, frames=30) for name, write in writers.items()}


@pytest.fixture
def copy(trees, tmp_path):
    return lambda name: shutil.copytree(trees[0] / name, tmp_path / name)


def agree(records, truth):
    "Every usable frame of the truth is a record that says the same, and there is no other."
    usable = truth[truth.usable]
    said = usable.merge(records, on=['sequence', 'frame'], how='outer', suffixes=('_true', ''), indicator=True)
    assert (said._merge == 'both').all()
    assert said.au_present.tolist() == said.au_present_true.tolist() and said.au_absent.tolist() == said.au_absent_true.tolist()


def test_bp4d_says_what_was_written(trees):
    root, truth = trees
    agree(load_bp4d(root / 'bp4d', rule=EVERY, decode=True).records, truth['bp4d'])


def test_disfa_says_what_was_written(trees):
    root, truth = trees
    agree(load_disfa(root / 'disfa', rule=EVERY).records, truth['disfa'])


def test_gft_says_what_was_written_and_that_it_is_unverified(trees):
    root, truth = trees
    gft = load_gft(root / 'gft', CODES, test=3, rule=EVERY, val=0)
    agree(gft.records, truth['gft'])
    assert gft.unverified and 'unverified format' in str(gft)


def test_code_9_is_not_annotated(trees):
    records = load_bp4d(trees[0] / 'bp4d', rule=EVERY).records
    nobody_looked = [17 not in p + a for p, a in zip(records.au_present, records.au_absent)]
    assert any(nobody_looked) and not all(nobody_looked)
    assert all(set(p + a) <= set(BP4D_AUS) for p, a in zip(records.au_present, records.au_absent))


def test_test_people_are_whole_and_training_people_sampled(trees):
    bp4d = load_bp4d(trees[0] / 'bp4d')
    test = bp4d.records[bp4d.records.split == 'test']
    assert set(test.subject) == {'F004', 'M003'} and len(test) == 2 * 2 * 30 - (30 - 28)  # the tail of F004's second sequence has no pictures
    assert len(bp4d.records[bp4d.records.split != 'test']) < 2 * 2 * 30 / 2
    assert bp4d.left_out.reason.tolist() == ['missing'] * 2


def test_numbers_are_matched_whatever_their_zeros(trees):
    names = {len(path.stem) for path in (trees[0] / 'bp4d').rglob('*.jpg')}
    assert names == {3, 4}


def test_offset_of_bp4d_plus(copy):
    root = copy('bp4d')
    moved = load_bp4d(root, rule=EVERY, offset=-1).records.query("sequence == 'F001/T1' and frame == 5").image.item()
    assert moved.endswith('/004.jpg') or moved.endswith('/0004.jpg')


def test_a_flagged_frame_is_dropped(copy):
    root = copy('bp4d')
    for path in (root / 'AUCoding/AU_OCC').glob('*.csv'):
        head, *rows = path.read_text().splitlines()
        path.write_text('\n'.join([head + ',flag', *(f'{row},{int(k == 3)}' for k, row in enumerate(rows))]))
    assert len(load_bp4d(root, rule=EVERY, flag='flag').records) < len(load_bp4d(root, rule=EVERY).records)


def test_frames_of_disfa_are_those_of_the_labels(trees):
    records = load_disfa(trees[0] / 'disfa', rule=EVERY).records
    assert [int(image.rpartition(':')[2]) + 1 for image in records.image] == records.frame.tolist()
    pictures = dict(read_sources(records.image.tolist()[:5], None))
    assert all(picture.shape == (112, 112, 3) for picture in pictures.values()) and len(pictures) == 5


def test_a_video_that_is_too_short_loses_frames_not_the_run(copy):
    root = copy('disfa')
    for path in (root / 'ActionUnit_Labels/SN001').glob('*.txt'):
        path.write_text(path.read_text() + '31,0\n')
    out = load_disfa(root, rule=EVERY).left_out
    assert out.reason.tolist() == ["after the video's last frame (29)"]


def test_a_missing_video_is_said(copy):
    root = copy('disfa')
    next((root / 'Videos_LeftCamera').glob('*SN002*')).unlink()
    disfa = load_disfa(root, rule=EVERY)
    assert set(disfa.left_out.reason) == {'missing'} and 'SN002' not in set(disfa.records.subject)


def test_the_folder_of_videos_may_be_spelt_otherwise(copy):
    root = copy('disfa')
    (root / 'Videos_LeftCamera').rename(root / 'Video_LeftCamera')
    assert len(load_disfa(root, rule=EVERY).records) == 4 * 30 - 1


def test_a_broken_picture_is_left_out_when_decoded(copy):
    root = copy('bp4d')
    damage(next(iter(sorted((root / 'Sequences(2D+3D)/F004/T1').glob('*.jpg')))))
    assert any('unreadable' in reason for reason in load_bp4d(root, decode=True).left_out.reason)


@pytest.mark.parametrize('line, text, told', [
    (0, '0,1,2', 'names no AU 4'), (2, 'x,0', 'line 3'), (4, None, 'rise')])
def test_a_label_file_of_bp4d_at_fault(copy, line, text, told):
    path = copy('bp4d') / 'AUCoding/AU_OCC/F001_T1.csv'
    rows = path.read_text().splitlines()
    rows[line] = rows[3] if text is None else text + rows[line][len(text):] if line else ','.join(f'{n}' for n in [0, 1, 2, *range(100, 126)])
    path.write_text('\n'.join(rows))
    with pytest.raises(ReleaseError, match=told):
        load_bp4d(path.parents[2])


def test_gft_guesses_nothing(copy):
    root = copy('gft')
    with pytest.raises(ReleaseError, match="gft_001A.csv.*\n.*line 7, column 'AU01', value '-1'"):
        load_gft(root, test=3)
    with pytest.raises(ReleaseError, match='correct GftFormat'):
        load_gft(root, GftFormat(au='Action(\\d+)'), test=3)


def test_readings_of_the_rule_are_counted(trees):
    table = load_disfa(trees[0] / 'disfa').variants
    assert {'labels', 'from 1', 'from 2', 'intensity'} == set(table.labels)
    more = table.groupby('labels').images.max()
    assert more['intensity'] >= more['from 2']
