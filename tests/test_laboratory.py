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


# ---------------------------------------------------------------- what delivered folders do to a loader

def extracted(root, subject='SN001', first=1, count=30, lacking=()):
    "Frames of DISFA as an extracting program writes them."
    from expblip.fixtures import save_picture, wild_faces
    face = wild_faces(1, size=48)[0].picture
    for folder in sorted((root / 'ActionUnit_Labels').iterdir()):
        for k in range(first, first + count):
            if k not in lacking: save_picture(face, root / 'frames' / folder.name / f'{k:05d}.png')
    return root


@pytest.mark.parametrize('first', [0, 1])
def test_extracted_frames_keep_their_labels_whatever_lies_beside_them(copy, first):
    root = extracted(copy('disfa'), first=first, lacking=(first + 4,))
    for name in ('.DS_Store', 'Thumbs.db', 'list.txt'): (root / 'frames/SN001' / name).write_bytes(b'x')
    disfa = load_disfa(root, rule=EVERY, pictures='frames')
    assert [int(image.rpartition('/')[2][:5]) - first + 1 for image in disfa.records.image] == disfa.records.frame.tolist()
    assert set(disfa.left_out.reason) == {'missing'} and 5 not in set(disfa.records.frame)


@pytest.mark.parametrize('first, count', [(1, 33), (1, 28), (1, 29), (0, 33), (2, 30)])
def test_surplus_or_ambiguous_extracted_frames_are_refused(copy, first, count):
    told = rf'frames.SN001: 1 fault\n  holds pictures {first} to {first + count - 1}, but the labels are of frames 1 to 30'
    with pytest.raises(ReleaseError, match=told):
        load_disfa(extracted(copy('disfa'), first=first, count=count), pictures='frames')


def test_disfa_labels_that_count_from_0_are_refused(copy):
    root = copy('disfa')
    for path in (root / 'ActionUnit_Labels/SN001').glob('*.txt'):
        path.write_text(''.join(f'{int(line.split(",")[0]) - 1},{line.split(",")[1]}\n' for line in path.read_text().split()))
    with pytest.raises(ReleaseError, match=r"SN001_au1.txt: 1 fault\n  line 1, column 'frame', value 0: frames of DISFA count from 1"):
        load_disfa(root)


@pytest.mark.parametrize('line', ['1 0', '1,0,0', ''])
def test_a_disfa_file_of_another_shape_is_named(copy, line):
    root = copy('disfa')
    (root / 'ActionUnit_Labels/SN002/SN002_au4.txt').write_text(f'{line}\n' * 30)
    with pytest.raises(ReleaseError, match='SN002_au4.txt'): load_disfa(root)


def test_bad_landmarks_cannot_be_dropped_without_the_list(trees, monkeypatch):
    monkeypatch.setattr('expblip.laboratory.facts', lambda name: None)
    with pytest.raises(ReleaseError, match='disfa_bad_landmarks.csv: 1 fault\n  no such file here, so no frame can be dropped'):
        load_disfa(trees[0] / 'disfa', drop_bad_landmarks=True)


def test_letters_of_any_case(copy, trees):
    "Copies pass through systems that change the case of letters; nothing is lost for that."
    root = copy('bp4d')
    pictures = next(path for path in root.iterdir() if (path / 'F001').is_dir()) if not (root / 'F001').is_dir() else root
    (pictures / 'F001').rename(pictures / 'f001')
    labels = sorted(path for path in root.rglob('*.csv'))[0]
    labels.rename(labels.with_suffix('.CSV'))
    assert len(load_bp4d(root, rule=EVERY).records) == len(load_bp4d(trees[0] / 'bp4d', rule=EVERY).records)
    root = copy('disfa')
    (root / 'ActionUnit_Labels/SN002').rename(root / 'ActionUnit_Labels/sn002')
    path = root / 'ActionUnit_Labels/SN001/SN001_au1.txt'
    path.rename(path.with_name('SN001_AU1.TXT'))
    assert len(load_disfa(root, rule=EVERY).records) == len(load_disfa(trees[0] / 'disfa', rule=EVERY).records)


def test_two_columns_or_pictures_of_one_number_are_refused(copy):
    root = copy('bp4d')
    path = sorted(root.rglob('*_T*.csv'))[0]
    head, *rest = path.read_text().split('\n')
    path.write_text('\n'.join([f'{head},01', *(f'{line},1' if line else '' for line in rest)]))
    with pytest.raises(ReleaseError, match=r"columns '1' and '01' are both AU 1"): load_bp4d(root)
    root = copy('gft')
    path = sorted(root.glob('*.csv'))[0]
    head, *rest = path.read_text().split('\n')
    path.write_text('\n'.join([f'{head},AU1', *(f'{line},1' if line else '' for line in rest)]))
    with pytest.raises(ReleaseError, match='are both AU 1;'): load_gft(root, CODES, test=3)


def test_one_picture_number_twice_is_refused(copy):
    root = copy('bp4d')
    picture = sorted(root.rglob('*.jpg'))[5]
    shutil.copy(picture, picture.with_name(f'00{picture.name}'))
    with pytest.raises(ReleaseError, match='are both picture'): load_bp4d(root)


def test_labels_without_any_picture_stop_the_loader(copy):
    root = copy('bp4d')
    for path in root.rglob('*.jpg'): path.unlink()
    with pytest.raises(ReleaseError, match=r'labels of \d+ pictures were read, but none of the pictures is there, such as'): load_bp4d(root)


def test_gft_files_at_fault_are_named(copy):
    root = copy('gft')
    first, second, *_ = sorted(root.glob('*.csv'))
    shutil.copy(first, root / f'{first.stem}_again.csv')
    with pytest.raises(ReleaseError, match='again.csv: 1 fault\n  is a second label file of'): load_gft(root, CODES, test=3)
    (root / f'{first.stem}_again.csv').unlink()
    second.write_text(second.read_text().split('\n')[0] + '\n')
    with pytest.raises(ReleaseError, match='has no line below its header'): load_gft(root, CODES, test=3)


@pytest.mark.parametrize('given, told', [
    ({'codes': {'-1': 2}}, "codes: '-1' means 2"), ({'subject': '('}, 'no regular expression'), ({'subject': 'a'}, 'needs a group'),
    ({'image': '{who}.jpg'}, 'its gaps may be')])
def test_a_gft_format_at_fault(given, told):
    with pytest.raises(ValueError, match=told): GftFormat(**given)


def test_cut_label_files_are_seen_in_the_table_of_sequences(copy):
    "DISFA has 4,845 frames a person: every fixture is shorter, and says so."
    said = str(load_disfa(copy('disfa'), rule=EVERY))
    assert '4 of 4 sequences have another number of coded frames than is known' in said and '<NA>' not in said
