"""Recurrent reinforcement learning without segments: memory models as monoids, whole episodes on a tape."""

from memoroids._version import __version__ as __version__
from memoroids.algebra.linear_recurrence import linear_recurrence as linear_recurrence
from memoroids.algebra.monoid import Monoid as Monoid
from memoroids.algebra.resettable import Resettable as Resettable
from memoroids.algebra.scan import scan as scan
from memoroids.memory.chunks import in_chunks as in_chunks
from memoroids.memory.memoroid import Memoroid as Memoroid
from memoroids.memory.memoroid import Memory as Memory
from memoroids.memory.memoroid import Stack as Stack
from memoroids.tape import Tape as Tape
from memoroids.testing import check_memory as check_memory
from memoroids.testing import check_monoid as check_monoid
