"All eight data sets out of one folder of fixtures."
import shutil

import pytest

from expblip.datasets import FIXTURE, LOADERS, TABLE1, are_fixtures, data_sets_in, joined, load_folder, table1, write_fixtures
from expblip.kinds import PAPER_SETS, UNVERIFIED
from expblip.releases import ReleaseError
from expblip.sheets import TableError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_fixtures(tmp_path_factory.mktemp('data') / 'fixtures', n=24)


@pytest.fixture(scope='module')
def releases(root):
    return load_folder(root, decode=True)


def test_all_eight_are_there_and_keep_the_contract(releases):
    records = joined(releases)
    assert {release.name for release in releases} == set(PAPER_SETS) == set(TABLE1) and set(PAPER_SETS) <= set(LOADERS)
    assert not records.id.duplicated().any() and set(records.split) == {'train', 'val', 'test'}
    assert not (records.au_present.notna() & records.emotions.notna()).any()
    assert {release.name for release in releases if release.unverified} == set(UNVERIFIED) == {'gft', 'faceme'}


def test_the_same_seed_writes_the_same_trees(root, tmp_path):
    again = write_fixtures(tmp_path / 'again', n=24)
    one, two = ({path.relative_to(r): path.read_bytes() for path in r.rglob('*') if path.is_file()} for r in (root, again))
    assert one == two


def test_table1_says_what_is_absent(releases):
    table = table1([release for release in releases if release.name != 'bp4d'])
    assert table[table.dataset == 'bp4d'].note.tolist() == ['absent'] * 2 and table[table.dataset == 'bp4d'].found.isna().all()
    assert table[table.dataset == 'rafau'].difference.notna().all()


def test_table1_of_faceme_counts_what_the_paper_counts(releases):
    "Pictures with any label of two votes, as the 10,052; those that name an emotion are fewer, and are the records."
    faceme = next(release for release in releases if release.name == 'faceme')
    row = table1(releases).set_index('dataset').loc['faceme']
    labelled = faceme.counts.set_index('what').loc['pictures with a label of 2 votes', 'found']
    assert row['found'] == labelled > len(faceme.records) and row['difference'] == labelled - 10052
    assert f'{len(faceme.records)} of them' in row['note']


def test_a_folder_without_a_data_set(tmp_path):
    with pytest.raises(ReleaseError, match='give each its own: bp4d'):
        load_folder(tmp_path)
    with pytest.raises(ReleaseError, match='no such folder'):
        load_folder(tmp_path / 'none')


def test_names_of_folders_may_be_written_as_the_owners_write_them(tmp_path):
    for name in ('BP4D', 'RAF-DB', 'Raf_AU'):
        (tmp_path / name).mkdir()
    assert list(data_sets_in(tmp_path)) == ['bp4d', 'rafau', 'rafdb']


@pytest.mark.parametrize('text, told', [
    ('[1, 2]', 'must map'), ('x: {}', "unknown data set 'x'"), ('disfa: {limit: 2}', "unknown option 'limit'"),
    ('gft: {form: {colour: 1}}', 'colour'), ('a: [', 'is not YAML'), ('gft:', 'must map'),
    ('disfa: {threshold: two}', "disfa: threshold, value 'two': must be a whole number"),
    ('disfa: {threshold: true}', 'must be a whole number'),
    ('bp4d: {offset: "a"}', "bp4d: offset, value 'a': must be a whole number"),
    ('emotionet: {val: lots}', "emotionet: val, value 'lots': must be a number"),
    ('disfa: {test: 3}', "disfa: test, value 3: must be a text or a list of such, or null"), ('bp4d: {test: [1]}', r"bp4d: test, value \[1\]"),
    ('gft: {form: 3}', 'gft: form, value 3: must be a mapping of labels, subject'),
    ('gft: {form: {codes: [0, 1]}}', r'gft: form: codes, value \[0, 1\]: must be a mapping'),
    ('gft: {form: {codes: {"-1": absent}}}', "gft: form: codes, '-1' as 'absent': must mean 1"),
    ('disfa: {camera: middle}', "disfa: camera, value 'middle': must be left or right"),
    ('disfa: {compared: foo}', "disfa: compared, value 'foo': must be labels or from 1 or from 2 or intensity"),
    ('affectnet: {layout: foo}', "affectnet: layout, value 'foo': must be classic or npy or json, or null"),
    ('rafau: {aus: yes}', 'rafau: aus, value True'), ('bp4d: {decode: maybe}', "bp4d: decode, value 'maybe': must be true or false"),
    ('bp4d: {rule: 3}', 'bp4d: rule, value 3: must be a mapping of every, grid, gaps'), ('bp4d: {rule: {grid: 77}}', 'bp4d: rule: grid is 77'),
    ('bp4d: {rule: {phase: 1}}', "bp4d: rule: unknown option 'phase'; known are every, grid, gaps"),
    ('faceme: {emotions: 3}', 'faceme: emotions, value 3')])
def test_options_at_fault(tmp_path, text, told):
    (tmp_path / 'disfa').mkdir()
    (tmp_path / 'options.yaml').write_text(text)
    with pytest.raises(TableError, match=rf'options.yaml: 1 fault\n  .*{told}'):
        load_folder(tmp_path)


GFT = 'gft: {test: 3, form: {codes: {"0": 0, "1": 1, "-1": null}}}\n'


@pytest.mark.parametrize('text, told', [
    ('rafau: {test: 5}', 'rafau: test is 5: a share from 0 to 1'), ('disfa: {test: [SN099]}', 'disfa: test is SN099: nobody of this name is coded'),
    ('disfa: {threshold: 9}', 'disfa: threshold is 9: an intensity from 1 to 5'), ('bp4d: {val: 3}', 'bp4d: val is 3: a share from 0 to 1'),
    ('rafau: {aus: [13]}', 'rafau: unknown action unit 13: expected one of'),
    ('faceme: {emotions: {smile: glee}}', "faceme: unknown emotion 'glee'")])
def test_options_that_a_loader_refuses(root, tmp_path, text, told):
    shutil.copytree(root / text.partition(':')[0], tmp_path / text.partition(':')[0])
    (tmp_path / 'options.yaml').write_text(text)
    with pytest.raises(ReleaseError, match=f'options.yaml: 1 fault\n  {told}'):
        load_folder(tmp_path)


@pytest.mark.parametrize('text', [
    'gft: {test: 3, form: {codes: {0: 0, 1: 1, -1: null}}}', 'gft: {test: 3, form: {codes: {"0.0": 0, "1.0": 1, "-1.0": null}}}',
    'gft: {test: [002a, 002B, 002C], form: {codes: {0: 0, 1: 1, -1: null}}}'])
def test_codes_in_options(root, tmp_path, text):
    shutil.copytree(root / 'gft', tmp_path / 'gft')
    (tmp_path / 'options.yml').write_text(text)
    records = load_folder(tmp_path)[0].records
    assert len(records) and records.au_present.notna().all()


def test_the_rule_and_one_test_person_in_options(root, tmp_path):
    shutil.copytree(root / 'disfa', tmp_path / 'disfa')
    kept = []
    for text in ('disfa: {test: SN003, rule: {grid: 1}}', 'disfa: {test: [SN003], rule: {grid: 5, every: 20, gaps: same}, compared: from 2}'):
        (tmp_path / 'options.yaml').write_text(text)
        disfa = load_folder(tmp_path)[0]
        assert set(disfa.records.query("split == 'test'").subject) == {'SN003'}
        kept.append((disfa.records.split != 'test').sum())
    assert kept[0] > kept[1]


def test_a_loader_of_ones_own(root, tmp_path, monkeypatch):
    "As the how-to adds one: found by its folder, given its options, those with a type checked."
    def load_mine(root, test=(), share: float = .5, seed=0, decode=False):
        return LOADERS['rafau'](root, test=share, seed=seed, decode=decode)

    monkeypatch.setitem(LOADERS, 'mine', load_mine)
    shutil.copytree(root / 'rafau', tmp_path / 'mine')
    (tmp_path / 'options.yaml').write_text('mine: {share: 0, test: anything}')
    assert 'test' not in set(load_folder(tmp_path)[0].records.split)
    (tmp_path / 'options.yaml').write_text('mine: {share: half}')
    with pytest.raises(ReleaseError, match="mine: share, value 'half': must be a number"):
        load_folder(tmp_path)
    assert set(data_sets_in(write_fixtures(tmp_path / 'again', n=4))) == set(PAPER_SETS)


def test_two_folders_of_one_data_set(tmp_path):
    for name in ('RAF-AU', 'raf_au', 'bp4d'):
        (tmp_path / name).mkdir()
    with pytest.raises(ReleaseError, match='RAF-AU and raf_au are both rafau; keep one'):
        load_folder(tmp_path)


def test_fixtures_are_known_as_such_and_never_beside_delivered_data(root, tmp_path):
    for name in ('rafdb', 'rafau'):
        shutil.copytree(root / name, tmp_path / name)
    assert are_fixtures(tmp_path) and len(load_folder(tmp_path)) == 2
    (tmp_path / 'rafau' / FIXTURE).unlink()
    with pytest.raises(ReleaseError, match='rafdb: drawn fixtures beside delivered data sets'):
        load_folder(tmp_path)
    (tmp_path / 'rafdb' / FIXTURE).unlink()
    assert not are_fixtures(tmp_path) and len(load_folder(tmp_path)) == 2


@pytest.mark.parametrize('text, told', [
    ('disfa: {threshold: two}', "disfa: threshold, value 'two': must be a whole number"),
    ('bp4d: {offset: a}', "bp4d: offset, value 'a': must be a whole number"),
    ('disfa: {val: lots}', "disfa: val, value 'lots': must be a number"),
    ('disfa: {test: 3}', 'disfa: test, value 3: must be a text or a list of such'),
    ('gft: {form: 3}', 'gft: form, value 3: must be a mapping'), ('gft: {form: {codes: [0, 1]}}', 'codes, value [0, 1]: must be a mapping'),
    ('gft: {form: {codes: {"-1": absent}}}', "codes, '-1' as 'absent': must mean 1"), ('disfa: {rule: 3}', 'disfa: rule, value 3: must be a mapping'),
    ('disfa: {rule: {grid: 11}}', 'a remainder from 0 to 9'), ('disfa: {rule: {phase: 1}}', 'phase'),
    ('disfa: {camera: middle}', "disfa: camera, value 'middle': must be left or right"),
    ('rafau: {test: 5}', 'rafau: test is 5: a share'),
    ('affectnet: {layout: foo}', "affectnet: layout, value 'foo': must be classic or npy or json")])
def test_values_of_options_at_fault(root, tmp_path, text, told):
    place = tmp_path / 'fixtures'
    for name in {'bp4d', text.split(':')[0]}: shutil.copytree(root / name, place / name)
    (place / 'options.yaml').write_text(text)
    with pytest.raises(ReleaseError) as caught: load_folder(place)
    assert told in str(caught.value) and 'options.yaml' in str(caught.value)


def test_options_that_help(root, tmp_path):
    "A reading of the sampling rule, one name where several may stand, a whole number for a share, a quoted code with a decimal."
    place = shutil.copytree(root, tmp_path / 'fixtures')
    for name in set(LOADERS) - {'disfa', 'gft'}: shutil.rmtree(place / name)
    form = 'gft: {test: 3, form: {codes: {"0.0": 0, "1": 1, "-1": null}}}'
    (place / 'options.yaml').write_text(f'disfa: {{rule: {{every: 5, grid: 1}}, test: SN003, val: 0}}\n{form}\n')
    disfa, gft = load_folder(place)
    assert disfa.name == 'disfa' and set(disfa.records[disfa.records.split == 'test'].subject) == {'SN003'} and len(gft.records)


def test_two_folders_of_one_set(tmp_path):
    for name in ('RAF-AU', 'raf_au'): (tmp_path / name).mkdir()
    with pytest.raises(ReleaseError, match='RAF-AU and raf_au are both rafau; keep one'): data_sets_in(tmp_path)
