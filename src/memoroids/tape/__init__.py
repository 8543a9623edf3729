"""Tapes: whole episodes end to end; and the segments into which Segment-Based Batching splits them."""

from memoroids.tape.tape import Tape as Tape
from memoroids.tape.tape import blank as blank
from memoroids.tape.tape import concatenate as concatenate
from memoroids.tape.tape import continues as continues
from memoroids.tape.tape import empty as empty
from memoroids.tape.tape import episode as episode
from memoroids.tape.tape import pad as pad
from memoroids.tape.tape import slots_needed as slots_needed
