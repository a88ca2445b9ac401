"""The controller of a Universal Robots e-Series arm, as its network sees it: RTDE, script port, dashboard, safety, motion."""
