"Pictures of a table as one stack: cut to the face or squeezed, every fault listed, and stage 10 on photographs of one's own."
import json
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.crops import FoundFace
from expblip.drawing import draw
from expblip.faces import Face, express, sample_identity, sample_scene
from expblip.fixtures import damage, save_picture
from expblip.pictures import in_threads, square, write_pictures
from expblip.sheets import TableError

ROOT = Path(__file__).resolve().parents[1]
EYES = [FoundFace((40, 40, 80, 80), ((60, 70), (95, 70)))]


def picture(k: int, size: int = 160) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 255, (size, size, 3), np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 5))
def test_threads_keep_order_and_hold_little(count, workers):
    taken, lock, most = [], threading.Lock(), [0]

    def items():
        for k in range(count):
            taken.append(k)
            yield k

    def work(k):
        time.sleep(0.0002 * (k % 3))
        with lock: most[0] = max(most[0], len(taken) - k)
        return -k

    assert list(in_threads(work, items(), workers)) == [-k for k in range(count)] and most[0] <= 3 * workers + 1


def test_an_error_comes_at_its_place_and_stops_the_rest():
    begun, seen = [], []
    def work(k):
        begun.append(k)
        if k == 5: raise ValueError('the fifth')
        return k
    with pytest.raises(ValueError, match='the fifth'):
        for got in in_threads(work, range(1000), 2): seen.append(got)
    assert seen == [0, 1, 2, 3, 4] and len(begun) < 20


def test_squeezed_or_cut(tmp_path):
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200
    path = str(save_picture(wide, tmp_path / 'a.png'))
    whole, how, fault = square(path, 60)
    assert (how, fault) == ('uncut', '') and 18 <= (whole[30, :, 0] > 100).sum() <= 22, 'a third of the width, as the authors squeeze'
    kept, how, _ = square(path, 60, {'detector': lambda p: [], 'none': 'whole'})
    assert how == 'whole' and (kept > 150).all(), 'the middle square'
    assert square(picture(0), 60)[0].shape == (60, 60, 3) and square(picture(0), 60, {'detector': lambda p: EYES})[1] == 'eyes'


def test_all_faults_at_once_and_nothing_half_written(tmp_path):
    paths = [str(save_picture(picture(k), tmp_path / f'{k}.png')) for k in range(4)]
    damage(tmp_path / '1.png'), damage(tmp_path / '3.png', 'empty')
    with pytest.raises(TableError) as caught: write_pictures(paths, tmp_path / 'out' / 's.npy', 32, where='album')
    assert len(caught.value.faults) == 2 and 'picture 2 of 4' in caught.value.faults[0] and '3.png' in caught.value.faults[1]
    assert list((tmp_path / 'out').iterdir()) == []
    told = write_pictures(paths, tmp_path / 'out' / 's.npy', 32, leave_out=True)
    stack = np.load(tmp_path / 'out' / 's.npy')
    assert (told['fault'] != '').tolist() == [False, True, False, True] == [not p.any() for p in stack]
    with pytest.raises(TableError, match='2 faults'): write_pictures([paths[1], paths[3]], tmp_path / 't.npy', 32, leave_out=True)


def test_a_full_disk_is_told_before_anything_is_decoded(tmp_path):
    with pytest.raises(TableError, match=r'3000000 pictures of 1024 x 1024 pixels need 9437.2 GB, .* give a smaller `size`'):
        write_pictures(['nothing.jpg'] * 3_000_000, tmp_path / 's.npy', 1024)


def stage(tmp_path, **parameters) -> tuple[pd.DataFrame, str]:
    "Stage 10 by papermill; the records and what it printed."
    out = tmp_path / 'outputs'
    papermill.execute_notebook(ROOT / 'nbs/stages/10_data.ipynb', tmp_path / 'done.ipynb', {'out': str(out), 'scale': 'smoke'} | parameters,
                               kernel_name='python3', progress_bar=False, cwd=ROOT)
    cells = json.loads((tmp_path / 'done.ipynb').read_text())['cells']
    return pd.read_parquet(out / 'records.parquet'), '\n'.join(''.join(o.get('text', '')) for c in cells for o in c.get('outputs', []))


@pytest.fixture(scope='module')
def album(tmp_path_factory) -> Path:
    "Photograph-like pictures: faces that the detector finds, one picture of nobody, one cut short."
    folder, rng = tmp_path_factory.mktemp('album'), np.random.default_rng(3)
    for k in range(5):
        who = sample_identity(rng)
        wide = np.full((360, 640, 3), (118, 134, 150), np.uint8)
        wide[80:304, 200:424] = draw(Face(who, sample_scene(rng, 'lab', who), express(rng, ())), 224)
        save_picture(wide, folder / f'{k}.jpg')
    save_picture(np.full((360, 640, 3), 90, np.uint8), folder / 'nobody.jpg')
    return folder


def test_a_folder_of_photographs_is_cut_to_faces(album, tmp_path):
    records, said = stage(tmp_path, data=str(album), none='whole')
    assert len(records) == 6 and set(records['split']) == {'test'} and records['emotions'].isna().all()
    assert "'whole'" in said and ("'eyes'" in said or "'box'" in said)
    assert np.load(tmp_path / 'outputs/images.npy').shape == (6, 112, 112, 3)
    assert (tmp_path / 'outputs/left_out.csv').read_text() == 'id,fault\n'


def test_pictures_without_a_face_stop_the_stage_or_are_left_out(album, tmp_path):
    (album / 'photos.csv').write_text('image,emotions\n' + ''.join(f'{k}.jpg,happiness\n' for k in (*range(5), 'nobody')))
    with pytest.raises(papermill.PapermillExecutionError, match=r"'[^']*nobody\.jpg': no face was found"):
        stage(tmp_path, data=str(album / 'photos.csv'))
    records, said = stage(tmp_path, data=str(album / 'photos.csv'), faults='skip')
    gone = pd.read_csv(tmp_path / 'outputs/left_out.csv')
    assert 'photos/nobody.jpg' in set(gone['id']) and len(records) == 6 - len(gone) and 'left out' in said
    stack = np.load(tmp_path / 'outputs/images.npy')
    assert all(stack[int(ref.split(':')[1])].any() for ref in records['image'])
    squeezed, _ = stage(tmp_path, data=str(album / 'photos.csv'), crop='picture')
    assert len(squeezed) == 6
    assert not np.array_equal(stack[0], np.load(tmp_path / 'outputs/images.npy')[0])


def test_frames_that_a_film_does_not_have_are_faults_of_their_rows(tmp_path):
    import cv2
    film = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 20, (64, 64))
    for k in range(6): film.write(np.full((64, 64, 3), 40 * k, np.uint8))
    film.release()
    frames = [f"{tmp_path / 'a.avi'}:{k}" for k in (5, 0, 9, 0)] + [f"{tmp_path / 'none.avi'}:0", str(save_picture(picture(0), tmp_path / 'b.png'))]
    told = write_pictures(frames, tmp_path / 's.npy', 32, leave_out=True)
    assert [bool(fault) for fault in told['fault']] == [False, False, True, False, True, False]
    assert 'ends after frame 5, but frame 9' in told['fault'][2] and 'no such file' in told['fault'][4]
    stack = np.load(tmp_path / 's.npy')
    assert stack[0].mean() > 180 and stack[1].mean() < 10 and stack[3].mean() < 10


def test_faults_of_table_and_pictures_come_together_with_their_lines(album, tmp_path):
    (album / 'torn.jpg').write_bytes((album / '0.jpg').read_bytes()[:900])
    rows = ['image,emotions', '0.jpg,happiness', 'nobody.jpg,happiness', 'torn.jpg,', '1.jpg,hapy']
    (album / 'bad.csv').write_text('\n'.join(rows))
    with pytest.raises(papermill.PapermillExecutionError) as caught: stage(tmp_path, data=str(album / 'bad.csv'))
    text = str(caught.value)
    told = ("line 3, column 'image', value 'nobody.jpg': no face", "line 4, column 'image', value 'torn.jpg': cannot be read",
            "line 5, column 'emotions', value 'hapy'")
    assert all(part in text for part in told)
    (album / 'bad.csv').write_text('\n'.join([*rows[:4], '2.jpg,happiness']))
    with pytest.raises(papermill.PapermillExecutionError, match=r"line 3, column 'image', '[^']*nobody.jpg': no face") as caught:
        stage(tmp_path, data=str(album / 'bad.csv'))
    assert "line 4, column 'image'" in str(caught.value)
    records, _ = stage(tmp_path, data=str(album / 'bad.csv'), faults='skip')
    assert not records['id'].str.contains('torn|nobody').any() and len(records)
