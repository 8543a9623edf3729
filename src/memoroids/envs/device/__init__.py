"""Device environments: pure JAX functions, and the view of them that agents get."""

from memoroids.envs.device.environment import DeviceEnv as DeviceEnv
from memoroids.envs.device.environment import EnvState as EnvState
from memoroids.envs.device.environment import Step as Step
from memoroids.envs.device.tasks import DEVICE as DEVICE
from memoroids.envs.device.tasks import LEVELS as LEVELS
from memoroids.envs.device.tasks import LIBRARIES as LIBRARIES
from memoroids.envs.device.tasks import make_device as make_device
from memoroids.envs.device.view import DeviceView as DeviceView
