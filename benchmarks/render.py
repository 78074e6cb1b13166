"""The README's tables, made from the benches' results and from nothing else."""

import json
import re
from pathlib import Path
from typing import Any

from axonal.core import files
from axonal.core.errors import FileError

from .convert import encodings as codes
from .harness.results import table
from .learn.epochs import RIVALS
from .learn.run import SHOWN
from .neurons.run import MEMORY
from .nir.run import CASES
from .watch import run as sensing

KEYS = ("figures", "machine", "versions", "seed", "command")
MARK = re.compile(r"(<!-- bench:(\w+) -->\n)(.*?)(<!-- /bench -->)", re.DOTALL)


def renew(readme: Path, results: Path) -> None:
    """Put the table of each bench in `results` between its marks in `readme`, if it has any.

    Raises:
        FileError: results can't be read, or the file can't be written.
    """

    def made(found: re.Match) -> str:
        path = results / f"{found[2]}.json"
        table = TABLES[found[2]](read(path)) if path.exists() else found[3]
        return found[1] + table + found[4]

    if readme.exists():
        files.write(readme, MARK.sub(made, readme.read_text()))


def read(path: Path) -> dict[str, Any]:
    """A bench's results.

    Raises:
        FileError: the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text())
        return found | {key: found[key] for key in KEYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"can't read {path} ({error}); run the bench again") from error


def generate(results: dict[str, Any]) -> str:
    """The table of `axonal bench generate`, in Markdown."""
    figures, compared = results["figures"], results["compared"]
    rows = [
        ("operations saved at equal quality", _percent(figures.get("saving_at_equal_quality"))),
        ("… against an ANN that skips zeros", _percent(figures.get("saving_vs_zero_skipping"))),
        ("its Fréchet distance / the best ANN's", _number(figures["fd_ratio"])),
        ("lowest spiking Fréchet distance / the best ANN's", _number(figures["fd_ratio_best"])),
        ("operations that this run saves", _percent(figures.get("saving_of_lowest_fd"))),
        ("seconds for `axonal demo`", f"{figures['demo_seconds']:.0f}"),
    ]
    lines, runs = [*table(["", "figure (95 % interval)"], rows), ""], []
    names = [key[4:-1] for key in figures if key.startswith("fd [")]
    shown = [
        n
        for n in names
        if n in compared.values() or n.startswith(("ANN, m", "ANN tuned", "spiking"))
    ]
    shown += [n for n in names if n.startswith("sigma-delta") and n not in shown]
    for name in sorted(shown, key=names.index):
        skipped = figures.get(f"mmac skipping zeros [{name}]")
        work, fd = figures[f"mmac [{name}]"], _number(figures[f"fd [{name}]"])
        bold = "**" if name == compared["spiking"] else ""
        zeros = "–" if skipped is None else f"{skipped:.1f}"
        runs.append([f"{bold}{name}{bold}", f"{work:.1f}", zeros, fd])
    head = ["run", "million operations an image", "… skipping zeros", "Fréchet distance"]
    lines += [
        *table(head, runs),
        "",
        f"Measured by `{results['command']}` on {results['machine']}.",
        "",
    ]
    return "\n".join(lines)


def neurons(results: dict[str, Any]) -> str:
    """The tables of `axonal bench neurons`, in Markdown."""
    figures = results["figures"]
    rivals = [key[len("equal spikes [") : -1] for key in figures if key.startswith("equal")]
    widths = [int(key[3 : -len("_over_linear")]) for key in figures if key.endswith("_over_linear")]
    rows = {"our time / that of the Linear alone": "onm{}_over_linear"}
    rows |= {f"{rival}'s time / ours": f"onm{{}}_vs_{rival}" for rival in rivals}
    rows |= {
        f"{rival}'s, compiled / ours": f"onm{{}}_vs_{rival}_compiled"
        for rival in rivals
        if f"onm512_vs_{rival}_compiled" in figures
    }
    shown = []
    for row, key in rows.items():
        cells = [figures.get(key.format(n)) for n in widths]
        shown.append([row, *("–" if cell is None else _number(cell) for cell in cells)])
    lines = table(["Linear(N, N) and LIF", *(f"N = {n}" for n in widths)], shown)
    alone = figures["ms [linear 512, axonal]"]["value"]
    most = [
        f"{figures[f'ms [layer 512, {rival}]']['value'] / alone:.1f} ({rival})" for rival in rivals
    ]
    lines += [
        "",
        "No layer can take less time than its Linear; at N = 512 theirs take "
        f"{', '.join(most)} times the Linear's. The neurons alone take "
        f"{_number(figures['scan_over_bandwidth'])} times as long as moving their bytes. "
        f"{_grid(figures)}",
        "",
        *_memory(figures),
        f"Medians (smallest–largest) of rounds of `{results['command']}` on {results['machine']}.",
        "",
    ]
    return "\n".join(lines)


def _memory(figures: dict[str, Any]) -> list[str]:
    """The rows of what a training step adds."""
    keys = [key for key in figures if key.startswith("MB [T ")]
    steps = sorted({int(key[6 : key.index(",")]) for key in keys})
    names = dict.fromkeys(
        key[key.index(", ") + 2 : -1] for key in figures if key.startswith("MB [")
    )
    rows = [[name, *(f"{figures[f'MB [T {t}, {name}]']:.0f}" for t in steps)] for name in names]
    lines = table(["MB that a training step adds", *(f"T = {t}" for t in steps)], rows)
    stored, share = figures["MB to store membranes and spikes"], figures["training_memory_share"]
    lines += [
        "",
        f"{MEMORY['layers']} layers of {MEMORY['n']}, batch {MEMORY['batch']}. Membranes and "
        f"spikes in float32 would take {stored:.0f} MB at T = {steps[-1]}; with "
        f"`recompute=True` the step adds {share:.0%} of that.",
        "",
    ]
    return lines


def _grid(figures: dict[str, Any]) -> str:
    found = [value["value"] for key, value in figures.items() if key.startswith("spyx grid")]
    return (
        f"On the {len(found)} layers of the grid that Spyx publishes it takes {min(found):.2f} to "
        f"{max(found):.2f} times our time."
    )


def _number(figure: dict[str, float]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f}–{figure['high']:.2f})"


def _percent(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "no ANN run reaches this quality"
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:.1f} % ({low:.1f}–{high:.1f})"


def parity(results: dict[str, Any]) -> str:
    """The table of `axonal bench parity`, in Markdown."""
    figures = results["figures"]
    rows = []
    for key, share in figures.items():
        if key.startswith("equal ["):
            name = key[len("equal [") : -1]
            rate = figures[f"spikes a step [{name}]"]
            apart = figures.get(f"gradient difference [{name}]")
            shown = "–" if apart is None else f"{apart:.0e}" if 0 < apart < 0.01 else f"{apart:.2g}"
            rows.append([name, f"{100 * share:.4g} %", f"{rate:.3f}", shown])
    lines = table(["preset", "equal steps", "spikes a step", "its gradients differ by"], rows)
    return "\n".join([*lines, "", f"`{results['command']}` on {results['machine']}.", ""])


CONVERTED = {  # forms by their titles and T
    ("graded", 2): "graded, 8 bits, no training",
    ("graded", 8): "graded, 8 bits, no training",
    ("graded4", 8): "graded, 4 bits, no training",
    ("binary", 4): "binary, trained so, waiting",
    ("binary", 8): "binary, trained so, waiting",
    ("transformer", 2): "signed, 8 bits, no training",
    ("transformer", 8): "signed, 8 bits, no training",
}


def convert(results: dict[str, Any]) -> str:
    """The tables of `axonal bench convert`, in Markdown."""
    figures, rows = results["figures"], []
    for (form, steps), title in CONVERTED.items():
        for key in figures:
            if not (key.startswith("loss [") and key.endswith(f", {form}, T {steps}]")):
                continue
            key = key.removeprefix("loss ")
            network = key[1 : key.index(",")]
            work = figures[f"synaptic operations, millions {key}"]
            dense = figures[f"dense multiply-adds, millions {key}"]
            times = figures[f"of these multiplications, % {key}"]
            rows.append(
                [
                    f"{network} ({figures[f'accuracy [{network}]']['value']:.2f} %)",
                    title,
                    f"{steps} / {figures[f'latency {key}']}",
                    _number(figures[f"loss {key}"]),
                    f"{figures[f'spikes a neuron {key}']:.2f}",
                    f"{work / dense:.2f} ({times:.0f} % multiply)",
                ]
            )
    head = ["network (its accuracy)", "spikes", "T / answer after", "points lost"]
    lines = table([*head, "spikes a neuron", "operations / its multiply-adds"], rows)
    head = ["accuracy, %", "T", "ours", *(f"SpikingJelly, {recipe}" for recipe in RECIPES)]
    lines += ["", *table(head, _beside(figures)), ""]
    lines += [
        f"{figures['behind_spikingjelly']} of {figures['cells_compared']} cells are below "
        f"SpikingJelly's best, over the same {figures['images_compared']:,} images. "
        f"Answers that are given as soon as they are sure take {figures['anytime_step_share']:.0%} "
        f"of 8 steps, at {figures['anytime_accuracy']:.2f} % instead of "
        f"{figures['anytime_full_accuracy']:.2f} % (at random steps "
        f"{figures['anytime_random_accuracy']:.2f} %, after the first "
        f"{figures['anytime_first_accuracy']:.2f} %). Values that neurons send in the engine and "
        f"not in torch: {_differing(figures)}.",
        "",
        f"`{results['command']}` on {results['machine']}.",
        "",
    ]
    return "\n".join(lines)


def _differing(figures: dict[str, Any]) -> str:
    """How many values differ between the engine and torch, by form."""
    said = []
    for form in dict.fromkeys(form for form, _ in CONVERTED):
        wrong, compared = (
            sum(v for k, v in figures.items() if k.startswith(f"{what} [") and f", {form}, T" in k)
            for what in ("engine_spike_mismatches", "engine_values_compared")
        )
        said.append(f"{form} {wrong:,} of {compared:,}")
    return ", ".join(said)


RECIPES = {"rate coding": "robust", "LTB": "ltb", "STA": "sta"}  # by how their figures begin


def _beside(figures: dict[str, Any]) -> list[list[str]]:
    """Ours beside the best that each of SpikingJelly's recipes reaches, read early or late."""
    own, rows = "ours beside SpikingJelly [", []
    for key, share in figures.items():
        if not key.startswith(own):
            continue
        cell = key.removeprefix(own)
        network, steps = cell[:-1].split(", T ")
        best = []
        for recipe in RECIPES.values():
            found = [
                value
                for name, value in figures.items()
                if name.startswith(f"sj_{recipe}") and name.endswith(f"_accuracy [{cell}")
            ]
            best.append(f"{100 * max(found):.1f}" if found else "refused")
        rows.append([network, steps, f"{share:.1f}", *best])
    return rows


def encodings(results: dict[str, Any]) -> str:
    """The tables of encodings that `axonal bench convert` measures, in Markdown."""
    about = f"`{results['command']}` on {results['machine']}.\n"
    return f"{codes.page(results['figures'])}\n{about}"


LAYERS = {"fc4096": "4096 x 4096", "conv": "3 x 3, 32 to 64 channels, 64 x 64"}
NETWORKS = {  # what the engine runs whole, by the figures' name
    "lif256_3pct": "20-256-256-256-35 LIF, 3 % activity",
    "mnist_snn": "MNIST classifier, trained here",
    "nmnist_cnn_vs_torch": "N-MNIST network, from NIR",
    "generator_speedup": "sigma-delta generator, an image",
}


def engine(results: dict[str, Any]) -> str:
    """The tables of `axonal bench engine`, in Markdown."""
    figures = results["figures"]
    shares = [key[len("conv_") :] for key in figures if re.fullmatch(r"conv_[\d.]+pct", key)]
    rows = [
        [title, *(f"{figures[f'{name}_{share}']['value']:.2g}" for share in shares)]
        for name, title in LAYERS.items()
    ]
    head = ["torch's time / ours, at the activity"]
    lines = table([*head, *(share.replace("pct", " %") for share in shares)], rows)
    rows = []
    for name, title in NETWORKS.items():
        whole = figures.get(f"{name.removesuffix('_vs_torch')}_whole")
        rows.append([title, _number(figures[name]), _number(whole) if whole else "–"])
    lines += ["", *table(["torch's time / ours", "step by step", "all steps known"], rows)]
    return "\n".join(
        [
            *lines,
            "",
            f"The convolution breaks even at {figures['conv_breakeven']:.0%} activity. In bfloat16 "
            f"on both sides, at 5 %: {_number(figures['fc4096_5pct_bfloat16'])} and "
            f"{_number(figures['conv_5pct_bfloat16'])}. The N-MNIST network names "
            f"{figures['nmnist_cnn_accuracy']:.0%} of 100 test recordings right, "
            f"{figures['nmnist_cnn_times_real_time']:.0f} times as fast as they were recorded. "
            f"Spikes that differ from torch's in all of these: {figures['spike_mismatches']}.",
            "",
            f"Medians (smallest–largest) of rounds of `{results['command']}` on "
            f"{results['machine']}.",
            "",
        ]
    )


def nir(results: dict[str, Any]) -> str:
    """The tables of `axonal bench nir`, in Markdown, and the notes that they refer to."""
    figures, reasons, frameworks = (results[k] for k in ("figures", "reasons", "frameworks"))
    titles = {n: f"{f['title']} {f['versions'][n]}" for n, f in frameworks.items()}
    notes = [
        f"{titles[n]}: dt is {f['dt']:g} s, {f['why']}" + (f"; {f['note']}." if f["note"] else ".")
        for n, f in frameworks.items()
    ]

    def cell(name: str, case: str) -> str:
        share, why = figures.get(f"equal [{name}, {case}]"), reasons.get(f"{name}, {case}")
        shown = "–" if share is None and why is None else "refused"
        shown = shown if share is None else f"{100 * share:.4g} %"
        if why is None:
            return shown
        note = f"{titles[name]}: {why.removesuffix('.')}."
        if note not in notes:
            notes.append(note)
        return f"{shown} ({notes.index(note) + 1})"

    heads = [f"{title} ({i})" for i, title in enumerate(titles.values(), 1)]
    lines = []
    for what, way in (("our file in their importer", ""), ("their file read by us", "from ")):
        rows = [[said, *(cell(n, way + case) for n in frameworks)] for case, said in CASES.items()]
        lines += [*table([what, *heads], [r for r in rows if {*r[1:]} != {"–"}]), ""]
    lines += [f"{i}. {note}" for i, note in enumerate(notes, 1)]
    return "\n".join([*lines, "", f"`{results['command']}` on {results['machine']}.", ""])


def learn(results: dict[str, Any]) -> str:
    """The tables of `axonal bench learn`, in Markdown."""
    figures = results["figures"]
    head, rows = ["`axonal train …`", "test accuracy", "spikes a neuron and step"], []
    for name in SHOWN:
        key = name.replace("-", "_")
        accuracy, rate = (figures[f"{key}_{what}"] for what in ("accuracy", "spike_rate"))
        minutes, parameters = figures[f"{key}_seconds"] / 60, figures[f"{key}_parameters"]
        shown = (f"{accuracy:.1f} %", f"{rate:.1f} %", f"{minutes:.1f}", f"{parameters:,}")
        rows.append([f"`{name}`", *shown])
    lines = table([*head, "minutes", "parameters"], rows)
    networks, rows = ("fully connected", "convolutional"), []
    for rival in RIVALS:
        for way, said in (("", "as published"), ("_hoisted", "constant layers once")):
            cells = [_number(figures[f"epoch_vs_{rival}{way} [{n}]"]) for n in networks]
            rows.append([f"{rival}, {said}", *cells])
    lines += ["", *table(["time of an epoch / ours", *networks], rows)]
    memory = [
        f"{rule} {figures[f'MB [{rule}, T 10]']:.1f} to {figures[f'MB [{rule}, T 1000]']:.1f}"
        for rule in ("bptt", "sltt", "ottt", "e-prop")
    ]
    lines += [
        "",
        f"From T = 10 to T = 1,000 a training step adds these MB: {', '.join(memory)}. The doctor "
        f"finds {figures['doctor_found']} of {figures['doctor_planted']} planted faults, and "
        f"{figures['doctor_false_alarms']} in the healthy recipes before training. Two processes "
        f"of one thread train {_number(figures['ddp_speedup'])} times as fast as one.",
        "",
        f"`{results['command']}` on {results['machine']}.",
        "",
    ]
    return "\n".join(lines)


TABLES = {
    "convert": convert,
    "encodings": encodings,
    "engine": engine,
    "generate": generate,
    "learn": learn,
    "neurons": neurons,
    "nir": nir,
    "parity": parity,
    "watch": sensing.page,
}
