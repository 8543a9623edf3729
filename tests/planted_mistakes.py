"""Plants mistakes of published code into a copy of the source, one at a time, and shows that the tests find each."""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMULA = "tests/memory/test_models.py::test_outputs_and_final_state_equal_the_formulas"
STEPS = "tests/memory/test_models.py::test_a_sequence_equals_its_steps"
FLAGS = "tests/memory/test_models.py::test_nothing_before_a_begin_flag_reaches_later_outputs_state_or_gradients"
DECAYED = "tests/algebra/test_decayed_attention.py"
DELTA = "tests/algebra/test_delta_rule.py"
SLSTM_GATES = "tests/memory/test_slstm.py::test_gates_of_any_size_stay_finite_and_the_normaliser_is_at_least_one"


@dataclass(frozen=True)
class Mistake:
    """A wrong piece of code in one module, and the tests that have to find it."""

    what: str
    file: str
    """The module, relative to src/memoroids."""
    old: str
    """The text that is replaced, which occurs once in the module."""
    new: str
    tests: str
    """Files and ids of tests as on a command line."""


MISTAKES = (
    Mistake(
        "only one of each pair of conjugate eigenvalues is read",
        "memory/s4d.py",
        "y = 2 * jnp.sum(",
        "y = jnp.sum(",
        f"{FORMULA}[s4d]",
    ),
    Mistake(
        "the update gate weighs the old state instead of the candidate",
        "memory/minimal_rnn.py",
        "return jax.nn.sigmoid(-k), jax.nn.sigmoid(k)",
        "return jax.nn.sigmoid(k), jax.nn.sigmoid(-k)",
        f"{FORMULA}[min_gru]",
    ),
    Mistake(
        "forget gate and input gate are not scaled to sum to 1",
        "memory/minimal_rnn.py",
        "return jax.nn.sigmoid(-d), jax.nn.sigmoid(d)",
        "return jax.nn.sigmoid(k_f), jax.nn.sigmoid(k_i)",
        f"{FORMULA}[min_lstm]",
    ),
    Mistake(
        "the lower bound of the forget gate is left out",
        "memory/hgrn.py",
        "keep, theta = lower + (1 - lower) * jax.nn.sigmoid(k),",
        "keep, theta = jax.nn.sigmoid(k),",
        f"{FORMULA}[hgrn]",
    ),
    Mistake(
        "the share of the first layer counts in the lower bounds",
        "memory/hgrn.py",
        "axis=0)[1:], axis=0)",
        "axis=0)[:-1], axis=0)",
        f"{FORMULA}[hgrn]",
    ),
    Mistake(
        "the short convolution is not reset",
        "memory/mamba.py",
        "self.convolution(v, begin, window)",
        "self.convolution(v, jnp.zeros_like(begin), window)",
        f"{FORMULA}[mamba]",
    ),
    Mistake(
        "the step size does not scale the input",
        "memory/mamba.py",
        "jnp.outer(dt * c.astype(jnp.float32), b)",
        "jnp.outer(c.astype(jnp.float32), b)",
        f"{FORMULA}[mamba]",
    ),
    Mistake(
        "the rotation has the wrong sign",
        "memory/rot_rnn.py",
        "gamma * jnp.sin(theta))",
        "-gamma * jnp.sin(theta))",
        f"{FORMULA}[rot_rnn]",
    ),
    Mistake(
        "positions are counted from the beginning of the tape instead of the episode",
        "memory/shm.py",
        "steps_before(begin, before)",
        "before + jnp.arange(x.shape[0], dtype=before.dtype)",
        f"{FORMULA}[shm]",
    ),
    Mistake(
        "every step takes the first row of the calibration",
        "memory/shm.py",
        "(), 0, self.theta.shape[0], jnp.int32)",
        "(), 0, 1, jnp.int32)",
        f"{FORMULA}[shm]",
    ),
    Mistake(
        "the weights of the old trace and the new observation are swapped",
        "memory/memory_traces.py",
        "jnp.asarray(1 - self._new(), jnp.float32)",
        "jnp.asarray(self._new(), jnp.float32)",
        f"{FORMULA}[memory_traces]",
    ),
    Mistake(
        "sums decay by one step too few",
        "memory/retnet.py",
        "jnp.exp(n_next * log_gamma",
        "jnp.exp((n_next - 1) * log_gamma",
        f"{STEPS}[retnet]",
    ),
    Mistake(
        "a query is rotated by one step more than its key",
        "memory/retnet.py",
        "jnp.broadcast_to(count - 1, query",
        "jnp.broadcast_to(count, query",
        f"{STEPS}[retnet]",
    ),
    Mistake(
        "the temperature of the gates is left out",
        "memory/gla.py",
        "jax.nn.log_sigmoid(gate) / self.temperature",
        "jax.nn.log_sigmoid(gate)",
        f"{FORMULA}[gla]",
    ),
    Mistake(
        "the lower bound is left out of what is written",
        "memory/hgrn2.py",
        """key = (1 - in_heads(self.lower_bound, self.heads)) * key
            log_forget = jnp.log1p(-key)""",
        "log_forget = jnp.log1p((in_heads(self.lower_bound, self.heads) - 1) * key)",
        f"{FORMULA}[hgrn2]",
    ),
    Mistake(
        "the output is normalised before it is gated",
        "memory/mamba2.py",
        "rms_norm(y * jax.nn.silu(gate))",
        "rms_norm(y) * jax.nn.silu(gate)",
        f"{FORMULA}[mamba2]",
    ),
    Mistake(
        "the normaliser keeps the newest key only",
        "memory/mlstm.py",
        "a[:, None] * n + b[:, None] * n_next",
        "b[:, None] * n_next",
        f"{STEPS}[mlstm]",
    ),
    Mistake(
        "the lower bound of the normaliser is not at the scale of the stabiliser",
        "memory/mlstm.py",
        "jnp.maximum(jnp.abs(normaliser), least)",
        "jnp.maximum(jnp.abs(normaliser), jnp.ones_like(least))",
        f"{FORMULA}[mlstm]",
    ),
    Mistake(
        "keys are not normalised",
        "memory/delta_net.py",
        "jax.vmap(unit)(query), jax.vmap(unit)(key), value",
        "jax.vmap(unit)(query), key, value",
        f"{FORMULA}[delta_net]",
    ),
    Mistake(
        "what is erased is read before the decay instead of after it",
        "memory/delta_net.py",
        """sums = jnp.exp(log_decay)[:, None, None] * sums
        change = rate[:, None] * (value - read_heads(sums, key))""",
        """change = rate[:, None] * (value - read_heads(sums, key))
        sums = jnp.exp(log_decay)[:, None, None] * sums""",
        f"{STEPS}[gated_delta_net]",
    ),
    Mistake(
        "what is erased is read after the decay instead of before it",
        "memory/rwkv7.py",
        "removal * jnp.exp(-log_decay), rate * removal",
        "removal, rate * removal",
        f"{FORMULA}[rwkv7]",
    ),
    Mistake(
        "the transition multiplies the state from the wrong side",
        "memory/rwkv7.py",
        """old = read_heads(sums, removal)
        sums = jnp.exp(log_decay)[:, :, None] * sums - (rate * removal)[:, :, None] * old[:, None, :]""",
        """old = read_heads(jnp.swapaxes(sums, 1, 2), rate * removal)
        sums = jnp.exp(log_decay)[:, None, :] * sums - old[:, :, None] * removal[:, None, :]""",
        f"{STEPS}[rwkv7]",
    ),
    Mistake(
        "the shift by one step crosses begin flags",
        "memory/rwkv7.py",
        "jnp.where(begin[:, None], 0, jnp.concatenate((last[None], rows[:-1])))",
        "jnp.concatenate((last[None], rows[:-1]))",
        f"{FORMULA}[rwkv7]",
    ),
    Mistake(
        "the shift by one step is multiplied by 0 at begin flags instead of replaced",
        "memory/rwkv7.py",
        "jnp.where(begin[:, None], 0, jnp.concatenate((last[None], rows[:-1])))",
        "(1 - begin.astype(rows.dtype))[:, None] * jnp.concatenate((last[None], rows[:-1]))",
        f"{FLAGS}[rwkv7-None]",
    ),
    Mistake(
        "the window is one too long",
        "memory/window_attention.py",
        "band_attention(query, key, value, count)",
        "band_attention(query, key, value, count + 1)",
        f"{FORMULA}[window_attention]",
    ),
    Mistake(
        "the rotation of keys has the wrong sign",
        "memory/window_attention.py",
        "rotate(key, position)",
        "rotate(key, -position)",
        f"{FORMULA}[window_attention]",
    ),
    Mistake(
        "the bias of the update gate is added instead of subtracted",
        "memory/gtrxl.py",
        "u_z @ x - self.bias",
        "u_z @ x + self.bias",
        f"{FORMULA}[gtrxl]",
    ),
    Mistake(
        "forget gate and input gate are swapped",
        "memory/lstm.py",
        "i, f, g, o = (",
        "f, i, g, o = (",
        f"{FORMULA}[lstm]",
    ),
    Mistake(
        "the stabiliser of the exponential gates is dropped",
        "memory/slstm.py",
        "stabiliser = jnp.maximum(kept, i)",
        "stabiliser = jnp.zeros_like(i)",
        SLSTM_GATES,
    ),
    Mistake(
        "the output reads the window before its update",
        "memory/lmu.py",
        """m = a @ m + b * u
        return jnp.tanh(inputs[1] + self.w_h @ h + self.w_m @ m), m""",
        "return jnp.tanh(inputs[1] + self.w_h @ h + self.w_m @ m), a @ m + b * u",
        f"{FORMULA}[lmu]",
    ),
    Mistake(
        "the recurrent matrix is transposed",
        "memory/elman.py",
        "self.u @ state",
        "self.u.T @ state",
        f"{FORMULA}[elman]",
    ),
    Mistake(
        "frames of the episode before stay in the stack",
        "memory/frame_stack.py",
        "self._window.dtype), begin, state)",
        "self._window.dtype), begin & False, state)",
        f"{FORMULA}[frame_stack]",
    ),
    Mistake(
        "positions are counted from 1",
        "memory/positional_mlp.py",
        "sinusoids(h - 1, ",
        "sinusoids(h, ",
        f"{FORMULA}[positional_mlp]",
    ),
    Mistake(
        "the inputs of an earlier episode are multiplied by 0 instead of left out",
        "memory/causal_convolution.py",
        "jnp.where((time - i >= start)[:, None], ago, 0)",
        "(1 - (time - i < start).astype(ago.dtype))[:, None] * ago",
        "tests/memory/test_causal_convolution.py::test_nothing_crosses_a_begin_flag",
    ),
    Mistake(
        "the state of the convolution keeps inputs of the episode before",
        "memory/causal_convolution.py",
        "jnp.where(kept, inputs[length:], 0)",
        "inputs[length:]",
        "tests/memory/test_causal_convolution.py",
    ),
    Mistake(
        "the state of a chunk goes on across a reset",
        "algebra/decayed_attention.py",
        "jnp.where(episodes.whole, kept, 0) + episodes.added",
        "kept + episodes.added",
        f"{DECAYED}::test_outputs_state_and_gradients_equal_the_slow_loops",
    ),
    Mistake(
        "the transition of the delta rule multiplies from the wrong side",
        "algebra/delta_rule.py",
        "decays.scores(read, key)",
        "decays.scores(key, read)",
        f"{DELTA}::test_outputs_state_and_gradients_equal_the_slow_loops",
    ),
    Mistake(
        "what is read from the chunk before is not decayed",
        "algebra/delta_rule.py",
        "episodes.carried(decays.entered(read), state)",
        "episodes.carried(read, state)",
        f"{DELTA}::test_outputs_state_and_gradients_equal_the_slow_loops",
    ),
    Mistake(
        "a key decays in the step that writes it",
        "algebra/matrix_chunks.py",
        "log_decay, jnp.zeros_like(log_decay), []",
        "log_decay, log_decay, []",
        f"{DECAYED}::test_outputs_state_and_gradients_equal_the_slow_loops",
    ),
    Mistake(
        "gradients cross a reset, since an operand is not selected",
        "algebra/matrix_chunks.py",
        "dot(jnp.where(self._reads, rows, 0), state)",
        "dot(rows, state)",
        f"{DECAYED}::test_nothing_crosses_a_reset_in_either_direction",
    ),
    Mistake(
        "the mask multiplies instead of selecting",
        "algebra/masked_products.py",
        "jnp.where(mask, dot(rows, columns.T), 0)",
        "jnp.exp(jnp.where(mask, 0, -jnp.inf)) * dot(rows, columns.T)",
        "tests/algebra/test_masked_products.py",
    ),
    Mistake(
        "distances are counted in the wrong direction",
        "algebra/band_attention.py",
        "jnp.pad(jnp.flip(rows, -1), ",
        "jnp.pad(rows, ",
        "tests/algebra/test_band_attention.py",
    ),
    Mistake(
        "the window of attention is one too long",
        "algebra/band_attention.py",
        "(at > ends - count[:, None])",
        "(at >= ends - count[:, None])",
        "tests/algebra/test_band_attention.py",
    ),
    Mistake(
        "steps are counted from the beginning of the tape instead of the episode",
        "algebra/window.py",
        "count + steps, steps - first)",
        "count + steps, steps)",
        "tests/algebra/test_window.py",
    ),
)


class Copy:
    """The source and its tests in a directory of their own, and commands that import them from there."""

    def __init__(self, where: Path):
        self.where = where
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", where)
        # Compiled files are told from changed ones by size and second, which a mistake can leave as they are.
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(where / "src"), str(where))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "1000",
        }
        imported = self._python("-c", "import memoroids; print(memoroids.__file__)").stdout.strip()
        if not Path(imported).resolve().is_relative_to(where.resolve()):
            sys.exit(f"the copy is in {where}, but what is imported is {imported or 'nothing'}")

    def test(self, *tests: str) -> subprocess.CompletedProcess[str]:
        """Runs tests until the first one fails."""
        return self._python("-m", "pytest", "-n0", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *tests)

    @contextlib.contextmanager
    def planted(self, mistake: Mistake) -> Iterator[None]:
        """The copy with a mistake in it."""
        path = self.where / "src" / "memoroids" / mistake.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=self.where, env=self._environment, **output)


def misplaced(mistake: Mistake) -> str | None:
    """Why a mistake cannot be planted, or None."""
    path = ROOT / "src" / "memoroids" / mistake.file
    if not path.exists():
        return f"{mistake.file}, {mistake.what}: there is no such module"
    times = path.read_text(encoding="utf-8").count(mistake.old)
    return None if times == 1 else f"{mistake.file}, {mistake.what}: the text to replace occurs {times} times, not once"


def judged(copy: Copy, mistake: Mistake) -> tuple[str, str]:
    """Whether the tests find a mistake, and the first one that fails. An exception of the code is no finding."""
    with copy.planted(mistake):
        done = copy.test(*shlex.split(mistake.tests))
    if done.returncode == 0:
        return "NOT FOUND", mistake.tests
    failed = re.search(r"^FAILED (.+?) - (.*)$", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed is not None and re.match(r"assert|[\w.]*(Assertion|Law)Error", failed[2]):
        return "found", failed[1]
    said = failed[0] if failed is not None else f"pytest exits with {done.returncode}\n{done.stdout[-2000:]}"
    return "ERROR", said


def main() -> int:
    """Prints which mistakes are found. Returns whether there are others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="mistakes with this in their description or module")
    parser.add_argument("--list", action="store_true", help="print the mistakes and plant none")
    options = parser.parse_args()
    chosen = [mistake for mistake in MISTAKES if options.only in mistake.what or options.only in mistake.file]
    if not chosen:
        sys.exit(f"no mistake has {options.only!r} in its description or module")
    if wrong := [reason for mistake in chosen if (reason := misplaced(mistake)) is not None]:
        sys.exit("\n".join(wrong))
    if options.list:
        print("\n".join(f"{mistake.file}: {mistake.what}" for mistake in chosen))
        return 0
    found = 0
    with tempfile.TemporaryDirectory() as directory:
        copy = Copy(Path(directory))
        unchanged = copy.test(*sorted({test for mistake in chosen for test in shlex.split(mistake.tests)}))
        if unchanged.returncode != 0:
            sys.exit(f"the tests fail without a mistake:\n{unchanged.stdout[-4000:]}")
        for mistake in chosen:
            verdict, where = judged(copy, mistake)
            found += verdict == "found"
            print(f"{verdict:9}  {mistake.file}: {mistake.what}: {where}", flush=True)
    print(f"{found} of {len(chosen)} planted mistakes found")
    return int(found < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
