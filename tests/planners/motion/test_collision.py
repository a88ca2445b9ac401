"""The checker finds what MuJoCo's contacts find, keeps its margin, and names what is in the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import mujoco
import numpy as np
import pytest

from planners.motion.collision import CollisionChecker, CollisionConfig
from planners.motion.scene import Box, Cylinder, Mesh, Scene, Sphere
from robots.arms.arm import Arm
from robots.arms.dynamixel_arm import dynamixel_arm
from robots.arms.panda import fr3, panda
from robots.arms.so101 import so101
from robots.arms.ur5e import ur5e
from robots.errors import ConfigurationError, NonFiniteError, ShapeError

ARMS = {make.__name__: make for make in (ur5e, so101, panda, fr3, dynamixel_arm)}
CUBE = """v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 2 3 7\nf 2 7 6\nf 3 4 8\nf 3 8 7\nf 4 1 5\nf 4 5 8\n"""


def pose(x: float, y: float, z: float, quaternion: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)) -> np.ndarray:
    return np.array([x, y, z, *quaternion])


def clutter(arm: Arm) -> Scene:
    """Shapes of every kind within the arm's reach."""
    reach = 0.7 if arm.spec.nv > 5 and arm.spec.name not in ("so101", "dynamixel_arm") else 0.25
    turned = (0.8, 0.2, -0.4, 0.4)
    return Scene((Box("post", pose(0.7 * reach, 0.0, 0.5 * reach), reach * np.array([0.15, 0.2, 0.8])),
                  Box("plank", pose(0.0, -reach, reach, turned), reach * np.array([0.9, 0.1, 0.3])),
                  Cylinder("can", pose(-0.6 * reach, 0.5 * reach, reach, turned), 0.15 * reach, 0.5 * reach),
                  Sphere("ball", pose(0.2 * reach, 0.8 * reach, 0.8 * reach), 0.2 * reach)))


def draws(arm: Arm, count: int, seed: int = 0) -> np.ndarray:
    limits = arm.spec.limits
    return np.random.default_rng(seed).uniform(np.maximum(limits.position_min, -np.pi), np.minimum(limits.position_max, np.pi),
                                               (count, arm.spec.nv))


@pytest.mark.parametrize("name", ARMS)
def test_what_is_free_is_free_of_contacts_and_what_is_not_has_one(name, touches):
    arm = ARMS[name]()
    checker = CollisionChecker(arm, clutter(arm), CollisionConfig(margin=0.0))
    model = checker.scene.model(arm)
    data = mujoco.MjData(model)
    verdicts = []
    for q in draws(arm, 300):
        free, contact = checker.is_free(q), touches(model, data, q)
        if free == contact:
            assert abs(checker.clearance(q).distance) < 1e-6, "only what just touches may be told either way"
        verdicts.append(free)
    assert 30 < sum(verdicts) < 290


@pytest.mark.parametrize("name", ["ur5e", "so101", "panda"])
def test_nothing_approaches_faster_than_the_levers_say(name):
    arm = ARMS[name]()
    checker = CollisionChecker(arm, clutter(arm))
    model, data, rng, pairs = checker.model, mujoco.MjData(checker.model), np.random.default_rng(1), checker.pairs
    fixed = model.body_weldid[model.geom_bodyid] == 0
    fastest = 0.0
    for q, other in zip(draws(arm, 20, 2), draws(arm, 20, 3), strict=True):
        end = q + rng.choice([1e-3, 0.1, 1.0]) * (other - q)
        bounds, seen = pairs.lever @ np.abs(end - q), []
        for at in (q, end):
            data.qpos[:] = at
            mujoco.mj_kinematics(model, data)
            distances = [mujoco.mj_geomDistance(model, data, a, b, 10.0, None) for a, b in zip(pairs.first, pairs.second, strict=True)]
            seen.append((np.array(distances), data.geom_xpos.copy(), data.geom_xmat.reshape(-1, 3, 3).copy()))
        apart = (seen[0][0] > 0) & (seen[1][0] > 0)
        assert (np.abs(seen[1][0] - seen[0][0]) <= bounds + 1e-6)[apart].all()
        for k, (a, b) in enumerate(zip(pairs.first, pairs.second, strict=True)):
            if fixed[a] != fixed[b]:
                geom, direction = b if fixed[a] else a, rng.normal(size=3)
                point = model.geom_rbound[geom] * direction / np.linalg.norm(direction)  # of its bounding sphere
                (_, x, r), (_, y, t) = seen
                moved = np.linalg.norm(y[geom] + t[geom] @ point - x[geom] - r[geom] @ point)
                assert moved <= bounds[k] + 1e-9
                fastest = max(fastest, moved / bounds[k])
    assert fastest > 0.5, "bounds twice too far everywhere would only cost time"


@pytest.mark.parametrize("name", ["ur5e", "so101"])
def test_edges_that_are_free_are_free_at_every_millimetre(name, path_touches):
    arm = ARMS[name]()
    scene = clutter(arm)
    thin = replace(scene, obstacles=(*scene.obstacles, Box("sheet", pose(0.0, 0.3, 0.4), np.array([0.6, 0.001, 0.5]))))
    checker = CollisionChecker(arm, thin)
    starts = [q for q in draws(arm, 80) if checker.is_free(q)][:12]
    edges = [(start, start + 0.5 * (end - start)) for start, end in pairwise(starts)]
    free = [checker.edge_is_free(*edge) for edge in edges]
    for (start, end), verdict in zip(edges, free, strict=True):
        if verdict:
            assert not path_touches(arm, thin, np.array([start, end]))
        else:
            assert min(checker.clearance(start + s * (end - start)).distance for s in np.linspace(0, 1, 800)) < 0.003
    assert 2 <= sum(free) < len(free)


def test_a_needle_does_not_pass_through_a_bead(arm):
    """Both are thinner than the margin, and touch for some thousandths of the way."""
    needle = Cylinder("needle", pose(0.0, 0.0, 0.16), 0.001, 0.3)
    bare, kinematics, rng = CollisionChecker(arm, Scene(payload=needle)), arm.kinematics(), np.random.default_rng(0)
    found = 0
    for _ in range(60):
        start = arm.home + rng.uniform(-0.5, 0.5, 6)
        end = start + rng.uniform(-1.0, 1.0, 6)
        if not bare.edge_is_free(start, end):
            continue
        position, quaternion = np.split(kinematics.forward(start + rng.uniform(0.1, 0.9) * (end - start)), [3])
        mujoco.mju_rotVecQuat(out := np.empty(3), np.array([0.0, 0.0, 0.3]), quaternion)
        met = CollisionChecker(arm, Scene((Sphere("bead", pose(*(position + out)), 0.001),), needle))
        if met.is_free(start) and met.is_free(end):
            assert not met.edge_is_free(start, end)
            assert all(met.first_path_collision(np.linspace(start, end, count)) is not None for count in (2, 20, 300))
            found += 1
    assert found > 20


def test_paths_are_checked_as_their_edges_are(arm, wall, around_the_wall):
    checker = CollisionChecker(arm, wall)
    start, goal, half_way = around_the_wall
    rng = np.random.default_rng(0)
    for _ in range(12):
        points = np.vstack([start, start + rng.normal(scale=0.5, size=(3, 6)), rng.choice([goal, start])])
        hits = [checker.first_collision(points[0]) is not None,
                *(not checker.edge_is_free(a, b) for a, b in pairwise(points))]
        # the same path in small steps: looked at elsewhere, so that what is between margin and margin + resolution may be told either way
        fine = np.concatenate([a + np.linspace(0, 1, 200)[:, None] * (b - a) for a, b in pairwise(points)])
        assert (checker.first_path_collision(points) is not None) == any(hits)
        if any(hits):
            assert checker.first_path_collision(fine, 0.003) is not None
        else:
            assert checker.first_path_collision(fine, 0.0015) is None
    assert checker.first_path_collision(np.array([start, goal])) in {("upper_arm", "wall"), ("forearm", "wall"), ("wrist_1", "wall"),
                                                                     ("wrist_2", "wall"), ("wrist_3", "wall"), ("forearm_housing", "wall")}
    assert checker.first_path_collision(half_way[None]) is not None
    assert checker.first_path_collision(np.empty((0, 6))) is None and checker.first_path_collision(start[None]) is None


@pytest.mark.parametrize("gap", [0.05, 0.0021, 0.0019, -0.01])
def test_distances_and_margins_are_metres(arm, gap):
    tip = arm.kinematics().forward(arm.home)
    axis = np.empty(9)
    mujoco.mju_quat2Mat(axis, tip[3:])
    out = axis.reshape(3, 3)[:, 2]  # out of the flange, which is flat
    ball = Sphere("ball", pose(*(tip[:3] + (0.03 + gap) * out)), 0.03)
    checker = CollisionChecker(arm, Scene((ball,)))
    clearance = checker.clearance(arm.home)
    expected = ("wrist_3", "ball") if gap < 0.0125 else ("base", "upper_arm_housing")
    assert clearance.pair == expected and clearance.distance == pytest.approx(min(gap, 0.0125), abs=1e-5)
    assert (checker.first_collision(arm.home) == ("wrist_3", "ball")) == (gap < 0.002)


def test_pairs_that_may_touch_are_told_in_words(arm):
    assert "shoulder_link and upper_arm_link: neighbours, one joint apart" in CollisionChecker(arm).allowed
    assert "world and shoulder_link: excluded in the arm's model file" in CollisionChecker(arm).allowed
    near = CollisionChecker(arm, Scene((Sphere("ball", pose(0.0, 0.0, 0.6), 0.1),)), CollisionConfig(margin=0.02))
    assert "base and upper_arm_housing: they touch at home" in near.allowed  # 12.5 mm apart in all poses
    assert near.first_collision(arm.home)[1] == "ball", "what a scene has is never allowed"
    assert not any("at home" in words for words in CollisionChecker(arm).allowed)


@pytest.mark.parametrize("name", ["ur5e", "so101"])
def test_what_the_arm_excludes_of_its_base_is_not_excluded_of_obstacles(name):
    arm = ARMS[name]()
    model = arm.model()
    data = mujoco.MjData(model)
    data.qpos[:] = arm.home
    mujoco.mj_kinematics(model, data)
    shoulder = data.geom("shoulder").xpos
    scene = Scene((Box("brick", pose(*shoulder), np.full(3, 0.01)),))
    assert CollisionChecker(arm, scene).first_collision(arm.home) == ("shoulder", "brick")


def test_a_payload_moves_with_the_hand(arm):
    bare = CollisionChecker(arm)
    stick = Cylinder("stick", pose(0.0, 0.0, 0.16), 0.01, 0.3)  # 1 cm off the flange
    carrying = CollisionChecker(arm, Scene(payload=stick))
    down = np.array([0.0, -1.0, 1.6, -2.17, -1.57, 0.0])
    height = arm.kinematics().forward(down)[2]
    assert 0.1 < height < 0.31 and bare.first_collision(down) is None
    assert carrying.first_collision(down) == ("floor", "stick")
    assert carrying.clearance(down).distance == pytest.approx(height - 0.31, abs=0.01)


def test_a_mesh_counts_as_its_hull(arm, tmp_path):
    file = tmp_path / "cube.obj"
    file.write_text(CUBE)
    turned = (0.8, 0.2, -0.4, 0.4)
    as_mesh = CollisionChecker(arm, Scene((Mesh("cube", pose(0.4, 0.2, 0.5, turned), file, 0.05),)))
    as_box = CollisionChecker(arm, Scene((Box("cube", pose(0.4, 0.2, 0.5, turned), np.full(3, 0.1)),)))
    for q in draws(arm, 40):
        assert as_mesh.is_free(q) == as_box.is_free(q)
        assert as_mesh.clearance(q).distance == pytest.approx(as_box.clearance(q).distance, abs=1e-4)


def test_bad_scenes_and_configurations_are_refused(arm, tmp_path):
    for shape in (lambda: Box("b", pose(0, 0, 0), np.array([0.1, 0.0, 0.1])), lambda: Sphere("s", pose(0, 0, 0), -1.0),
                  lambda: Cylinder("c", pose(0, 0, 0), 0.1, 0.0), lambda: Sphere("", pose(0, 0, 0), 1.0),
                  lambda: Sphere("s", np.array([0, 0, 0, 0, 0, 0, 2.0]), 1.0), lambda: Mesh("m", pose(0, 0, 0), tmp_path / "no.stl"),
                  lambda: CollisionConfig(margin=-1.0), lambda: CollisionConfig(resolution=0.0), lambda: CollisionConfig(margin=np.nan)):
        with pytest.raises(ConfigurationError):
            shape()
    ball = Sphere("ball", pose(1, 0, 1), 0.1)
    for scene in (Scene((ball, ball)), Scene((ball,), payload=ball), Scene((Sphere("forearm", pose(1, 0, 1), 0.1),))):
        with pytest.raises(ConfigurationError, match="is taken"):
            CollisionChecker(arm, scene)
    broken = tmp_path / "broken.obj"
    broken.write_text("v 0 0 0\n")
    with pytest.raises(ConfigurationError, match="cannot be built"):
        CollisionChecker(arm, Scene((Mesh("m", pose(1, 0, 1), broken),)))
    checker = CollisionChecker(arm)
    with pytest.raises(ShapeError, match="q"):
        checker.first_collision(np.zeros(5))
    with pytest.raises(NonFiniteError, match="q"):
        checker.clearance(np.full(6, np.nan))
