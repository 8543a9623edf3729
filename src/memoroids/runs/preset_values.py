"""The values of the presets, by the names of command-line options. `preset` drops those that an agent does not have."""

import math
from typing import Any

# How memories start as published, where ours start with decays of all lengths.
PUBLISHED_SIZES: dict[str, dict[str, Any]] = {
    "lru": {"r_min": 0.0, "r_max": 1.0, "max_phase": 2 * math.pi},
    "s5": {"dt_min": 1e-3, "dt_max": 1e-1, "blocks": 1, "unit_variance": False},
    "ffm": {"min_decay": 1e-6, "max_decay": 0.1, "spacing": "linear"},
}
# Rewards and observations as the environment gives them, as in all experiments of the paper and of `tuned`.
AS_GIVEN: dict[str, Any] = {"scale_rewards": False, "normalise": False}
# The network and learner of the paper, where the defaults of agents with replay are ours.
REPLAY_ALL: dict[str, Any] = AS_GIVEN | {
    "width": 256,
    "num_envs": 8,
    "updates_per_episode": 1,
    "eval_every": 10,
    "eval_episodes": 20,
    "checkpoint_every": 500,
    "batch_size": 1_000,
    "epsilon_start": 0.2,
    "epsilon_end": 0.01,
    "epsilon_decay": 1.0,
    "learning_rate_end": None,
    "warmup": 200,
    "max_grad_norm": 0.01,
    "polyak": 0.995,
    "lambda_": 0.0,
    "discount": 0.99,
}
# Morad et al. 2024, Appendix H, completed from the published configurations.
PAPER_ALL: dict[str, Any] = REPLAY_ALL | {
    "random_episodes": 10_000,
    "train_episodes": 10_000,
    "cut_batch": True,
    "buffer_size": 4_000_000,
    "previous_action": True,
    "learning_rate": 1e-4,
}
PAPER: dict[str, dict[str, Any]] = {
    "RepeatFirstEasy": {"random_episodes": 5_000, "train_episodes": 5_000, "previous_action": False},
    "RepeatPreviousEasy": {
        "random_episodes": 5_000,
        "train_episodes": 5_000,
        "previous_action": False,
        "epsilon_end": 0.1,
        "discount": 0.5,
    },
    "CountRecallEasy": {},
    "PositionOnlyCartPoleEasy": {"batch_size": 4_000},
    "VelocityOnlyCartpoleEasy": {"batch_size": 4_000},
    "NoisyPositionOnlyCartPoleEasy": {"batch_size": 4_000},
    "AutoencodeEasy": {"updates_per_episode": 4},
    "MultiarmedBanditEasy": {"discount": 0.8, "polyak": 0.9975},
    "MineSweeperEasy": {"train_episodes": 40_000, "polyak": 0.9975},
}

# Ours: the paper's network and learner without cutting batches, with a quarter of the random episodes and four times
# the learning rate. docs/presets.md reports the effect of each change.
TUNED_ALL: dict[str, Any] = REPLAY_ALL | {
    "random_episodes": 2_500,
    "train_episodes": 2_500,
    "learning_rate": 4e-4,
}
# Values reach half of an episode's reward and grow by one lag of the target network at a time, hence the short lag and
# the additional updates. A decaying learning rate lets the greedy policy settle.
TUNED_CARTPOLE: dict[str, Any] = {
    "previous_action": True,
    "random_episodes": 1_000,
    "train_episodes": 800,
    "updates_per_episode": 4,
    "polyak": 0.9,
    "learning_rate_end": 1e-5,
}
TUNED: dict[str, dict[str, Any]] = {
    "RepeatFirstEasy": {"random_episodes": 2_000, "train_episodes": 600, "updates_per_episode": 2},
    "RepeatPreviousEasy": {
        "random_episodes": 200,
        "train_episodes": 300,
        "epsilon_end": 0.1,
        "max_grad_norm": 1.0,
        "discount": 0.5,
    },
    "CountRecallEasy": {"previous_action": True},
    "PositionOnlyCartPoleEasy": TUNED_CARTPOLE,
    "VelocityOnlyCartpoleEasy": TUNED_CARTPOLE,
    "NoisyPositionOnlyCartPoleEasy": TUNED_CARTPOLE,
    "AutoencodeEasy": {"previous_action": True, "updates_per_episode": 4},
    "MultiarmedBanditEasy": {"discount": 0.8, "polyak": 0.9975},
    "MineSweeperEasy": {"train_episodes": 10_000, "polyak": 0.9975},
}
# Remembering a first observation needs initial eigenvalues with slow decay and slow rotation; observations a few steps
# back, and velocities, need traces that decay fast. Linear attention sums over the past without order, so the time step
# is added to its input.
TUNED_MEMORY: dict[tuple[str, str], dict[str, Any]] = {
    ("RepeatFirstEasy", "lru"): {"memory_sizes": {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3}},
    ("RepeatFirstEasy", "s5"): {"memory_sizes": {"blocks": 64, "dt_min": 0.002, "dt_max": 0.05, "unit_variance": 1}},
    ("RepeatPreviousEasy", "ffm"): {"memory_sizes": {"min_decay": 0.1, "max_decay": 1.0, "max_period": 16}},
    ("RepeatPreviousEasy", "s5"): {"train_episodes": 500},
    ("RepeatPreviousEasy", "linear_transformer"): {
        "train_episodes": 600,
        "learning_rate": 1e-3,
        "step_periods": (4, 104),
    },
    ("PositionOnlyCartPoleEasy", "ffm"): {"memory_sizes": {"max_decay": 2.7}},
    ("VelocityOnlyCartpoleEasy", "ffm"): {"memory_sizes": {"max_decay": 2.7}},
    ("NoisyPositionOnlyCartPoleEasy", "ffm"): {"memory_sizes": {"max_decay": 2.7}},
}
# As published for ALE/Asteroids-v5, where the size of the replay was counted in time steps.
ATARI: dict[str, Any] = REPLAY_ALL | {
    "width": 512,
    "random_episodes": 1_000,
    "train_episodes": 10_000,
    "updates_per_episode": 5,
    "batch_size": 16_000,
    "cut_batch": True,
    "segment_length": 80,
    "buffer_size": 50_000,
    "previous_action": False,
    "epsilon_start": 0.2,
    "epsilon_end": 0.01,
    "eval_every": 100,
    "eval_episodes": 10,
    "learning_rate": 1e-4,
    "warmup": 10,
    "max_grad_norm": 1.0,
    "polyak": 0.999,
    "discount": 0.99,
}
ATARI_SIZES: dict[str, dict[str, Any]] = {"lru": {"state_size": 512}}

ASKING = ("MultiarmedBandit", "MineSweeper", "Battleship", "Concentration", "LabyrinthEscape", "LabyrinthExplore")
"""The families of POPGym's tasks whose environments ask for the previous action."""

# Agents without replay: a small network, many environments, rollouts of whole episodes if all have the same length, and
# a learning rate that decays to 0 so that the greedy policy settles.
POLICY_ALL: dict[str, Any] = AS_GIVEN | {
    "width": 64,
    "num_envs": 32,
    "eval_every": 320,
    "eval_episodes": 20,
    "checkpoint_every": 10_000,
    "steps": 400_000,
    "learning_rate": 1e-3,
    "learning_rate_end": 0.0,
}
POLICY_AGENT: dict[str, dict[str, Any]] = {
    "ppo": {"advantage_window": 0},
    "pqn": {
        "minibatches": 4,
        "lambda_": 0.65,
        "epsilon_start": 0.2,
        "epsilon_end": 0.01,
        "epsilon_decay": 1.0,
    },
}
POLICY_SIZES: dict[str, dict[str, Any]] = {
    "lru": {"state_size": 64},
    "s5": {"state_size": 64},
    "ffm": {"trace_size": 32},
}
# Actions affect only their own reward in these tasks, so a short horizon is enough.
POLICY_CARDS: dict[str, Any] = {"discount": 0.5, "lambda_": 0.5}
POLICY_CARTPOLE: dict[str, Any] = {
    "previous_action": True,
    "rollout": 128,
    "steps": 820_000,
    "learning_rate": 5e-4,
}
POLICY: dict[str, dict[str, Any]] = {
    "RepeatFirstEasy": POLICY_CARDS,
    "RepeatFirstMedium": POLICY_CARDS | {"steps": 1_000_000},
    "RepeatFirstHard": POLICY_CARDS | {"steps": 2_000_000},
    "RepeatPreviousEasy": POLICY_CARDS,
    "RepeatPreviousMedium": POLICY_CARDS | {"steps": 500_000},
    "RepeatPreviousHard": POLICY_CARDS | {"steps": 1_000_000},
    "CountRecallEasy": POLICY_CARDS | {"steps": 1_500_000},
    "CountRecallMedium": POLICY_CARDS | {"steps": 2_000_000},
    "CountRecallHard": POLICY_CARDS | {"steps": 2_000_000},
    "AutoencodeEasy": POLICY_CARDS | {"steps": 2_000_000},
    "AutoencodeMedium": POLICY_CARDS | {"steps": 2_000_000},
    "AutoencodeHard": POLICY_CARDS | {"steps": 2_000_000},
    **{
        f"{task}{level}": POLICY_CARTPOLE
        for task in ("PositionOnlyCartPole", "VelocityOnlyCartpole", "NoisyPositionOnlyCartPole")
        for level in ("Easy", "Medium", "Hard")
    },
    **{
        f"PositionOnlyPendulum{level}": {
            "rollout": 100,
            "steps": 640_000,
            "discount": 0.95,
            "lambda_": 0.95,
        }
        for level in ("Easy", "Medium", "Hard")
    },
    **{f"MultiarmedBandit{level}": {"steps": 1_500_000} for level in ("Easy", "Medium", "Hard")},
    **{f"MineSweeper{level}": {"steps": 1_500_000} for level in ("Easy", "Medium", "Hard")},
}
POLICY_MEMORY: dict[tuple[str, str], dict[str, Any]] = {
    ("RepeatFirstEasy", "lru"): {"memory_sizes": {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3}},
    ("RepeatFirstMedium", "lru"): {"memory_sizes": {"r_min": 0.998, "r_max": 0.9999, "max_phase": 0.01}},
    ("RepeatFirstHard", "lru"): {"memory_sizes": {"r_min": 0.998, "r_max": 0.9999, "max_phase": 0.01}},
    ("RepeatFirstEasy", "s5"): {
        "memory_sizes": {"blocks": 32, "dt_min": 0.002, "dt_max": 0.05, "unit_variance": 1},
    },
    ("RepeatPreviousEasy", "ffm"): {"memory_sizes": {"min_decay": 0.1, "max_decay": 1.0, "max_period": 16}},
    ("RepeatPreviousEasy", "linear_transformer"): {"step_periods": (4, 104)},
    **{
        (f"CountRecall{level}", "lru"): {"memory_sizes": {"r_min": 0.9, "r_max": 0.999}}
        for level in ("Easy", "Medium", "Hard")
    },
    **{
        (f"Autoencode{level}", "lru"): {"memory_sizes": {"state_size": 128, "r_min": 0.95, "r_max": 0.9999}}
        for level in ("Easy", "Medium", "Hard")
    },
    ("RepeatPreviousMedium", "lru"): {"memory_sizes": {"state_size": 128, "r_min": 0.9, "r_max": 0.999}},
    ("RepeatPreviousHard", "lru"): {"memory_sizes": {"state_size": 128, "r_min": 0.95, "r_max": 0.999}},
    **{
        (f"PositionOnlyCartPole{level}", "ffm"): {"memory_sizes": {"max_decay": 2.7}}
        for level in ("Easy", "Medium", "Hard")
    },
}

# For PPO, searched on seeds from 100 up, on top of its defaults.
PUBLISHED_BATCH = 65_536
"""Steps of a batch of POPGym's PPO. Where scores are close, runs write a row for as many, since the maximum over
training that was published is one over such parts."""
# An action of these tasks changes its own reward and no later one.
SEARCHED_ANSWERS: dict[str, Any] = {"discount": 0.0, "lambda_": 0.0, "entropy_end": 0.0, "num_envs": 32}
# The cards that were dealt are recalled in reverse order: with the sine and cosine of the step as keys, a memory of
# keys and values finds them.
SEARCHED_POSITIONS: dict[str, Any] = SEARCHED_ANSWERS | {"step_periods": (4, 8, 16, 32, 64, 128, 256)}
SEARCHED_PPO: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (f"HigherLower{level}", ""): SEARCHED_ANSWERS
        | {"num_envs": 64, "steps": steps, "eval_every": PUBLISHED_BATCH // length}
        for level, steps, length in (("Easy", 2_400_000, 51), ("Medium", 1_200_000, 103), ("Hard", 3_000_000, 155))
    },
    # Counts are sums: nothing may be forgotten within an episode.
    ("CountRecallHard", "lru"): SEARCHED_ANSWERS
    | {
        "steps": 1_000_000,
        "memory_sizes": {"state_size": 128, "r_min": 0.99, "r_max": 0.9999, "max_phase": 0.1},
    },
    # What a pull tells is worth something for as long as the arm is pulled, but nearly all of it soon.
    **{
        (f"MultiarmedBandit{level}", "lru"): {
            "discount": 0.9,
            "lambda_": 0.9,
            "entropy_end": 0.0,
            "num_envs": 64,
            "steps": 4_000_000,
        }
        for level in ("Easy", "Medium", "Hard")
    },
    # Without a bonus at the end, what is sampled is what is best.
    **{
        (f"PositionOnlyCartPole{level}", "lru"): {"entropy_end": 0.0, "num_envs": 32, "steps": 800_000}
        for level in ("Easy", "Medium", "Hard")
    },
    # With the pushes, a memory can predict what the noise hides, and learns it from predicting.
    **{
        (f"NoisyPositionOnlyCartPole{level}", "gru"): {
            "previous_action": True,
            "prediction_weight": 0.5,
            "entropy_end": 0.0,
            "num_envs": 64,
            "steps": steps,
            "eval_every": PUBLISHED_BATCH // length,
        }
        for level, steps, length in (("Easy", 2_000_000, 190), ("Medium", 2_000_000, 120), ("Hard", 3_000_000, 75))
    },
    # A turn is paid for by the next one, and logits for 52 cards or more need more than 64 features.
    **{
        (f"Concentration{level}", "lru"): {
            "discount": 0.7,
            "lambda_": 0.7,
            "entropy_end": 0.0,
            "num_envs": 64,
            "width": 256,
            "steps": steps,
            "memory_sizes": {"r_min": 0.98, "r_max": 0.9999, "max_phase": 0.1},
        }
        for level, steps in (("Easy", 1_400_000), ("Medium", 300_000))
    },
    # Nobody turns over many pairs of 104 cards in as many moves: what can be learned is not to turn one over again.
    ("ConcentrationHard", "lru"): {
        "discount": 0.5,
        "lambda_": 0.5,
        "entropy_end": 0.0,
        "num_envs": 32,
        "rollout": 52,
        "width": 128,
        "steps": 500_000,
        "memory_sizes": {"state_size": 64},
    },
    ("RepeatPreviousEasy", "lru"): SEARCHED_ANSWERS | {"steps": 800_000},
    # As long as those were that nothing was published for; nothing else was searched for.
    **{
        (f"{task}{level}", ""): {"steps": 600_000}
        for task in ("NoisyPositionOnlyPendulum", "LabyrinthEscape", "LabyrinthExplore")
        for level in ("Easy", "Medium", "Hard")
    },
    # A gate that opens at the first card and closes for good: nothing has to be learned of how fast to forget.
    ("RepeatFirstEasy", "min_lstm"): SEARCHED_ANSWERS | {"num_envs": 16, "steps": 300_000},
    ("RepeatFirstMedium", "min_lstm"): SEARCHED_ANSWERS | {"num_envs": 16, "rollout": 104, "steps": 800_000},
    ("RepeatFirstHard", "min_lstm"): SEARCHED_ANSWERS | {"num_envs": 16, "rollout": 104, "steps": 1_600_000},
    ("AutoencodeEasy", "gated_delta_net"): SEARCHED_POSITIONS | {"steps": 800_000},
    ("AutoencodeMedium", "gated_delta_net"): SEARCHED_POSITIONS | {"steps": 1_000_000},
    ("AutoencodeHard", "gated_delta_net"): SEARCHED_POSITIONS | {"steps": 1_000_000},
}
"""By task and memory, "" for those that no other entry names."""
SEARCHED_ALL: dict[str, Any] = {"advantage_window": 20_000}
"""What all of these were searched with."""
SEARCHED: dict[str, dict[tuple[str, str], dict[str, Any]]] = {"ppo": SEARCHED_PPO}
"""By agent."""
