"""Students of a small teacher: steps against plain loops and an ODE solver, measures by hand, orderings, divergence, Ctrl-C."""

import signal

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from learnmech.dynamics import two_layer_stack
from learnmech.dynamics.student_runs import student_teacher
from learnmech.dynamics.student_settings import StudentSettings, alpha_of_delta
from learnmech.dynamics.student_task import draw_task
from learnmech.dynamics.two_layer_measures import kernel_angle, pattern_change, teacher_alignment, two_layer_kernel
from learnmech.errors import InputError, LearnmechWarning

SMALL = {"inputs": 3, "neurons": 6, "samples": 12, "test_samples": 15, "kernel_samples": 8, "dtype": "float64"}
MEASURED = ("train_error", "test_error", "kernel_distance", "alignment", "pattern_change", "parameter_distance")


def outputs(w, a, x):
    return np.array([sum(a[i] * max(float(w[i] @ point), 0.0) for i in range(len(a))) for point in x])


def gradients(w, a, x, residual):
    """Of sum_j residual_j f(x_j): loops over neurons and samples, nothing shared with the code under test."""
    of_w, of_a = np.zeros_like(w), np.zeros_like(a)
    for i in range(len(a)):
        for point, weight in zip(x, residual, strict=True):
            before = float(w[i] @ point)
            if before > 0:
                of_a[i] += weight * before
                of_w[i] += weight * a[i] * point
    return of_w, of_a


def start(settings, seed, overall, delta):
    task = draw_task(settings, seed)
    alpha = alpha_of_delta(delta, overall)
    return task, overall / alpha * task.directions.numpy(), overall * alpha * task.signs.numpy()


def by_loops(settings, seed, overall, delta, rate, steps, factor=1.0):
    task, w, a = start(settings, seed, overall, delta)
    w_0, a_0, x, y = w.copy(), a.copy(), task.inputs.numpy(), task.targets.numpy()
    for _ in range(steps):
        residual = factor * outputs(w, a, x) - y
        of_w, of_a = gradients(w, a, x, residual)
        scale = rate * 2 / len(x) * factor / factor**2
        w, a = w - scale * of_w, a - scale * of_a
    kept = settings.kernel_samples
    kernels = [jacobian_kernel(*net, x[:kept]) for net in ((w_0, a_0), (w, a))]
    cosine = (kernels[0] * kernels[1]).sum() / np.sqrt((kernels[0] ** 2).sum() * (kernels[1] ** 2).sum())
    return {
        "train_error": np.mean((factor * outputs(w, a, x) - y) ** 2),
        "test_error": np.mean((factor * outputs(w, a, task.test_inputs.numpy()) - task.test_targets.numpy()) ** 2),
        "kernel_distance": 1 - cosine,
        "pattern_change": np.mean((x @ w.T > 0) != (x @ w_0.T > 0)),
        "parameter_distance": np.sqrt(((w - w_0) ** 2).sum() + ((a - a_0) ** 2).sum()),
        "charge_drift": np.abs((a**2 - (w**2).sum(1)) - (a_0**2 - (w_0**2).sum(1))).max(),
    }


def jacobian_kernel(w, a, x):
    """J J^T with J by central differences; f is piecewise quadratic, so they are exact up to round-off away from kinks."""
    theta, step, rows = np.concatenate([w.ravel(), a]), 1e-6, []
    for position in range(len(theta)):
        values = []
        for sign in (1, -1):
            moved = theta.copy()
            moved[position] += sign * step
            values.append(outputs(moved[: w.size].reshape(w.shape), moved[w.size :], x))
        rows.append((values[0] - values[1]) / (2 * step))
    jacobian = np.array(rows)
    return jacobian.T @ jacobian


@pytest.mark.parametrize("factor", [1.0, 7.0])
def test_a_stack_does_what_loops_do(factor):
    settings = StudentSettings(**SMALL, steps=40, checkpoints=(40,), learning_rate=0.02, rate_law="constant")
    run = student_teacher([0.3, 0.9], [-0.4, 0.8], [3, 5], output_scales=factor, settings=settings)
    for overall, delta, seed in ((0.3, -0.4, 3), (0.9, 0.8, 5), (0.3, 0.8, 5)):
        found = run.sel(step=40, overall_scale=overall, relative_scale=delta, seed=seed)
        for name, value in by_loops(settings, seed, overall, delta, 0.02, 40, factor).items():
            assert float(found[name]) == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_flow_time_is_that_of_gradient_flow_on_half_the_mean_squared_error():
    settings = StudentSettings(**SMALL, steps=4000, checkpoints=(4000,), learning_rate=1e-4, rate_law="inverse_square")
    run = student_teacher([0.5], [0.2], [1], settings=settings)
    task, w, a = start(settings, 1, 0.5, 0.2)
    x, y = task.inputs.numpy(), task.targets.numpy()

    def flow(time, theta):
        weights, outer = theta[: w.size].reshape(w.shape), theta[w.size :]
        before = x @ weights.T
        residual = (np.maximum(before, 0) @ outer - y) / len(x)
        of_a = np.maximum(before, 0).T @ residual
        of_w = ((before > 0) * residual[:, None] * outer).T @ x
        return -np.concatenate([of_w.ravel(), of_a])

    time = float(run["flow_time"].isel(step=-1).squeeze())
    assert time == pytest.approx(2 * 4000 * 1e-4 / 0.25)
    end = solve_ivp(flow, (0, time), np.concatenate([w.ravel(), a]), rtol=1e-9, atol=1e-11).y[:, -1]
    expected = np.mean((outputs(end[: w.size].reshape(w.shape), end[w.size :], x) - y) ** 2)
    assert float(run["train_error"].isel(step=-1).squeeze()) == pytest.approx(
        expected, rel=2e-3
    )  # a step is of order 4e-4


def test_stacking_and_blocks_change_nothing(monkeypatch):
    settings = StudentSettings(**SMALL, steps=30, learning_rate=0.01)
    together = student_teacher([0.2, 1.0], [-1.0, 0.0, 1.0], [0, 1, 2], settings=settings)
    monkeypatch.setattr(two_layer_stack, "CPU_BLOCK", 200)
    blocks = student_teacher([0.2, 1.0], [-1.0, 0.0, 1.0], [0, 1, 2], settings=settings)
    alone = student_teacher([1.0], [-1.0], [2], settings=settings)
    for name in MEASURED:
        np.testing.assert_allclose(together[name], blocks[name], rtol=1e-10, atol=1e-12)
        picked = together[name].sel(overall_scale=1.0, relative_scale=-1.0, seed=2)
        np.testing.assert_allclose(picked, alone[name].squeeze(), rtol=1e-10, atol=1e-12)


def test_students_start_at_zero_with_the_norms_asked_for():
    settings = StudentSettings(**SMALL, steps=0, keep_neurons=True)
    run = student_teacher([0.1, 2.0], [-1.0, 0.5], [4], settings=settings)
    task = draw_task(settings, 4)
    np.testing.assert_allclose(run["train_error"].squeeze(), float(task.targets.square().mean()), rtol=1e-12)
    for overall, delta in ((0.1, -1.0), (2.0, 0.5)):
        _, w, a = start(settings, 4, overall, delta)
        np.testing.assert_allclose(a**2 - (w**2).sum(1), delta, rtol=1e-9)
        np.testing.assert_allclose(np.abs(a) * np.linalg.norm(w, axis=1), overall**2, rtol=1e-12)
        vectors = run["effective_vector"].sel(overall_scale=overall, relative_scale=delta, step=0, seed=4)
        np.testing.assert_allclose(vectors, np.abs(a)[:, None] * w, rtol=1e-12)
    assert float(run["kernel_distance"].max()) == float(run["charge_drift"].max()) == 0.0


def test_students_of_random_signs_need_not_start_at_zero():
    settings = StudentSettings(**{**SMALL, "neurons": 5}, steps=0, symmetrised=False)
    run = student_teacher([1.0], [0.0], [0], settings=settings)
    task, w, a = start(settings, 0, 1.0, 0.0)
    expected = np.mean((outputs(w, a, task.inputs.numpy()) - task.targets.numpy()) ** 2)
    assert float(run["train_error"].squeeze()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("delta", "overall"), [(1e6, 1e-3), (-1e6, 1e-3), (1e-12, 1.0), (-3.0, 2.0), (0.0, 0.1)])
def test_alpha_gives_back_delta(delta, overall):
    alpha = alpha_of_delta(delta, overall)
    assert (overall * alpha) ** 2 - (overall / alpha) ** 2 == pytest.approx(delta, rel=1e-9, abs=1e-15)


def test_alpha_and_delta_name_the_same_students():
    values = {**SMALL, "steps": 20}
    delta = student_teacher([0.1], [0.9999], [0], settings=StudentSettings(**values))
    alpha = student_teacher([0.1], [10.0], [0], settings=StudentSettings(**values, relative="alpha"))
    np.testing.assert_allclose(delta["train_error"].values, alpha["train_error"].values, rtol=1e-10)


def test_closed_forms_against_loops():
    generator = np.random.default_rng(0)
    w, a, x = generator.normal(size=(2, 4, 3)), generator.normal(size=(2, 4)), generator.normal(size=(7, 3))
    tensors = [torch.from_numpy(values) for values in (w, a, x)]
    kernels = two_layer_kernel(*tensors)
    for net in range(2):
        np.testing.assert_allclose(kernels[net], jacobian_kernel(w[net], a[net], x), rtol=1e-7, atol=1e-8)
    cosine = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
    assert float(kernel_angle(kernels[0], kernels[1])) == pytest.approx(1 - float(cosine), rel=1e-12)
    assert float(kernel_angle(kernels[0], 3 * kernels[0])) == pytest.approx(0, abs=1e-30)
    teacher, signs = generator.normal(size=(2, 3)), np.array([1.0, -1.0])
    best, sizes = [], []
    for neuron, outer in zip(w[0], a[0], strict=True):
        same = [row for row, sign in zip(teacher, signs, strict=True) if sign == np.sign(outer)]
        best.append(max(neuron @ row / np.linalg.norm(neuron) / np.linalg.norm(row) for row in same))
        sizes.append(abs(outer) * np.linalg.norm(neuron))
    aligned = teacher_alignment(tensors[0][0], tensors[1][0], torch.from_numpy(teacher), torch.from_numpy(signs))
    assert float(aligned) == pytest.approx(np.average(best, weights=sizes), rel=1e-12)
    changed = np.mean([(x[n] @ w[0, i] > 0) != (x[n] @ w[1, i] > 0) for n in range(7) for i in range(4)])
    assert float(pattern_change(*tensors[0], tensors[2])) == pytest.approx(changed)


def test_alignment_without_a_teacher_of_the_sign():
    w, direction = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    assert teacher_alignment(w, torch.tensor([-1.0]), direction, torch.tensor([1.0])).isnan()
    assert teacher_alignment(w, torch.tensor([1.0]), direction, torch.tensor([1.0])) == 1


def test_the_charge_drifts_with_the_rate():
    """Gradient descent changes a^2 - |w|^2 by rate^2 a step: at half the rate and twice the steps by half as much."""
    drifts = []
    for factor in (1, 2):
        settings = StudentSettings(
            **SMALL, steps=400 * factor, checkpoints=(400 * factor,), learning_rate=0.01 / factor, rate_law="constant"
        )
        drifts.append(student_teacher([0.5], [0.0, 0.5], [0, 1], settings=settings)["charge_drift"].isel(step=-1))
    np.testing.assert_allclose(drifts[0] / drifts[1], 2, rtol=0.02)


def test_orderings_of_lazy_and_rich_over_five_seeds():
    """Deterministic given the seeds; settings of the plane (2 inputs, 50 neurons, 20 samples, rate 5e-3)."""
    sizes = {"inputs": 2, "neurons": 50, "samples": 20, "test_samples": 50, "learning_rate": 5e-3}
    settings = StudentSettings(**sizes, rate_law="constant", steps=600, checkpoints=(600,))
    end = student_teacher([0.1, 2.0], [-1.0, 0.0, 1.0], range(5), settings=settings).isel(step=-1)
    small, large = end.sel(overall_scale=0.1), end.sel(overall_scale=2.0)
    rich = small["kernel_distance"].sel(relative_scale=[0.0, 1.0])
    assert (large["kernel_distance"].max("relative_scale") < 0.1 * rich.min("relative_scale")).all()
    changed = small["pattern_change"]
    assert (changed.diff("relative_scale") > 0).all()
    assert (small["parameter_distance"].argmin("relative_scale") == 2).all()
    assert (small["train_error"].argmin("relative_scale") == 2).all()


def test_a_large_output_scale_is_lazy():
    settings = StudentSettings(
        **{**SMALL, "neurons": 30}, steps=500, checkpoints=(500,), learning_rate=0.05, rate_law="constant"
    )
    run = student_teacher([0.5], [0.0], range(3), output_scales=[1.0, 10.0, 100.0], settings=settings)
    assert run["kernel_distance"].dims == ("step", "overall_scale", "relative_scale", "output_scale", "seed")
    moved = run["parameter_distance"].isel(step=-1).squeeze()
    np.testing.assert_allclose(moved.sel(output_scale=10.0) / moved.sel(output_scale=100.0), 10, rtol=0.2)
    assert (run["kernel_distance"].isel(step=-1).diff("output_scale") < 0).all()


def test_a_student_that_diverges_leaves_the_others():
    settings = StudentSettings(**SMALL, steps=60, learning_rate=0.5, rate_law="constant", checkpoints=(1, 60))
    with pytest.warns(LearnmechWarning, match=r"2 of 4 students diverged .* overall_scale 30, .*below about .*Lower"):
        run = student_teacher([0.3, 30.0], [0.0], [0, 1], settings=settings)
    alone = student_teacher([0.3], [0.0], [0, 1], settings=settings)
    assert run["diverged"].values[:, 0].tolist() == [[0, 0], [1, 1]]
    for name in MEASURED:
        assert np.isnan(run[name].sel(overall_scale=30.0, step=60)).all()
        np.testing.assert_allclose(
            run[name].sel(overall_scale=0.3), alone[name].sel(overall_scale=0.3), rtol=1e-9, atol=1e-12
        )


def test_ctrl_c_returns_what_is_measured():
    settings = StudentSettings(**SMALL, steps=1000, checkpoints=(10, 1000))

    def interrupt(done, total):
        assert total == 1000
        if done > 300:
            signal.raise_signal(signal.SIGINT)

    run = student_teacher([0.5], [0.0], [0], settings=settings, on_progress=interrupt)
    whole = student_teacher([0.5], [0.0], [0], settings=settings)
    assert run.attrs["stopped_because"] == "interrupted"
    assert run["step"].values.tolist() == [0, 10]
    np.testing.assert_allclose(run["train_error"], whole["train_error"].isel(step=slice(2)), rtol=1e-12)
    assert whole.attrs["stopped_because"] == "done"


def test_the_same_call_gives_the_same_numbers_and_leaves_the_random_state():
    before = torch.get_rng_state()
    settings = StudentSettings(**{**SMALL, "dtype": "float32"}, steps=20)
    first, second = (student_teacher([0.5], [0.0], [7], settings=settings) for _ in range(2))
    assert first.identical(second)
    assert torch.equal(before, torch.get_rng_state())
    assert float(first["train_error"].isel(step=0).squeeze()) != float(
        student_teacher([0.5], [0.0], [8], settings=settings)["train_error"].isel(step=0).squeeze()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neurons": 5}, "neurons must be even"),
        ({"samples": 0}, "samples must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive finite number"),
        ({"rate_law": "cosine"}, "rate_law must be one of inverse_square, constant"),
        ({"steps": 10, "checkpoints": (5, 20)}, "checkpoints must be rising integers from 0 to steps=10"),
        ({"steps": 10, "checkpoints": ()}, "checkpoints must be"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        StudentSettings(**changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overall_scales": [0.0]}, "overall_scales must be one or more different positive finite numbers"),
        ({"overall_scales": []}, "overall_scales must be"),
        ({"relative_scales": [1.0, 1.0]}, "relative_scales must be one or more different finite numbers"),
        ({"relative_scales": [float("inf")]}, "relative_scales must be"),
        ({"output_scales": -1.0}, "output_scales must be one or more different positive"),
        ({"seeds": [0, 0]}, "seeds must be one or more different integers"),
        ({"seeds": [1.5]}, "seeds must be"),
    ],
)
def test_bad_scales_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        student_teacher(**arguments, settings=StudentSettings(**SMALL, steps=1))


def test_bad_nets_are_refused():
    with pytest.raises(InputError, match="do not fit"):
        two_layer_kernel(torch.ones(4, 3), torch.ones(5), torch.ones(2, 3))
    with pytest.raises(InputError, match="expected rows of 3 numbers"):
        two_layer_kernel(torch.ones(4, 3), torch.ones(4), torch.ones(2, 2))
    with pytest.raises(InputError, match="must be finite"):
        two_layer_kernel(torch.ones(4, 3), torch.full((4,), torch.nan), torch.ones(2, 3))
    with pytest.raises(InputError, match="one a teacher"):
        teacher_alignment(torch.ones(4, 3), torch.ones(4), torch.ones(2, 3), torch.ones(3))
    for arguments in ((float("nan"), 1.0), (0.0, 0.0)):
        with pytest.raises(InputError):
            alpha_of_delta(*arguments)
