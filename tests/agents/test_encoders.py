import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memoroids.agents.encoders import ConvEncoder, MixedEncoder
from memoroids.agents.networks import ActorCritic, QNetwork
from memoroids.envs.observations import Mixed, Symbols
from memoroids.memory import REGISTRY
from memoroids.memory.layers import Block


def images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def slow_convolution(x, weight, bias, stride):
    """x (H, W, C) and weight (out, C, k, k), one output pixel at a time."""
    kernel = weight.shape[-1]
    height, width = ((side - kernel) // stride + 1 for side in x.shape[:2])
    out = np.zeros((height, width, weight.shape[0]))
    for i in range(height):
        for j in range(width):
            patch = x[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            out[i, j] = np.einsum("abc,ocab->o", patch, weight) + bias.ravel()
    return leaky(out)


@pytest.mark.parametrize("begin", [False, True])
def test_the_encoder_of_images_is_the_published_one(begin):
    shape = (37, 45, 2)
    encoder = ConvEncoder(shape, 16, key=jax.random.key(0))
    parameters = [(np.asarray(c.weight, np.float64), np.asarray(c.bias, np.float64)) for c in encoder.convolutions]
    assert [w.shape for w, _ in parameters] == [(32, 2, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3)]
    image = images(1, shape)[0]
    x = image / 255
    for (weight, bias), stride in zip(parameters, (4, 2, 1), strict=True):
        x = slow_convolution(x, weight, bias, stride)
    assert x.shape == (1, 2, 64)
    features = np.append(np.moveaxis(x, -1, 0), float(begin))
    y = np.asarray(encoder.block.linear.weight) @ features + np.asarray(encoder.block.linear.bias)
    y = leaky((y - y.mean()) / np.sqrt(y.var() + 1e-5))
    np.testing.assert_allclose(encoder(jnp.asarray(image), jnp.asarray(begin)), y, atol=2e-5)


def test_an_image_of_real_numbers_counts_in_the_same_units():
    encoder = ConvEncoder((36, 36, 1), 8, key=jax.random.key(0))
    image, begin = jnp.asarray(images(1, (36, 36, 1))[0]), jnp.asarray(False)
    np.testing.assert_array_equal(encoder(image.astype(jnp.float32), begin), encoder(image, begin))


@pytest.mark.parametrize("shape", [(35, 84, 1), (84, 35, 3)])
def test_an_image_too_small_for_the_convolutions_is_refused(shape):
    with pytest.raises(ValueError) as error:
        QNetwork(shape, 4, REGISTRY["mlp"], key=jax.random.key(0))
    message = str(error.value)
    assert str(shape) in message and "36 x 36" in message and "\n" not in message


@pytest.mark.parametrize("shape", [(), (84, 84), (4, 84, 84, 1)])
def test_observations_of_another_shape_have_no_encoder(shape):
    with pytest.raises(ValueError, match="no encoder for observations of shape"):
        QNetwork(shape, 4, REGISTRY["mlp"], key=jax.random.key(0))


def test_a_number_and_a_shape_of_one_axis_are_the_same_network():
    number, shape = (QNetwork(s, 4, REGISTRY["gru"], key=jax.random.key(0), width=8) for s in (3, (3,)))
    assert isinstance(number.encoder, Block)
    assert jax.tree.structure(number) == jax.tree.structure(shape)
    jax.tree.map(np.testing.assert_array_equal, number, shape)


MIXED = Mixed(((36, 40, 1), (37, 36, 2)), 3)


def rows(count, layout, seed=0):
    parts = [images(count, shape, seed + i).reshape(count, -1) for i, shape in enumerate(layout.images)]
    vector = np.random.default_rng(seed).normal(size=(count, layout.vector))
    return jnp.asarray(np.concatenate((*parts, vector), axis=1), jnp.float32)


@pytest.mark.parametrize("begin", [False, True])
def test_a_row_of_images_and_numbers_is_encoded_part_by_part(begin):
    encoder = MixedEncoder(MIXED, 8, key=jax.random.key(0))
    row, begin = rows(1, MIXED)[0], jnp.asarray(begin)
    first, second = images(1, (36, 40, 1), 0)[0], images(1, (37, 36, 2), 1)[0]
    assert encoder.vector is not None and encoder.join is not None
    parts = (
        encoder.images[0](jnp.asarray(first), begin),
        encoder.images[1](jnp.asarray(second), begin),
        encoder.vector(jnp.append(row[-3:], begin)),
    )
    np.testing.assert_allclose(encoder(row, begin), encoder.join(jnp.concatenate(parts)), atol=1e-6)


@pytest.mark.parametrize("layout", [MIXED, Mixed(MIXED.images, 0)], ids=["with a vector", "images only"])
def test_rows_act_step_by_step_as_in_one_pass_and_every_parameter_takes_part(layout):
    network = ActorCritic(layout, 3, REGISTRY["gru"], key=jax.random.key(0), width=8)
    acts_as_in_one_pass(network, rows(6, layout))


GRID = Mixed((), 7, (Symbols(1, 4, 3), Symbols(5, 7, 16)))


def test_rows_of_symbols_act_step_by_step_as_in_one_pass_and_every_parameter_takes_part():
    network = ActorCritic(GRID, 3, REGISTRY["gru"], key=jax.random.key(0), width=8)
    row = np.random.default_rng(0).integers(0, 16, (6, GRID.size)).astype(np.float32)
    acts_as_in_one_pass(network, jnp.asarray(row))


def test_images_act_step_by_step_as_in_one_pass_and_every_parameter_takes_part():
    network = QNetwork((36, 40, 1), 3, REGISTRY["gru"], key=jax.random.key(0), width=8)
    acts_as_in_one_pass(network, jnp.asarray(images(6, (36, 40, 1))))


def acts_as_in_one_pass(network, observation):
    begin = jnp.arange(6) % 3 == 0
    whole, _ = network(observation, begin)
    state = network.initial_state()
    for t in range(6):
        out, state = network.step(observation[t], begin[t], state)
        for one, together in zip(jax.tree.leaves(out), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(one, together[t], atol=1e-5)

    def loss(network):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(network(observation, begin)[0]))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss, allow_int=True))(network)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and ".normaliser" not in jax.tree_util.keystr(path):
            assert jnp.any(leaf != 0), f"no gradient reaches {jax.tree_util.keystr(path)}"
