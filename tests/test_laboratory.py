"BP4D, DISFA and GFT from end to end on trees of drawn faces, and the ways in which delivered folders go wrong."
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from expblip import laboratory
from expblip.fixtures import damage, save_picture
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


# ---------------------------------------------------------------- frames of DISFA that somebody extracted

SUBJECTS = ('SN001', 'SN002', 'SN003', 'SN010')


def extract(root, begin=1, name='{:05d}.png', skip=(), more=0):
    "Each frame of each video as a picture whose brightness is its number in the labels."
    for subject in SUBJECTS:
        labels = (root / f'ActionUnit_Labels/{subject}/{subject}_au1.txt').read_text().split()
        for k in range(len(labels) + more):
            if k + 1 not in skip:
                save_picture(np.full((4, 4, 3), k + 1, np.uint8), root / 'frames' / subject / name.format(k + begin))


def shown(record):
    "The number of the frame that a record's picture truly shows."
    return int(np.asarray(Image.open(record.image)).flat[0])


def never_shifted(release):
    assert len(release.records) and [shown(record) for record in release.records.itertuples()] == release.records.frame.tolist()


@pytest.mark.parametrize('begin', [0, 1])
@pytest.mark.parametrize('name', ['{:05d}.png', '{}.png', 'LeftVideo1_{:04d}.PNG'])
def test_extracted_frames_are_numbered_from_0_or_1(copy, begin, name):
    root = copy('disfa')
    extract(root, begin, name)
    disfa = load_disfa(root, rule=EVERY, pictures='frames')
    assert len(disfa.records) == 4 * 30 - 1 and not len(disfa.left_out)
    never_shifted(disfa)


@pytest.mark.parametrize('junk', ['.DS_Store', 'Thumbs.db', 'list.txt', 'list0.txt', '._00001.png', '0.npy'])
def test_other_files_beside_extracted_frames_shift_nothing(copy, junk):
    root = copy('disfa')
    extract(root)
    for subject in SUBJECTS:
        (root / 'frames' / subject / junk).write_bytes(b'junk')
    disfa = load_disfa(root, rule=EVERY, pictures='frames', decode=True)
    assert len(disfa.records) == 4 * 30 - 1
    never_shifted(disfa)


@pytest.mark.parametrize('begin', [0, 1])
def test_a_hole_in_extracted_frames_is_that_frame_only(copy, begin):
    root = copy('disfa')
    extract(root, begin, skip=(5,))
    disfa = load_disfa(root, rule=EVERY, pictures='frames')
    assert disfa.left_out.reason.tolist() == ['missing'] * 4 and len(disfa.records) == 4 * 29 - 1
    assert 5 not in set(disfa.records.frame)
    never_shifted(disfa)


@pytest.mark.parametrize('change, told', [
    (dict(more=1), 'numbered 1 to 31, but the labels count 30 frames'),
    (dict(more=1, begin=0), 'numbered 0 to 30, but the labels count 30 frames'),
    (dict(skip=(30,)), 'numbered 1 to 29, but the labels count 30 frames'),
    (dict(begin=7), 'numbered 7 to 36')])
def test_extracted_frames_in_doubt_stop_the_loader(copy, change, told):
    root = copy('disfa')
    extract(root, **change)
    with pytest.raises(ReleaseError, match=rf'frames.SN001: 1 fault.*\n.*{told}.*first_picture'):
        load_disfa(root, pictures='frames')


def test_first_picture_settles_the_doubt_and_surplus_is_listed(copy):
    root = copy('disfa')
    extract(root, 1, more=2)
    disfa = load_disfa(root, rule=EVERY, pictures='frames', first_picture=1)
    assert disfa.left_out.reason.tolist() == ['no label for this picture'] * 8 and 'frames/SN001/00032.png' in disfa.left_out.file.tolist()
    never_shifted(disfa)


def test_two_pictures_of_one_frame_are_refused(copy):
    root = copy('disfa')
    extract(root)
    shutil.copy(root / 'frames/SN001/00003.png', root / 'frames/SN001/3.png')
    with pytest.raises(ReleaseError, match='00003.png and 3.png have the same number'):
        load_disfa(root, pictures='frames')
    (root / 'frames/SN001/3.png').rename(root / 'frames/SN001/other_00099.png')
    with pytest.raises(ReleaseError, match='named in 2 ways'):
        load_disfa(root, pictures='frames')
    with pytest.raises(ValueError, match='a folder under'):
        load_disfa(root, pictures=str(root / 'frames'))


# ---------------------------------------------------------------- copies that differ

def test_dropping_bad_landmarks_needs_their_list(trees, monkeypatch):
    kept = load_disfa(trees[0] / 'disfa', rule=EVERY, drop_bad_landmarks=True)
    assert len(kept.records) == 4 * 30 - 1
    monkeypatch.setattr(laboratory, 'facts', lambda name: None)
    with pytest.raises(ReleaseError, match='disfa_bad_landmarks.csv of the project, is not found from here'):
        load_disfa(trees[0] / 'disfa', drop_bad_landmarks=True)


def test_facts_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(laboratory.facts('bp4d_sequences.csv')) == 328


def swap_case(root):
    "Every name with the case of its letters turned."
    for path in sorted(root.rglob('*'), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.swapcase()))


@pytest.mark.parametrize('name, load', [
    ('bp4d', load_bp4d), ('disfa', load_disfa), ('gft', lambda root, **how: load_gft(root, CODES, test=['002a'], **how))])
def test_the_case_of_letters_never_matters(copy, name, load):
    root = copy(name)
    before = load(root, rule=EVERY)
    swap_case(root)
    after = load(root, rule=EVERY)
    columns = ['split', 'frame', 'au_present', 'au_absent']
    assert len(after.records) == len(before.records) and (after.records[columns].astype(str) == before.records[columns].astype(str)).all(None)
    assert after.left_out.reason.tolist() == before.left_out.reason.tolist()


def test_a_sequence_is_never_dropped_unsaid(copy):
    root = copy('bp4d')
    labels = root / 'AUCoding/AU_OCC'
    (labels / 'F001_T1.csv').rename(labels / 'F001-T1.csv')
    bp4d = load_bp4d(root, rule=EVERY)
    assert bp4d.left_out.query("reason == 'its name is not like F001_T1.csv'").file.tolist() == ['AUCoding/AU_OCC/F001-T1.csv']
    shutil.copy(labels / 'F001_T2.csv', labels / 'f001_t2.csv')
    with pytest.raises(ReleaseError, match='F001_T2.csv and f001_t2.csv code the same sequence'):
        load_bp4d(root)
    root = copy('disfa')
    (root / 'ActionUnit_Labels/SN001').rename(root / 'ActionUnit_Labels/SN1')
    assert load_disfa(root).left_out.file.tolist() == ['ActionUnit_Labels/SN1']


def test_a_file_that_codes_no_frame(copy):
    path = copy('bp4d') / 'AUCoding/AU_OCC/F001_T1.csv'
    path.write_text(path.read_text().splitlines()[0] + '\n')
    with pytest.raises(ReleaseError, match='F001_T1.csv: 1 fault\n  codes no frame'):
        load_bp4d(path.parents[2])
    path = copy('gft') / 'gft_001A.csv'
    path.write_text(path.read_text().splitlines()[0] + '\n')
    with pytest.raises(ReleaseError, match='gft_001A.csv: 1 fault\n  codes no frame'):
        load_gft(path.parent, CODES, test=3)


def test_two_columns_of_one_au(copy):
    path = copy('bp4d') / 'AUCoding/AU_OCC/F001_T1.csv'
    head, *rows = path.read_text().splitlines()
    path.write_text('\n'.join([head + ',01', *(row + ',1' for row in rows)]))
    with pytest.raises(ReleaseError, match="F001_T1.csv.*\n.*AU 1 has several columns, '1' and '01'"):
        load_bp4d(path.parents[2])
    path = copy('gft') / 'gft_001A.csv'
    head, *rows = path.read_text().splitlines()
    path.write_text('\n'.join([head + ',AU1', *(row + ',1' for row in rows)]))
    with pytest.raises(ReleaseError, match="gft_001A.csv.*\n.*AU 1 has several columns, 'AU01' and 'AU1'"):
        load_gft(path.parent, CODES, test=3)


def test_pictures_of_bp4d_with_the_same_number(copy):
    root = copy('bp4d')
    folder = root / 'Sequences(2D+3D)/F001/T1'
    first = sorted(folder.iterdir())[0]
    shutil.copy(first, folder / f'0{first.name}')
    with pytest.raises(ReleaseError, match='F001.T1: 1 fault\n.* have the same number'):
        load_bp4d(root)


def relabel(root, change):
    "Another text in all label files of SN001."
    for path in (root / 'ActionUnit_Labels/SN001').glob('*.txt'):
        path.write_text(change(path.read_text()))


@pytest.mark.parametrize('change, told', [
    (lambda text: '\n'.join(f'{int(frame) - 1},{level}' for frame, level in (row.split(',') for row in text.split())),
     "line 1, column 'frame', value '0': must be a whole number from 1"),
    (lambda text: text.replace(',', ' '), "line 1, value '1 .': must be a frame number, one comma and an intensity"),
    (lambda text: text.replace('\n', ',1\n'), "line 1, value '1,.,1': must be a frame number, one comma and an intensity"),
    (lambda text: '\n\n', 'the file is empty')])
def test_a_label_file_of_disfa_at_fault(copy, change, told):
    root = copy('disfa')
    relabel(root, change)
    with pytest.raises(ReleaseError, match=f'SN001_au1.txt: .*\n  {told}'):
        load_disfa(root)


def test_all_faults_of_a_file_are_counted(copy):
    root = copy('disfa')
    relabel(root, lambda text: re.sub(r',\d', ',7', text))
    with pytest.raises(ReleaseError, match='SN001_au1.txt: 30 faults') as error:
        load_disfa(root)
    assert len(error.value.faults) == 30 and '... and 10 more' in str(error.value)


# ---------------------------------------------------------------- GFT's description

@pytest.mark.parametrize('form, told', [
    (dict(codes={'0': 0, '1': 1, '-1': 2}), "codes, '-1' as 2: must mean 1 .present., 0 .absent. or None"),
    (dict(codes={'0': 0, '1': 1, '-1': 'absent'}), "codes, '-1' as 'absent'"),
    (dict(subject='(\\d{3}[A-Z'), 'subject, value .* is no regular expression'),
    (dict(subject='\\d{3}[A-Z]'), 'subject, value .* must hold a group'), (dict(au='AU('), 'au, value'),
    (dict(image='{sub}/{frame}.jpg'), 'image, value .*sub'),
    (dict(image='{}/{frame}.jpg'), 'image, value'), (dict(image='{subject}.jpg'), 'image, value .* must name person and frame'),
    (dict(labels=''), 'labels, value')])
def test_a_description_of_gft_at_fault(form, told):
    with pytest.raises(ReleaseError, match=f'GftFormat: 1 fault\n  {told}'):
        GftFormat(**form)


def test_codes_of_gft_are_numbers_however_they_are_written(trees):
    records = [load_gft(trees[0] / 'gft', GftFormat(codes=codes), test=3).records
               for codes in ({'0': 0, '1': 1, '-1': None}, {0: 0, 1: 1, -1: MISSING}, {'0.0': 0.0, '01': 1, ' -1.0 ': None})]
    assert records[0].equals(records[1]) and records[0].equals(records[2])


def test_two_files_of_one_person(copy):
    root = copy('gft')
    shutil.copy(root / 'gft_001A.csv', root / 'gft_001A_copy.csv')
    with pytest.raises(ReleaseError, match='gft_001A_copy.csv.*\n.*second file of 001A, beside gft_001A.csv'):
        load_gft(root, CODES, test=3)


def test_somebody_must_be_left_to_train_on(trees):
    with pytest.raises(ValueError, match='test is 6: a number of test people below 6'):
        load_gft(trees[0] / 'gft', CODES, test=6)
    with pytest.raises(ValueError, match='test is F999: nobody of this name is coded'):
        load_bp4d(trees[0] / 'bp4d', test='F999')
    assert set(load_bp4d(trees[0] / 'bp4d', test='f001').records.query("split == 'test'").subject) == {'F001'}
    for how in (dict(val=5), dict(seed=-1)):
        with pytest.raises(ValueError, match=next(iter(how))):
            load_bp4d(trees[0] / 'bp4d', **how)


# ---------------------------------------------------------------- nothing there, and less there than known

@pytest.mark.parametrize('name, gone, load, told', [
    ('bp4d', 'Sequences(2D+3D)', load_bp4d, 'looked for F001/T1/1.jpg, '),
    ('disfa', 'Videos_LeftCamera', load_disfa, 'Videos_LeftCamera/LeftVideoSN001_comp.avi, '),
    ('gft', '00*', lambda root: load_gft(root, CODES, test=3), '001A/1.jpg, ')])
def test_a_set_without_any_picture_stops(copy, name, gone, load, told):
    root = copy(name)
    for path in [root / gone] if '(' in gone else root.glob(gone):
        shutil.rmtree(path)
    with pytest.raises(ReleaseError, match=rf'labels of \d+ pictures were read, none of the pictures was found below this folder: .*{told}'):
        load(root)


def test_a_label_file_cut_at_a_line_is_shown(copy):
    root = copy('disfa')
    assert 'SN001: 30, known 4845' in str(load_disfa(root))
    relabel(root, lambda text: '\n'.join(text.split()[:12]) + '\n')
    disfa = load_disfa(root)
    assert 'SN001: 12, known 4845' in str(disfa) and 'SN010: 29, known 4844' in str(disfa)
    assert '23 known sequences without labels: SN004, SN005' in str(disfa)
    assert disfa.differing.sequence.tolist()[:5] == [*SUBJECTS, 'SN004'] and len(disfa.differing) == 27
    bp4d = load_bp4d(copy('bp4d'))
    assert 'F001/T1: 30, known 553' in str(bp4d) and '320 known sequences without labels' in str(bp4d)
