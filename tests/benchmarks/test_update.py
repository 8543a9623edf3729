"""`memoroids bench update`: an update is compared with its matrix products."""

from memoroids.benchmarks import update
from memoroids.memory import REGISTRY


def test_updates_of_every_memory_stand_beside_their_products(monkeypatch):
    monkeypatch.setattr(update, "REGISTRY", {"ffm": REGISTRY["ffm"]})
    (figure,) = update.figures(1)
    (limit,) = figure.limits
    assert limit.startswith("its matrix products, ") and limit.endswith(" GFLOP")
