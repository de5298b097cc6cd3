"The notebooks of nbs/tables, run by papermill."
import json
from pathlib import Path

import papermill
import pytest

from expblip.datasets import write_fixtures

ROOT = Path(__file__).resolve().parents[1]


def told(name, to, **parameters):
    "Everything that a table notebook shows."
    papermill.execute_notebook(ROOT / 'nbs' / 'tables' / f'{name}.ipynb', to, parameters, kernel_name='python3', progress_bar=False, cwd=ROOT)
    outputs = [o for c in json.loads(to.read_text())['cells'] for o in c.get('outputs', [])]
    return '\n'.join(''.join(o.get('text') or o.get('data', {}).get('text/plain', '')) for o in outputs)


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'nbs' / 'tables').glob('*.ipynb')))
def test_every_table_has_a_test(name):
    assert name in {'table1'}


def test_table1_of_fixtures(tmp_path):
    shown = told('table1', tmp_path / 'out.ipynb', root=str(write_fixtures(tmp_path / 'fixtures', n=24)), decode=True)
    assert 'absent: none' in shown and '16627' in shown and 'unverified format' in shown and 'unreadable' in shown
    assert 'SN001: 24, known 4845' in shown and '320 known sequences without labels' in shown


def test_table1_says_what_is_absent(tmp_path):
    shown = told('table1', tmp_path / 'out.ipynb', root=str(tmp_path / 'nothing'))
    assert 'found: none' in shown and shown.count('absent') > 8
