"""A real browser for the tests of report.html."""

import os

import pytest

CHROMIUM = os.environ.get("EMOCALIBER_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


# Not for the whole session: as long as Playwright runs, no other test can run an event loop of its own.
@pytest.fixture(scope="module")
def browser():
    """The browser, one process for the tests of a file."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.fail(f"{CHROMIUM} is not there: bash tests/install_browser.sh installs it", pytrace=False)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens pages; at the end nothing may have been asked for, said or run that the page should not."""
    complaints, pages = [], []

    def open_page(path=None, **options):
        page = browser.new_page(viewport={"width": 1300, "height": 900}, **options)
        page.set_default_timeout(10_000)
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: note_request(request.url))
        page.goto((path or tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        pages.append(page)
        return page

    def note_request(url):
        if not url.startswith(("data:", "file:")) or (url.startswith("file:") and not url.endswith(".html")):
            complaints.append(f"request: {url[:200]}")

    yield open_page
    pwned = [page.evaluate("window.__pwned === undefined && !window.name") for page in pages]
    for page in pages:
        page.close()
    assert complaints == []
    assert all(pwned)
