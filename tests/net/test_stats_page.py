"""The stats page in a browser (headless Chromium), over a balancer with traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import HOST, get
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from waiting import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

# A browser takes its time to start where others are at work.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

FIRST, SECOND = backend_address(4, 1), backend_address(4, 2)
DESK, PHONE = (1440, 1000), (375, 812)


class Page:
    """The page in a browser at the balancer."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def size(self, width: int, height: int) -> None:
        """Set the size of the page in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """Prefer dark or light."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def text(self, backend: str, field: str) -> str:
        """The bold text of one cell of ``backend``."""
        return str(self.js(f"return {_cell(backend, field)}?.querySelector('b')?.textContent"))

    def js(self, script: str, *arguments: Any) -> Any:
        """The result of ``script``."""
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for ``condition``."""
        wait_until(condition, lambda: self.js("return document.body.innerText"))

    def errors(self) -> list[str]:
        """Messages of the console above the level of notes."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]


def _cell(backend: str, field: str) -> str:
    return f'document.querySelector(\'tr[data-key="{backend}"] [data-field="{field}"]\')'


@pytest.fixture
def page(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any, ask: Any, tmp_path: Any
) -> Iterator[tuple[Page, Topology, LabBalancer]]:
    """The page of a service that had 30 connections, whose page may change things."""
    net = topology()
    serve(net, udp=())
    check = {"type": "tcp", "interval": 1, "timeout": 20}
    web = service(4, ports=80, strategy="wrr", weights=(2, 1, 3), check=check)
    web |= {"carrier": "worker", "decide": "auto"}
    peers = [f"http://{HOST}", "http://127.0.0.1:9"]
    stats = {"bind": HOST, "admin": True, "peers": peers}
    running = balancer(net, config(web, stats=stats, flows={"max": 1_000_000}))
    ask(net, "tcp", VIP[4], 80, 30)
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    # Its own queries wait for names, and nobody in the namespace knows any.
    options.add_argument("--disable-background-networking")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with net.balancer.entered():
        browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            made = Page(browser)
            made.size(*DESK)
            browser.get(f"http://{HOST}/")
            made.wait(lambda: made.text(FIRST, "flows") != "None")
            yield made, net, running
        finally:
            browser.quit()


def test_page(page: tuple[Page, Topology, LabBalancer]) -> None:
    """The page's numbers equal the API's; drained backends are marked by a word and a shape; the
    charts are drawn, again after a reload; both colour schemes and the width of a phone have room
    for all; the console has no errors. By keyboard alone a backend is found and drained, with the
    token.
    """
    shown, net, running = page
    shown.wait(lambda: agrees(shown, get(net.balancer, "/api/v1/backends")))
    assert "3 of 3 ready" in shown.js("return document.querySelector('.service').innerText")
    title = shown.js("return document.querySelector('.service .where').title")
    assert title == "a worker decides: the workers carry its flows"
    assert "of 33 %" in shown.js(f"return {_cell(FIRST, 'share')}.innerText")
    worker = shown.js("return document.querySelector('#workers tbody tr').innerText")
    assert "up" in worker
    assert "of 1.00M" in worker
    ControlClient(str(running.config.parent.parent / "control.sock")).set_backend(
        "web4", FIRST, state="drain"
    )
    looks_drained(shown)
    shown.browser.refresh()
    shown.wait(lambda: shown.js("return document.querySelectorAll('figure canvas').length") == 3)
    looks_drained(shown)
    drains_the_balancer(shown, net, running)
    shown.wait(lambda: len(get(net.balancer, "/api/v1/history")["at"]) > 0)
    has_both_schemes(shown)
    has_room(shown)
    assert shown.errors() == []

    token = (running.config.parent.parent / "stats.token").read_text().strip()
    drain_by_keyboard(shown, token)
    assert get(net.balancer, "/api/v1/backends")[1]["state"] == "drain"
    (error,) = shown.errors()  # that of the wrong token
    assert "status of 400" in error


def agrees(shown: Page, rows: list[dict[str, Any]]) -> bool:
    """Whether the page has the values of ``rows`` for every backend."""

    def agree(row: dict[str, Any]) -> bool:
        cells = {name: _cell(row["backend"], name) for name in ("flows", "in", "out")}
        return (
            shown.js(f"return {cells['flows']}.innerText").endswith(f"{row['conns']} in all")
            and shown.text(row["backend"], "flows") == str(row["flows"])
            and shown.text(row["backend"], "weight") == str(row["weight"])
            and shown.text(row["backend"], "state") == row["state"]
            and shown.text(row["backend"], "check").startswith(row["check"]["code"])
            and f"{row['packets_in']} packets" in shown.js(f"return {cells['in']}.title")
            and f"{row['bytes_out']} bytes" in shown.js(f"return {cells['out']}.title")
        )

    return sum(row["conns"] or 0 for row in rows) == 30 and all(map(agree, rows))


def looks_drained(shown: Page) -> None:
    """Only the first backend is shown as drained, and its service too."""
    shown.wait(lambda: shown.text(FIRST, "state") == "drain")
    shape = shown.js(f"return {_cell(FIRST, 'state')}.querySelector('use').getAttribute('href')")
    assert shape == "#drain"
    assert "2 of 3 ready" in shown.js("return document.querySelector('.service').innerText")
    assert shown.text(SECOND, "state") == "ready"


def drains_the_balancer(shown: Page, net: Topology, running: LabBalancer) -> None:
    """A balancer that is not to be announced says so in place of its health, and is no problem; it
    is marked among the balancers, of which another one does not answer.
    """
    control = ControlClient(str(running.config.parent.parent / "control.sock"))
    badge = "return document.getElementById('health').textContent"
    control.post("node", {"state": "drain"})
    shown.wait(lambda: shown.js(badge) == "draining")
    assert get(net.balancer, "/api/v1/node")["state"] == "drain"
    assert shown.js("return document.getElementById('problems').hidden")
    row = "return document.querySelector('#balancers tbody tr').innerText"
    shown.wait(lambda: "drained" in shown.js(row))
    control.post("node", {"state": "ready"})
    shown.wait(lambda: shown.js(badge) == "healthy")
    shown.wait(lambda: "drained" not in shown.js(row))
    assert "connection refused" in shown.js(row.replace("tr'", "tr:last-child'"))


def has_both_schemes(shown: Page) -> None:
    """The page follows the browser's colour scheme, and the reader's choice."""
    colors = set()
    for scheme in ("light", "dark"):
        shown.scheme(scheme)
        colors.add(shown.js("return getComputedStyle(document.body).backgroundColor"))
    assert len(colors) == 2
    shown.browser.find_element(By.ID, "theme").send_keys("t")
    shown.wait(lambda: shown.js("return document.documentElement.dataset.theme") == "dark")


def has_room(shown: Page) -> None:
    """Nothing is cut or scrolls sideways, from a wide screen to a narrow phone, also with many
    flows.
    """
    for width, height in (DESK, (1200, 900), (1000, 800), PHONE, (320, 600)):
        shown.size(width, height)
        wide = shown.js("return document.documentElement.scrollWidth")
        assert wide <= width, (width, wide)
        cut = shown.js(
            "for (const one of document.querySelectorAll('.service td[data-field=flows] small'))"
            " one.textContent = '12.3k inactive, 1.23M in all';"
            "return [...document.querySelectorAll('.card td, .card th, .tile')].filter("
            "(one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)"
            ".map((one) => one.innerText)"
        )
        assert cut == [], (width, cut)
    shown.size(*DESK)


def drain_by_keyboard(shown: Page, token: str) -> None:
    """Find the second backend and drain it; a wrong token is reported."""
    shown.browser.find_element(By.TAG_NAME, "body").send_keys("/")
    shown.browser.switch_to.active_element.send_keys(SECOND)
    rows = (
        "return [...document.querySelectorAll('.service tbody tr')].map((row) => row.dataset.key)"
    )
    shown.wait(lambda: shown.js(rows) == [SECOND])
    shown.browser.find_element(By.CSS_SELECTOR, ".edit").send_keys(Keys.ENTER)
    shown.browser.find_element(By.CSS_SELECTOR, "input[value=drain]").send_keys(Keys.SPACE)
    field = shown.browser.find_element(By.ID, "change-token")
    field.send_keys("wrong", Keys.ENTER)
    error = shown.browser.find_element(By.ID, "change-error")
    shown.wait(lambda: "not the token" in error.text)
    assert shown.text(SECOND, "state") == "ready"
    field.clear()
    field.send_keys(token, Keys.ENTER)
    shown.wait(lambda: shown.text(SECOND, "state") == "drain")
    # The state may be in a sample before the change has its answer.
    shown.wait(lambda: not shown.browser.find_element(By.ID, "change").is_displayed())
