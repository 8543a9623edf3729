"""Measurements as text and as JSON, and `memoroids bench` with and without the name of a benchmark."""

import json

from memoroids import benchmarks
from memoroids.benchmarks import policy_step as acting
from memoroids.benchmarks.measurement import Measurement
from memoroids.cli.main import main


def test_lines_say_how_many_times_a_reference_takes_and_how_near_a_limit_is():
    figure = Measurement("ours", 0.002, {"theirs": 0.008}, {"copy": 0.0005}, {"theirs": 3.0}, {"ours": 2**21})
    first, reference, limit = (" ".join(line.split()) for line in figure.lines().splitlines())
    assert first == "ours 2.00 ms 2.00 MiB"
    assert reference == "theirs 8.00 ms 4.00 × ours compiled in 3.00 s"
    assert limit == "limit: copy 500.0 µs ours 4.00 ×"


def test_json_is_one_object_on_standard_output(monkeypatch, capsys):
    monkeypatch.setattr(acting, "figures", lambda repeats: [Measurement("a step", 0.001 * repeats)])
    main(["bench", "acting", "--repeats", "2", "--json"])
    out, table = capsys.readouterr()
    report = json.loads(out)
    assert report["rows"] == {"acting": [Measurement("a step", 0.002).row()]} and report["repeats"] == 2
    assert {"device", "cores", "jax", "recurrence"} <= set(report["machine"])
    assert "a step" in table


def test_without_a_name_every_question_about_limits_runs(monkeypatch, capsys):
    for name in benchmarks.LIMITS:
        module = benchmarks.MODULES.get(name, name)
        target = f"memoroids.benchmarks.{module}.figures"
        monkeypatch.setattr(target, lambda repeats, name=name: [Measurement(name, 1.0)])
    main(["bench", "--json"])
    assert list(json.loads(capsys.readouterr().out)["rows"]) == list(benchmarks.LIMITS)
