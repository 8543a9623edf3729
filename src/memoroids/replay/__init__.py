"""Replay buffers: init, add and sample as pure functions on device arrays."""

from memoroids.replay.priorities import PriorityConfig as PriorityConfig
from memoroids.replay.rings import RingBuffer as RingBuffer
from memoroids.replay.rings import ring_buffer as ring_buffer
from memoroids.replay.segment_buffer import SegmentBuffer as SegmentBuffer
from memoroids.replay.segment_buffer import SegmentBufferState as SegmentBufferState
from memoroids.replay.segment_buffer import SegmentSample as SegmentSample
from memoroids.replay.segment_buffer import segment_buffer as segment_buffer
from memoroids.replay.tape_buffer import Drawn as Drawn
from memoroids.replay.tape_buffer import Sample as Sample
from memoroids.replay.tape_buffer import TapeBuffer as TapeBuffer
from memoroids.replay.tape_buffer import TapeBufferState as TapeBufferState
from memoroids.replay.tape_buffer import tape_buffer as tape_buffer
