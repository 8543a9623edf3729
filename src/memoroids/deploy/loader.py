"""Acts with an exported agent; needs NumPy and onnxruntime only. Every exported folder holds this file as agent.py."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime


class Agent:
    """Call reset() when an episode begins, and act(observation), or act(observation, reward), at each of its steps."""

    def __init__(self, folder=Path(__file__).parent):
        folder = Path(folder)
        self.about = json.loads((folder / "agent.json").read_text())
        for name, digest in self.about["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{folder / name} is not the file that was exported: export the agent again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a step is too short to be divided
        self.session = onnxruntime.InferenceSession(folder / "agent.onnx", options, providers=["CPUExecutionProvider"])
        with np.load(folder / "initial_state.npz") as arrays:
            self.initial = {name: arrays[name] for name in self.about["state"]}
        self.reset()

    def reset(self):
        """Forgets the episode in progress."""
        self.state = dict(self.initial)

    def act(self, observation, reward=None):
        """The action after an observation and, where needed, the last reward. Raises ValueError for another shape."""
        feeds = dict(self.state)
        if self.about["needs_reward"]:
            feeds["reward"] = np.asarray(0 if reward is None else reward, np.float32)
        for part in self.about["observation"]:
            value = observation
            for key in part["path"]:
                value = value[key]
            value = np.asarray(value)
            if list(value.shape) != part["shape"] or not np.isfinite(value).all():
                where = "".join(f"[{key!r}]" for key in part["path"])
                got = f"shape {list(value.shape)}" if np.isfinite(value).all() else f"{value.ravel()[:4]}"
                raise ValueError(f"observation{where}: needs finite numbers of shape {part['shape']}, got {got}")
            feeds[part["name"]] = value.astype(part["dtype"])
        action, *state = map(np.asarray, self.session.run(self.about["outputs"], feeds))
        self.state = dict(zip(self.initial, state, strict=True))
        return int(action) if self.about["action"]["discrete"] else action.astype(self.about["action"]["dtype"])
