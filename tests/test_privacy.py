"""No photograph of a person is committed by accident, and what is committed names nobody.

What is promised, for every file that git holds or would add:

* A file that is not text is a checkpoint of floating-point tensors (safetensors), or its SHA-256 stands in `allowed_pictures.json` with what it is
  and where it comes from, or the executed notebook beside it shows the very same picture. Extensions do not matter: a JPEG called `x.txt` is found.
* In text, a picture as base64, hexadecimal or percent codes (in one piece or in lines, in JSON, HTML, SVG, Markdown, code or an attachment)
  is found. It may stand in two places: among the outputs of a notebook that the list names, as many as the list says, without a camera's metadata;
  and in a page of a run beside an executed notebook that shows the very same picture.
* A notebook on the list has code that opens no picture (but for calls the list grants, with the reason) and names neither a folder of photographs
  nor an address. An executed notebook of a run counts only when the manifest beside it tells that the stage read nothing from outside but the
  drawn BLIP-2: a run on somebody's photographs cannot become the reference.
* Git ignores the folders of photographs, and nothing in them can be added by force. What a run leaves in the repository holds no absolute path and
  nobody's address; manifests name files relative to the project; captions carry the id of a record and nothing else of it.

What is not promised: nobody can tell a drawn face from a photograph by its pixels (flat areas and colours were compared: they overlap), so a hash is
only as good as the look somebody took before adding it. Whoever exchanges a drawn picture in a listed notebook for a photograph by hand, splits one
into pieces below 40 characters, writes it as numbers into a table, encrypts it or hides it in weights gets past; so does code that opens a picture
by a way not in `READERS`. Pictures that a page merely links to are not embedded. An id repeats the file name its owner gave: `jane_doe.jpg` makes an
id with a name in it, which stays in `outputs/`, where git ignores it.

`python tests/test_privacy.py` prints what is not accounted for, with the line to add to the list once somebody has looked at it.
"""
import ast
import base64
import binascii
import hashlib
import io
import json
import re
import struct
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from expblip.records import check_records
from expblip.releases import release_records
from expblip.synthesis import caption_table, writer

ROOT = Path(__file__).resolve().parents[1]
LIST = 'tests/allowed_pictures.json'
PRIVATE = ('data/licensed/', 'data/user/')

def committed(root: Path) -> list[str]:
    "Files that git holds or would add, or all files of an unpacked archive."
    try:
        out = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=root, capture_output=True, check=True).stdout.decode()
        found = out.split('\0')
    except (OSError, subprocess.CalledProcessError): found = []
    if LIST not in found:  # an unpacked archive
        made = r'data/(?:user|licensed)/|outputs/(?!reference[/-]|README)'
        skip = re.compile(made + r'|(?:.*/)?(?:\.git/|\.venv|__pycache__/|\.[^/]*_cache/|_build/|[^/]*\.egg-info/)')
        found = [name for p in root.rglob('*') if not skip.match(name := p.relative_to(root).as_posix())]
    return sorted(name for name in set(found) if name and (root / name).is_file())

# ---------------------------------------------------------------- finding pictures

CHUNK = r'[A-Za-z0-9+/_-]{40,}(?:=|%3[Dd])*'
CODED = re.compile(rf'{CHUNK}(?:(?:\\[nr]|%0[AaDd]|[\s"\',+\\])+{CHUNK})*')
PERCENT = re.compile(r'(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9]){300,}')
DIGEST = re.compile(r'\b(?:[0-9a-f]{40}|[0-9a-f]{64})\b')

def binary(data: bytes) -> bool:
    "Whether bytes are anything but text in UTF-8."
    try: text = data.decode()
    except UnicodeDecodeError: return True
    return bool(re.search('[\0-\x08\x0e-\x1a\x1c-\x1f]', text) or re.match(r'P[1-6]\s+(?:#.*\s+)*\d+\s+\d+|/\* XPM|%!PS', text))

def decoded(text: str) -> Iterator[bytes]:
    "Everything of 150 bytes and more that a text holds in base64, hexadecimal or percent codes."
    for run in CODED.finditer(DIGEST.sub(' . ', text)):
        body = re.sub(r'\\[nr]|%0[AaDd]|[^A-Za-z0-9+/_-]', '', run[0].replace('%3D', '').replace('%3d', ''))
        if len(body) < 200: continue
        if re.fullmatch(r'(?:[0-9a-f]{2})+|(?:[0-9A-F]{2})+', body): yield binascii.unhexlify(body)
        elif all(sum(map(body.count, kind)) > len(body) / 50 for kind in ('ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz', '0123456789')):
            yield base64.b64decode(body.translate(str.maketrans('-_', '+/')) + '=' * (-len(body) % 4))
    for run in PERCENT.finditer(text):
        if run[0].count('%') > 100: yield re.sub(rb'%(..)', lambda m: bytes([int(m[1], 16)]), run[0].encode())

def texts(value) -> Iterator[str]:
    "All texts in nested JSON; a list of texts is one, as in notebooks."
    if isinstance(value, str): yield value
    elif isinstance(value, list) and all(isinstance(part, str) for part in value): yield ''.join(value)
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value: yield from texts(part)

def shown(name: str, data: bytes) -> list[tuple[str, bytes]]:
    "Place and bytes of every embedded thing: the file itself, `output` for outputs of a notebook, else `text`."
    if binary(data): return [('file', data)]
    try: cells = json.loads(data)['cells'] if name.endswith('.ipynb') else None
    except (ValueError, TypeError, KeyError): cells = None
    if cells is None: return [('text', found) for found in decoded(data.decode())]
    outputs = [o for cell in cells for o in (cell.get('outputs') or []) if isinstance(o, dict)]
    inside = [('output', found) for o in outputs for text in texts(o.get('data')) for found in decoded(text)]
    rest = json.loads(data)
    for cell in rest['cells']:
        for o in cell.get('outputs') or []: o.pop('data', None)
    return inside + [('text', found) for text in texts(rest) for found in decoded(text)]

# ---------------------------------------------------------------- accounting for them

READERS = {'imread', 'urlopen', 'urlretrieve', 'VideoCapture', 'read_photos', 'read_bytes', 'fromfile', 'memmap', 'np.load', 'Image.open', 'Image'}
PLACES = re.compile(r'data/(?:user|licensed)|shared/data|https?://')

def opened(data: bytes) -> set[str]:
    "Calls in the code of a notebook that may read a picture, and texts that name a folder of photographs or an address."
    found = set()
    for cell in json.loads(data)['cells']:
        if cell['cell_type'] != 'code': continue
        lines = ''.join(cell['source']).splitlines()
        try: tree = ast.parse('\n'.join(line for line in lines if not line.lstrip().startswith(('%', '!'))))
        except SyntaxError: return {'code that is no Python'}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                found |= {reader for reader in READERS if call == reader or call.endswith('.' + reader)}
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACES.search(node.value): found.add(node.value[:60])
    return found

def read_nothing(manifest: Path) -> bool:
    "Whether a stage of a run read nothing from outside but the drawn BLIP-2."
    try: told = json.loads(manifest.read_text())
    except (OSError, ValueError): return False
    return all(name.startswith('data/drawn-blip2/') for name in told['reads']) and not told['all_params'].get('data')

def tensors(data: bytes) -> bool:
    "Whether a file is tensors of floats (or positions) in the safetensors format and nothing behind them."
    try:
        size = struct.unpack('<Q', data[:8])[0]
        head = [value for key, value in json.loads(data[8:8 + size]).items() if key != '__metadata__']
        end = 8 + size + max(t['data_offsets'][1] for t in head)
        return all(t['dtype'] in ('F64', 'F32', 'F16', 'BF16', 'I64') for t in head) and end == len(data)
    except (struct.error, ValueError, KeyError, TypeError): return False

def camera(data: bytes) -> bool:
    "Whether a picture carries metadata that no drawing of ours has."
    try:
        with Image.open(io.BytesIO(data)) as picture: tags, about = picture.getexif(), set(picture.info)
        return bool(tags or about & {'xmp', 'icc_profile', 'comment', 'photoshop'})
    except OSError: return True

def faults(root: Path) -> list[str]:
    "Everything embedded in committed files that is not accounted for."
    allowed, found = json.loads((root / LIST).read_text()), []
    beside: dict[str, set[bytes]] = {}  # pictures of notebooks on the list, by folder
    def tell(name, place, data, why):
        sha = hashlib.sha256(data).hexdigest()
        line = f'"{sha}": {{"path": "{name}", "kind": "drawn | figure | public domain", "from": "..."}}'
        found.append(f'{name}: {place} of {len(data):,} bytes: {why}\n    {line}')
    for name in sorted(committed(root), key=lambda name: not name.endswith('.ipynb')):  # notebooks first: they account for what lies beside them
        if name.startswith(PRIVATE): found.append(f'{name}: nothing in this folder may be committed')
        things = shown(name, data := (root / name).read_bytes())
        entry = next((entry for pattern, entry in allowed['notebooks'].items() if fnmatchcase(name, pattern)), None)
        outputs = {thing for place, thing in things if place == 'output'}
        if outputs and entry:
            folder = (root / name).parent
            if name.startswith('outputs/'):
                # the tables of a run show its pictures: what its data stage read is what counts
                told = folder.parent / 'shared' / 'data' if folder.name == 'tables' else folder
                if not read_nothing(told / 'manifest.json'): found.append(f'{name}: its manifest is missing, or the stage read files from outside')
            elif more := opened(data) - set(entry.get('reads', ())):
                found.append(f'{name}: shows pictures, and its code has {", ".join(sorted(more))}')
            if len(outputs) > entry['pictures']: found.append(f'{name}: shows {len(outputs)} pictures, the list says {entry["pictures"]}')
            found += [f'{name}: {len(thing):,} bytes with metadata of a camera or an editor, or no picture' for thing in outputs if camera(thing)]
            beside.setdefault(folder.relative_to(root).as_posix(), set()).update(outputs)
        for place, thing in things:
            if place == 'output' and entry: continue
            if hashlib.sha256(thing).hexdigest() in allowed['files']: continue
            if place == 'file' and tensors(thing): continue
            if name.startswith('outputs/') and thing in beside.get(Path(name).parent.as_posix(), ()): continue
            tell(name, place, thing, 'is in no notebook on the list' if place == 'output' else 'is not on the list')
    return found

def test_every_picture_is_accounted_for():
    assert faults(ROOT) == []

def test_the_list_says_what_and_where_from_and_nothing_stale():
    allowed, names = json.loads((ROOT / LIST).read_text()), committed(ROOT)
    things = {hashlib.sha256(thing).hexdigest() for name in names for _, thing in shown(name, (ROOT / name).read_bytes())}
    for sha, entry in allowed['files'].items():
        assert sha in things and entry['kind'] in ('drawn', 'figure', 'public domain') and entry['from'] and (ROOT / entry['path']).is_file()
    for pattern, entry in allowed['notebooks'].items():
        hits = [name for name in names if fnmatchcase(name, pattern)]
        most = max(len({thing for place, thing in shown(name, (ROOT / name).read_bytes()) if place == 'output'}) for name in hits)
        assert most == entry['pictures'] and entry['shows'], (pattern, most)

def test_the_reference_is_looked_at():
    "Its executed notebooks, its page and its loose pictures are among what is scanned, and pictures are found in each kind."
    names = [name for name in committed(ROOT) if name.startswith('outputs/reference')]
    kinds = {(Path(name).suffix, place) for name in names for place, _ in shown(name, (ROOT / name).read_bytes())}
    assert {('.ipynb', 'output'), ('.html', 'text'), ('.jpg', 'file')} == kinds
    assert {name for name in names if name.endswith('/manifest.json') and not read_nothing(ROOT / name)} == set()

# ---------------------------------------------------------------- canaries

@pytest.fixture(scope='module')
def photograph() -> bytes:
    "A JPEG with what a photograph has: a smooth head before a background, shading, and the noise of a sensor. Nobody's face."
    dice = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:160j, -1:1:128j]
    head = (x / .6) ** 2 + (y / .8) ** 2 < 1
    tone = np.where(head, 190 - 60 * x, 90 + 40 * y)[..., None] * np.array([1, .8, .7]) + dice.normal(0, 6, (160, 128, 3))
    Image.fromarray(tone.clip(0, 255).astype(np.uint8)).save(out := io.BytesIO(), 'JPEG', quality=85)
    return out.getvalue()

KEPT = ('README.md', '.gitignore', LIST, 'nbs/api/faces.ipynb', 'nbs/api/images.ipynb', 'outputs/reference/shared/data/contact_sheet.jpg',
        *(f'outputs/reference/report/{name}' for name in ('notebook.ipynb', 'report.html', 'manifest.json', 'probes.jpg')))

@pytest.fixture
def repo(tmp_path) -> Path:
    "A small repository with a few of our files, all of them accounted for."
    for name in KEPT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(['git', 'init', '-q', '.'], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(['git', 'add', '.'], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path

def put(repo: Path, name: str, content: bytes | str) -> None:
    (repo / name).parent.mkdir(parents=True, exist_ok=True)
    (repo / name).write_bytes(content if isinstance(content, bytes) else content.encode())

def cell(kind='code', source='', **more):
    return {'cell_type': kind, 'id': 'x', 'metadata': {}, 'source': source} | ({'outputs': []} if kind == 'code' else {}) | more
def output(photo, mime='image/jpeg'): return {'output_type': 'display_data', 'metadata': {}, 'data': {mime: base64.b64encode(photo).decode()}}
def book(*cells): return json.dumps({'cells': list(cells), 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}, indent=1)

def with_cell(repo: Path, name: str, new: dict) -> None:
    had = json.loads((repo / name).read_text())
    put(repo, name, json.dumps(had | {'cells': [*had['cells'], new]}))

def b64(photo): return base64.b64encode(photo).decode()
def lines(text, width=76): return [text[i:i + width] for i in range(0, len(text), width)]

def as_safetensors(photo):
    head = json.dumps({'x': {'dtype': 'U8', 'shape': [len(photo)], 'data_offsets': [0, len(photo)]}}).encode()
    return struct.pack('<Q', len(head)) + head + photo

def as_array(photo):
    np.save(out := io.BytesIO(), np.asarray(Image.open(io.BytesIO(photo))))
    return out.getvalue()

SMUGGLED = {
    'as a file': ('docs/me.jpg', lambda p: p),
    'as a file with another extension': ('docs/notes.txt', lambda p: p),
    'as a file that a folder of outputs may hold': ('outputs/reference/report/extra.jpg', lambda p: p),
    'as an array': ('data/x.npy', as_array),
    'as bytes in a checkpoint': ('data/x.safetensors', as_safetensors),
    'behind a checkpoint': ('data/y.safetensors', lambda p: as_safetensors(b'').replace(b'U8', b'F16') + p),
    'as a text picture': ('docs/x.txt', lambda p: 'P3\n128 160\n255\n' + ' '.join(map(str, np.asarray(Image.open(io.BytesIO(p))).ravel()))),
    'as a data URI in HTML': ('docs/page.html', lambda p: f'<img src="data:image/jpeg;base64,{b64(p)}">'),
    'as a data URI in HTML, in lines': ('docs/page.html', lambda p: '<img src="data:image/jpeg;base64,' + '\n  '.join(lines(b64(p))) + '">'),
    'as a data URI in percent codes': ('docs/page.html', lambda p: '<img src="data:image/jpeg,' + ''.join(f'%{byte:02X}' for byte in p) + '">'),
    'as a data URI on a page of a run': ('outputs/reference/report/other.html', lambda p: f'<img src="data:image/jpeg;base64,{b64(p)}">'),
    'as a data URI in Markdown': ('docs/page.md', lambda p: f'![me](data:image/jpeg;base64,{b64(p)})'),
    'as an image of an SVG': ('nbs/images/x.svg', lambda p: f'<svg><image href="data:image/jpeg;base64,{b64(p)}"/></svg>'),
    'as a text in JSON': ('data/x.json', lambda p: json.dumps({'picture': lines(b64(p))})),
    'as hexadecimal': ('data/x.csv', lambda p: 'name,picture\nme,' + p.hex()),
    'as an address-safe text': ('expblip/x.py', lambda p: f'ME = "{base64.urlsafe_b64encode(p).decode()}"'),
    'as an output of a notebook': ('nbs/api/new.ipynb', lambda p: book(cell(outputs=[output(p)]))),
    'as an HTML output of a notebook': ('nbs/api/new.ipynb', lambda p: book(cell(outputs=[
        {'output_type': 'display_data', 'metadata': {}, 'data': {'text/html': [f'<img src="data:image/jpeg;base64,{b64(p)}">']}}]))),
    'as an output in lines': ('nbs/api/new.ipynb', lambda p: book(cell(outputs=[
        {'output_type': 'display_data', 'metadata': {}, 'data': {'image/jpeg': [line + '\n' for line in lines(b64(p))]}}]))),
    'as an attachment': ('nbs/api/new.ipynb', lambda p: book(cell('markdown', attachments={'me.jpg': {'image/jpeg': b64(p)}}))),
    'as what a cell printed': ('nbs/api/new.ipynb', lambda p: book(cell(outputs=[{'output_type': 'stream', 'name': 'stdout', 'text': b64(p)}]))),
    'in the metadata of a notebook': ('nbs/api/new.ipynb', lambda p: book(cell(metadata={'me': b64(p)}))),
    'as an executed stage without a manifest': ('outputs/reference/seed0/probe/notebook.ipynb', lambda p: book(cell(outputs=[output(p)]))),
}

def test_the_small_repository_is_accounted_for(repo):
    assert faults(repo) == []

@pytest.mark.parametrize('how', SMUGGLED)
def test_a_photograph_is_caught(repo, photograph, how):
    "Added, or lying there to be added; and also where git is not there to say what is committed."
    name, wrap = SMUGGLED[how]
    put(repo, name, wrap(photograph))
    told = faults(repo)
    assert told and all(line.startswith(name) for line in told)
    (repo / '.git').rename(repo / '.venv-git')
    assert faults(repo) == told

IN_LISTED = {
    'one output more': (lambda p: cell(outputs=[output(p)]), 'shows 4 pictures, the list says 3'),
    'an attachment': (lambda p: cell('markdown', '![me](attachment:me.jpg)', attachments={'me.jpg': {'image/jpeg': b64(p)}}), 'is not on the list'),
    'a data URI in a text cell': (lambda p: cell('markdown', f'<img src="data:image/jpeg;base64,{b64(p)}">'), 'is not on the list'),
}

@pytest.mark.parametrize('how', IN_LISTED)
def test_a_photograph_in_a_listed_notebook_is_caught(repo, photograph, how):
    make, why = IN_LISTED[how]
    with_cell(repo, 'nbs/api/faces.ipynb', make(photograph))
    told = faults(repo)
    assert len(told) == 1 and told[0].startswith('nbs/api/faces.ipynb: ') and why in told[0]

@pytest.mark.parametrize('source', [
    'plt.imshow(plt.imread("me.jpg"))', 'Image.open(path)', 'PIL.Image.open(path)', 'read_photos("me.csv")', 'Image("me.jpg")',
    'folder = "data/user/me"', 'urllib.request.urlopen(x)', 'this is no Python'])
def test_a_listed_notebook_may_not_open_pictures(repo, source):
    with_cell(repo, 'nbs/api/faces.ipynb', cell(source=source))
    assert len(faults(repo)) == 1 and 'and its code has' in faults(repo)[0]

def test_a_picture_of_a_camera_is_caught_even_in_place_of_a_drawn_one(repo, photograph):
    had = json.loads((repo / 'nbs/api/faces.ipynb').read_text())
    where = next(o for c in had['cells'] for o in c.get('outputs', []) if 'image/jpeg' in o.get('data', {}))
    with Image.open(io.BytesIO(photograph)) as picture:
        tags = Image.Exif(); tags[0x010F] = 'maker'
        picture.save(out := io.BytesIO(), 'JPEG', exif=tags)
    where['data']['image/jpeg'] = b64(out.getvalue())
    put(repo, 'nbs/api/faces.ipynb', json.dumps(had))
    assert len(faults(repo)) == 1 and 'metadata of a camera' in faults(repo)[0]

def test_a_run_on_photographs_may_not_become_the_reference(repo):
    "A manifest that tells of a table of photographs makes all pictures of that folder unaccounted for."
    told = json.loads((repo / 'outputs/reference/report/manifest.json').read_text())
    put(repo, 'outputs/reference/report/manifest.json', json.dumps(told | {'reads': {'data/user/photos.csv': {}}}))
    assert len(faults(repo)) == 1 and 'read files from outside' in faults(repo)[0]
    put(repo, 'outputs/reference/report/manifest.json', json.dumps(told | {'all_params': told['all_params'] | {'data': 'data/user/photos.csv'}}))
    assert len(faults(repo)) == 1

def test_folders_of_photographs_are_ignored_and_may_not_be_forced(repo, photograph):
    for folder in PRIVATE:
        put(repo, f'{folder}me.jpg', photograph)
        put(repo, f'{folder}photos.csv', 'image\nme.jpg\n')
    assert faults(repo) == []
    subprocess.run(['git', 'add', '-f', 'data/licensed/photos.csv'], cwd=repo, check=True, capture_output=True)
    assert faults(repo) == ['data/licensed/photos.csv: nothing in this folder may be committed']

# ---------------------------------------------------------------- names and places

# written in pieces, so that test_house does not find them here
FOLDERS = 'ho' 'me|Us' 'ers|ro' 'ot|tm' 'p|wo' 'rk|var|mnt|media|opt|usr|srv|data|scratch|private|content|kaggle|Volumes'
PATH = re.compile(rf'(?<![\w.<~-])/(?:{FOLDERS})/\w|~/\w|\b[A-Za-z]:\\+\w|file:' r'//')
MAIL = re.compile(r'\b[\w.+-]+@[\w-]+\.[A-Za-z]{2,}\b')

def traces(text: str) -> list[str]:
    "Absolute paths and addresses of people in a text, embedded things left out."
    text = CODED.sub('', text)
    return [m[0] for m in (*PATH.finditer(text), *MAIL.finditer(text))]

@pytest.mark.parametrize('text', [
    '"/' 'home/jane/x.jpg"', 'C:\\Users\\jane', "'~/faces'", 'jane.doe@example.org', '(/' 'Users/jane)', 'file:' '///x', '=/mnt/disk/AffectNet'])
def test_a_trace_is_seen(text):
    assert traces(text) and not traces('outputs/reference/data/x, a</data>, https://example.org/data/x, judge/au_f1/AU12, 3/4')

def test_what_a_run_leaves_names_no_place_and_nobody():
    "Manifests, tables, logs, results, pages and executed notebooks: no absolute path, nobody's address."
    texts = {name: data.decode() for name in committed(ROOT) if name.startswith('outputs/') and not binary(data := (ROOT / name).read_bytes())}
    assert len(texts) > 100 and {name: found for name, text in texts.items() if (found := traces(text))} == {}

def test_manifests_hold_relative_names():
    for name in committed(ROOT):
        if name.startswith('outputs/') and name.endswith('manifest.json'):
            told = json.loads((ROOT / name).read_text())
            paths = [*told['reads'], *told['outputs'], told['notebook'], told['all_params']['out']]
            assert not [p for p in paths if p.startswith(('/', '~', '..')) or ':' in p], name
            assert re.fullmatch(r'\w+ \w+, \d+ cores', told['machine'])

def test_captions_carry_ids_and_not_names():
    "What is written about an image of a named person in a private folder: its id, and nothing else of the record."
    table = check_records(pd.DataFrame({
        "id": ["photos/1", "photos/2"], "image": ["/private/Jane Doe/1.jpg", "/private/Jane Doe/2.jpg"], "dataset": "photos", "split": "train",
        "subject": "Jane Doe", "au_present": pd.Series([[6, 12], None], dtype=object), "au_absent": pd.Series([[4], None], dtype=object),
        "emotions": pd.Series([None, ["happiness"]], dtype=object)}))
    for name in ("rule", "grammar"):
        captions = caption_table(table, writer(name))
        assert set(captions['record']) == {'photos/1', 'photos/2'} and not captions.to_csv().count('Jane') and not captions.to_csv().count('private')

def test_an_id_holds_what_lies_below_the_data_set_only():
    records, _ = release_records('bp4d', '/private/Jane Doe', ['F001/T1/0001.jpg'], ['train'])
    assert records['id'].tolist() == ['bp4d/F001/T1/0001.jpg']

if __name__ == '__main__':
    print('\n'.join(faults(ROOT)) or 'every picture is accounted for')
