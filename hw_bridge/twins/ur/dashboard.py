"""The dashboard server, port 29999: a line in, a line out."""

from __future__ import annotations

from dataclasses import dataclass

from hw_bridge.twins.ur.controller import Controller
from hw_bridge.twins.ur.safety import RobotMode

PORT = 29999
BANNER = "Connected: Universal Robots Dashboard Server"


@dataclass(frozen=True)
class Nameplate:
    """What does not change while the arm runs."""

    model: str
    serial: str
    firmware: tuple[int, int, int, int]
    remote: bool


def answer(line: str, controller: Controller, plate: Nameplate) -> str:
    """Return the dashboard's answer to `line`, having done what it asks."""
    safety, program = controller.safety, controller.program
    asked = line.strip().lower()
    facts = {
        "polyscopeversion": "URSoftware {}.{}.{}.{} (Jan 01 2026)".format(*plate.firmware),
        "get serial number": plate.serial,
        "get robot model": plate.model,
        "is in remote control": str(plate.remote).lower(),
        "robotmode": f"Robotmode: {safety.robot_mode.name}",
        "safetymode": f"Safetymode: {safety.mode.name}",
        "safetystatus": f"Safetystatus: {safety.mode.name}",
        "running": f"Program running: {str(program.running).lower()}",
        "programstate": f"{'PLAYING' if program.running else 'STOPPED'} rtde_control",
        "get loaded program": "Loaded program: /programs/rtde_control.urp",
        "issaved": "true rtde_control",
        "quit": "Disconnected",
    }
    if asked in facts:
        return facts[asked]
    if asked.startswith(("popup", "addtolog", "close popup", "close safety popup")):
        return {"popup": "showing popup", "addtolog": "Added log message"}.get(asked.split()[0], asked.replace("close", "closing"))
    if not plate.remote:
        return "Command is not allowed due to safety reasons: the robot is in local control"
    return _act(asked, controller)


def _act(asked: str, controller: Controller) -> str:
    safety = controller.safety
    if asked == "stop":
        controller.end_program("stopped from the dashboard")
        return "Stopped"
    if asked == "pause":
        controller.end_program("paused from the dashboard")
        return "Pausing program"
    if asked == "play":
        return "Failed to execute: play"
    if asked == "unlock protective stop":
        return controller.unlock_protective_stop()
    if asked == "restart safety":
        return safety.restart()
    if asked == "power on":
        return "Powering on" if safety.robot_mode is RobotMode.RUNNING or controller.power(RobotMode.IDLE) else "Failed to power on"
    if asked == "power off":
        controller.power(RobotMode.POWER_OFF)
        return "Powering off"
    if asked == "brake release":
        return "Brake releasing" if controller.power(RobotMode.RUNNING) else "Failed to release brakes"
    return f"could not understand: '{asked}'"
