"""The page that captions, in headless Chromium, served by its own command: photos good and bad, sliders, words with maps, and nobody else asked."""
import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from expblip.captioner import Captioner
from expblip.demo import GROUPS, face_of, judge
from expblip.demo_page import levels_of
from expblip.drawing import draw

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.browser
ORDER = [au for group in GROUPS.values() for au in group]


@pytest.fixture(scope='module')
def captioner():
    return Captioner.from_pretrained('drawn', device='cpu')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('uploads')


@pytest.fixture(scope='module')
def url(place):
    server = subprocess.Popen([sys.executable, '-m', 'expblip.demo_page', '--device', 'cpu'], stdout=subprocess.PIPE, text=True, cwd=place,
                              env={**os.environ, 'PYTHONPATH': str(ROOT), 'GRADIO_TEMP_DIR': str(place)})
    line = server.stdout.readline()
    assert 'look at http://127.0.0.1:' in line, line
    yield re.search(r'http://\S+', line)[0]
    server.kill()
    server.wait(20)
    server.stdout.close()


class Visit:
    "A tab; what it asked of others is kept."
    def __init__(self, browser, url: str, **view):
        self.context = browser.new_context(**{'viewport': {'width': 1280, 'height': 900}, **view})
        self.tab, self.outside, self.errors = self.context.new_page(), [], []
        self.tab.set_default_timeout(60_000)
        self.tab.on('request', lambda r: self.outside.append(r.url) if not r.url.startswith((url, 'data:', 'blob:')) else None)
        self.tab.on('pageerror', lambda error: self.errors.append(str(error)))
        self.tab.goto(url, wait_until='networkidle')
        self.tab.wait_for_selector('#file input[type=file]', state='attached')

    def give(self, path: Path) -> str:
        "Choose a file; what the page answers."
        self.tab.evaluate("document.querySelector('#answer').dataset.old = document.querySelector('#answer .html-container').innerHTML")
        self.tab.set_input_files('#file input[type=file]', path)
        return self.answer()

    def drop(self, path: Path) -> str:
        "Drop a file, as a mouse does."
        self.tab.evaluate("document.querySelector('#answer').dataset.old = document.querySelector('#answer .html-container').innerHTML")
        data = self.tab.evaluate_handle("""([code, name]) => {
          const bytes = Uint8Array.from(atob(code), (c) => c.charCodeAt(0)), data = new DataTransfer();
          data.items.add(new File([bytes], name, { type: 'image/png' }));
          return data;
        }""", [base64.b64encode(path.read_bytes()).decode(), path.name])
        for event in ('dragenter', 'dragover', 'drop'): self.tab.dispatch_event('#file button', event, {'dataTransfer': data})
        return self.answer()

    def answer(self) -> str:
        "The new answer: a caption or a fault."
        self.tab.wait_for_function("""() => {
          const box = document.querySelector('#answer'), now = box.querySelector('.html-container').innerHTML;
          return now !== box.dataset.old && (box.querySelector('.caption') || box.querySelector('.fault'));
        }""")
        return self.tab.inner_text('#answer .caption, #answer .fault')

    def draw_tab(self) -> str:
        self.tab.get_by_role('tab', name='Draw a face').click()
        self.tab.wait_for_selector('#drawn .caption')
        return self.tab.inner_text('#drawn .caption')

    def verdict(self) -> dict[str, set[int]]:
        return {kind: {int(re.search(r'AU(\d+)', text)[1]) for text in self.tab.locator(f'#drawn .au.{kind}').all_text_contents()}
                for kind in ('found', 'missed', 'invented')}

    def close(self):
        assert self.outside == [], 'the page asked somebody else'
        assert self.errors == []
        self.context.close()


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    "A drawn face on a larger canvas, so that it has to be found."
    canvas = np.full((600, 800, 3), 150, np.uint8)
    canvas[120:456, 250:586] = draw(face_of({6: .9, 12: .9, 25: .8}, person=11), 336)
    path = tmp_path_factory.mktemp('photo') / 'somebody.png'
    Image.fromarray(canvas).save(path)
    return path


def test_a_dropped_photo_is_found_captioned_explained_and_deleted(browser, url, captioner, photo, place):
    visit = Visit(browser, url)
    said = captioner.caption(photo, attention='words')
    assert visit.drop(photo) == said.text
    tab = visit.tab
    # the face that was found, the crop, the chips
    assert tab.locator('#answer .frame').count() == 1 and '800 x 600 pixels' in tab.inner_text('#answer .photo')
    chips = tab.inner_text('#answer .chips')
    assert said.aus and all(f'AU{au} ' in chips for au in said.aus) and said.emotions and all(name in chips for name in said.emotions)
    # every word has a map of its own, shown on pointing at it and gone afterwards
    assert tab.locator('#answer .word').all_inner_texts() == [said.text[word.start:word.end] for word in said.words]
    whole = tab.get_attribute('#answer img.map', 'src')
    maps = set()
    for word in tab.locator('#answer .word.stated').all()[:3]:
        word.hover()
        maps.add(tab.get_attribute('#answer img.map', 'src'))
        assert tab.inner_text('#answer .of') == f'for "{word.inner_text()}"'
    tab.mouse.move(0, 0)
    tab.wait_for_function("whole => document.querySelector('#answer img.map').src === whole", arg=whole)
    assert len(maps) > 1 and whole not in maps
    tab.locator('#answer .word.stated').first.focus()  # by keyboard too
    assert tab.get_attribute('#answer img.map', 'src') in maps
    # what it is, and what it is not
    assert 'drawn world' in tab.inner_text('#about') and 'drawn faces only' in tab.inner_text('#about')
    assert 'not a fact about the person' in tab.inner_text('#caveat')
    assert [file.name for file in place.rglob('*') if file.suffix == '.png'] == [], 'the photograph is still on the disk'
    visit.close()


def files(place: Path) -> dict[str, tuple[Path, str]]:
    "Difficult files, and what the page must say of them; an empty text: it captions them."
    face = draw(face_of({1: .9, 2: .9}, person=2), 200)
    made = {}
    def keep(name, image, words, **how):
        image.save(place / name, **how)
        made[name] = place / name, words
    keep('alpha.png', Image.fromarray(np.dstack([face, np.full((200, 200), 255, np.uint8)])), '')
    keep('deep.png', Image.fromarray(face.mean(-1).astype(np.uint16) * 257), '')
    keep('twelve.png', Image.fromarray(face.mean(-1).astype(np.uint16) * 16), 'its 16-bit numbers end at')
    keep('nobody.jpg', Image.new('RGB', (600, 400), (90, 140, 90)), 'no face was found')
    keep('huge.png', Image.new('1', (20000, 20000)), 'it has 400 million pixels, more than are read here; save it smaller')
    keep('large.png', Image.new('1', (10000, 10000)), 'save it smaller')
    keep('tiny.png', Image.new('RGB', (8, 8)), 'is only 8 x 8 pixels')
    keep('cut.jpg', Image.fromarray(face).resize((400, 400)), 'cannot be read as a picture')
    whole = (place / 'cut.jpg').read_bytes()
    (place / 'cut.jpg').write_bytes(whole[:len(whole) // 2])
    for name, body in (('letter.txt', b'no picture'), ('empty.jpg', b'')):
        (place / name).write_bytes(body)
        made[name] = place / name, 'this is no picture that can be read; give a JPEG'
    return made


def test_difficult_files_get_a_caption_or_one_clear_message(browser, url, captioner, tmp_path):
    visit = Visit(browser, url)
    for name, (path, words) in files(tmp_path).items():
        told = visit.give(path)
        if not words: assert told == captioner.caption(path).text, name
        else:
            assert words in told and visit.tab.locator('#answer .fault').count() == 1, (name, told)
            assert 'Error' not in told and '=' not in told and str(tmp_path) not in told, (name, told)
    visit.close()


def test_moving_a_slider_changes_the_face_the_caption_and_the_verdict(browser, url, captioner):
    visit = Visit(browser, url)
    levels = dict(zip(ORDER, levels_of('happiness')))
    before = visit.draw_tab()
    face = face_of(levels, person=3)
    said = captioner.caption(draw(face, 112), crop='picture')
    assert before == said.text
    assert visit.tab.locator('[id^=au] input[type=range]').count() == len(ORDER) == 23
    picture = visit.tab.get_attribute('#drawn img', 'src')
    for au, key, level in ((12, 'Home', 0.0), (25, 'Home', 0.0), (6, 'Home', 0.0), (4, 'End', 1.0), (9, 'End', 1.0)):
        visit.tab.locator(f'#au{au} input[type=range]').focus()
        visit.tab.keyboard.press(key)
        levels[au] = level
    face = face_of(levels, person=3)
    said, verdict = captioner.caption(draw(face, 112), crop='picture'), judge(face, captioner.caption(draw(face, 112), crop='picture').aus)
    visit.tab.wait_for_function("text => document.querySelector('#drawn .caption').innerText === text", arg=said.text)
    assert said.text != before and visit.tab.get_attribute('#drawn img', 'src') != picture
    assert visit.verdict() == {kind: set(getattr(verdict, kind)) for kind in ('found', 'missed', 'invented')}
    assert set(verdict.found) | set(verdict.missed) == {4, 9}
    # what no face can show is named
    visit.tab.locator('#au24 input[type=range]').focus()
    visit.tab.keyboard.press('End')
    visit.tab.locator('#au26 input[type=range]').focus()
    visit.tab.keyboard.press('End')
    visit.tab.wait_for_function("document.querySelector('#verdict').innerText.includes('AU24 and AU26 exclude each other')")
    assert 'the model never saw one' in visit.tab.inner_text('#verdict')
    visit.close()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_on_a_phone_in_light_and_dark(browser, url, scheme):
    visit = Visit(browser, url, viewport={'width': 360, 'height': 740}, has_touch=True, is_mobile=True, color_scheme=scheme)
    tab = visit.tab
    wide = 'document.documentElement.scrollWidth <= innerWidth'
    assert tab.evaluate(wide), 'wider than the phone'
    visit.draw_tab()
    assert tab.evaluate(wide), 'wider than the phone'
    slider = tab.locator('#au43 input[type=range]')
    slider.scroll_into_view_if_needed()
    tab.evaluate("document.querySelector('#au17').scrollIntoView({ block: 'center' })")
    face = tab.locator('#drawn img').first.bounding_box()
    assert 0 <= face['y'] and face['y'] + face['height'] <= 740, 'the face has left the screen'
    through = tab.evaluate("""() => [...document.querySelectorAll('#drawn img, #drawn .caption')].map((one) => {
      const at = one.getBoundingClientRect(), top = document.elementFromPoint(at.left + at.width / 2, at.top + at.height / 2);
      return document.querySelector('#drawn').contains(top);
    })""")
    assert through and all(through), 'a slider shines through the face'
    contrast = tab.evaluate("""() => {
      const line = (v) => v <= 10 ? v / 3294 : ((v / 255 + .055) / 1.055) ** 2.4;
      const bright = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map((v) => line(Number(v))); return .2126 * r + .7152 * g + .0722 * b; };
      const ink = bright(getComputedStyle(document.querySelector('#drawn .caption')).color);
      const paper = bright(getComputedStyle(document.body).backgroundColor);
      return [(Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05), paper];
    }""")
    assert contrast[0] >= 7 and (contrast[1] > .5) == (scheme == 'light'), contrast
    visit.close()


def test_one_command():
    plan = subprocess.run(['make', '-n', 'page', 'PORT=7999'], cwd=ROOT, capture_output=True, text=True).stdout
    assert '-m expblip.demo_page --port 7999' in ' '.join(plan.split())
    got = subprocess.run([sys.executable, '-m', 'expblip.demo_page', '--model', './nowhere'], capture_output=True, text=True,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert got.returncode == 2 and got.stderr.startswith("page: no model './nowhere'") and 'Traceback' not in got.stderr


def test_import_is_light():
    code = "import sys; import expblip.demo_page; print(*{'torch', 'gradio', 'pandas', 'skia'} & set(sys.modules))"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == ''
