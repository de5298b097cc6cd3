"""JupyterLab in real Chromium, as a person uses it: open, run all cells, save, close. No error, nothing asked of the web, no change for git."""
import json
import os
import re
import secrets
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_house import FILES, ROOT

# by name, wherever below nbs/ they lie: the index, two pages that are read in JupyterLab, and a stage after the stage that it reads
BOOKS = ('index', 'own_data_set', 'llm_writers', '10_data', '20_synthesize')
PATIENCE = 120_000  # milliseconds that one step may take on a busy machine
pytestmark = pytest.mark.browser


def command(*args: str, cwd: Path, **env: str) -> str:
    got = subprocess.run(args, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert got.returncode == 0, f'{args}: {got.stdout[-3000:]}{got.stderr[-3000:]}'
    return got.stdout


@pytest.fixture(scope='module')
def checkout(tmp_path_factory) -> Path:
    "A clone to work in: what is tracked, and what is new and not ignored, under git."
    root = tmp_path_factory.mktemp('lab') / 'expblip'
    for path in FILES:
        (to := root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    for args in (('init', '-q'), ('add', '-A'), ('-c', 'user.name=a', '-c', 'user.email=a@example.org', 'commit', '-q', '-m', 'all')):
        command('git', *args, cwd=root)
    return root


class Asked(socketserver.BaseRequestHandler):
    "A proxy that lets nothing through and notes what was asked."
    def handle(self): self.server.asked.append(self.request.recv(4096).split(b'\r\n')[0].decode(errors='replace'))


@pytest.fixture(scope='module')
def lab(checkout):
    "JupyterLab with settings of its own; what it or a kernel asks of the web goes to `asked`."
    proxy = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Asked)
    proxy.asked, proxy.daemon_threads = [], True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    home, token = checkout.parent / 'jupyter', secrets.token_hex(16)
    news = home / 'settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings'
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = {name: value for name, value in os.environ.items() if name not in ('MPLBACKEND', 'JUPYTER_PATH', 'JUPYTER_CONFIG_PATH')}
    env |= {'HOME': str(home), 'IPYTHONDIR': str(home / 'ipython'), 'JUPYTER_CONFIG_DIR': str(home / 'config'),
            'JUPYTER_DATA_DIR': str(home / 'data'), 'JUPYTER_RUNTIME_DIR': str(home / 'run'),
            'JUPYTERLAB_SETTINGS_DIR': str(home / 'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(home / 'workspaces'),
            'PYTHONPATH': str(checkout), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore::DeprecationWarning',
            'NO_PROXY': 'localhost,127.0.0.1', 'no_proxy': 'localhost,127.0.0.1'}
    env |= dict.fromkeys(('HTTP_PROXY', 'HTTPS_PROXY', 'http_proxy', 'https_proxy'), f'http://127.0.0.1:{proxy.server_address[1]}')
    started = [sys.executable, '-m', 'jupyterlab', '--allow-root', '--no-browser', '--ip=127.0.0.1', '--port=0', f'--IdentityProvider.token={token}',
               f'--ServerApp.root_dir={checkout}', '--LabApp.news_url=None', '--LabApp.extension_manager=readonly',
               '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', '--LabApp.expose_app_in_browser=True']
    with open(home / 'log', 'w') as log:
        server = subprocess.Popen(started, cwd=checkout, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        said, end = '', time.time() + PATIENCE / 1000
        while not (found := re.search(r'http://127\.0\.0\.1:(\d+)/lab', said)):
            assert server.poll() is None and time.time() < end, f'JupyterLab did not start:\n{said[-3000:]}'
            time.sleep(.1)
            said = (home / 'log').read_text()
        yield f'http://127.0.0.1:{found[1]}/', token, proxy.asked
    finally:
        server.send_signal(signal.SIGTERM)
        try: server.wait(20)
        except subprocess.TimeoutExpired: os.killpg(server.pid, signal.SIGKILL)
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture(scope='module')
def tab(lab, browser):
    "A tab of Chromium whose requests to others than this server fail and are kept in `outside`."
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    page.set_default_timeout(PATIENCE)
    page.outside, page.faults = [], []
    def own(url): return url.startswith((lab[0], lab[0].replace('http', 'ws', 1), 'data:', 'blob:'))
    def refuse(route):
        page.outside.append(route.request.url)
        route.abort()
    page.context.route(lambda url: not own(url), refuse)
    page.on('websocket', lambda socket: None if own(socket.url) else page.outside.append(socket.url))
    page.on('pageerror', lambda error: page.faults.append(str(error)))
    page.goto(f'{lab[0]}lab?token={lab[1]}&reset')
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget")
    yield page


BOOK = '''const book = window.jupyterapp.shell.currentWidget;
  const cells = [...book.content.model.cells].filter(c => c.type == "code" && c.sharedModel.source.trim());'''
DONE = f"""() => {{ {BOOK}
  return document.querySelector('.jp-Dialog') || cells.some(c => c.outputs.toJSON().some(o => o.output_type == 'error')) ||
         cells.every(c => c.executionCount) && book.sessionContext.session.kernel.status == 'idle' }}"""
RESULT = f"() => {{ {BOOK} return cells.map(c => [c.executionCount, c.sharedModel.source, c.outputs.toJSON()]) }}"


def menu(tab, name: str, entry: str):
    tab.click(f'.lm-MenuBar-itemLabel:text-is("{name}")')
    tab.click(f'.lm-Menu-itemLabel:text-matches("^{entry}")')


def run_in_lab(tab, name: str, picture: Path) -> list[list]:
    "Open, run all cells, save, close; (count, source, outputs) of each code cell."
    tab.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)  # as a click in the list of files does
    tab.wait_for_function("""() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'
                                || document.querySelector('.jp-Dialog')""")
    assert not tab.locator('.jp-Dialog').count(), f'{name}: JupyterLab asks: {tab.inner_text(".jp-Dialog")}'
    menu(tab, 'Run', 'Run All Cells$')
    tab.wait_for_function(DONE)
    assert not tab.locator('.jp-Dialog').count(), f'{name}: JupyterLab says: {tab.inner_text(".jp-Dialog")}'
    found = tab.evaluate(RESULT)
    tab.screenshot(path=picture)
    tab.keyboard.press('Control+s')
    tab.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    menu(tab, 'File', 'Close and Shut Down Notebook')
    if tab.locator('.jp-Dialog').count(): tab.click('.jp-Dialog .jp-mod-accept')
    tab.wait_for_function("() => !window.jupyterapp.shell.currentWidget?.sessionContext")
    return found


def find(stem: str, root: Path = ROOT) -> str:
    found = [p.relative_to(root).as_posix() for p in (root / 'nbs').rglob(f'{stem}.ipynb') if '.ipynb_checkpoints' not in p.parts]
    assert len(found) == 1, f'{stem}.ipynb: {len(found)} of that name below nbs/; correct BOOKS in this file'
    return found[0]


@pytest.mark.parametrize('stem', BOOKS)
def test_runs_in_jupyterlab_and_leaves_no_change(tab, lab, checkout, stem):
    name = find(stem, checkout)
    kept = json.loads((checkout / name).read_text())
    asked, outside = len(lab[2]), len(tab.outside)
    cells = run_in_lab(tab, name, checkout.parent / f'{Path(name).stem}.png')
    faults = [(source, one['ename'], one['evalue']) for _, source, outputs in cells for one in outputs if one['output_type'] == 'error']
    assert faults == [] and all(count for count, _, _ in cells)
    assert tab.outside[outside:] == [] and lab[2][asked:] == [], 'something was asked of the web'
    assert tab.faults == []
    saved = json.loads((checkout / name).read_text())
    assert any(cell.get('execution_count') for cell in saved['cells']), 'it was not saved'
    command(sys.executable, 'tools/clean.py', cwd=checkout, PYTHONPATH=str(checkout))  # what `make clean-nbs` calls
    changed, how = (command('git', *args, cwd=checkout) for args in (('status', '--porcelain'), ('diff',)))
    command('git', 'checkout', '-q', '.', cwd=checkout)
    assert changed == '', f'{changed}\n{how[:4000]}'
    assert json.loads((checkout / name).read_text()) == kept


def test_what_is_watched_for_is_seen(tab, lab, checkout):
    "A notebook that fails, shows a picture of the web and asks the web itself: each is noticed, and nothing of it gets out."
    asks = """import urllib.request
from IPython.display import HTML
try: urllib.request.urlopen('http://example.org/kernel', timeout=5)
except OSError as fault: print('refused')
HTML('<img src="https://example.org/picture.png">')"""
    book = {'cells': [{'cell_type': 'code', 'id': f'cell{n}', 'metadata': {}, 'execution_count': None, 'outputs': [], 'source': text}
                      for n, text in enumerate([asks, '1 / 0'])],
            'metadata': {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}, 'nbformat': 4, 'nbformat_minor': 5}
    (checkout / 'bad.ipynb').write_text(json.dumps(book))
    cells = run_in_lab(tab, 'bad.ipynb', checkout.parent / 'bad.png')
    assert [one['ename'] for _, _, outputs in cells for one in outputs if one['output_type'] == 'error'] == ['ZeroDivisionError']
    assert 'https://example.org/picture.png' in tab.outside
    assert any('example.org/kernel' in line for line in lab[2])
