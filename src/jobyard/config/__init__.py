"""Everything that can be set: read once from the environment, checked whole, then frozen."""

from jobyard.config.bus import BusAddress
from jobyard.config.settings import Settings, SettingsError
from jobyard.config.values import default_home, is_loopback, without_password

__all__ = ["BusAddress", "Settings", "SettingsError", "default_home", "is_loopback", "without_password"]
