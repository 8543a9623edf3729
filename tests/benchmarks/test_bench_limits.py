"""`memoroids bench` on what the machine can do: every question runs, and its figures are a JSON object."""

import json

import pytest

from memoroids import benchmarks
from memoroids.algebra.linear_recurrence import available_backends
from memoroids.benchmarks import attention, long_returns, recurrence, update
from memoroids.benchmarks import device_episode as device
from memoroids.benchmarks import long_tapes as tape
from memoroids.benchmarks import policy_step as acting
from memoroids.benchmarks import replay_draws as replay
from memoroids.benchmarks.measurement import Measurement
from memoroids.cli.main import main
from memoroids.memory import REGISTRY

COPIES = {"copy of as many bytes, fresh", "copy of as many bytes, donated"}


def test_recurrences_stand_beside_every_backend_and_a_copy():
    figures = list(recurrence.figures(1, length=32))
    assert len(figures) == 6
    for figure in figures:
        others = {f"ours, backend {name}" for name in available_backends()}
        assert len(others & set(figure.references)) == len(others) - 1
        assert set(figure.limits) == COPIES
        assert set(figure.compile) == {"ours", *figure.references}
    assert {"lax.associative_scan", "lax.scan"} <= set(figures[0].references)


def test_the_references_of_a_recurrence_compute_the_same(rng):
    import jax
    import jax.numpy as jnp
    import numpy as np

    from memoroids import linear_recurrence

    x, decay, reset = rng.standard_normal((40, 3)), np.array([0.5, 0.9, 0.99]), rng.random(40) < 0.2
    arguments = jnp.asarray(decay, jnp.float32), jnp.asarray(x, jnp.float32), jnp.asarray(reset)
    expected = linear_recurrence(arguments[0], arguments[1], reset=arguments[2])
    for way in (recurrence.associative, recurrence.plain_scan, *recurrence.memax_scan().values()):
        np.testing.assert_allclose(jax.jit(way)(*arguments), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("figures", "references", "limits"),
    [
        (lambda: attention.figures(1, ((40, 4, 8),)), {"plain scan of the monoid"}, {"its matrix products"}),
        (lambda: tape.figures(1, (64,), chunk=16), set(), {"at the 64 slots' time a slot"}),
        (lambda: long_returns.figures(1, 500), {"lax.associative_scan", "lax.scan"}, COPIES),
        (lambda: replay.figures(1, 2_000_000 // 400), set(), COPIES),
        (lambda: acting.figures(1, (1, 2)), set(), {"its weights read once", "its matrix products"}),
        (lambda: device.figures(1, ("ffm",)), {"collecting alone"}, {"the update's matrix products"}),
    ],
    ids=["attention", "tape", "long_returns", "replay", "acting", "device"],
)
def test_figures_stand_beside_their_references_and_limits(figures, references, limits):
    for figure in figures():
        assert set(figure.references) == references and set(figure.limits) == limits
        assert figure.seconds > 0 and all(seconds > 0 for seconds in figure.limits.values())


def test_updates_of_every_memory_stand_beside_their_products(monkeypatch):
    monkeypatch.setattr(update, "REGISTRY", {"ffm": REGISTRY["ffm"]})
    (figure,) = update.figures(1)
    (limit,) = figure.limits
    assert limit.startswith("its matrix products, ") and limit.endswith(" GFLOP")


def test_lines_say_how_many_times_a_reference_takes_and_how_near_a_limit_is():
    figure = Measurement("ours", 0.002, {"theirs": 0.008}, {"copy": 0.0005}, {"theirs": 3.0}, {"ours": 2**21})
    first, reference, limit = (" ".join(line.split()) for line in figure.lines().splitlines())
    assert first == "ours 2.00 ms 2 MiB"
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
        monkeypatch.setattr(f"memoroids.benchmarks.{name}.figures", lambda repeats, name=name: [Measurement(name, 1.0)])
    main(["bench", "--json"])
    assert list(json.loads(capsys.readouterr().out)["rows"]) == list(benchmarks.LIMITS)
