"""Build hook: a wheel carries ``conf/`` as ``sailctl/conf``, so that it claims no import name ``conf``."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConfHook(BuildHookInterface[Any]):
    """Adds the configuration to a standard wheel; an editable install reads the checkout's own ``conf/``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # In an editable wheel a forced file under sailctl/ would shadow the checkout's package.
        if self.target_name == "wheel" and version == "standard":
            build_data["force_include"]["conf"] = "sailctl/conf"
