"""What the forwarders of this host are to be like, as ``nsm up`` and ``nsm join`` were told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from nsmesh.core.errors import Invalid, NotFound
from nsmesh.standalone.joining import files

NAMES = ("forwarders", "mechanisms", "device_selector", "tunnels_apart", "labels", "switch")
"""The options that say it, as Python names them."""
SWITCH = "NSM_SWITCH_DATABASE"
"""Variable of the database of somebody else's switch."""


@dataclass(frozen=True, slots=True)
class ForwarderWishes:
    """One field for each option; an empty one wishes for nothing."""

    forwarders: tuple[str, ...] = ("linux",)
    mechanisms: tuple[str, ...] = ()
    device_selector: str = ""
    tunnels_apart: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    switch: str = ""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what a file keeps, no wishes where there is none; raises Invalid where it is damaged."""
        kept: dict[str, Any] = files.read(path) or {}
        wrong = sorted(set(kept) - {one.name for one in fields(cls)})
        if wrong:
            raise Invalid(f"{path} is damaged: {', '.join(wrong)} is no wish", remedy="remove it")
        for name in {"forwarders", "mechanisms"} & set(kept):
            kept[name] = tuple(kept[name])
        return cls(**kept)

    def save(self, path: Path) -> None:
        """Keep it; raises Unavailable where that cannot be done."""
        files.write(path, asdict(self))

    def with_options(self, given: Mapping[str, Any]) -> Self:
        """Return it with the options of a command in place of what they speak of."""
        return replace(self, **given)

    def environment(self) -> dict[str, str]:
        """Return the variables that tell forwarders, here and as processes of their own."""
        found = {}
        if self.mechanisms:
            found["NSM_MECHANISMS"] = found["NSM_MECHANISM_PRIORITY"] = ",".join(self.mechanisms)
        if self.device_selector:
            found["NSM_DEVICE_SELECTOR_FILE"] = self.device_selector
        if self.switch:
            found[SWITCH] = self.switch
        if self.tunnels_apart:
            found["NSM_TUNNELS_APART"] = "true"
        if self.labels:
            found["NSM_LABELS"] = ",".join(f"{name}:{value}" for name, value in self.labels.items())
        return found

    def check(self) -> None:
        """Raise NotFound for a file that was named when the host came up earlier, and is gone."""
        if self.device_selector and not Path(self.device_selector).is_file():
            raise NotFound(
                f"the device selector {self.device_selector} of this host is no file any more",
                remedy="bring it back, or say another one: nsm up --device-selector FILE ('' for none)",
            )
