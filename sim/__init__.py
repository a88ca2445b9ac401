"""What if it is simulated? Robots and tasks in MuJoCo, dm_control, Gymnasium and PyBullet."""
