"""`make paper DATA=photos.csv`: tables of photographs with both kinds of label, one, or none go through the whole graph to the report."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expblip.absent import absences
from expblip.drawing import draw
from expblip.faces import Face, express, sample_identity, sample_scene

ROOT = Path(__file__).resolve().parents[1]
KEPT = ('expblip', 'nbs/stages', 'data/drawn-blip2', 'data/paper', 'settings.ini', 'pipeline.yaml', 'pyproject.toml')
LOOKS = (('happiness', (6, 12)), ('sadness', (1, 4, 15)), ('surprise', (1, 2, 25, 26)), ('anger', (4, 7, 23)))
NO_AU = 'no training image carries AU labels'
ALWAYS = {'no BLIP-2 COCO checkpoint is named (-p caption-blip2-coco.generic=NAME)': ['caption-blip2-coco'],  # in every run until a user names one
          'outputs/scaling has no captions of two encoders and two language models: make scaling': ['scaling']}
NO_FUSION = "no record has captions of all of mix, cat, exp with decode 'greedy': caption with them, or name another decode"
pytestmark = pytest.mark.slow

def copied(root: Path) -> Path:
    "Put what a run needs into a folder."
    for name in KEPT:
        source = ROOT / name
        if source.is_dir(): shutil.copytree(source, root / name, ignore=shutil.ignore_patterns('__pycache__'))
        else: shutil.copy(source, root / name)
    return root

def environment(root: Path) -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': str(root), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg', 'TOKENIZERS_PARALLELISM': 'false'}

@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    "A copy of what a run needs, with sixteen JPEG files of eight people in a folder whose name is a trap for patterns."
    root, rng = copied(tmp_path_factory.mktemp('project')), np.random.default_rng(0)
    (root / 'my [album]').mkdir()
    for i in range(16):
        if i % 2 == 0: who = sample_identity(rng)
        face = Face(who, sample_scene(rng, 'lab', who), express(rng, LOOKS[i % 4][1]))
        Image.fromarray(draw(face, 112)).save(root / 'my [album]' / f'{i}.jpg', quality=95)
    return root

def photographs(project: Path, name: str, columns: str, *, people: int = 8) -> tuple[Path, str]:
    "Send a table with some of the columns through the graph; the run folder, and the page of its report."
    splits = ['train'] * 5 + ['val'] + ['test'] * 2
    lines = [f'image,subject,{columns}'] if columns else ['image,subject']
    for i in range(2 * people):
        emotion, aus = LOOKS[i % 4]
        absent = sorted({au for _, others in LOOKS for au in others} - set(aus))
        cells = {'split': splits[i // 2], 'emotions': emotion, 'au_present': '+'.join(map(str, aus)), 'au_absent': '+'.join(map(str, absent))}
        lines.append(','.join([f'{i}.jpg', f'p{i // 2}', *(cells[c] for c in columns.split(',') if c)]))
    (project / 'my [album]' / f'{name}.csv').write_text('\n'.join(lines))
    command = [sys.executable, '-m', 'expblip.pipeline', 'run', '--run', name, '--scale', 'smoke', '--data', f'my [album]/{name}.csv',
               '-p', 'caption.decode=greedy', '-p', 'features.views=1', '-p', 'data.crop=picture']  # drawn faces fill their pictures
    got = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    run = project / 'outputs' / name
    assert got.returncode == 0 and not [*run.rglob('*.failed.ipynb')], got.stdout[-6000:] + got.stderr[-3000:]
    return run, (run / 'report' / 'report.html').read_text()

def figures(run: Path) -> set[str]:
    "Names of the figures of the report."
    return {row['name'] for row in json.loads((run / 'report' / 'results.json').read_text())}

def captioned(run: Path) -> set[str]:
    "Models that captioned the photographs."
    return {path.parent.name.removeprefix('caption-') for path in run.glob('seed0/caption-*/predictions.parquet')}

def test_both_kinds_of_label(project):
    run, page = photographs(project, 'both', 'split,emotions,au_present,au_absent')
    assert absences(run) == ALWAYS and page.count('Not measured') == len(ALWAYS)
    assert captioned(run) == {'au', 'emot', 'mix', 'cat', 'exp', 'blip2'}
    assert 'which have no counterpart in this run' in page and 'not decided' not in page and 'not measured yet' not in page
    table = pd.read_csv(run / 'report/table1.csv')
    assert set(table.loc[table['dataset'] == 'photos', 'annotation']) == {'au+emotion'}
    named = figures(run)
    assert {'judge/photos/emot/greedy/emotion_accuracy', 'judge/photos/au/greedy/au_f1_annotated', 'table2/photos/au/greedy/meteor'} <= named
    assert {f'probe/photos/blip2/image_encoder/pooled/{figure}' for figure in ('avg', 'emotion_accuracy')} <= named
    files = json.loads((run / 'shared/data/manifest.json').read_text())['reads']
    assert sum(name.endswith('.jpg') for name in files) == 16, 'the pictures count for freshness'

def test_emotions_only(project):
    run, page = photographs(project, 'felt', 'split,emotions')
    gone = absences(run)
    assert set(gone) == {NO_AU, *ALWAYS, NO_FUSION} and page.count(NO_AU) == 1
    assert {'step1-au', 'step2-au', 'caption-au', 'fuse-cat', 'fuse-exp', 'detector-au', 'caption-exp'} <= set(gone[NO_AU])
    assert captioned(run) == {'emot', 'mix', 'blip2'}
    named = figures(run)
    assert 'judge/photos/mix/greedy/emotion_accuracy' in named
    assert not [name for name in named if name.startswith('judge/photos/') and name.split('/')[2] in ('au', 'cat', 'exp', 'detector-au')]

def test_no_label_and_two_people(project):
    run, page = photographs(project, 'bare', '', people=2)
    assert captioned(run) == {'blip2'} and page.count('no image carries a label') == page.count('there are no test people') == 1
    assert page.count('class="example"') == 4, 'captions of all photographs are shown, since none were set apart'
