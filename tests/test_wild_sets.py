"""RAF-AU, EmotioNet, AffectNet, RAF-DB and FaceME: each loader on a tree in the official layout, against what is truly there."""
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.emotion_sets import AFFECTNET_ROWS, affectnet_layouts, faceme_emotion, load_affectnet, load_faceme, load_rafdb, npy_label
from expblip.facs import AUS, EMOTIONS
from expblip.fixtures_wild import write_affectnet, write_emotionet, write_faceme, write_rafau, write_rafdb
from expblip.records import au_labels, check_records
from expblip.releases import ReleaseError, on_disk
from expblip.wild import EMOTIONET_AUS, listed_once, load_emotionet, load_rafau, read_aus, read_token

N = 40
calm = settings(deadline=None, max_examples=60)  # a busy machine is no fault
SETS = {
    'rafau': (lambda at: write_rafau(at, N, 1), lambda at, **how: load_rafau(at, **how)),
    'emotionet': (lambda at: write_emotionet(at, N, 1), lambda at, **how: load_emotionet(at, **how)),
    'emotionet-automatic': (lambda at: write_emotionet(at, N, 1, 'txt'), lambda at, **how: load_emotionet(at, 'automatic', **how)),
    'affectnet-classic': (lambda at: write_affectnet(at, N, 1), lambda at, **how: load_affectnet(at, **how)),
    'affectnet-npy': (lambda at: write_affectnet(at, N, 1, 'npy'), lambda at, **how: load_affectnet(at, **how)),
    'affectnet-json': (lambda at: write_affectnet(at, N, 1, 'json'), lambda at, **how: load_affectnet(at, **how)),
    'rafdb': (lambda at: write_rafdb(at, N, 1), lambda at, **how: load_rafdb(at, **how)),
    'rafdb-basic': (lambda at: write_rafdb(at, N, 1, 'basic'), lambda at, **how: load_rafdb(at, 'basic', **how)),
    'faceme': (lambda at: write_faceme(at, N, 1), lambda at, **how: load_faceme(at, **how)),
}

@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    "Each tree once, with its truth."
    made = {}
    def tree(name):
        if name not in made:
            at = tmp_path_factory.mktemp(name)
            made[name] = (at, SETS[name][0](at))
        return made[name]
    return tree

@pytest.fixture
def own(trees, tmp_path):
    "A copy of a tree that may be changed."
    def copy(name):
        shutil.copytree(trees(name)[0], tmp_path / name)
        return tmp_path / name
    return copy

def files(release): return release.records['id'].str.partition('/')[2]
def found(release): return dict(zip(release.counts['what'], release.counts['found']))
def expected(release): return dict(zip(release.counts['what'], release.counts['expected']))
def rewrite(path: Path, old: str, new: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

# ---------------------------------------------------------------- all sets

@pytest.mark.parametrize('name', SETS)
def test_every_record_is_true(trees, name):
    "Pictures that can be used are records with their true labels; all others are left out for the true reason."
    at, truth = trees(name)
    release = SETS[name][1](at, decode=True)
    records = check_records(release.records).assign(file=files(release)).set_index('file')
    good, bad = truth[truth['reason'] == ''].set_index('file'), truth[truth['reason'] != ''].set_index('file')
    assert sorted(records.index) == sorted(good.index) and len(good) >= 28
    for column in ('au_present', 'au_absent', 'emotions'):
        assert records.loc[good.index, column].tolist() == good[column].tolist(), column
    known = good['split'].notna()
    assert records.loc[good.index[known], 'split'].replace('val', 'train').tolist() == good.loc[known, 'split'].tolist()
    assert all(Path(image).is_file() for image in records['image'])
    left = release.left_out.set_index('file')['reason']
    assert sorted(left.index) == sorted(bad.index)
    assert all(left[file].startswith(reason) for file, reason in bad['reason'].items())
    assert {'missing', 'empty file', 'unreadable'} <= {re.sub(r' \(.*', '', reason) for reason in left}

@pytest.mark.parametrize('name', SETS)
def test_counts_and_splits(trees, name):
    at, _ = trees(name)
    release = SETS[name][1](at)
    parts, count = Counter(release.records['split']), found(release)
    assert count['images'] == len(release.records) == sum(parts.values())
    assert count['test images'] == parts['test'] and count['training images (with validation)'] == parts['train'] + parts['val']
    assert parts['val'] >= 1 and (parts['test'] == 0) == (name == 'faceme')
    assert release.unverified == (name == 'faceme') and ('unverified format' in str(release)) == (name == 'faceme')
    assert Counter(SETS[name][1](at, val=0).records['split'])['val'] == 0
    again, other = SETS[name][1](at).records, SETS[name][1](at, seed=5).records
    assert again.equals(release.records) and sorted(other['id']) == sorted(again['id'])
    assert other['split'].tolist() != again['split'].tolist()

@pytest.mark.parametrize('name', SETS)
def test_broken_files_take_decoding(trees, name):
    at, _ = trees(name)
    quick, whole = SETS[name][1](at), SETS[name][1](at, decode=True)
    more = set(whole.left_out['file']) - set(quick.left_out['file'])
    assert len(more) == 1 and whole.left_out.set_index('file')['reason'][more.pop()].startswith('unreadable')

@pytest.mark.parametrize('name', SETS)
def test_wrong_folder(name, tmp_path):
    with pytest.raises(ReleaseError):
        SETS[name][1](tmp_path / 'none')
    with pytest.raises(ReleaseError):
        SETS[name][1](tmp_path)

def test_shares_are_shares(trees):
    for how in ({'test': 1.5}, {'val': -0.1}):
        with pytest.raises(ValueError, match='a share from 0 to 1'):
            load_rafau(trees('rafau')[0], **how)

def test_paper_numbers():
    "Shares of the random splits give the paper's counts for its numbers of pictures; nothing is left over."
    def tested(n, share): return n - int(round((1 - share) * n, 6))
    assert tested(4601, 868 / 4601) == 868 and tested(21163, 0.1) == 2117
    assert sum(AFFECTNET_ROWS) == 414799 and sum(AFFECTNET_ROWS[:8]) == 287651

def test_writers_are_quick_and_repeatable(tmp_path):
    assert write_rafdb(tmp_path / 'a', 11, 3).equals(write_rafdb(tmp_path / 'b', 11, 3))
    names = [sorted(path.relative_to(at).as_posix() for path in at.rglob('*')) for at in (tmp_path / 'a', tmp_path / 'b')]
    assert names[0] == names[1]
    assert all((tmp_path / 'a' / x).read_bytes() == (tmp_path / 'b' / x).read_bytes() for x in names[0] if (tmp_path / 'a' / x).is_file())

# ---------------------------------------------------------------- what they share

names = st.sampled_from(['a.jpg', 'b.jpg', 'c.jpg'])

@calm
@given(st.lists(st.tuples(names, st.sampled_from(['1', '2'])), max_size=12))
def test_listed_once(rows):
    keep, faults = listed_once([n for n, _ in rows], [label for _, label in rows], [f'line {i}' for i in range(len(rows))])
    kept = [row for row, first in zip(rows, keep, strict=True) if first]
    assert sorted(n for n, _ in kept) == sorted({n for n, _ in rows})
    first = dict(reversed(rows))
    assert len(faults) == sum(first[n] != label for n, label in rows)

def test_on_disk(tmp_path):
    for name in ('a/One.JPG', 'b/two.tif', 'top.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    asked = [['a/one.jpg'], ['a/two.tif', 'b/two.TIF'], ['TOP.png'], ['gone/x.jpg', 'a/x.jpg']]
    assert on_disk(tmp_path, asked) == ['a/One.JPG', 'b/two.tif', 'top.png', 'gone/x.jpg']

@pytest.mark.parametrize('name', SETS)
def test_the_case_of_letters_never_matters(own, trees, name):
    at = own(name)
    for path in sorted(at.rglob('*'), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.swapcase()))
    release, before = SETS[name][1](at), SETS[name][1](trees(name)[0])
    columns = ['split', 'au_present', 'au_absent', 'emotions']
    def said(records): return sorted(map(str, records.assign(file=records['id'].str.lower())[['file', *columns]].values.tolist()))
    assert said(release.records) == said(before.records) and len(release.left_out) == len(before.left_out)
    assert all(Path(image).is_file() for image in release.records['image'])

@pytest.mark.parametrize('name', SETS)
def test_a_set_without_any_picture_stops(own, name):
    at = own(name)
    for path in sorted(at.rglob('*')):
        if path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.tif', '.bmp'):
            path.unlink()
    with pytest.raises(ReleaseError) as error:
        SETS[name][1](at)
    assert re.search(r'labels of \d+ pictures were read, none of the pictures was found below this folder: looked for \S+\.\w+, ', str(error.value))

# ---------------------------------------------------------------- RAF-AU

@calm
@given(st.sets(st.integers(1, 99)), st.randoms(use_true_random=False))
def test_tokens_are_read_back(numbers, rng):
    "Sides, strengths, zeros and repeated AUs never change which AUs were seen."
    twice = [n for n in numbers for _ in range(rng.choice([1, 2]))]
    tokens = [f'{rng.choice(["", *"ULRTBlr"])}{rng.choice(["", "0"])}{n}{rng.choice(["", *"ABCDEe"])}' for n in twice]
    rng.shuffle(tokens)
    assert read_aus('+'.join(tokens) or rng.choice(['null', 'NULL'])) == numbers

@calm
@given(st.text(max_size=6))
def test_no_text_is_misread(text):
    "A text is an AU of its own digits, or an error."
    try:
        assert str(read_token(text)) == re.sub(r'^0+', '', re.sub(r'\D', '', text)) and len(text) <= 6
    except ValueError as error:
        assert repr(text) in str(error)

@pytest.mark.parametrize('label', ['', '+', '12+', '12++4', 'LR12', '12F', '1.5', '100', '0', 'AU12', 'nul', '12 4', '-1', '١'])
def test_bad_labels(label):
    with pytest.raises(ValueError, match='is no AU'):
        read_aus(label)

def test_rafau_absent_means_coded(trees):
    "By default the AUs of the paper that occur count as annotated in every picture; null has all of them absent."
    at, _ = trees('rafau')
    text = (at / 'RAFAU_label.txt').read_text()
    occur = sorted(set(AUS) & {n for line in text.splitlines() if 'null' not in line for n in read_aus(line.split()[1])})
    records = load_rafau(at).records
    assert all(sorted(yes + no) == occur for yes, no in zip(records['au_present'], records['au_absent'], strict=True))
    assert not set(occur) & {32, 39} and '32' in text and 'L39' in text
    null = [line.split()[0][:4] for line in text.splitlines() if line.split()[1] == 'null']
    rest = records[records['image'].str.contains('|'.join(null))]
    assert len(rest) and all(yes == [] for yes in rest['au_present'])

def test_rafau_chosen_aus(trees):
    records = load_rafau(trees('rafau')[0], aus=[12, 27]).records
    assert all(sorted(yes + no) == [12, 27] for yes, no in zip(records['au_present'], records['au_absent'], strict=True))
    assert np.isnan(au_labels(records, [4])).all()
    with pytest.raises(ValueError, match='unknown action unit 13'):
        load_rafau(trees('rafau')[0], aus=[13])

def test_rafau_self_check(trees):
    at, _ = trees('rafau')
    release = load_rafau(at)
    text = (at / 'RAFAU_label.txt').read_text()
    assert found(release)['lines'] == N + 1 and found(release)['lines that repeat one'] == 1
    assert found(release)['lines of null'] == text.count('null') > 0
    assert expected(release) | {'lines that repeat one': 0} == {
        'lines': 4601, 'lines of null': 253, 'different tokens': 77, 'lines that repeat one': 0, 'images': 4601,
        'training images (with validation)': 3733, 'test images': 868}
    assert found(release)['test images'] == found(release)['images'] - int(round((1 - 868 / 4601) * found(release)['images'], 6))

def test_rafau_faults(own):
    "All faults at once, each with line and value; contradictions too."
    path = own('rafau') / 'RAFAU_label.txt'
    lines = path.read_text().splitlines()
    assert 'null' not in lines[1]
    path.write_text('\n'.join([*lines[:2], '0050.jpg', 'a.jpg 12 4', '', '0051.jpg 12+X3', '0002.jpg null', 'x 4']))
    with pytest.raises(ReleaseError) as error:
        load_rafau(path.parent)
    got = '\n'.join(error.value.faults)
    assert len(error.value.faults) == 5
    for part in ("line 3, value '0050.jpg'", "line 4, value 'a.jpg 12 4'", "line 6, value '0051.jpg 12+X3'", "'X3' is no AU", "line 8, value 'x 4'",
                 'line 7, value', 'is listed before, line 2'):
        assert part in got, part
    assert 'RAFAU_label.txt' in str(error.value)

def test_rafau_names_without_zeros(own):
    "A list that writes 1.jpg means 0001_aligned.jpg."
    at = own('rafau')
    before = load_rafau(at).records
    path = at / 'RAFAU_label.txt'
    path.write_text(re.sub(r'(?m)^0+', '', path.read_text()))
    assert load_rafau(at).records.equals(before)

def test_rafau_without_any_au(tmp_path):
    (tmp_path / 'RAFAU_label.txt').write_text('0001.jpg null\n0002.jpg 32\n')
    with pytest.raises(ReleaseError, match="none of the paper's AUs"):
        load_rafau(tmp_path)

# ---------------------------------------------------------------- EmotioNet

SHEET = 'EmotioNet_FACS_aws_2020_24600.csv'

@pytest.mark.parametrize('name', ['emotionet', 'emotionet-automatic'])
def test_emotionet_missing_is_never_absent(trees, name):
    "Cell by cell against the file itself: 999 is nan, and nothing else is."
    at, _ = trees(name)
    release = SETS[name][1](at)
    if name == 'emotionet':
        table = pd.read_csv(at / SHEET)
        table.columns = [column.strip("'") for column in table.columns]
    else:
        table = pd.concat([pd.read_csv(path, sep='\t', header=None) for path in sorted(at.glob('dataFile_*.txt'))])
        table.columns = ['URL', 'URL orig', *(f'AU {k}' for k in range(1, 61))]
    table.index = ['images/' + '/'.join(url.strip("'").split('/')[-2:]) for url in table['URL']]
    table = table[~table.index.duplicated()]
    want = table.loc[files(release), [f'AU {k}' for k in EMOTIONET_AUS]].to_numpy(float)
    want[want == 999] = np.nan
    assert np.isnan(want).any()
    np.testing.assert_array_equal(au_labels(release.records, EMOTIONET_AUS), want)

def test_emotionet_self_check(trees):
    release = load_emotionet(trees('emotionet')[0])
    assert found(release)['rows'] == N + 1 and found(release)['rows that repeat one'] == 1
    want = expected(release)
    assert (want['rows'], want['images'], want['training images (with validation)'], want['test images']) == (24600, 21163, 19046, 2117)
    assert pd.DataFrame({'e': load_emotionet(trees('emotionet-automatic')[0], 'automatic').counts['expected']})['e'].isna().all()

def test_emotionet_stems_clash(own, trees):
    "The same name in two folders is two pictures; in one folder it is neither."
    at = own('emotionet')
    stems = files(load_emotionet(at)).str.rpartition('/')[2]
    twins = stems[stems.duplicated()].tolist()
    assert twins == ['N_0000000001_00002.jpg']
    for path in sorted((at / 'images').glob('*/*.jpg')):
        shutil.move(path, at / 'images' / path.name)
    flat = load_emotionet(at)
    assert not files(flat).str.endswith(twins[0]).any()
    assert flat.left_out.query('reason == "missing"')['file'].str.endswith(twins[0]).sum() == 2
    (at / 'images').rename(at / 'imgs')
    assert len(load_emotionet(at).records) == len(flat.records)

def test_emotionet_other_aus(trees):
    records = load_emotionet(trees('emotionet')[0], aus=(12, 43)).records
    assert {n for yes, no in zip(records['au_present'], records['au_absent'], strict=True) for n in (*yes, *no)} == {12, 43}

def test_emotionet_faults(own):
    "Unknown codes, contradictions, empty addresses and a missing column name file, line, column and value."
    at = own('emotionet')
    path = at / SHEET
    lines = path.read_text().splitlines()
    assert lines[0].startswith("'URL','URL orig','AU 1'") and '"\'http://elsewhere.example/5,.jpg\'"' in lines[6]
    cells = lines[2].split(',')
    path.write_text('\n'.join([*lines[:2], ','.join([*cells[:2], '2', *cells[3:13], 'yes', *cells[14:]]), *lines[3:]]))
    with pytest.raises(ReleaseError) as error:
        load_emotionet(at)
    assert len(error.value.faults) == 2 and SHEET in str(error.value)
    assert "line 3, column 'AU 1', value '2': must be 1 (1), 0 (0), 999 (not annotated)" in str(error.value)
    assert "line 3, column 'AU 12', value 'yes'" in str(error.value)
    first = lines[1].split(',')
    first[2:62] = ['1'] * 60
    path.write_text('\n'.join([*lines, ','.join(first), ','.join(["''", *first[1:]])]))
    with pytest.raises(ReleaseError) as error:
        load_emotionet(at)
    assert len(error.value.faults) == 2 and f'{SHEET} line {len(lines) + 1}' in str(error.value) and "column 'URL', value ''" in str(error.value)
    path.write_text('\n'.join([lines[0].replace("'AU 5'", "'AU five'"), *lines[1:]]))
    with pytest.raises(ReleaseError, match="column 'AU 5' is missing"):
        load_emotionet(at)

def test_emotionet_two_columns_of_one_au(own):
    at = own('emotionet')
    rewrite(at / SHEET, "'AU 2'", "'AU 01'")
    with pytest.raises(ReleaseError, match="AU 1 has several columns, \"'AU 1'\" and \"'AU 01'\""):
        load_emotionet(at)

def test_emotionet_automatic_faults(own):
    at = own('emotionet-automatic')
    path = at / 'dataFile_0002.txt'
    text = path.read_text()
    path.write_text(text.replace('\t0\t', '\t-\t', 1))
    with pytest.raises(ReleaseError, match=r"dataFile_0002.txt: 1 fault\n  line 1, column 'AU \d+', value '-'"):
        load_emotionet(at, 'automatic')
    path.write_text('\n'.join(line.rpartition('\t')[0] for line in text.splitlines()))
    with pytest.raises(ReleaseError, match='has 61 columns'):
        load_emotionet(at, 'automatic')

def _spreadsheet(at: Path):
    pd.read_csv(at / SHEET, header=None, dtype=str, keep_default_na=False).to_excel(at / SHEET.replace('.csv', '.xlsx'), header=False, index=False)
    (at / SHEET).unlink()

def test_emotionet_spreadsheet(own, trees):
    at = own('emotionet')
    _spreadsheet(at)
    assert load_emotionet(at).records.drop(columns='image').equals(load_emotionet(trees('emotionet')[0]).records.drop(columns='image'))

def test_emotionet_without_openpyxl(own, monkeypatch):
    at = own('emotionet')
    (at / SHEET).rename(at / SHEET.replace('.csv', '.xlsx'))
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    with pytest.raises(ReleaseError, match=r'save the sheet as \.csv beside it, or pip install openpyxl'):
        load_emotionet(at)

# ---------------------------------------------------------------- AffectNet

FORMS = ('classic', 'npy', 'json')

def test_affectnet_layouts_agree(trees):
    "The three releases hold the same pictures; each layout is recognised, and gives the same emotions."
    releases = [load_affectnet(trees(f'affectnet-{form}')[0], decode=True) for form in FORMS]
    assert [list(affectnet_layouts(trees(f'affectnet-{form}')[0])) for form in FORMS] == [[form] for form in FORMS]
    for k in (1, 2):
        assert releases[k].records['emotions'].tolist() == releases[0].records['emotions'].tolist()
        assert releases[k].left_out['reason'].tolist() == releases[0].left_out['reason'].tolist()
    endings = {Path(file).suffix for file in files(releases[0])}
    assert {'.jpg', '.JPG', '.png', '.bmp', '.tif', '.TIF'} <= endings
    assert all(len(names) == 1 and names[0] in EMOTIONS for names in releases[0].records['emotions'])

def test_affectnet_without_emotion(trees):
    "None, uncertain, no face and blank are left out and counted; nothing of them becomes a record."
    for form in FORMS:
        release = load_affectnet(trees(f'affectnet-{form}')[0])
        reasons = Counter(release.left_out['reason'])
        assert all(reasons[f'class {name}'] == 1 for name in ('none', 'uncertain', 'no face')) and reasons['not annotated'] == 1
        assert [found(release)[f'train pictures of {name}'] for name in ('none', 'uncertain', 'no face')] == [1, 1, 1]

def test_affectnet_self_check(trees):
    for form, listed in (('classic', [414799, 5500, 3803, 82415]), ('npy', [287651, 3999, 3803, 0]), ('json', [-1] * 4)):
        release = load_affectnet(trees(f'affectnet-{form}')[0])
        want = expected(release)
        what = ['train pictures listed', 'test pictures listed', 'train pictures of disgust', 'train pictures of no face']
        assert release.counts.set_index('what')['expected'].fillna(-1)[what].tolist() == listed
        assert (want['training images (with validation)'], want['test images']) == (287618, 4000)
        again = found(release)['of them listed before']
        assert again == (form == 'classic') and found(release)['train pictures listed'] + found(release)['test pictures listed'] == N + again

def test_affectnet_two_layouts(own, trees):
    at = own('affectnet-npy')
    shutil.copytree(trees('affectnet-classic')[0], at, dirs_exist_ok=True)
    with pytest.raises(ReleaseError, match='classic and npy; say which'):
        load_affectnet(at)
    assert len(load_affectnet(at, 'npy').records) == len(load_affectnet(at, 'classic').records)
    with pytest.raises(ReleaseError, match="does not hold the layout 'json'"):
        load_affectnet(at, 'json')
    with pytest.raises(ValueError, match='classic, npy, json'):
        load_affectnet(at, 'csv')

def test_affectnet_lists_one_level_up(own, trees):
    "Some copies keep the lists, or the pictures, one level up."
    at = own('affectnet-classic')
    for path in (at / 'Manually_Annotated_file_lists').iterdir():
        shutil.move(path, at / path.name)
    shutil.move(at / 'Manually_Annotated' / 'Manually_Annotated_Images', at / 'Manually_Annotated_Images')
    (at / 'Manually_Annotated').rmdir()
    assert load_affectnet(at).records['emotions'].tolist() == load_affectnet(trees('affectnet-classic')[0]).records['emotions'].tolist()

def test_affectnet_pictures_listed_twice(own, trees):
    "The lists are known to name pictures twice: the same again counts once; with another class, or in both lists, the picture is left out."
    at, plain = own('affectnet-classic'), load_affectnet(trees('affectnet-classic')[0])
    path, other = (at / 'Manually_Annotated_file_lists' / f'{name}.csv' for name in ('training', 'validation'))
    lines = path.read_text().splitlines()
    def labelled(line, label): return ','.join([*line.split(',')[:6], label, '0', '0'])
    used = set(plain.records['id'])
    def there(line, names): return any(line.split(',')[0] in name for name in names)
    again, torn, both = [line for line in lines[1:] if there(line, used)][:3]
    path.write_text('\n'.join([*lines, again, labelled(torn, '7' if torn.split(',')[6] != '7' else '6')]) + '\n')
    other.write_text(other.read_text() + both + '\n')
    found = load_affectnet(at)
    lost = used - set(found.records['id'])
    assert len(lost) == 2 and there(torn, lost) and there(both, lost) and not there(again, lost)
    assert (found.left_out['reason'] == 'listed again with another class or split').sum() == 2
    listed, before = found.counts.set_index('what')['found'], plain.counts.set_index('what')['found']
    assert listed['of them listed before'] - before['of them listed before'] == 3

def test_affectnet_classic_faults(own):
    "Unknown classes: all named at once."
    at = own('affectnet-classic')
    path, other = (at / 'Manually_Annotated_file_lists' / f'{name}.csv' for name in ('training', 'validation'))
    lines = path.read_text().splitlines()
    def labelled(line, label): return ','.join([*line.split(',')[:6], label, '0', '0'])
    path.write_text('\n'.join([*lines[:2], labelled(lines[2], '11'), *lines[3:]]) + '\n')
    seen = other.read_text().splitlines()
    other.write_text('\n'.join([*seen[:2], labelled(seen[2], 'x'), *seen[3:]]) + '\n')
    with pytest.raises(ReleaseError) as error:
        load_affectnet(at)
    got = error.value.faults
    assert len(got) == 2
    assert "training.csv line 3, column 'expression', value '11': must be a whole number from 0 to 10" in got[0]
    assert "validation.csv line 3, column 'expression', value 'x'" in got[1]
    path.write_text('\n'.join([lines[0], lines[1] + ',5', lines[2]]))
    with pytest.raises(ReleaseError, match='line 2: 10 fields, but the header has 9'):
        load_affectnet(at)
    path.write_text('\n'.join([lines[0].replace('expression', 'emotion'), *lines[1:]]))
    with pytest.raises(ReleaseError, match="column 'expression' is missing"):
        load_affectnet(at)

def test_affectnet_npy_faults(own):
    "Objects are never loaded; a wrong class and a wrong shape name the file."
    at = own('affectnet-npy')
    notes = at / 'train_set' / 'annotations'
    assert {np.load(notes / f'{k}_exp.npy').dtype.kind for k in range(8)} == {'U', 'i'}
    np.save(notes / '0_exp.npy', np.array(12))
    with pytest.raises(ReleaseError, match="train_set/annotations/0_exp.npy, value '12'"):
        load_affectnet(at)
    np.save(notes / '0_exp.npy', np.array([1, 2]))
    np.save(notes / '1_exp.npy', np.array({'a': 1}), allow_pickle=True)
    (notes / '2_exp.npy').write_bytes(b'')
    with pytest.raises(ReleaseError) as error:
        load_affectnet(at)
    assert len(error.value.faults) == 3 and 'shape (2,)' in error.value.faults[0]
    assert all(f'{k}_exp.npy: is no readable array' in error.value.faults[k] for k in (1, 2))

@calm
@given(st.integers(0, 10), st.sampled_from(['U2', 'S2', 'i1', 'i8', 'f4']), st.sampled_from([(), (1,), (1, 1)]))
def test_npy_of_any_type(tmp_path_factory, code, kind, shape):
    path = tmp_path_factory.mktemp('npy') / '1_exp.npy'
    np.save(path, np.array(code).astype(kind).reshape(shape))
    assert float(npy_label(path)) == code

def test_affectnet_annotation_and_picture_apart(own):
    "A picture without annotation is not annotated, an annotation without picture is a missing picture, two pictures of a number are neither."
    at = own('affectnet-npy')
    images, notes = at / 'train_set' / 'images', at / 'train_set' / 'annotations'
    (notes / '0_exp.npy').unlink()
    (images / '1.jpg').unlink()
    shutil.copy(images / '2.jpg', images / '2.png')
    shutil.copy(images / '2.jpg', images / '._2.jpg')
    left = load_affectnet(at).left_out.set_index('file')['reason']
    assert left['train_set/images/0.jpg'] == 'not annotated' and left['train_set/images/1.jpg'] == 'missing'
    assert left['train_set/images/2.jpg'] == 'several pictures of this name' and '._2' not in ''.join(left.index)

def test_affectnet_json_faults(own):
    at = own('affectnet-json')
    notes = at / 'human_annotated' / 'train_set' / 'annotations'
    (notes / '0.json').write_text(json.dumps({'expression': 1}))
    (notes / '1.json').write_text('{"human-label": 1')
    with pytest.raises(ReleaseError) as error:
        load_affectnet(at)
    assert len(error.value.faults) == 2 and "0.json: has no 'human-label', but expression" in error.value.faults[0]
    for value in ('true', '"happy"', '[1]', '1.5'):
        (notes / '1.json').write_text(f'{{"human-label": {value}}}')
        (notes / '0.json').write_text('{"human-label": "1"}')
        with pytest.raises(ReleaseError, match='1.json, value .*must be a whole number from 0 to 10'):
            load_affectnet(at)

# ---------------------------------------------------------------- RAF-DB

def test_rafdb_official_split_and_names(trees):
    at, _ = trees('rafdb')
    release = load_rafdb(at, val=0)
    assert (at / 'compound' / 'EmoLabel' / 'list_patition_label.txt').is_file()
    digits = {(split, len(re.search(r'_(\d+)_aligned', file)[1])) for split, file in zip(release.records['split'], files(release), strict=True)}
    assert digits == {('train', 5), ('test', 4)}
    assert all(len(names) == 2 for names in release.records['emotions'])
    assert expected(release)['training images (with validation)'] == 3162 and expected(release)['test images'] == 792
    basic = load_rafdb(trees('rafdb-basic')[0], 'basic', val=0)
    assert expected(basic)['images'] == 15339 and set(basic.records['dataset']) == {'rafdb-basic'} and set(release.records['dataset']) == {'rafdb'}

def test_rafdb_class_tables(tmp_path):
    "The tables of the two parts, number by number."
    pairs = ['happiness surprise', 'happiness disgust', 'sadness fear', 'sadness anger', 'sadness surprise', 'sadness disgust', 'anger fear',
             'surprise fear', 'anger surprise', 'anger disgust', 'surprise disgust']
    single = ['surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutrality']
    for part, table in (('compound', pairs), ('basic', single)):
        folder = tmp_path / part
        (folder / 'EmoLabel').mkdir(parents=True)
        (folder / 'Image' / 'aligned').mkdir(parents=True)
        (folder / 'EmoLabel' / 'list_patition_label.txt').write_text(''.join(f'train_{k:05}.jpg {k}\n' for k in range(1, len(table) + 1)))
        for k in range(1, len(table) + 1):
            (folder / 'Image' / 'aligned' / f'train_{k:05}_aligned.jpg').write_bytes(b'x')
        assert [' '.join(names) for names in load_rafdb(tmp_path, part).records['emotions']] == table

def test_rafdb_original_and_spelling(own):
    at = own('rafdb')
    aligned = load_rafdb(at)
    original = load_rafdb(at, pictures='original')
    assert files(original).str.contains('Image/original/t').all() and not files(original).str.contains('aligned').any()
    assert original.records['emotions'].tolist() == aligned.records['emotions'].tolist()
    path = at / 'compound' / 'EmoLabel' / 'list_patition_label.txt'
    path.rename(path.with_name('list_partition_label.txt'))
    assert load_rafdb(at / 'compound').records['emotions'].tolist() == aligned.records['emotions'].tolist()
    with pytest.raises(ValueError, match='aligned or original'):
        load_rafdb(at, pictures='cropped')

def test_rafdb_faults(own):
    path = own('rafdb') / 'compound' / 'EmoLabel' / 'list_patition_label.txt'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([*lines, 'train_00900.jpg 12', 'val_0001.jpg 3', 'train_00901.jpg', 'train_00902.jpg 0', f'{lines[0].split()[0]} 9']))
    with pytest.raises(ReleaseError) as error:
        load_rafdb(path.parents[2])
    got, n = '\n'.join(error.value.faults), len(lines)
    assert len(error.value.faults) == 5 and 'list_patition_label.txt' in str(error.value)
    for part in (f"line {n + 1}, value '12': must be a whole number from 1 to 11", f"line {n + 2}, value 'val_0001.jpg 3'",
                 f"line {n + 3}, value 'train_00901.jpg'", f"line {n + 4}, value '0'", f"line {n + 5}, value 'train 9'"):
        assert part in got, part

def test_rafdb_empty_list(own):
    path = own('rafdb') / 'compound/EmoLabel/list_patition_label.txt'
    path.write_text('\n \n')
    with pytest.raises(ReleaseError, match='list_patition_label.txt: 1 fault\n  names no picture'):
        load_rafdb(path.parents[2])

def test_rafdb_wrong_part_and_rafce(own, tmp_path):
    with pytest.raises(ReleaseError, match='it is the list of the basic part'):
        load_rafdb(own('rafdb-basic') / 'basic')
    (tmp_path / 'RAFCE_emolabel.txt').write_text('0001.jpg 0\n')
    for part in ('compound', 'basic'):
        with pytest.raises(ReleaseError, match='this is RAF-CE: its 14 classes count from 0'):
            load_rafdb(tmp_path, part)

# ---------------------------------------------------------------- FaceME

said = st.sampled_from(['sad', 'sorrow', 'Happy', 'joy', 'talking', 'ANGRY', 'peaceful', 'fear'])

@calm
@given(st.lists(said, min_size=1, max_size=4), st.sampled_from(['/', ' / ']))
def test_faceme_synonyms(words, slash):
    "A group means the emotion of its words when they agree, whatever their case; words outside the mapping mean nothing."
    meaning = {'sad': 'sadness', 'sorrow': 'sadness', 'happy': 'happiness', 'angry': 'anger', 'fear': 'fear'}
    meant = {meaning[word.lower()] for word in words if word.lower() in meaning}
    assert faceme_emotion(slash.join(words)) == (meant.pop() if len(meant) == 1 else None)

def test_faceme_counts(trees):
    release = load_faceme(trees('faceme')[0])
    count, want = found(release), expected(release)
    assert count['pictures listed'] == N and want['pictures listed'] == 10062 and want['labels'] == 85
    assert want['pictures with a label of 2 votes'] == 10052
    assert count['labels'] == count['labels that are an emotion'] + count['labels ignored'] and count['labels ignored'] == 1
    reasons = Counter(release.left_out['reason'])
    assert reasons['no label with 2 votes'] and reasons['no emotion among its labels']

def test_faceme_votes(tmp_path):
    "Votes decide; a blank is no vote, and repeated rows count once when they agree."
    (tmp_path / 'images').mkdir()
    for name in 'abcd':
        (tmp_path / 'images' / f'{name}.jpg').write_bytes(b'x')
    head = 'image,label,votes\n'
    (tmp_path / 'labels.csv').write_text(head + 'a.jpg,sad,3\na.jpg,sad,3\na.jpg,fear,1\nb.jpg,happy,\nc.jpg,,3\nd.jpg,angry,02\n')
    release = load_faceme(tmp_path, val=0)
    assert dict(zip(files(release), release.records['emotions'], strict=True)) == {'images/a.jpg': ['sadness'], 'images/d.jpg': ['anger']}
    assert set(release.left_out['reason']) == {'no label with 2 votes'}
    assert len(load_faceme(tmp_path, min_votes=1, val=0).records.query("id == 'faceme/images/a.jpg'")['emotions'].item()) == 2
    (tmp_path / 'labels.csv').write_text(head + 'a.jpg,sad,3\na.jpg,sad,1\n,sad,3\nb.jpg,sad,-1\nb.jpg,fear,1.5\n')
    with pytest.raises(ReleaseError) as error:
        load_faceme(tmp_path)
    got = '\n'.join(error.value.faults)
    assert len(error.value.faults) == 4
    for part in ('line 3, value', 'is listed before, line 2', "line 4, column 'image', value ''", "line 5, column 'votes', value '-1'",
                 "line 6, column 'votes', value '1.5'"):
        assert part in got, part

def test_faceme_votes_have_a_limit(tmp_path):
    "A code for missing is never counted as votes: it is declared, or it is a fault."
    (tmp_path / 'images').mkdir()
    for name in 'ab':
        (tmp_path / 'images' / f'{name}.jpg').write_bytes(b'x')
    (tmp_path / 'labels.csv').write_text('image,label,votes\na.jpg,sad,3\nb.jpg,happy,999\n')
    with pytest.raises(ReleaseError, match="labels.csv: 1 fault\n  line 3, column 'votes', value '999': must be a whole number from 0 to 10"):
        load_faceme(tmp_path)
    declared = load_faceme(tmp_path, missing=['999'], val=0)
    assert files(declared).tolist() == ['images/a.jpg'] and declared.left_out['reason'].tolist() == ['no label with 2 votes']
    assert len(load_faceme(tmp_path, max_votes=999, val=0).records) == 2
    with pytest.raises(ReleaseError, match='line 2, .*from 0 to 2'):
        load_faceme(tmp_path, max_votes=2)
    for how in ({'min_votes': 0}, {'min_votes': 11}):
        with pytest.raises(ValueError, match='min_votes is'):
            load_faceme(tmp_path, **how)

def test_faceme_columns_and_mapping(own):
    at = own('faceme')
    rewrite(at / 'labels.csv', 'image,label,votes', 'file,what,n')
    with pytest.raises(ReleaseError, match="column 'image' is missing; there are file, what, n"):
        load_faceme(at)
    named = load_faceme(at, image='file', label='what', votes='n')
    talk = load_faceme(at, image='file', label='what', votes='n', emotions={'Talking': 'contempt'})
    assert len(named.records) > len(talk.records) and {tuple(x) for x in talk.records['emotions']} == {('contempt',)}
    with pytest.raises(ValueError, match='unknown emotion'):
        load_faceme(at, image='file', label='what', votes='n', emotions={'talking': 'chatty'})

# ---------------------------------------------------------------- what delivered folders do to a loader

@pytest.mark.parametrize('name, load, folder', [('rafau', load_rafau, 'aligned'), ('rafdb', load_rafdb, 'aligned')])
def test_a_folder_in_another_case(own, trees, name, load, folder):
    at = own(name)
    place = next(path for path in at.rglob(folder) if path.is_dir())
    place.rename(place.with_name(folder.capitalize()))
    assert len(load(at).records) == len(load(trees(name)[0]).records) > 0

def test_labels_without_any_picture(own):
    at = own('rafau')
    shutil.rmtree(at / 'aligned')
    with pytest.raises(ReleaseError, match=r"labels of \d+ pictures were read, none of the pictures was found below this folder: .* aligned/"):
        load_rafau(at)

def test_an_empty_rafdb_list(own):
    at = own('rafdb')
    next(at.rglob('list_*.txt')).write_text('\n')
    with pytest.raises(ReleaseError, match='names no picture'): load_rafdb(at)

def test_faceme_has_few_annotators(own):
    at = own('faceme')
    path = at / 'labels.csv'
    lines = path.read_text().splitlines()
    column = lines[0].split(',').index('votes')
    cells = lines[1].split(',')
    cells[column] = '999'
    path.write_text('\n'.join([lines[0], ','.join(cells), *lines[2:]]))
    with pytest.raises(ReleaseError, match="line 2, column 'votes', value '999': must be a whole number from 0 to 10"): load_faceme(at)
