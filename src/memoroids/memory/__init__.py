"""Memory models with a common interface, one file per model, and their registry."""

from memoroids.memory.ffm import FFM as FFM
from memoroids.memory.gru import GRU as GRU
from memoroids.memory.linear_transformer import LinearTransformer as LinearTransformer
from memoroids.memory.lru import LRU as LRU
from memoroids.memory.mlp import MLP as MLP
from memoroids.memory.registry import REGISTRY as REGISTRY
from memoroids.memory.registry import Factory as Factory
from memoroids.memory.s5 import S5 as S5
