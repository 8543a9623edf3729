"""A trained agent in the hand: observations in, actions out, in a loop of the user's own."""

from typing import Any

import jax
import numpy as np
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from memoroids.acting.policies import RecurrentPolicy
from memoroids.envs.host.translation import Translator
from memoroids.runs.build import ActingParts


class TrainedAgent:
    """An agent with its parameters and its memory of the episode in progress.

        agent = memoroids.load("runs/…").agent()
        observation, _ = env.reset()
        agent.reset()
        while not over:
            observation, reward, terminated, truncated, _ = env.step(agent.act(observation))

    It takes the observations of the environment that it was trained on and returns that environment's actions, both as
    Gymnasium defines them. With `num_envs` it acts in as many environments at once: observations and actions are
    batches as those of `gymnasium.vector`.

    `stochastic`: whether actions are drawn from the policy, as its `key` says, instead of being its best ones.
    """

    def __init__(
        self, parts: ActingParts, params: Any, *, num_envs: int | None = None, stochastic: bool = False, seed: int = 0
    ):
        if num_envs is not None and num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if stochastic and not parts.agent.traits.stochastic:
            raise ValueError("stochastic is for agents that sample from their policy, such as ppo: this one does not")
        env, self._several, number = parts.env, num_envs is not None, num_envs or 1
        self.id = env.id
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.previous_reward = env.previous_reward
        """Whether it was trained with the last reward joined to observations, so that `act` needs it."""
        self._batch = batch_space(self.observation_space, number)
        self._translators = [
            Translator(self.id, self.observation_space, self.action_space, **env.seen) for _ in range(number)
        ]
        self._policy = RecurrentPolicy(
            parts.agent.act,
            parts.network.initial_state(),
            number,
            params=lambda: params,
            explore=lambda episode: np.full(episode.shape, float(stochastic), np.float32),
            key=jax.random.key(seed),
        )
        self._rows = self._taken = np.zeros((number, 0))
        self._episode, self._step = np.arange(number, dtype=np.int32), np.zeros(number, np.int32)
        self._encoded: list[np.ndarray] = [np.zeros(0, np.float32)] * number

    def reset(self, begun: Any = None) -> None:
        """Forgets the episode in progress: the next observation is the first of another one.

        `begun`: with several environments, (num_envs,) bool, those in which an episode begins; by default all.
        """
        number = len(self._step)
        which = np.ones(number, bool) if begun is None else np.asarray(begun)
        if which.shape != (number,) or which.dtype != bool:
            raise ValueError(f"begun must be {number} bools, got {which.dtype} of shape {which.shape}")
        self._step[which] = 0
        self._episode[which] += number

    def act(self, observation: Any, reward: Any = None) -> Any:
        """The action to take after `observation`, and `reward`, the reward of the action before it, where needed.

        With several environments both are batches, and so is the action. Raises `ValueError` for an observation that is
        not in the environment's space, and for a missing reward; with several environments, `reset` before going on.
        """
        number = len(self._step)
        observations = list(self._each(observation))
        rewards = np.zeros(number) if reward is None else np.asarray(reward, np.float64).reshape(-1)
        if len(rewards) != number or not np.isfinite(rewards).all():
            raise ValueError(f"{self.id}: reward must be {number} finite numbers, got {reward!r:.100}")
        if self.previous_reward and reward is None and self._step.any():
            raise ValueError(
                f"{self.id}: the agent sees the last reward: pass it, as in agent.act(observation, reward)"
            )
        rows = []
        try:
            for i, translator in enumerate(self._translators):
                if self._step[i] == 0:
                    rows.append(translator.first(observations[i]))
                else:
                    rows.append(translator.following(observations[i], self._encoded[i], float(rewards[i])))
        except ValueError as error:
            raise ValueError(f"{self.id}: got {error}") from error
        self._rows = np.stack(rows)
        self._taken = self._policy(self._rows, self._step == 0, self._episode, self._step)
        chosen = [each.native(action) for each, action in zip(self._translators, self._taken, strict=True)]
        native, self._encoded = [action for action, _ in chosen], [encoded for _, encoded in chosen]
        self._step += 1
        if not self._several:
            return native[0]
        return concatenate(self.action_space, native, create_empty_array(self.action_space, number))

    def memory(self, index: int = 0) -> Any:
        """The memory's state in one of the environments, a pytree of NumPy arrays."""
        return jax.tree.map(lambda leaf: np.asarray(leaf[index]), self._policy.memory())

    def last_row(self, index: int = 0) -> np.ndarray:
        """The newest observation in one of the environments, as the network read it."""
        return self._rows[index]

    def last_action(self, index: int = 0) -> np.ndarray:
        """The newest action in one of the environments, as the network gave it."""
        return self._taken[index]

    def _each(self, observation: Any) -> Any:
        """The observation of each environment. Raises `ValueError` for a batch of another size."""
        if not self._several:
            return [observation]
        try:
            found = list(iterate(self._batch, observation))
        except Exception as error:
            raise ValueError(f"{self.id}: observations are no batch of {self.observation_space}: {error}") from error
        if len(found) != len(self._step):
            raise ValueError(f"{self.id}: got {len(found)} observations for {len(self._step)} environments")
        return found
