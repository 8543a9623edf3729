"""The live page is served to this machine alone, follows its runs, and a browser shows it."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import opened
from memoroids.viewing.live_runs import live
from memoroids.viewing.watch import server
from metric_rows import row
from viewing.test_live_runs import append, begun


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    run = begun(tmp_path / "run", row(20, eval_return=0.125), row(40, eval_return=0.25))
    with server(0, lambda: live([run])) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving.server_address[1], run
        serving.shutdown()
        thread.join()


def asked(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.headers), content


def test_the_page_and_its_runs_are_served(served):
    port, run = served
    status, headers, page = asked(port, "/")
    assert status == 200 and "__" not in page and "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page), "the page names an address"
    status, _, found = asked(port, "/runs.json")
    assert status == 200 and json.loads(found)[0]["path"] == str(run)
    append(run, row(60))
    column = json.loads(asked(port, "/runs.json")[2])[0]["curves"]["run"]
    assert column["episode"] == [20.0, 40.0, 60.0]


def test_only_this_machine_may_ask_and_only_for_these_two(served):
    port, _ = served
    assert asked(port, "/runs.json", Host="rebound.example:80")[0] == 403
    assert asked(port, "/runs.json", Host=f"localhost:{port}")[0] == 200
    assert asked(port, "/../../etc/passwd")[0] == 404
    assert asked(port, "/runs.json", method="POST")[0] == 501


def test_a_port_that_is_taken_is_one_line(served):
    port, _ = served
    with pytest.raises(ValueError, match=rf"port {port} cannot be used .*: --port chooses another"):
        server(port, list)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_and_ends_with_ctrl_c(ending: signal.Signals, tmp_path: Path):
    run = begun(tmp_path / "run", row(20))
    process = subprocess.Popen(
        [sys.executable, "-m", "memoroids", "watch", str(run), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.readline()
    found = re.search(r"watching 1 run: open http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)", said)
    assert found, said
    assert asked(int(found[1]), "/runs.json")[0] == 200
    process.send_signal(ending)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out == "stopped watching\n" and err == ""


@pytest.mark.parametrize("width", [1300, 390])
def test_a_browser_shows_the_curves_and_new_rows(served, width: int):
    port, run = served
    with opened(f"http://127.0.0.1:{port}/", width) as page:
        page.wait_for_selector("section svg")
        assert "return now 0.25" in page.inner_text("section .figures")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        append(run, row(60, eval_return=0.75))
        page.wait_for_selector('section .figures:has-text("return now 0.75")')
        ends = page.locator("section svg").first.locator("text")
        assert "60.1" in ends.all_text_contents()  # environment steps
        page.select_option("#by", "episode")
        assert "60" in ends.all_text_contents()
