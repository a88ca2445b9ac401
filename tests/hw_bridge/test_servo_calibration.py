"""Making a calibration on the twins: the arm held at angle 0, the servos asked, and the driver satisfied with the result."""

from __future__ import annotations

import numpy as np
import pytest

from hw_bridge.drivers.dynamixel import DynamixelDriver
from hw_bridge.drivers.feetech import FeetechDriver
from hw_bridge.drivers.servo_calibration import calibrate_dynamixel, calibrate_feetech
from hw_bridge.twins.twin import TwinProcess
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.so101 import so101
from robots.errors import HardwareError

IDS = (1, 2, 3, 4, 5, 6)
KINDS = {"so101": (so101, calibrate_feetech, FeetechDriver, "scservo_sdk", (31, [9, 0])),
         "dynamixel_arm": (dynamixel_arm, calibrate_dynamixel, DynamixelDriver, "dynamixel_sdk", (20, [9, 0, 0, 0]))}


@pytest.mark.parametrize("name", KINDS)
def test_angle_0_is_where_the_person_held_it(name):
    make_arm, calibrate, driver_type, sdk, (homing, other) = KINDS[name]
    pytest.importorskip(sdk)
    arm = make_arm()
    with TwinProcess(name) as twin:
        device, direction = twin.ready["device"], tuple(twin.fault("calibration")["direction"])
        with pytest.raises(HardwareError, match="drive their motors"):
            calibrate(arm, device, IDS, direction)
        with pytest.raises(HardwareError, match=r"no servo answers at ids \[8\]"):
            calibrate(arm, device, (1, 8), direction)
        twin.fault("reset", q=[0.0] * 6, hold=False)
        twin.fault("by_hand")
        twin.fault("register", joint=3, address=homing, data=other)
        made = calibrate(arm, device, IDS, direction)
        driver = driver_type(arm, device, made)
        driver.connect()
        assert driver.read().q == pytest.approx(np.zeros(6), abs=0.004)
        driver.close()
        twin.fault("reset", q=[0.0] * 6, hold=False)
        with pytest.raises(HardwareError, match=r"(wrist_flex|forearm_roll): servo 4 holds"):
            twin.fault("register", joint=3, address=homing, data=[3, *other[1:]])
            driver_type(arm, device, made).connect()
