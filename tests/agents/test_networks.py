import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumerated import PARTS, index, joint, parts_of, table

from memoroids.agents.branches import greedy, value_of
from memoroids.agents.distributions import Categorical, FactoredCategorical, Gaussian
from memoroids.agents.networks import (
    ActorCritic,
    ActorCriticHead,
    BranchingDueling,
    Dueling,
    GaussianHead,
    QNetwork,
)
from memoroids.envs.spaces import Continuous
from memoroids.memory import REGISTRY

BOX = Continuous(2, (-1.0, -2.0), (1.0, 4.0))


def test_dueling_heads_add_a_value_to_centred_advantages():
    head = Dueling(5, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5,))
    q = head(x)
    np.testing.assert_allclose(q.mean(), head.value(x)[0], rtol=1e-5)
    np.testing.assert_allclose(q - q.mean(), head.advantage(x) - head.advantage(x).mean(), atol=1e-6)


def test_value_and_advantage_heads_start_apart():
    head = Dueling(5, 1, key=jax.random.key(0))
    assert not np.allclose(head.value.weight, head.advantage.weight)


def test_branches_share_a_value_and_have_centred_advantages_of_their_own():
    head = BranchingDueling(5, PARTS, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5,))
    advantage = np.split(np.asarray(head.advantage(x)), np.cumsum(PARTS.sizes)[:-1])
    for q, a in zip(parts_of(head(x)), advantage, strict=True):
        np.testing.assert_allclose(q, head.value(x)[0] + a - a.mean(), atol=1e-6)


def test_the_greedy_action_of_branches_is_the_best_of_all_actions_counted_through():
    head = BranchingDueling(5, PARTS, key=jax.random.key(0))
    actions = joint(PARTS.sizes)
    for x in jax.random.normal(jax.random.key(1), (20, 5)):
        q = head(x)
        joint_q = [float(value_of(q, jnp.asarray(action))) for action in actions]
        np.testing.assert_array_equal(greedy(q), actions[int(np.argmax(joint_q))])


def test_the_joint_log_probability_of_a_policy_of_parts_is_that_of_all_actions_counted_through():
    head = ActorCriticHead(5, PARTS, key=jax.random.key(0))
    for x in jax.random.normal(jax.random.key(1), (5, 5)):
        policy, _ = head(x)
        assert isinstance(policy, FactoredCategorical)
        p = table(policy.logits)
        found = [float(policy.log_prob(jnp.asarray(action))) for action in joint(PARTS.sizes)]
        np.testing.assert_allclose(found, jnp.log(p), rtol=1e-5)
        assert index(PARTS.sizes, policy.mode().tolist()) == int(jnp.argmax(p))


@pytest.mark.parametrize(
    ("name", "actions"), [*((name, 4) for name in REGISTRY), ("gru", PARTS)], ids=[*REGISTRY, "gru, factored"]
)
@pytest.mark.one_in(4)
def test_every_parameter_takes_part(name, actions):
    network = QNetwork(3, actions, REGISTRY[name], key=jax.random.key(0), width=8)
    # Not at the start, where some are 0 and stop the gradient of others.
    network = jax.tree.map(lambda leaf: leaf + 0.1 if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, network)
    x = jax.random.normal(jax.random.key(1), (12, 3))
    begin = jnp.arange(12) % 6 == 0
    # Q-values squared, so that not even a common shift of them has a zero gradient.
    loss = jax.jit(jax.grad(lambda n: jnp.sum(jnp.square(jax.tree.leaves(n(x, begin)[0])[0])), allow_int=True))
    for path, leaf in jax.tree_util.tree_leaves_with_path(loss(network)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert jnp.any(leaf != 0), f"{name}: no gradient reaches {jax.tree_util.keystr(path)}"


@pytest.mark.parametrize("actions", [4, PARTS, BOX], ids=["discrete", "factored", "continuous"])
def test_every_parameter_of_an_actor_critic_takes_part(actions):
    network = ActorCritic(3, actions, REGISTRY["gru"], key=jax.random.key(0), width=8)
    x = jax.random.normal(jax.random.key(1), (12, 3))

    def loss(network):
        (policy, value), _ = network(x, jnp.arange(12) % 6 == 0)
        action = policy.mode() + 0.3 if actions is BOX else policy.mode()
        return jnp.sum(policy.log_prob(jax.lax.stop_gradient(action)) + jnp.square(value))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss, allow_int=True))(network)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert jnp.any(leaf != 0), f"no gradient reaches {jax.tree_util.keystr(path)}"


@pytest.mark.parametrize("actions", [4, PARTS, BOX], ids=["discrete", "factored", "continuous"])
def test_an_actor_critic_acts_step_by_step_as_in_one_pass(actions):
    network = ActorCritic((3,), actions, REGISTRY["gru"], key=jax.random.key(0), width=8)
    x, begin = jax.random.normal(jax.random.key(1), (6, 3)), jnp.arange(6) % 4 == 0
    out, _ = network(x, begin)
    policy, value = out
    kind = {4: Categorical, PARTS: FactoredCategorical, BOX: Gaussian}[actions]
    assert value.shape == (6,) and isinstance(policy, kind)
    state = network.initial_state()
    for t in range(6):
        out_t, state = network.step(x[t], begin[t], state)
        jax.tree.map(lambda one, all_, t=t: np.testing.assert_allclose(one, all_[t], atol=1e-5), out_t, out)


def test_a_q_network_and_an_actor_critic_share_all_but_their_heads():
    q, actor = (n(3, 4, REGISTRY["gru"], key=jax.random.key(0), width=8) for n in (QNetwork, ActorCritic))
    for part in ("encoder", "memory", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, getattr(q, part), getattr(actor, part))


def test_policies_start_near_uniform_and_gaussians_near_the_middle_of_the_box():
    x = jax.random.normal(jax.random.key(1), (8,))
    policy, _ = ActorCriticHead(8, 4, key=jax.random.key(0))(x)
    np.testing.assert_allclose(jax.nn.softmax(policy.logits), 0.25, atol=0.05)
    policy, _ = ActorCriticHead(8, BOX, key=jax.random.key(0))(x)
    np.testing.assert_allclose(policy.mean, [0.0, 1.0], atol=0.5)
    np.testing.assert_allclose(jnp.exp(policy.log_std), [0.5, 1.5], rtol=1e-6)


def test_the_mean_of_a_gaussian_stays_within_the_box():
    head = GaussianHead(3, BOX, key=jax.random.key(0))
    np.testing.assert_allclose(head(1e6 * head.mean.weight[0]).mean[0], 1.0)
    for sign in (-1, 1):
        mean = head(sign * 1e6 * head.mean.weight[1]).mean
        np.testing.assert_allclose(mean[1], 4.0 if sign == 1 else -2.0)


@pytest.mark.parametrize(
    "box", [Continuous(2, (0.0, 1.0), (1.0, 1.0)), Continuous(1, (0.0, 0.0), (1.0, 1.0)), Continuous(1, (1.0,), (0.0,))]
)
def test_a_box_without_room_is_refused(box):
    with pytest.raises(ValueError, match=r"^continuous actions need size pairs of low < high, got [^\n]*$"):
        ActorCritic(3, box, REGISTRY["mlp"], key=jax.random.key(0), width=8)


def test_a_factory_that_gives_no_memory_is_refused():
    with pytest.raises(TypeError, match="returned int, not a memoroids"):
        QNetwork(3, 4, lambda i, o, *, key: 5, key=jax.random.key(0))  # pyright: ignore
