"""The page of an episode holds what the agent saw and did, needs nothing from elsewhere, and answers clicks."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from browser import opened
from memoroids.cli.main import main
from memoroids.runs.build import build_acting
from memoroids.runs.settings import TrainConfig
from memoroids.runs.trained_agent import TrainedAgent
from memoroids.viewing.glance import glance


class Painted(gym.Env):
    """Episodes of five steps: a symbol and two numbers; with `painted` it renders."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict(
        {"card": gym.spaces.Discrete(3), "place": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )

    def __init__(self, render_mode: str | None = None, painted: bool = False):
        if not painted:
            self.metadata = {"render_modes": []}
        self.render_mode = render_mode

    def _look(self) -> dict[str, Any]:
        place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"card": int(self.np_random.integers(3)), "place": place}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = 5
        return self._look(), {}

    def step(self, action: Any):
        self.left -= 1
        return self._look(), float(action == 1), self.left == 0, False, {}

    def render(self) -> np.ndarray:
        return np.full((50, 40, 3), 40 * self.left, np.uint8)


gym.register("test-look/Painted-v0", entry_point=Painted)


def settings(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "env": "test-look/Painted-v0",
        "algorithm": "ppo",
        "memory": "lru",
        "memory_sizes": {"state_size": 4},
        "previous_action": True,
        "width": 8,
        "num_envs": 2,
        "rollout": 8,
        "minibatches": 1,
        "epochs": 1,
        "train_episodes": 4,
        "eval_every": 4,
        "eval_episodes": 2,
        "final_episodes": 2,
    }
    return TrainConfig.of(**values | changes)


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return finished(settings(), tmp_path / "run")


def test_an_episode_is_described_step_by_step(run):
    found = glance(run, episodes=3)
    assert found["parts"] == ["['card']", "['place']", "last action"]
    assert found["kind"] == "probability"
    steps = found["steps"]
    assert len(steps) == len(found["influence"]) == len(found["instead"]) == 5
    assert found["return"] == sum(step["reward"] for step in steps)
    for t, step in enumerate(steps):
        assert step["reward"] == float(step["action"] == "1")
        assert sum(step["options"]) == pytest.approx(1, abs=1e-3)
        assert int(step["action"]) == int(np.argmax(step["options"]))
        assert len(found["influence"][t]) == t + 1
        assert step["frame"] is None
        for other in found["instead"][t]:
            assert other["at"] < t and steps[other["by"]]["seen"] == other["seen"]
            assert sum(other["options"]) == pytest.approx(1, abs=1e-3)
    assert len(found["state"]) == len(found["times"])
    json.dumps(found, allow_nan=False)


def test_pictures_are_part_of_the_page_which_has_no_address(finished, tmp_path, capsys):
    run = finished(settings(env_options={"painted": True}, algorithm="pqn"), tmp_path / "run")
    main(["look", str(run), str(run), "--episodes", "2", "--output", str(tmp_path / "page.html")])
    assert "page.html" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"(src|href)=.?(https?:)?//|https?://", page)
    assert page.count("data:image/jpeg;base64,") == 2 * 5
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert [each["kind"] for each in data] == ["value", "value"]


def test_before_training_stands_beside_after_in_the_same_environment_seed(run, tmp_path):
    page = tmp_path / "page.html"
    main(["look", str(run), "--episodes", "2", "--untrained", "--output", str(page)])
    after, before = json.loads(re.search(r'type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    assert "newest parameters" in after["about"] and "untrained parameters" in before["about"]
    assert after["seed"] == before["seed"]
    assert [step["seen"] for step in after["steps"]] == [step["seen"] for step in before["steps"]]
    said = [[step["options"] for step in each["steps"]] for each in (after, before)]
    assert not np.allclose(*said, atol=1e-4)
    # The parameters are those that a new run of these settings begins with.
    parts = build_acting(settings())
    agent, env = TrainedAgent(parts, parts.agent.init(parts.network).params), Painted()
    observation, _ = env.reset(seed=before["seed"])
    agent.reset()
    for step in before["steps"]:
        action = agent.act(observation)
        assert str(action) == step["action"]
        observation, *_ = env.step(action)


def test_a_run_that_cannot_be_read_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["look", str(tmp_path)])
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["look"])
    assert "name at least one run" in capsys.readouterr().err


def test_clicks_and_keys_choose_a_step(run):
    main(["look", str(run), "--episodes", "1"])
    with opened((run / "look.html").as_uri(), 390) as page:
        assert "Step 4" in page.inner_text("[aria-live]")
        page.click("button.cell >> nth=1")
        assert "Step 1" in page.inner_text("[aria-live]")
        page.keyboard.press("ArrowRight")
        assert "Step 2" in page.inner_text("[aria-live]")
        page.keyboard.press("Home")
        assert "Step 0" in page.inner_text("[aria-live]")
        assert page.eval_on_selector_all("button[aria-pressed=true]", "found => found.length") == 1
        page.click("summary")
        assert page.eval_on_selector_all("details tbody tr", "found => found.length") == 5
