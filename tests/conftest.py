"What several test files use."
import shutil

import pytest

QUIET = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']


@pytest.fixture(scope='module')
def browser():
    "A headless Chromium that asks nobody anything by itself."
    from playwright.sync_api import sync_playwright
    path = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if path is None:
        pytest.fail('no Chromium: install it from the distribution (Debian: apt-get install chromium); pages are tested in a real browser')
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()
