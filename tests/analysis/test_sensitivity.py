"""How far back a value depends on observations: derivatives, profiles, and the memory lengths of POPGym's tasks."""

import math
from typing import Any

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids import linear_recurrence
from memoroids import tape as tapes
from memoroids.agents.branches import Branches, value_of
from memoroids.agents.networks import QNetwork
from memoroids.analysis.sensitivity import Profile, reward_memory_length, sensitivities, sensitivity, share_beyond, vml
from memoroids.envs import popgym_ids
from memoroids.memory import REGISTRY
from memoroids.tape import Tape
from profiles import by_steps, profile_of

popgym_ids()  # registers them


def episode(rng: np.random.Generator, length: int, actions: int = 3, size: int = 4) -> Tape:
    observation = rng.normal(size=(length + 1, size)).astype(np.float32)
    return tapes.episode(observation, rng.integers(actions, size=length, dtype=np.int32), np.zeros(length), True, False)


SIZES: dict[str, dict[str, int]] = {"lru": {"layers": 1, "state_size": 8}, "linear_transformer": {}, "mlp": {}}


@pytest.mark.parametrize("memory", SIZES)
def test_sensitivities_are_the_derivatives_of_acting_step_by_step(memory: str, rng: np.random.Generator):
    network = QNetwork(4, 3, REGISTRY[memory], key=jax.random.key(1), width=8, sizes=SIZES[memory])
    played = [episode(rng, length) for length in (6, 8)]
    found = sensitivities(network, played)
    np.testing.assert_allclose(found[0], by_steps(network, played[0]), rtol=2e-4, atol=1e-6 * found[0].max())
    profile = Profile.of(found)
    assert profile.episodes == 2
    if memory == "mlp":
        assert (share_beyond(profile, 0), vml(profile, 1.0), profile.share[0]) == (0.0, 0, 1.0)
    else:
        assert share_beyond(profile, 0) > 0.01 and vml(profile, 1.0) == 7


class Fading(eqx.Module):
    """Q(s_t, a) = Σ_i decay^(t-i) weight[a] · o_i; counts how often it is traced."""

    decay: jax.Array
    weight: jax.Array
    traced: list[int] = eqx.field(static=True)

    def __call__(self, observation: jax.Array, begin: jax.Array) -> tuple[jax.Array, None]:
        self.traced.append(0)
        flat = observation.reshape(len(observation), -1)
        decay = jnp.broadcast_to(self.decay, flat.shape[1:])
        return linear_recurrence(decay, flat, reset=begin) @ self.weight.T, None


WEIGHT = np.asarray([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]], np.float32)
NORM = (5.0, 2.0, 2.0)


def fading(decay: float = 0.5) -> Fading:
    return Fading(jnp.asarray(decay), jnp.asarray(WEIGHT), [])


def test_the_value_of_an_action_of_several_parts_is_the_mean_of_theirs(rng: np.random.Generator):
    # Parts of one and of two options: Q_0 and, for option 1 of the second part, Q_2.
    def network(observation: jax.Array, begin: jax.Array) -> tuple[Branches, None]:
        return Branches(fading()(observation, begin)[0], (1, 2)), None

    tape = tapes.episode(rng.normal(size=(6, 4)).astype(np.float32), [[0, 1]] * 5, np.zeros(5), True, False)
    (found,) = sensitivities(network, [tape], value_of)
    norm = np.linalg.norm((WEIGHT[0] + WEIGHT[2]) / 2)
    np.testing.assert_allclose(found, norm * 0.5 ** np.arange(5), rtol=1e-6)


@pytest.mark.parametrize("action", range(3))
def test_a_linear_memory_has_the_sensitivity_of_its_weights_newest_first(action: int, rng: np.random.Generator):
    tape = tapes.episode(rng.normal(size=(6, 4)), [0, 1, 2, 0, action], np.zeros(5), False, True)
    np.testing.assert_allclose(sensitivity(fading(), tape), NORM[action] * 0.5 ** np.arange(5), rtol=1e-6)


def test_images_are_differentiated_by_grey_level(rng: np.random.Generator):
    images = rng.integers(256, size=(4, 2, 2), dtype=np.uint8)
    tape = tapes.episode(images, [1, 1, 0], np.zeros(3), True, False)
    np.testing.assert_allclose(sensitivity(fading(), tape), [5.0, 2.5, 1.25], rtol=1e-6)


def test_padding_company_and_the_final_observation_change_nothing(rng: np.random.Generator):
    network = QNetwork(4, 3, REGISTRY["gru"], key=jax.random.key(1), width=8)
    played = [episode(rng, length) for length in (5, 6, 8)]
    together = sensitivities(network, played)
    for values, tape in zip(together, played, strict=True):
        np.testing.assert_allclose(values, sensitivity(network, tape), rtol=1e-5)
        np.testing.assert_array_equal(sensitivity(network, tapes.pad(tape, 30)), sensitivity(network, tape))
        tape.observation[-1] = np.nan  # pyright: ignore[reportIndexIssue]
        np.testing.assert_array_equal(sensitivity(network, tape), sensitivity(network, tape))
        assert np.isfinite(sensitivity(network, tape)).all()


def test_many_long_episodes_are_taken_in_groups(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    played = [episode(rng, length) for length in (3, 8, 5, 8, 2)]
    whole = sensitivities(fading(), played)
    monkeypatch.setattr("memoroids.analysis.sensitivity._SLOTS", 16)
    for values, expected in zip(sensitivities(fading(), played), whole, strict=True):
        np.testing.assert_array_equal(values, expected)


def test_new_parameters_and_episodes_of_like_lengths_reuse_what_was_compiled(rng: np.random.Generator):
    network = fading()
    for decay, lengths in ((0.5, (7, 5)), (0.25, (8, 3)), (0.75, (6, 6))):
        network = eqx.tree_at(lambda n: n.decay, network, jnp.asarray(decay))
        played = [episode(rng, length) for length in lengths]
        for values, tape in zip(sensitivities(network, played), played, strict=True):
            np.testing.assert_allclose(values[1] / values[0], decay, rtol=1e-6)
            assert len(values) == tape.slots - 1
    assert len(network.traced) == 1


def test_a_tape_that_is_not_one_whole_episode_is_refused(rng: np.random.Generator):
    one = episode(rng, 3)
    for tape in (tapes.concatenate([one, one]), jax.tree.map(lambda leaf: leaf[1:], one), tapes.empty(4, one)):
        with pytest.raises(ValueError, match="exactly one complete episode"):
            sensitivity(fading(), tape)
    assert sensitivities(fading(), []) == []


def test_a_profile_weighs_episodes_equally_and_leaves_out_those_without_a_sensitivity():
    episodes = [[6.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.2], [1.0, math.nan], [1.0, math.inf]]
    profile = Profile.of([np.asarray(values, np.float32) for values in episodes])
    np.testing.assert_allclose(profile.share, [0.5, 0.25, 0.0, 0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(profile.cumulative, [0.5, 0.75, 0.75, 1.0, 1.0], rtol=1e-6)
    assert (profile.episodes, profile.left_out) == (2, 3)
    assert profile.first == pytest.approx((0.25 + 0.5) / 2)


def test_a_profile_of_values_that_depend_on_nothing_is_empty():
    profile = Profile.of([np.zeros(3, np.float32)])
    assert (profile.episodes, profile.left_out, profile.first, vml(profile)) == (0, 1, 0.0, 0)
    np.testing.assert_array_equal(profile.share, np.zeros(3))
    with pytest.raises(ValueError, match="at least one"):
        Profile.of([])


def test_beyond_an_age_is_all_that_is_older():
    profile = profile_of(0.4, 0.3, 0.2, 0.1)
    for age, expected in enumerate((0.6, 0.3, 0.1, 0.0, 0.0)):
        assert share_beyond(profile, age) == pytest.approx(expected)
    assert share_beyond(profile, -1) == pytest.approx(1.0)
    assert share_beyond(profile, math.inf) == 0.0


def test_the_card_that_repeat_previous_asks_for_is_within_its_memory_length_and_the_one_before_is_not():
    rml = reward_memory_length(gym.make("popgym-RepeatPreviousEasy-v0", disable_env_checker=True))
    assert rml == 3
    assert share_beyond(profile_of(0, 0, 0, 1, 0), rml) == 0.0
    assert share_beyond(profile_of(0, 0, 0, 0, 1), rml) == 1.0


def test_the_value_memory_length_is_the_first_age_whose_sum_reaches_the_share():
    profile = profile_of(0.5, 0.25, 0.0, 0.25, 0.0)
    assert [vml(profile, share) for share in (0.1, 0.5, 0.51, 0.75, 0.76, 0.95, 1.0)] == [0, 0, 1, 1, 3, 3, 3]
    assert vml(profile_of(*[0.1] * 10), 1.0) == 9
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share"):
            vml(profile, share)


def play(id_: str, seed: int, **options: Any) -> tuple[gym.Env, list[Any], list[Any], list[float]]:
    """A POPGym episode of random actions: environment, observations, actions and rewards."""
    env = gym.make(id_, disable_env_checker=True, **options)
    env.action_space.seed(seed)
    observations, actions, rewards, over = [env.reset(seed=seed)[0]], [], [], False
    while not over:
        actions.append(env.action_space.sample())
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
        over = terminated or truncated
    return env, observations, actions, rewards


@pytest.mark.parametrize(
    ("task", "options", "rml"),
    [("Easy", {}, 3), ("Medium", {}, 31), ("Hard", {}, 63), ("Easy", {"k": 10}, 9), ("Easy", {"k": 1}, 0)],
    ids=str,
)
def test_the_memory_length_of_repeat_previous_is_where_the_rewarded_card_lies(task: str, options: Any, rml: int):
    env, observations, actions, rewards = play(f"popgym-RepeatPrevious{task}-v0", 3, **options)
    assert reward_memory_length(env) == rml
    for t in range(rml, len(actions)):
        assert (rewards[t] > 0) == (actions[t] == observations[t - rml])
    assert any(reward > 0 for reward in rewards) and not any(rewards[:rml])


@pytest.mark.parametrize("seed", range(12))
def test_the_last_rewards_of_other_card_tasks_look_back_to_the_first_observation(seed: int):
    env, observations, actions, rewards = play("popgym-RepeatFirstEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    assert (rewards[-1] > 0) == (actions[-1] == observations[0])

    env, observations, actions, rewards = play("popgym-AutoencodeEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    assert (rewards[-1] > 0) == (actions[-1] == observations[0][1])

    env, observations, actions, rewards = play("popgym-CountRecallEasy-v0", seed)
    assert reward_memory_length(env) == math.inf
    seen = [observation[0] for observation in observations[:-1]]
    assert (rewards[-1] > 0) == (actions[-1] == seen.count(observations[-2][1]))


def test_two_positions_and_the_last_action_are_the_state_of_a_cart_pole():
    env = gym.make("popgym-PositionOnlyCartPoleEasy-v0", disable_env_checker=True)
    assert reward_memory_length(env) == 1
    pole: Any = env.unwrapped
    before, _ = env.reset(seed=5)
    env.step(1)
    before, velocity = env.step(0)[0], pole.state[[1, 3]]
    now = env.step(1)[0]
    np.testing.assert_allclose((now - before) / pole.tau, velocity, atol=1e-4)
    position, angle = now
    reached = pole.state.copy()
    pole.state = np.asarray([before[0], velocity[0], before[1], velocity[1]])
    env.step(1)
    np.testing.assert_allclose(pole.state, reached, atol=1e-5)
    np.testing.assert_allclose([position, angle], reached[[0, 2]], atol=1e-6)


@pytest.mark.parametrize(
    "task",
    [
        "NoisyPositionOnlyCartPoleEasy",
        "VelocityOnlyCartpoleEasy",
        "MineSweeperMedium",
        "ConcentrationHard",
        "MultiarmedBanditEasy",
        "HigherLowerEasy",
    ],
)
def test_other_tasks_look_back_over_the_whole_episode(task: str):
    assert reward_memory_length(gym.make(f"popgym-{task}-v0", disable_env_checker=True)) == math.inf


def test_a_memory_length_is_not_made_up():
    class RepeatFirst(gym.Env):
        """Named like POPGym's."""

    for env in (gym.make("CartPole-v1"), RepeatFirst()):
        assert reward_memory_length(env) is None
