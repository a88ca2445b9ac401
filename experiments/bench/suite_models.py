"""dm_control's models as MuJoCo reads them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType

import mujoco

from sim.dm_control_compatibility import prepare_dm_control


def suite_xml(name: str) -> str:
    """Return the MJCF of a domain of dm_control's suite, with what it includes."""
    prepare_dm_control()
    from dm_control import suite

    domain: ModuleType = getattr(suite, name)
    text, assets = domain.get_model_and_assets()
    with tempfile.TemporaryDirectory() as folder:
        for file_name, content in {"model.xml": text, **assets}.items():
            file = Path(folder) / file_name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return mujoco.MjSpec.from_file(str(Path(folder) / "model.xml")).to_xml()
