"""Another engine's activations held against a recording: which layer is the first to be wrong, and by what mistake.

A network is run once with each layer's output replaced by theirs, so that a layer is judged on their own inputs to it: its local error is
what the layer itself adds, and a mistake shows where it is made and nowhere else."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.files import as_path
from ..errors import CheckpointError, InputError, listed
from ..settings import is_number
from . import walk
from .activations import Activations
from .calls import PRECISIONS, check_memory, distance, exact_model, exactly, plain_model, plan, rounded, run, stored_as
from .mistakes import KNOWN, Trial
from .record import Recording, all_calls, places

FACTOR = 16.0                                                # times the noise floor that an error may be
ROUNDS = 3                                                   # of looking again with mistakes found put in


@dataclass
class Row:
    """One layer.  inherited: how far it is from the recording, all that went before included, None where that is not known;  local: how far
    from what it should have made of its own inputs;  noise: how far rounding moves that;  tolerance: what is allowed.
    All as shares of the layer's largest value.  says: of a fault, what explains it"""
    layer: str
    shape: tuple
    inherited: float | None = None
    local: float | None = None
    noise: float | None = None
    tolerance: float | None = None
    fault: bool = False
    says: str = ""


@dataclass
class Comparison:
    """What compare() found.

    rows: a Row for each layer that was compared, in order of execution;  total: layers that there are, by call;  absent: those that the
    engine did not give;  differ: {layer: (its shape there, its shape here)};  unknown: names there of no layer
    precision: {call: how the engine stores numbers};  factor: times the noise that is allowed
    not_compared: calls of which it gave nothing"""
    factor: float
    rows: list = field(default_factory=list)
    total: int = 0
    absent: list = field(default_factory=list)
    differ: dict = field(default_factory=dict)
    unknown: list = field(default_factory=list)
    precision: dict = field(default_factory=dict)
    not_compared: list = field(default_factory=list)

    @property
    def faults(self):
        return [row for row in self.rows if row.fault]

    @property
    def exit_code(self):
        """0: all within the tolerance;  1: faults;  2: some or all could not be compared."""
        return 1 if self.faults else 2 if self.differ or not self.rows else 0

    @property
    def verdict(self):
        """In a line or a few."""
        lines = [f"{layer}: shape {shape_text(theirs)}, {shape_text(ours)} was expected" for layer, (theirs, ours) in self.differ.items()]
        lines += [f"{row.layer}: {row.says}" for row in self.faults]
        found, count = len(self.faults), f"{len(self.rows)} of {self.total} layers compared"
        if found > len(self.rows) / 2:
            lines.append("most layers are off: is it the same checkpoint, with the same weights added to it?")
        if self.not_compared:
            count += f", nothing of {' and '.join(self.not_compared)}"
        if self.unknown:
            count += f"; {len(self.unknown)} names are no layer's: {listed([str(n) for n in self.unknown], 3)}"
        what = (f"{found} fault{'s' if found > 1 else ''}" if found else
                f"{len(self.differ)} shapes differ" if self.differ else "no fault" if self.rows else "nothing could be compared")
        how = " and ".join(sorted(set(self.precision.values())))
        return "\n".join([*lines, f"{what}: {count}, in {how}, each within {self.factor:g} times what rounding does"])

    def table(self, all_rows=True):
        """A line for each layer, or for the faults alone."""
        lines = [f"  {'layer':<72}{'inherited':>11}{'local':>11}{'tolerance':>11}"]
        for row in self.rows if all_rows else self.faults:
            numbers = "".join(f"{'' if n is None else f'{n:.1e}':>11}" for n in (row.inherited, row.local, row.tolerance))
            lines.append(f"{'*' if row.fault else ' '} {row.layer:<72}{numbers}{'  ' + row.says if row.says else ''}".rstrip())
        return "\n".join(lines)

    def json(self):
        """All of it, as a text."""
        def plain(n):
            return n if n is None or math.isfinite(n) else str(n)

        rows = [dict(vars(row), shape=list(row.shape), **{k: plain(getattr(row, k)) for k in ("inherited", "local", "noise", "tolerance")})
                for row in self.rows]
        return json.dumps(dict(exit_code=self.exit_code, factor=self.factor, compared=len(self.rows), total=self.total,
                               precision=self.precision, layers=rows, absent=self.absent, unknown=[str(n) for n in self.unknown],
                               not_compared=self.not_compared,
                               differ={k: dict(theirs=list(a), ours=list(b)) for k, (a, b) in self.differ.items()}), indent=1)

    def __repr__(self):
        return f"<Comparison: {self.verdict.splitlines()[-1]}>"


def shape_text(shape):
    return "x".join(map(str, shape)) or "none"


def compare(recording: str | Path, theirs: str | Path | None, pipe, names: str | Path | None = None, layout: str | None = None,
            precision: str | None = None, factor: float = FACTOR) -> Comparison:
    """Hold what another engine computed from a recording's inputs against this model, layer by layer.

    recording: a folder that record() wrote, or a recorder of another engine;  pipe: a Pipeline of the same checkpoint
    theirs: what the engine computed: safetensors, .npz, .npy, or a folder of such, arrays named as in outputs.safetensors;  None holds pipe
        itself, as it computes on this machine, against the recording
    names: a YAML or JSON file of {the engine's name: the checkpoint's}, with * for any one part of a name
    layout: where the channels of pictures are, "first" or "last", where no shape tells
    precision: how the engine stores numbers, "float32", "float16" or "bfloat16"; None is what its numbers look like
    factor: an error is a fault when it is more than so many times what rounding alone does to that layer

    Raises InputError or CheckpointError for what cannot be read, is of another model, or holds none of its layers."""
    if not (is_number(factor) and factor >= 1):
        raise InputError(f"factor is {factor!r:.80}; it must be a number of 1 or more")
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r:.80}; it must be {', '.join(PRECISIONS)}")
    recorded, plain, found = Recording(as_path(recording)), plain_model(pipe.model), Comparison(factor)
    exact = exact_model(pipe.model)
    own = all_calls(plain, recorded.run)
    inputs = recorded.inputs(own)
    plans = {name: plan(own[name], given) for name, given in inputs.items()}
    shapes = {f"{own[name].component}.{layer}": shape for name, layers in plans.items() for layer, shape in layers.items()}
    outputs = recorded.outputs(shapes)
    if theirs is None and outputs is None:
        raise InputError(f"{recording}: a recording of fingerprints, which can be held against an engine's activations alone")
    activations = outputs if theirs is None else Activations(theirs, shapes, names, layout)
    found.total, found.unknown, found.differ = len(shapes), activations.unknown, activations.differ
    found.absent = [layer for layer in shapes if layer not in activations.at]
    for name, given in inputs.items():
        before = own[name].component + "."
        layers = {layer: shape for layer, shape in plans[name].items() if before + layer in activations}
        if not layers:
            found.not_compared.append(name)
            continue
        check_memory(own[name], plans[name], 20, "a few copies")
        how = precision or activations.precision([before + layer for layer in layers])
        if theirs is None and pipe.model.dtype == np.float16:
            how = "float16" if how == "float32" else how
        found.precision[name] = how
        arrays = {layer: activations[before + layer] for layer in layers}
        judge = exact if theirs is not None else pipe.model
        judged = Judged(Machine(exact, plain, judge, name, recorded.run, given, how), arrays, factor)
        far = inherited(recorded, outputs, arrays, before) if theirs is not None else judged.machine.freely(arrays)
        for row in judged.rows():
            row.inherited = far.get(row.layer)
            found.rows.append(Row(**{**vars(row), "layer": before + row.layer}))
    return found


def inherited(recorded, outputs, arrays, before):
    """{layer: how far their arrays are from the recorded ones}, where that is known."""
    far = {}
    for layer, a in arrays.items():
        if outputs is None:
            kept = recorded.fingerprint(before + layer)
            if kept is not None:
                far[layer] = distance(a.reshape(-1)[places(a.size)], kept)
        elif before + layer in outputs:
            far[layer] = distance(a, outputs[before + layer])
    return far


@dataclass
class Machine:
    """What computes one call in the ways that a comparison needs.

    exact, plain: a Model of float64, one of float32;  judge: what the engine is held against: exact, or minisd as it runs here"""
    exact: Any
    plain: Any
    judge: Any
    name: str
    run: dict | None
    inputs: dict
    precision: str

    def call(self, model):
        return all_calls(model, self.run)[self.name]

    def following(self, given, model):
        """{layer: what it gives}, each going on with what the engine gave."""
        return self.collected(model, given, exactly if model is self.exact else None)

    def rounding(self, given):
        """The same in float32, with every operation rounded as the engine stores numbers."""
        found = self.collected(self.plain, given, stored_as(self.precision))
        return {layer: a if layer in walk.SCHEDULE else rounded(a, self.precision) for layer, a in found.items()}

    def collected(self, model, given, watcher):
        seen = {}

        def observer(path, y):
            seen[path] = model.device.download(y)
            return y if path not in given else model.device.upload(given[path].astype(y.dtype))

        run(model, self.call(model), self.inputs, observer, watcher)
        return seen

    def freely(self, arrays):
        """{layer: how far this machine's own run is from these arrays}"""
        seen = self.collected(self.judge, {}, None)
        return {layer: distance(seen[layer].astype(np.float32), a) for layer, a in arrays.items()}

    def trial(self, given, fixes, usual=None, looked_at=()):
        scaling = self.plain.vae_config.scaling_factor if self.name == "vae.decoder" else 1.0
        return Trial(given, fixes, scaling, usual, {*looked_at, *fixes}).go(self.plain, self.call(self.plain), self.inputs)


class Judged:
    """One call's layers, judged.

    machine: a Machine;  arrays: {layer: what the engine gave}, in order of execution"""

    def __init__(self, machine, arrays, factor):
        self.machine, self.arrays, self.factor = machine, arrays, factor
        self.given = {layer: a.astype(np.float32) for layer, a in arrays.items() if np.isfinite(a).all()}
        self.order = list(self.given)
        right = machine.following(self.given, machine.judge)
        self.scale = {layer: float(np.abs(right[layer]).max()) or 1.0 for layer in self.order}
        near, least = machine.rounding(self.given), PRECISIONS[machine.precision]
        exact = right if machine.judge is machine.exact else machine.following(self.given, machine.exact)
        self.noise = {layer: max(distance(near[layer], exact[layer]), walk.SCHEDULE_NOISE if layer in walk.SCHEDULE else least)
                      for layer in self.order}
        self.errors = {layer: distance(arrays[layer], right[layer]) for layer in self.order}

    def rows(self):
        off = [k for k, layer in enumerate(self.order) if self.is_off(self.errors, k)]
        if self.machine.name == walk.NAME:
            faults = {k: f"look at {walk.SAYS[self.order[k].rpartition('.')[2]]}" for k in off}
        else:
            faults = self.explained(off)
        broken = [layer for layer in self.arrays if layer not in self.given]
        for layer, a in self.arrays.items():
            if layer in self.given:
                k = self.order.index(layer)
                yield Row(layer, a.shape, local=self.errors[layer], noise=self.noise[layer], tolerance=self.factor * self.noise[layer],
                          fault=k in faults, says=faults.get(k, ""))
            elif layer == broken[0]:
                yield Row(layer, a.shape, local=math.inf, fault=True,
                          says="holds NaN or infinity" + (f", as do {len(broken) - 1} layers after it" if len(broken) > 1 else ""))

    def is_off(self, errors, k):
        return errors.get(self.order[k], math.inf) > self.factor * self.noise[self.order[k]]

    def explained(self, suspects):
        """{number of a layer: what explains that it is off} of those that are.

        Between two layers there are numbers that no layer gives, sums above all; a mistake in one makes later layers that use it look wrong
        as well.  So mistakes found are put in, and what is right then was no fault."""
        if not suspects:
            return {}
        self.suspects, usual = suspects, self.machine.trial(self.given, {})
        fixes: dict = {}                                     # suspect -> (error, stretches, mistake)
        excused: set = set()
        for _ in range(ROUNDS):
            left = [k for k in suspects if k not in fixes and k not in excused]
            if not left:
                break
            found = self.tried(left, usual, put_in(fixes))
            fixes.update(found)
            errors, _ = self.errors_with(usual, put_in(fixes))
            excused |= {k for k in left if k not in found and not self.is_off(errors, k)}
            worse = [k for k in fixes if self.is_off(errors, k)]       # explained only while another's mistake was in its inputs
            for k in worse:
                kept = fixes.pop(k)
                if not self.is_off(self.errors_with(usual, put_in(fixes))[0], k):
                    excused.add(k)
                elif len(worse) > len(suspects) // 2:
                    fixes[k] = kept
            if not found and not worse:
                break
        said = self.words(usual, fixes)
        return {k: said.get(k) or self.equal_to(k) or "no known mistake explains it" for k in suspects if k not in excused}

    def tried(self, suspects, usual, fixed):
        """{suspect: (error, stretches, mistake)} of the mistakes that explain one each, the nearest."""
        best: dict = {}
        for before in (0, 1):                                # also what is computed a stretch earlier, and used only here
            left = [k for k in suspects if k not in best]
            for mistake in KNOWN:
                where = {k: [j for j in range(max(0, k - before), k + 1) if usual.used.get(j, set()) & {*mistake.operations}] for k in left}
                if not any(where.values()):
                    continue
                fixes = {**{j: mistake for stretches in where.values() for j in stretches}, **fixed}
                errors, made = self.errors_with(usual, fixes)
                for k, stretches in where.items():
                    error = errors.get(self.order[k], math.inf)
                    if made & set(stretches) and not self.is_off({self.order[k]: error}, k) and error < best.get(k, (math.inf,))[0]:
                        best[k] = error, stretches, mistake
        return best

    def errors_with(self, usual, fixes):
        """-> ({layer: local error} if these mistakes are what was done, the stretches in which they could be made)"""
        try:
            with np.errstate(all="ignore"):
                trial = self.machine.trial(self.given, fixes, usual, self.suspects)
                return {layer: self.compared(trial.seen, layer) for layer in self.order}, set(trial.details)
        except ValueError:                                   # a mistake whose result does not fit what follows was not made
            return {}, set()

    def compared(self, seen, layer):
        a = seen[layer]
        if a.shape != self.given[layer].shape or not np.isfinite(a).all():
            return math.inf
        return float(np.abs(a - self.given[layer]).max()) / self.scale[layer]

    def words(self, usual, fixes):
        trial = self.machine.trial(self.given, put_in(fixes), usual)
        return {k: f"looks like: {trial.says(next(j for j in stretches))} (then {error:.1e})" for k, (error, stretches, _) in fixes.items()}

    def equal_to(self, k):
        """Whether it is the output of a layer before it."""
        a, layer = self.given[self.order[k]], self.order[k]
        for other in self.order[:k]:
            b = self.given[other]
            if b.shape == a.shape and distance(a, b) <= self.factor * self.noise[layer]:
                return f"looks like: the output of {other}"
        return None


def put_in(fixes):
    """{stretch: mistake} of all explanations."""
    return {j: mistake for _, stretches, mistake in fixes.values() for j in stretches}


def model_of(recording):
    """The model of a recording, as load() takes it.  Raises CheckpointError where the manifest does not say it, or it is gone."""
    manifest = Recording(as_path(recording)).manifest
    if "model" not in manifest:
        raise CheckpointError(f"{recording}: does not say of which model it is; name that with --model")
    place = manifest["model"]
    if place is not None and not as_path(place).exists():
        raise CheckpointError(f"{recording}: recorded of {place}, which is no longer there; name the model with --model")
    return place


