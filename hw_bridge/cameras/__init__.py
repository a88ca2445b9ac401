"""Cameras: each owned by a process of its own, its newest picture in shared memory, all of its pictures in a log."""
