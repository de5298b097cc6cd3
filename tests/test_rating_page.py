"""The rating page in headless Chromium, served by its own command: two raters, a closed tab, a killed server, and nothing lost."""
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expblip.rating import LETTERS, MODELS, RatingLog, draw_sample, read_sample, write_sample

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
FACES = 4
WAYS = {'mix': 'It is a people who drops jaw.', 'cat': 'It is a people who drops jaw. The face shows fear.',
        'exp': 'The dropped jaw of <this> face tells of fear.'}


@pytest.fixture
def serve(folder):
    "Starts servers, and ends those that still run."
    started = []
    yield lambda port=None: started.append(Server(folder, port)) or started[-1]
    for server in started:
        if server.process.poll() is None: server.kill()


@pytest.fixture
def folder(tmp_path):
    "A sample of drawn squares, each of its own grey; the captions name their face."
    np.save(tmp_path / 'images.npy', np.full((FACES, 64, 64, 3), 40, np.uint8) * np.arange(1, FACES + 1, dtype=np.uint8)[:, None, None, None])
    faces = pd.DataFrame({'id': [f'f{i}' for i in range(FACES)], 'dataset': 'drawn', 'image': [f'images.npy:{i}' for i in range(FACES)]})
    said = pd.DataFrame([(face, model, 'greedy', f'{face}: {text}') for face in faces['id'] for model, text in WAYS.items()],
                        columns=['record', 'model', 'decode', 'text'])
    write_sample(draw_sample(said, faces, folder=str(tmp_path)), tmp_path / 'sample.json')
    return tmp_path


class Server:
    "The command in a process of its own."
    def __init__(self, folder: Path, port: int | None = None):
        options = ['--log', str(folder / 'log.jsonl'), *(['--port', str(port)] if port else [])]
        self.process = subprocess.Popen([sys.executable, '-m', 'expblip.rating_page', str(folder), *options], stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, 'PYTHONPATH': str(ROOT)}, cwd=folder)
        line = self.process.stdout.readline()
        assert 'rate at http://127.0.0.1:' in line, line
        self.url = re.search(r'http://\S+', line)[0]
        self.port = int(self.url.strip('/').rpartition(':')[2])

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(20)
        self.process.stdout.close()


class Rater:
    "A person at a tab."
    def __init__(self, browser, url: str, name: str, way: str = 'type', **view):
        self.context = browser.new_context(**{'viewport': {'width': 1200, 'height': 900}, **view})
        self.tab, self.name, self.outside = self.context.new_page(), name, []
        self.tab.set_default_timeout(60_000)
        self.tab.on('request', lambda r: self.outside.append(r.url) if not r.url.startswith((url, 'data:', 'blob:')) else None)
        self.tab.goto(url if way == 'type' else f'{url}?rater={name}')
        if way == 'type':
            self.tab.fill('#rater input, #rater textarea', name)
            self.tab.click('#start')
        self.tab.wait_for_selector('#face img, #thanks h3')

    @property
    def count(self) -> str: return self.tab.inner_text('#count')
    @property
    def checked(self) -> int: return self.tab.locator('#form input:checked').count()
    @property
    def captions(self) -> list[str]: return [text[1:].strip() for text in self.tab.locator('.said').all_inner_texts()]

    def mouse(self, scores, most, least):
        for letter, score in zip(LETTERS, scores):
            if score: self.tab.click(f'#score-{letter.lower()} label:has-text("{score}") >> nth=0')
        for group, letter in (('most', most), ('least', least)):
            if letter: self.tab.click(f'#{group} label:has-text("{letter}")')

    def keys(self, scores, most, least):
        self.tab.keyboard.type(''.join(str(score % 10) for score in scores))
        self.tab.keyboard.press(most.lower())
        self.tab.keyboard.press(f'Shift+{least}')

    def models(self) -> list[str]:
        "Which model stands where, by the words on the page."
        return [next(model for model, text in WAYS.items() if caption[4:] == text) for caption in self.captions]

    def save(self, by='mouse') -> str:
        "Save; the fault, or nothing when the next face (or the end) has come."
        saves = self.tab.evaluate("Number(document.body.dataset.saves || 0)")
        self.tab.click('#save') if by == 'mouse' else self.tab.keyboard.press('Enter')
        self.tab.wait_for_function("saves => Number(document.body.dataset.saves || 0) > saves", arg=saves)
        return ''.join(self.tab.locator('.fault').all_inner_texts())

    def rate(self, how, scores, most, least) -> dict:
        "Fill in and save; what should now be in the log."
        shown = dict(zip(LETTERS, self.models()))
        wanted = {'rater': self.name, 'record': self.captions[0][:2], 'correctness': {shown[k]: s for k, s in zip(LETTERS, scores)},
                  'most': shown[most], 'least': shown[least]}
        assert self.checked == 0, 'something was chosen beforehand'
        getattr(self, how)(scores, most, least)
        assert self.save(how) == ''
        return wanted


def lines(folder: Path) -> list[dict]:
    path = folder / 'log.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kept(folder: Path) -> list[dict]:
    return [{key: line[key] for key in ('rater', 'record', 'correctness', 'most', 'least')} for line in lines(folder)]


def test_two_raters_a_closed_tab_a_killed_server_and_nothing_lost(browser, serve, folder):
    server = serve()
    anna, ben = Rater(browser, server.url, 'Anna'), Rater(browser, server.url, 'ben')
    anna.name = 'anna'
    sample = read_sample(folder)
    # nothing is chosen beforehand, nothing half-filled is taken, no tie
    assert anna.checked == ben.checked == 0 and anna.count == ben.count == f'0 of {FACES} faces rated'
    assert anna.save() == ('Caption A has no score yet. Caption B has no score yet. Caption C has no score yet. '
                           'Choose the most complete caption. Choose the least complete caption.')
    anna.mouse([7, 10, None], 'B', 'B')
    assert anna.save() == 'Caption C has no score yet. Caption B cannot be both the most and the least complete: choose two different captions.'
    assert lines(folder) == [] and anna.checked == 4
    anna.mouse([None, None, 1], 'B', 'C')
    shown = anna.models()
    said = [{'rater': 'anna', 'record': anna.captions[0][:2], 'correctness': dict(zip(shown, (7, 10, 1))), 'most': shown[1], 'least': shown[2]}]
    assert anna.save() == '' and anna.count == f'1 of {FACES} faces rated'
    # two at once, by mouse and by keys
    said += [ben.rate('keys', [3, 10, 9], 'C', 'A'), anna.rate('mouse', [2, 2, 5], 'A', 'B'), ben.rate('keys', [1, 1, 1], 'B', 'C')]
    assert kept(folder) == said and [line['sample'] for line in lines(folder)] == [sample.name] * 4
    # every rater has an own order of faces and captions, and it is what the log says
    assert [line['shown'] for line in lines(folder)] == [list(sample.shown(line['rater'], line['item'])) for line in lines(folder)]
    # ben closes the tab with a half-filled form; the server is killed; both go on
    where = ben.captions
    ben.mouse([5, None, None], None, 'A')
    ben.context.close()
    server.kill()
    assert kept(folder) == said
    server = serve(server.port)
    ben = Rater(browser, server.url, 'ben', 'address')
    assert ben.captions == where and ben.count == f'2 of {FACES} faces rated' and ben.checked == 0
    anna.tab.reload()  # her address knows her
    anna.tab.wait_for_selector('#face img')
    assert anna.count == f'2 of {FACES} faces rated'
    # a correction: both lines stay, the later one counts
    last = anna.captions
    anna.tab.click('#back')
    anna.tab.wait_for_function("document.querySelector('#count').innerText.startsWith('correcting')")
    assert anna.checked == 5 and anna.captions != last
    anna.mouse([6, None, None], None, None)
    changed = {**said[2], 'correctness': {**said[2]['correctness'], anna.models()[0]: 6}}
    assert anna.save() == '' and anna.captions == last and anna.count == f'2 of {FACES} faces rated'
    said.append(changed)
    # to the end
    for who in (anna, ben, anna, ben): said.append(who.rate('keys', [4, 5, 6], 'C', 'A'))
    for who in (anna, ben):
        who.tab.wait_for_selector('#thanks h3')
        assert who.tab.inner_text('#thanks h3') == f'Thank you, {who.name}'
    assert kept(folder) == said
    ratings = RatingLog(folder / 'log.jsonl').read(sample)
    assert len(ratings) == 2 * FACES and {(one.rater, one.item) for one in ratings} == {(who, i) for who in ('anna', 'ben') for i in range(FACES)}
    assert anna.outside == ben.outside == [], 'the page asked somebody else'
    anna.context.close(), ben.context.close()


def test_on_a_phone_and_by_tab_key_alone(browser, serve, folder):
    server = serve()
    phone = Rater(browser, server.url, 'cleo', viewport={'width': 360, 'height': 740}, has_touch=True, is_mobile=True)
    assert phone.tab.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'wider than the phone'
    boxes = [label.bounding_box() for label in phone.tab.locator('#form label:has(input)').all()]
    assert len(boxes) == 36 and all(box['width'] >= 24 and box['height'] >= 40 and box['x'] >= 0 and box['x'] + box['width'] <= 360 for box in boxes)
    phone.tab.locator('#save').scroll_into_view_if_needed()
    face = phone.tab.locator('#face img').bounding_box()
    assert 0 <= face['y'] and face['y'] + face['height'] <= 740, 'the picture has left the screen'
    under = phone.tab.evaluate("""() => {
      const face = document.querySelector('#face').getBoundingClientRect();
      const label = document.querySelector('#score-b [data-testid=block-info]');
      window.scrollBy(0, label.getBoundingClientRect().top - face.top - face.height / 2);
      const at = label.getBoundingClientRect();
      const top = document.elementFromPoint(at.left + 4, at.top + 8);
      return [at.top > face.top && at.bottom < face.bottom, document.querySelector('#face').contains(top)];
    }""")
    assert under == [True, True], 'a question shines through the picture above it'
    phone.context.close()
    plain = Rater(browser, server.url, 'dora')
    press = plain.tab.keyboard.press
    for _ in range(12):  # to the first score: no mouse, no shortcut
        press('Tab')
        if plain.tab.evaluate("document.querySelector('#score-a').contains(document.activeElement)"): break
    for moves in (3, 2, 1, 1, 2):  # blank chooses, arrows move on
        press('Space')
        for _ in range(moves): press('ArrowRight')
        press('Tab')
    for _ in range(6):
        if plain.tab.evaluate("document.activeElement.closest('#save') != null"): break
        press('Tab')
    press('Enter')
    plain.tab.wait_for_function("document.querySelector('#count').innerText.startsWith('1 of')")
    (line,) = lines(folder)
    assert [line['correctness'][model] for model in line['shown']] == [4, 3, 2] and [line['most'], line['least']] == line['shown'][1:]
    assert set(line['correctness']) == set(MODELS)
    plain.context.close()


def test_a_name_that_is_none_and_a_folder_without_a_sample(browser, serve, folder, tmp_path_factory):
    server = serve()
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(server.url)
    tab.fill('#rater input, #rater textarea', '<b>../x</b>')
    from playwright.sync_api import TimeoutError as TooLate
    for _ in range(10):  # as a person would: while the page is still loading nobody listens to a click
        tab.click('#start')
        try: tab.wait_for_selector('.fault', timeout=3000); break
        except TooLate: continue
    assert "'<b>../x</b>' is no name for a rater" in tab.inner_text('.fault') and tab.locator('#face img').count() == 0
    context.close()
    empty = tmp_path_factory.mktemp('empty')
    command = [sys.executable, '-m', 'expblip.rating_page', str(empty)]
    got = subprocess.run(command, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert got.returncode == 1 and 'sample.json: no such file; run the stage `rating`' in got.stderr and 'Traceback' not in got.stderr
    assert list(empty.iterdir()) == []


def test_the_answer_to_opening_the_page_changes_nothing(folder):
    "On a busy machine it comes after somebody has typed a name and started: it must not lead back to the welcome."
    from types import SimpleNamespace

    import gradio as gr

    from expblip.rating_page import Desk, build
    page = build(Desk(read_sample(folder), RatingLog(folder / 'log.jsonl')), lambda number: 'data:,')
    opened = next(event.fn for event in page.fns.values() if event.targets[0][1] == 'load')
    def told(**asked): return opened(SimpleNamespace(query_params=asked))
    assert all(out == gr.skip() for out in told()) and any(out != gr.skip() for out in told(rater='anna'))
