"""The state of a run, stepped in place."""

from __future__ import annotations

import jax

import zoo
from experiments.recipes.recipe import Recipe
from experiments.training import mesh as meshes
from experiments.training.device_use import operations
from experiments.training.task import Task, TrainState, use_implementation


class Stepper:
    """The state as one flat list of arrays, stepped in place by a jitted function that is given their memory.

    Splitting a model into its arrays once, and not in every step, brings Python's share of a step of LeNet-5 from
    milliseconds to tens of microseconds.
    """

    def __init__(self, task: Task, recipe: Recipe, mesh: jax.sharding.Mesh):
        leaves, self._structure = jax.tree.flatten(task.init())
        self.mesh = mesh
        self.shardings = meshes.state_shardings(mesh, leaves)
        self.batch_sharding = meshes.batch_sharding(mesh)
        self.leaves = meshes.place(leaves, self.shardings)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

        def step(leaves: list[jax.Array], batches: list[dict[str, jax.Array]]) -> tuple[list[jax.Array], list[jax.Array]]:
            state, metrics = jax.tree.unflatten(self._structure, leaves), []
            with use_implementation(recipe):
                for batch in task.prepare(state, batches):
                    batch = meshes.split_over(mesh, batch, len(next(iter(batches[0].values()))))
                    state, figures = task.train_step(state, batch)
                    metrics.append(figures)
            return jax.tree.leaves(state), metrics

        def score(leaves: list[jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
            with use_implementation(recipe):
                return task.score_batch(jax.tree.unflatten(self._structure, leaves), batch)

        # A step that made a NaN is computed once more, which it cannot be if it gave its memory away.
        donated = () if recipe.debug_nans else 0
        options = zoo.compiler_options()
        self._step = jax.jit(step, donate_argnums=donated, out_shardings=(self.shardings, replicated), compiler_options=options)
        self._called: list[dict[str, jax.ShapeDtypeStruct]] = []  # what the first call was given
        self._operations: float | None = None
        self.score = jax.jit(score, out_shardings=replicated, compiler_options=options)

    @property
    def state(self) -> TrainState:
        return jax.tree.unflatten(self._structure, self.leaves)

    @state.setter
    def state(self, state: TrainState) -> None:
        self.leaves = jax.tree.leaves(state)

    def step(self, batches: list[dict[str, jax.Array]]) -> list[jax.Array]:
        """A training step for each batch, in one call; returns the task's metrics of each, not yet computed perhaps."""
        if not self._called:
            shape = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=getattr(a, "sharding", None))
            self._called = jax.tree.map(shape, batches)
        self.leaves, metrics = self._step(self.leaves, batches)
        return metrics

    @property
    def operations_per_step(self) -> float:
        """Floating-point operations of a step on each device, 0 where they are not known; see `device_use.operations`.

        Asked for after the first step, it compiles nothing: JAX keeps what it compiled.
        """
        if self._operations is None:
            lowered = self._step.lower(self.leaves, self._called)
            self._operations = operations(lowered, self.mesh.size) / len(self._called)
        return self._operations
