"""Time and memory shared by the processes of the bridge: schedule, boards, rings."""
