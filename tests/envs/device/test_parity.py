"""Device tasks against POPGym's: with the same hidden state and actions, all steps to the end of an episode agree."""

from itertools import pairwise

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces.utils import flatdim

from memoroids.envs.device import DEVICE, make_device
from memoroids.envs.device.cards import KINDS, draw
from memoroids.envs.device.cartpole import NoisyPositionOnlyCartPole
from memoroids.envs.device.draws import below
from memoroids.envs.device.minesweeper import MineSweeper
from popgym_beside import (
    IDS,
    LEVELS,
    Drawn,
    Episode,
    compiled,
    levels,
    player,
    popgym_env,
    random_actions,
    same_episode,
    same_step,
    shown,
    stacked,
    step_keys,
)

# --- what holds for all ---------------------------------------------------------------------------------------------


SHORTER = {"Concentration": 0, "LabyrinthEscape": 1, "LabyrinthExplore": 1}
"""By how much the longest episode is shorter than POPGym says."""
VARYING = ("Cart", "Mine", "Battleship", "Concentration", "Labyrinth")
"""Tasks whose episodes differ in length."""


def test_every_level_of_every_task_is_there():
    assert set(DEVICE) == set(IDS) and len(DEVICE) == 48


@pytest.mark.parametrize("name", DEVICE)
def test_spaces_lengths_and_the_previous_action_are_popgyms(name):
    ours, theirs = make_device(name), popgym_env(name)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert flatdim(ours.observation_space) == flatdim(theirs.observation_space)
    task = name.removesuffix("Easy").removesuffix("Medium").removesuffix("Hard")
    longest = theirs.episode_length if task == "Concentration" else getattr(theirs, "max_episode_length", None)
    assert ours.max_length == (52 * theirs.num_decks - 1 if longest is None else longest - SHORTER.get(task, 0))
    assert ours.requires_previous_action == theirs.obs_requires_prev_action
    assert (ours.min_length == ours.max_length) != any(word in name for word in VARYING)


@pytest.mark.parametrize("name", DEVICE)
def test_mapped_environments_keep_shapes_and_dtypes(name):
    env = make_device(name)
    space = env.action_space
    action = jax.ShapeDtypeStruct((3, *space.shape), np.float32 if isinstance(space, gym.spaces.Box) else np.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
    state, observation = jax.eval_shape(jax.vmap(env.reset), keys)
    after, step = jax.eval_shape(jax.vmap(env.step), state, action, keys)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, observation)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), (after, step.observation)
    )
    assert (step.reward.shape, step.reward.dtype) == ((3,), np.float32)
    assert step.terminated.dtype == step.truncated.dtype == bool and step.terminated.shape == (3,)


@pytest.mark.parametrize("name", ["RepeatPreviousEasy", "MineSweeperEasy"])
def test_a_mapped_environment_equals_a_single_one(name, rng):
    env = make_device(name)
    actions = np.stack([random_actions(env, rng) for _ in range(3)])
    keys = jax.random.split(jax.random.key(4), 3)
    in_steps = jnp.stack([step_keys(i, env.max_length) for i in range(3)])
    together = jax.jit(jax.vmap(player(env), (0, 0, 0, None)))(keys, in_steps, jnp.asarray(actions), False)
    for i in range(3):
        alone = compiled(env)(keys[i], in_steps[i], jnp.asarray(actions[i]), False)
        jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda leaf, i=i: leaf[i], together))


# --- cards ----------------------------------------------------------------------------------------------------------


@levels("RepeatFirst", "RepeatPrevious")
@pytest.mark.parametrize("good", [False, True], ids=["random", "good"])
def test_repeating_a_card(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    suits = shown(Episode(env, 7, random_actions(env, rng)))[:, 0]
    stacked(theirs.deck, theirs.deck.suits_idx, suits)
    actions = random_actions(env, rng)
    if good:
        k = getattr(env, "k", None)
        actions = np.full(env.max_length, suits[0]) if k is None else np.concatenate((actions[: k - 1], suits))
    episode = Episode(env, 7, actions[: env.max_length])
    first, _ = theirs.reset(seed=0)
    assert episode.first == first
    assert same_episode(episode, theirs) == env.max_length
    if good:
        np.testing.assert_allclose(episode.steps.reward.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize(("k", "num_decks"), [(1, 1), (10, 2), (51, 1)])
def test_repeating_a_card_with_options(k, num_decks, rng):
    env = make_device("RepeatPreviousEasy", {"k": k, "num_decks": num_decks})
    theirs = gym.make("popgym-RepeatPreviousEasy-v0", disable_env_checker=True, k=k, num_decks=num_decks).unwrapped
    episode = Episode(env, 1, random_actions(env, rng))
    stacked(theirs.deck, theirs.deck.suits_idx, shown(episode)[:, 0])
    assert episode.first == theirs.reset(seed=0)[0]
    assert same_episode(episode, theirs) == env.max_length == 52 * num_decks - 1


@levels("Autoencode")
@pytest.mark.parametrize("good", [False, True], ids=["random", "good"])
def test_autoencode(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    episode = Episode(env, 3, random_actions(env, rng))
    cards = (env.max_length + 1) // 2
    observations = [np.concatenate(([a], b)) for a, b in zip(episode.first, episode.steps.observation, strict=True)]
    suits = observations[1][:cards]
    stacked(theirs.deck, theirs.deck.suits_idx, suits)
    if good:
        episode = Episode(env, 3, np.concatenate((suits[:-1], suits[::-1])))
    assert episode.first == theirs.reset(seed=0)[0]
    assert same_episode(episode, theirs) == env.max_length
    if good:
        np.testing.assert_allclose(episode.steps.reward.sum(), 1, rtol=1e-5)


@levels("CountRecall")
@pytest.mark.parametrize("good", [False, True], ids=["random", "good"])
def test_count_recall(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    cards = shown(Episode(env, 5, random_actions(env, rng)))
    for deck, dealt in zip((theirs.value_deck, theirs.query_deck), cards.T, strict=True):
        stacked(deck, theirs.deck_idx_type, dealt)
    actions = random_actions(env, rng)
    if good:
        actions = np.array([np.sum(cards[: t + 1, 0] == cards[t, 1]) for t in range(env.max_length)])
    episode = Episode(env, 5, actions)
    np.testing.assert_array_equal(episode.first, theirs.reset(seed=0)[0])
    assert same_episode(episode, theirs) == env.max_length
    if good:
        np.testing.assert_allclose(episode.steps.reward.sum(), 1, rtol=1e-5)


@levels("HigherLower")
@pytest.mark.parametrize("good", [False, True], ids=["random", "good"])
def test_higher_lower(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    ranks = shown(Episode(env, 4, random_actions(env, rng)))[:, 0]
    stacked(theirs.deck, theirs.deck.ranks_idx, ranks)
    actions = np.where(np.diff(ranks) > 0, 0, 1) if good else random_actions(env, rng)
    episode = Episode(env, 4, actions)
    assert episode.first == theirs.reset(seed=0)[0]
    assert same_episode(episode, theirs) == env.max_length
    if good:
        np.testing.assert_allclose(episode.steps.reward.sum(), np.mean(np.append(np.diff(ranks) != 0, 0)), rtol=1e-5)


def test_a_number_below_n_is_the_floor_of_the_exact_product(rng):
    bits = np.concatenate((rng.integers(2**32, size=2_000), [0, 2**32 - 1]))
    for n in (1, 2, 13, 52, 831, 2**16 - 1):
        expected = [int(b) * n >> 32 for b in bits]
        np.testing.assert_array_equal(below(jnp.asarray(bits, jnp.uint32), n), expected)


@pytest.mark.parametrize("kinds", KINDS.values())
def test_a_card_is_drawn_as_often_as_it_is_left(kinds, rng):
    left = rng.integers(0, 6, kinds)
    left[0], left[-1] = 0, 3
    total = left.sum()
    # The smallest and the largest bits that should draw each card.
    starts = [-(-(i << 32) // int(total)) for i in range(total + 1)]
    bits = np.array([bit for a, b in pairwise(starts) for bit in (a, b - 1)])
    sums = jnp.asarray(np.cumsum(left), jnp.uint16)
    drawn, after = jax.jit(jax.vmap(draw, (0, None)))(jnp.asarray(bits, jnp.uint32), sums)
    np.testing.assert_array_equal(drawn, np.repeat(np.arange(kinds), 2 * left))
    expected = left - np.eye(kinds, dtype=int)[np.asarray(drawn)]
    np.testing.assert_array_equal(np.asarray(after), np.cumsum(expected, axis=1))
    assert after.dtype == jnp.uint16


def test_all_orders_of_cards_are_equally_likely():
    env = make_device("RepeatFirstEasy")
    num_envs = 6_000
    play = jax.jit(jax.vmap(player(env), (0, 0, None, None)))
    keys = jax.random.split(jax.random.key(0), (52, num_envs))
    _, first, _, steps = play(keys[0], jnp.swapaxes(keys[1:], 0, 1), jnp.zeros(51, jnp.int32), False)
    dealt = np.concatenate((np.asarray(first)[:, None], np.asarray(steps.observation)), axis=1)
    for i, j in ((0, 1), (0, 51), (25, 26), (3, 40)):
        pairs = np.bincount(4 * dealt[:, i] + dealt[:, j], minlength=16).reshape(4, 4)
        expected = num_envs * np.where(np.eye(4, dtype=bool), 1 / 4 * 12 / 51, 1 / 4 * 13 / 51)
        assert np.sum((pairs - expected) ** 2 / expected) < 40  # 15 degrees of freedom


# --- cart-poles -----------------------------------------------------------------------------------------------------


@levels("PositionOnlyCartPole", "VelocityOnlyCartpole", "NoisyPositionOnlyCartPole")
@pytest.mark.parametrize("good", [False, True], ids=["random", "balanced"])
def test_cart_pole(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    for seed in range(1 if good else 8):
        episode = Episode(env, seed, random_actions(env, rng), steer=good)
        noise = np.zeros((env.max_length + 1, 2), np.float32)
        if isinstance(env, NoisyPositionOnlyCartPole):
            noise[:] = shown(episode) - episode.states.moving[:, ::2]
        theirs._np_random = Drawn(uniform=episode.states.moving[0].astype(np.float64), normal=noise[0])
        first, _ = theirs.reset()
        np.testing.assert_allclose(episode.first, first, rtol=0, atol=1e-7)
        for t, action in enumerate(episode.actions):
            theirs.state = tuple(episode.states.moving[t].astype(np.float64))
            theirs._np_random = Drawn(normal=noise[t + 1])
            over = same_step(episode.step(t), theirs.step(int(action)), t, tolerance=2e-6)
            np.testing.assert_allclose(episode.states.moving[t + 1], theirs.state, rtol=1e-6, atol=1e-6)
            if over:
                break
        assert (t + 1 == env.max_length) == good
        if good:
            np.testing.assert_allclose(episode.steps.reward.sum(), 1, rtol=1e-5)


def test_a_pole_that_falls_at_the_limit_is_told_as_both_ends():
    env = make_device("PositionOnlyCartPoleEasy")
    state, _ = env.reset(jax.random.key(0))
    state = state._replace(moving=jnp.array([0.0, 0.0, 0.2, 2.0]), time=jnp.asarray(199))
    _, step = jax.jit(env.step)(state, jnp.asarray(0), jax.random.key(0))
    theirs = popgym_env("PositionOnlyCartPoleEasy")
    theirs.reset(seed=0)
    theirs.state, theirs.num_steps = (0.0, 0.0, 0.2, 2.0), 199
    assert same_step(step, theirs.step(0), 199, tolerance=1e-6) and step.terminated and step.truncated


def test_noise_is_gaussian_scaled_independent_and_clipped():
    name, sigmas = "NoisyPositionOnlyCartPoleEasy", (0.1, 10.0)
    envs = [make_device(name, {"noise_sigma": sigma}) for sigma in (0.0, *sigmas)]
    assert [make_device(name.replace("Easy", level)).noise_sigma for level in LEVELS] == [0.1, 0.2, 0.3]
    actions = np.tile([0, 1], 100)
    seen = [shown(Episode(env, 2, actions)) for env in envs]
    high = envs[1].observation_space.high
    unit = (seen[1] - seen[0])[:30] / 0.1  # before any clipping
    for sigma, noisy in zip(sigmas, seen[1:], strict=True):
        np.testing.assert_allclose(noisy[:30], np.clip(seen[0][:30] + sigma * unit, -high, high), atol=1e-4 * sigma)
        assert np.all(np.abs(noisy) <= high)
    assert np.mean(np.abs(seen[-1]) == high) > 0.5
    keys = jax.random.split(jax.random.key(1), (2, 5_000))
    state, observation = jax.jit(jax.vmap(envs[1].reset))(keys[0])
    steps = jax.jit(jax.vmap(envs[1].step))(state, jnp.zeros(5_000, jnp.int32), keys[1])
    noise = np.concatenate(
        (observation - state.moving[:, ::2], steps[1].observation - steps[0].moving[:, ::2]), axis=1
    ) / np.float32(0.1)
    np.testing.assert_allclose(noise.mean(0), 0, atol=5 / np.sqrt(5_000))
    np.testing.assert_allclose(noise.std(0), 1, atol=5 / np.sqrt(10_000))
    np.testing.assert_allclose(np.mean(noise**4, axis=0), 3, atol=5 * np.sqrt(96 / 5_000))
    np.testing.assert_allclose(np.corrcoef(noise[:, :2].T)[0, 1], 0, atol=5 / np.sqrt(5_000))
    assert np.all(np.abs(np.corrcoef(noise.T, np.asarray(state.moving.T))[:4, 4:]) < 5 / np.sqrt(5_000))


# --- pendulum -------------------------------------------------------------------------------------------------------


@levels("PositionOnlyPendulum", "NoisyPositionOnlyPendulum")
def test_pendulum(name, rng):
    env, theirs = make_device(name), popgym_env(name)
    noisy = name.startswith("Noisy")
    for seed, scale in enumerate((1.0, 1.5)):  # torques outside the Box are clipped
        actions = scale * random_actions(env, rng)
        if seed:
            actions[:] = scale * np.sign(actions)  # faster
        episode = Episode(env, seed, actions)
        start, angles = episode.state(0), episode.states.angle
        noise = (
            shown(episode) - np.stack((np.cos(angles), np.sin(angles)), axis=1)
            if noisy
            else np.zeros(env.max_length + 1)
        )
        theirs._np_random = Drawn(uniform=np.array([start.angle, start.speed], np.float64), normal=noise[0])
        np.testing.assert_allclose(episode.first, theirs.reset()[0], rtol=0, atol=1e-6)
        for t, action in enumerate(episode.actions):
            before, after = episode.state(t), episode.state(t + 1)
            theirs.state = np.array([before.angle, before.speed], np.float64)
            theirs._np_random = Drawn(normal=noise[t + 1])
            over = same_step(episode.step(t), theirs.step(action), t, tolerance=2e-6)
            turns = (after.angle - theirs.state[0]) / (2 * np.pi)
            np.testing.assert_allclose(turns, round(turns), atol=1e-6)
            np.testing.assert_allclose(after.speed, theirs.state[1], rtol=0, atol=2e-6)
            assert over == (t + 1 == env.max_length)


# --- bandit ---------------------------------------------------------------------------------------------------------


@levels("MultiarmedBandit")
@pytest.mark.parametrize("good", [False, True], ids=["random", "best"])
def test_bandit(name, good, rng):
    env, theirs = make_device(name), popgym_env(name)
    actions = random_actions(env, rng)
    chance = Episode(env, 6, actions).states.chance[0]
    episode = Episode(env, 6, np.full(env.max_length, chance.argmax()) if good else actions)
    uniform = jax.vmap(jax.random.uniform)(step_keys(6, env.max_length))
    first, _ = theirs.reset(seed=0)
    assert episode.first == first
    theirs.bandits = chance
    draws = iter(np.asarray(uniform))
    theirs._np_random = type("Uniform", (), {"random": lambda self: next(draws)})()
    assert same_episode(episode, theirs) == env.max_length


def test_arms_pay_as_often_as_they_should():
    env = make_device("MultiarmedBanditEasy")
    state, _ = env.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 20_000)
    state = state._replace(chance=jnp.array([0.0, 1.0, 0.3, *[0.5] * 7]))
    step_all = jax.jit(jax.vmap(env.step, (None, None, 0)))
    for arm, chance in enumerate((0.0, 1.0, 0.3)):
        _, step = step_all(state, jnp.asarray(arm), keys)
        paid = np.mean(np.asarray(step.observation))
        assert abs(paid - chance) <= 5 * np.sqrt(chance * (1 - chance) / 20_000)
    chances = np.asarray(jax.jit(jax.vmap(env.reset))(keys)[0].chance)
    assert chances.min() >= 0 and chances.max() < 1
    np.testing.assert_allclose(np.quantile(chances, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.01)


# --- mine sweeper ---------------------------------------------------------------------------------------------------


def squares(words: np.ndarray, side: int) -> np.ndarray:
    return np.array([words[i // 32] >> (i % 32) & 1 for i in range(side * side)], bool)


def sweeping(env: MineSweeper, mines: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Squares (T,) that win, lose at the third step or at the limit, repeat one, are truncated, or are random."""
    clear, mined = rng.permutation(np.flatnonzero(~mines)), np.flatnonzero(mines)
    chosen = {
        "random": rng.integers(env.side**2, size=env.max_length),
        "win": clear,
        "loss": np.concatenate((clear[:2], mined[:1])),
        "loss at the limit": np.concatenate((clear[:-1], mined[:1])),
        "truncated": np.concatenate((clear[:1], clear[:1], clear[1:-1])),
        "stuck": clear[:1],
    }[how]
    return np.resize(chosen, env.max_length)


@levels("MineSweeper")
@pytest.mark.parametrize("how", ["random", "win", "loss", "loss at the limit", "truncated", "stuck"])
def test_mine_sweeper(name, how, rng):
    env, theirs = make_device(name), popgym_env(name)
    assert isinstance(env, MineSweeper)
    nothing = np.zeros((env.max_length, 2), np.int32)
    lengths, ends = [], []
    for seed in range(6 if how == "random" else 1):
        mines = squares(Episode(env, seed, nothing).states.mines[0], env.side)
        actions = np.stack(np.unravel_index(sweeping(env, mines, how, rng), (env.side, env.side)), axis=1)
        episode = Episode(env, seed, actions.astype(np.int32))
        theirs._np_random = Drawn(choice=np.flatnonzero(mines))
        assert episode.first == theirs.reset()[0]
        lengths.append(same_episode(episode, theirs, np.asarray))
        np.testing.assert_array_equal(
            theirs.hidden_grid.ravel() == 2, squares(episode.states.viewed[lengths[-1]], env.side)
        )
        ends.append((bool(episode.step(lengths[-1] - 1).terminated), bool(episode.step(lengths[-1] - 1).truncated)))
    full = env.max_length
    expected = {
        "win": (full, (True, False)),
        "loss": (3, (True, False)),
        "loss at the limit": (full, (True, False)),
        "truncated": (full, (False, True)),
        "stuck": (full, (False, True)),
    }
    if how != "random":
        assert (lengths[0], ends[0]) == expected[how]


def test_all_boards_are_equally_likely():
    env = make_device("MineSweeperEasy")
    mines = np.asarray(jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 12_000))[0].mines)[:, 0]
    boards, counts = np.unique(mines, return_counts=True)
    assert len(boards) == 120 and all(bin(board).count("1") == 2 for board in boards)
    assert np.sum((counts - 100) ** 2 / 100) < 200  # 119 degrees of freedom
    reset_hard = jax.jit(jax.vmap(make_device("MineSweeperHard").reset))
    hard = reset_hard(jax.random.split(jax.random.key(1), 6_400))[0].mines
    assert np.all(np.asarray(jax.lax.population_count(hard)).sum(1) == 10)
    each = np.stack([squares(words, 8) for words in np.asarray(hard)]).sum(0)
    np.testing.assert_allclose(each, 1_000, atol=5 * np.sqrt(6_400 * 10 / 64 * 54 / 64))
