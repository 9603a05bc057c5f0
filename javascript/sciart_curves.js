/* The plot of the mixture, and editing in it: the chosen LoRA's points are dragged, or moved by the arrow keys.
   What is drawn between points is computed here; the dots are the weights of the plan that Python compiled, once it
   has answered (with `switch` they leave the line: a LoRA whose turn it is not has none). */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const plot = sciart.plot ||= {};

    const HEIGHT = 210;
    const OUT = 36;  // pixels beyond the plot at which a dragged point is taken out
    const NEAR = 12;  // pixels from the line within which a point is added on it
    const COARSE = 0.05, FINE = 0.01;
    const SNAPS = [["grid", "snap to 0.05"], ["steps", "snap to steps"], ["fine", "snap to 0.01"]];
    const KEYS = "Arrow keys move it, with Shift finely; Delete takes it out; Insert adds another";

    sciart.Curves = class {
        constructor(panel) {
            this.panel = panel;
            this.plan = null;
            this.active = 0;
            this.chips = dom.h("div", {class: "sciart-chips", role: "group", "aria-label": "LoRA to edit"});
            this.svg = plot.s("svg", {class: "sciart-plot", role: "group", "aria-label": "Weights over the steps",
                "font-size": 11.5});
            this.lines = plot.s("g");
            this.handles = plot.s("g", {class: "sciart-handles"});
            this.guide = plot.s("line", {class: "sciart-guide", stroke: "currentColor", "stroke-opacity": 0.4});
            this.svg.append(this.lines, this.guide, this.handles);
            this.told = dom.h("div", {class: "sciart-told sciart-hidden"});
            this.stage = dom.h("div", {class: "sciart-stage"}, this.svg, this.told);
            this.node = dom.h("div", {class: "sciart-curves"}, this.chips, this.stage, this.drawTools());
            this.listen();
        }

        drawTools() {
            this.snap = dom.h("select", {"aria-label": "Snap", title: "What points snap to; with Shift always to 0.01"},
                ...dom.options(SNAPS, "grid"));
            this.kind = dom.h("select", {"aria-label": "Curve of the chosen LoRA", title: "Between the points",
                "data-tool": "curve", onchange: () => this.setKind(this.kind.value)},
            ...dom.options(sciart.schedules.CURVES.map((name) => [name, name]), "linear"));
            this.more = dom.button("+ Point", () => this.add(), {title: "Adds a point to the chosen LoRA's curve"});
            this.less = dom.button("− Point", () => this.remove(this.active), {title: "Takes the point out that was used last"});
            return dom.h("div", {class: "sciart-line sciart-bar sciart-tools"}, this.snap, this.kind, this.more, this.less);
        }

        // what is shown

        loras() {
            return this.panel.recipe ? this.panel.recipe.loras : [];
        }

        get chosen() {
            return Math.min(this.panel.chosen, this.loras().length - 1);
        }

        shape() {
            const lora = this.loras()[this.chosen];
            return lora ? sciart.schedules.shapeOf(lora) : null;
        }

        /** The compiled plan of a recipe's text; it counts as long as that is the text. */
        setPlan(text, table) {
            this.plan = table && {text, table};
            this.show();
        }

        steps() {
            return this.panel.steps().steps;
        }

        show() {
            const plan = this.plan && this.plan.text === this.panel.preview.text() ? this.plan.table : null;
            const passes = this.passes(plan || null);
            this.node.classList.toggle("sciart-hidden", !passes[0].length);
            this.width = this.stage.clientWidth;
            this.showTools();
            this.showChips(passes[0]);
            if (!this.width || !passes[0].length) {
                this.lines.replaceChildren();
                return this.handles.replaceChildren();
            }
            if (!this.drag) this.frame(passes);
            this.svg.setAttribute("width", this.width);
            this.svg.setAttribute("height", HEIGHT);
            this.guide.setAttribute("y1", this.frames[0].top);
            this.guide.setAttribute("y2", this.frames[0].bottom);
            if (!this.drag) this.guide.classList.add("sciart-hidden");
            this.lines.replaceChildren(...this.frames.flatMap((frame, i) => [
                plot.axes(frame, ["step", "hires step"][i], i === 0), ...passes[i].map((one) => this.drawCurve(frame, one))]));
            this.showHandles();
        }

        frame(passes) {
            const values = passes.flat().flatMap(({way, te}) => [...way.map(([, weight]) => weight), te ?? 0]);
            const {steps} = this.panel.steps();
            this.frames = plot.frames(this.width, HEIGHT, values, steps, passes[1] ? passes[1][0].weights.length : 0);
        }

        /** What is drawn in the first pass and in the hires pass, if there is one. */
        passes(plan) {
            const steps = this.steps();
            const label = (lora) => lora.name || lora.role || "?";
            const compiled = plan && plan.first.steps === steps ? plan.first.loras : [];
            const own = this.loras().map((lora, index) => {
                const shape = sciart.schedules.shapeOf(lora);
                const weights = compiled[index]?.weights || (shape ? Array.from({length: steps}, (_, step) =>
                    sciart.schedules.weightAt(shape, sciart.schedules.stepProgress(step, steps))) : []);
                return {index, name: label(lora), way: shape ? plot.corners(shape) : [], weights, shape,
                    te: compiled[index]?.te_weight, applies: plot.APPLIES[lora.apply_to] || ""};
            });
            const told = ({name, apply_to: applies, weights, te_weight: te}, index) => ({index, name, weights, te,
                way: weights.map((weight, step) => [sciart.schedules.stepProgress(step, weights.length), weight]),
                applies: plot.APPLIES[applies] || ""});
            const others = compiled.map(told).slice(own.length);  // of a preset that the recipe starts from
            return [[...own, ...others], ...(plan?.hires && own.length ? [plan.hires.loras.map(told)] : [])];
        }

        drawCurve(frame, {index, way, weights, te}) {
            if (!way.length) return "";
            return plot.curve(frame, index, this.panel.color(index), way, weights, te, index === this.chosen &&
                frame === this.frames[0]);
        }

        showChips(curves) {
            const chips = curves.map(({index, name, applies}) => dom.h("button", {type: "button", class: "sciart-chip",
                "aria-pressed": String(index === this.chosen), style: `--sciart-color: ${this.panel.color(index)}`,
                title: name + applies, disabled: index >= this.loras().length, onclick: () => this.panel.choose(index)},
            dom.h("span", {}, name), applies && dom.h("span", {}, applies)));
            const same = this.chips.children.length === chips.length;
            if (same && chips.every((chip, i) => chip.isEqualNode(this.chips.children[i]))) return;  // keeps the focus
            const focused = [...this.chips.children].indexOf(document.activeElement);
            this.chips.replaceChildren(...chips);
            if (focused >= 0 && same) chips[focused].focus();
        }

        showTools() {
            const shape = this.shape();
            this.kind.value = shape && !shape.constant ? shape.curve : "linear";
            this.kind.disabled = !shape || shape.constant;
            this.more.disabled = !shape;
            this.less.disabled = !shape || shape.constant;
        }

        /** Handles are kept as long as they can be: one of them may have the focus. */
        showHandles() {
            const shape = this.shape();
            const points = !shape ? [] : shape.constant ? [[0.5, shape.points[0][1]]] : shape.points;
            while (this.handles.children.length > points.length) this.handles.lastChild.remove();
            while (this.handles.children.length < points.length) this.handles.append(this.drawHandle());
            this.active = Math.min(this.active, Math.max(points.length - 1, 0));
            points.forEach((point, i) => this.placeHandle(this.handles.children[i], point, i, shape));
        }

        drawHandle() {
            return plot.s("g", {class: "sciart-handle", tabindex: 0, role: "slider"},
                plot.s("rect", {x: -14, y: -14, width: 28, height: 28, rx: 14, class: "sciart-handle-grip"}),
                plot.s("rect", {x: -6, y: -6, width: 12, height: 12, rx: 6, class: "sciart-handle-dot"}));
        }

        placeHandle(handle, [progress, weight], i, shape) {
            const frame = this.frames[0], name = this.chips.children[this.chosen]?.textContent;
            const attributes = {
                transform: `translate(${frame.x(progress).toFixed(1)} ${frame.y(weight).toFixed(2)})`,
                "data-point": i, style: `--sciart-color: ${this.panel.color(this.chosen)}`,
                "aria-label": shape.constant ? `Weight of ${name}` : `Point ${i + 1} of ${name}`,
                "aria-description": KEYS, "aria-valuemin": -10, "aria-valuemax": 10, "aria-valuenow": weight,
                "aria-valuetext": shape.constant ? `weight ${weight} in all steps` : this.tell(progress, weight)};
            for (const [key, value] of Object.entries(attributes)) handle.setAttribute(key, value);
            handle.classList.toggle("sciart-leaving", Boolean(this.drag?.leaving && this.drag.index === i));
        }

        tell(progress, weight) {
            return `${sciart.schedules.rounded(weight, 3)} @ ${sciart.schedules.rounded(progress, 3)}, ` +
                `step ${this.frames[0].step(progress) + 1} of ${this.steps()}`;
        }

        // pointing

        listen() {
            const svg = this.svg;
            svg.addEventListener("pointerdown", (event) => this.press(event));
            svg.addEventListener("pointermove", (event) => this.drag ? this.pull(event) : this.hover(event));
            svg.addEventListener("pointerup", () => this.release());
            svg.addEventListener("pointercancel", () => this.cancel());
            svg.addEventListener("pointerleave", () => this.drag || this.say(null));
            dom.keepTouches(svg);
            svg.addEventListener("dblclick", (event) => this.twice(event));
            this.handles.addEventListener("keydown", (event) => this.key(event));
            this.handles.addEventListener("focusin", (event) => {
                this.active = Number(event.target.closest(".sciart-handle").dataset.point);
            });
            new ResizeObserver(() => this.stage.clientWidth === this.width || this.show()).observe(this.stage);
        }

        /** [progress, weight] under the pointer, and its place on the plot. */
        at(event) {
            const box = this.svg.getBoundingClientRect(), frame = this.frames[0];
            const x = event.clientX - box.left, y = event.clientY - box.top;
            return {x, y, point: [frame.progress(x), frame.weight(y)]};
        }

        snapped([progress, weight], event) {
            const unit = event.shiftKey || this.snap.value === "fine" ? FINE : COARSE;
            const round = (value, step) => sciart.schedules.rounded(Math.round(value / step) * step);
            const place = this.snap.value === "steps" ? this.onStep(progress) : round(progress, unit);
            return [place, round(weight, unit)];
        }

        /** A step's progress, rounded down: what changes at it must not come one step later. */
        onStep(progress) {
            const exact = sciart.schedules.stepProgress(this.frames[0].step(progress), this.steps());
            return Math.floor(exact * 10000 + 1e-6) / 10000;
        }

        press(event) {
            if (event.button) return;
            const handle = event.target.closest(".sciart-handle");
            const line = event.target.closest("[data-curve]");
            if (!handle && line) this.panel.choose(Number(line.dataset.curve));
            const shape = this.shape();
            const whole = !handle && line && shape?.constant && event.pointerType === "mouse";
            if (!shape || (!handle && !whole)) return;
            event.preventDefault();
            const index = handle ? Number(handle.dataset.point) : 0;
            this.active = index;
            (handle || this.handles.firstChild).focus({preventScroll: true});
            this.drag = {index, shape, before: structuredClone(this.loras()[this.chosen]), moved: false,
                x: event.clientX, y: event.clientY};
            this.svg.setPointerCapture(event.pointerId);
        }

        pull(event) {
            const {drag} = this;
            if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 3) return;
            drag.moved = true;
            const {x, y, point} = this.at(event), frame = this.frames[0];
            drag.leaving = !drag.shape.constant && (y < frame.top - OUT || y > frame.bottom + OUT ||
                x < frame.left - OUT || x > frame.right + OUT);
            const weight = Math.min(Math.max(point[1], frame.low), frame.high);
            this.move(drag.index, this.snapped([point[0], weight], event), drag.shape);
            const now = this.shape();
            const [progress, told] = now.constant ? [point[0], now.points[0][1]] : now.points[drag.index];
            this.say(progress, drag.leaving ? ["let go to take the point out"]
                : [now.constant ? `${told}` : this.tell(progress, told)]);
        }

        release() {
            const {drag} = this;
            if (!drag) return;
            this.drag = null;
            this.say(null);
            if (drag.leaving) this.remove(drag.index);
            else if (drag.moved) this.show();
        }

        cancel() {
            if (!this.drag) return;
            const {before} = this.drag;
            this.drag = null;
            this.say(null);
            this.edit((lora) => {
                for (const key of Object.keys(lora)) delete lora[key];
                Object.assign(lora, before);
            });
        }

        twice(event) {
            // the event's own target is the plot, which has captured the pointer
            const handle = document.elementFromPoint(event.clientX, event.clientY)?.closest(".sciart-handle");
            if (handle && !this.shape()?.constant) return this.remove(Number(handle.dataset.point));
            const shape = this.shape(), {x, y, point} = this.at(event), frame = this.frames[0];
            if (!shape || x > frame.right || y < frame.top || y > frame.bottom) return;
            const own = sciart.schedules.weightAt(shape, point[0]);
            const [place, weight] = this.snapped(point, event);
            this.addAt([place, Math.abs(frame.y(own) - y) < NEAR ? sciart.schedules.rounded(
                sciart.schedules.weightAt(shape, place), 2) : weight]);
        }

        hover(event) {
            if (!this.frames || !this.width) return;
            const {x} = this.at(event);
            const pass = this.frames.findIndex(({left, right}) => x >= left && x <= right);
            if (pass < 0) return this.say(null);
            const frame = this.frames[pass], step = frame.step(frame.progress(x));
            const plan = this.plan && this.plan.text === this.panel.preview.text() ? this.plan.table : null;
            const curves = this.passes(plan)[pass] || [];
            this.say(sciart.schedules.stepProgress(step, frame.steps), [`step ${step + 1} of ${frame.steps}`,
                ...curves.filter(({weights}) => weights.length).map(({name, weights}) =>
                    `${name}: ${sciart.schedules.rounded(weights[step], 3)}`)], pass);
        }

        /** Tells lines beside a place of the plot; null: nothing any more. */
        say(progress, lines = [], pass = 0) {
            const told = progress !== null && lines.length;
            this.told.classList.toggle("sciart-hidden", !told);
            this.guide.classList.toggle("sciart-hidden", !told);
            if (!told) return;
            const frame = this.frames[pass], x = frame.x(progress);
            this.guide.setAttribute("x1", x);
            this.guide.setAttribute("x2", x);
            this.told.replaceChildren(...lines.map((line) => dom.h("div", {}, line)));
            const right = x > this.width / 2;
            this.told.style.left = right ? "" : `${x + 10}px`;
            this.told.style.right = right ? `${this.width - x + 10}px` : "";
        }

        // the keyboard

        key(event) {
            const handle = event.target.closest(".sciart-handle");
            if (!handle || event.ctrlKey || event.metaKey || event.altKey) return;
            const i = Number(handle.dataset.point), shape = this.shape();
            const unit = event.shiftKey || this.snap.value === "fine" ? FINE : COARSE;
            const [progress, weight] = shape.points[Math.min(i, shape.points.length - 1)];
            const sides = {ArrowLeft: -1, ArrowRight: 1}[event.key], up = {ArrowUp: 1, ArrowDown: -1}[event.key];
            if (sides && this.snap.value === "steps") {
                const at = this.frames[0].step(progress) + sides;
                this.move(i, [this.onStep(sciart.schedules.stepProgress(at, this.steps())), weight], shape);
            } else if (sides) this.move(i, [sciart.schedules.rounded(progress + sides * unit), weight], shape);
            else if (up) this.move(i, [progress, sciart.schedules.rounded(weight + up * unit)], shape);
            else if (event.key === "Delete" || event.key === "Backspace") this.remove(i);
            else if (event.key === "Insert" || event.key === "Enter") this.add();
            else return;
            event.preventDefault();
        }

        // edits

        edit(change) {
            change(this.loras()[this.chosen]);
            this.panel.edited();
        }

        move(i, point, shape) {
            this.edit((lora) => {
                if (shape.constant) sciart.schedules.setWeight(lora, point[1]);
                else sciart.schedules.setPoints(lora, sciart.schedules.moved(shape.points, i, point, this.gap()));
            });
        }

        /** Points stay at least so far apart. */
        gap() {
            const steps = this.steps();
            return this.snap.value === "steps" && steps > 1 ? Math.floor(9999 / (steps - 1)) / 10000 : FINE;
        }

        add() {
            const shape = this.shape();
            const place = sciart.schedules.widestGap(shape);
            this.addAt([place, sciart.schedules.rounded(sciart.schedules.weightAt(shape, place), 2)]);
        }

        addAt(point) {
            const more = sciart.schedules.added(this.shape(), point);
            if (!more) return;
            this.edit((lora) => sciart.schedules.setPoints(lora, more.points));
            this.active = more.index;
            this.handles.children[more.index].focus({preventScroll: true});
        }

        remove(i) {
            const shape = this.shape();
            if (shape.constant) return;
            const had = this.handles.contains(document.activeElement);
            this.edit((lora) => sciart.schedules.removePoint(lora, shape, i));
            if (had) this.handles.children[this.active].focus({preventScroll: true});
        }

        setKind(kind) {
            this.edit((lora) => lora.curve = kind);
        }
    };
})();
