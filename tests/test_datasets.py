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
    assert {release.name for release in releases} == set(LOADERS) == set(TABLE1)
    assert list(LOADERS) == list(PAPER_SETS)
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
    ('gft: {form: {colour: 1}}', 'colour'), ('a: [', 'is not YAML')])
def test_options_at_fault(tmp_path, text, told):
    (tmp_path / 'disfa').mkdir()
    (tmp_path / 'options.yaml').write_text(text)
    with pytest.raises(TableError, match=told):
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
