/* The plot of the mixture, and the edits of the chosen LoRA's points; sciart_3_gestures.js says what makes them.
   What is drawn between points is computed here; the dots are the weights of the plan that Python compiled, once it
   has answered (with `switch` they leave the line: a LoRA whose turn it is not has none). */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const plot = sciart.plot ||= {};

    const HEIGHT = 210;
    const GAP = 0.01;  // of progress, between points
    const SNAPS = [["grid", "snap to 0.05"], ["steps", "snap to steps"], ["fine", "snap to 0.01"]];
    const KEYS = "Arrow keys move it, with Shift finely; Delete takes it out; Insert adds another";

    sciart.Curves = class {
        constructor(panel) {
            this.panel = panel;
            this.plan = null;
            this.active = 0;
            this.chips = dom.h("div", {class: "sciart-chips", role: "group", "aria-label": "LoRA to edit"});
            this.svg = plot.s("svg", {class: "sciart-plot", role: "group", "aria-label": "Weights over the steps",
                "aria-description": "Left and Right tell the weights of each step", tabindex: 0, "font-size": 11.5});
            this.lines = plot.s("g");
            this.handles = plot.s("g", {class: "sciart-handles"});
            this.reading = new sciart.Reading(this);
            this.svg.append(this.lines, this.reading.guide, this.handles);
            this.stage = dom.h("div", {class: "sciart-stage"}, this.svg, this.reading.told);
            this.node = dom.h("div", {class: "sciart-curves"}, this.chips, this.stage, this.drawTools());
            this.gestures = new sciart.Gestures(this);
            new ResizeObserver(() => this.stage.clientWidth === this.width || this.show()).observe(this.stage);
        }

        drawTools() {
            this.snap = dom.h("select", {"aria-label": "Snap", title: "What points snap to; with Shift always to 0.01"},
                ...dom.options(SNAPS, "grid"));
            this.kind = dom.h("select", {"aria-label": "Curve of the chosen LoRA", title: "Between the points",
                "data-tool": "curve", onchange: () => this.setKind(this.kind.value)},
            ...dom.options(sciart.schedules.CURVES.map((name) => [name, name]), "linear"));
            this.more = dom.button("+", () => this.add(), {class: "sciart-button sciart-tool",
                title: "Adds a point to the chosen LoRA's curve", "aria-label": "Add a point"});
            this.less = dom.button("−", () => this.remove(this.active), {class: "sciart-button sciart-tool",
                title: "Takes the point out that was used last", "aria-label": "Take a point out"});
            return dom.h("div", {class: "sciart-line sciart-bar sciart-tools"}, this.snap, this.kind, this.more,
                this.less);
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
            return lora ? this.shapeOf(lora) : null;
        }

        /** A LoRA's shape over the steps there are. */
        shapeOf(lora) {
            const shape = sciart.schedules.shapeOf(lora);
            return shape && sciart.schedules.placed(shape, this.steps());
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
            const passes = this.passes();
            this.node.classList.toggle("sciart-hidden", !passes[0].length);
            this.width = this.stage.clientWidth;
            this.showTools();
            this.showChips(passes[0]);
            if (!this.width || !passes[0].length) {
                this.lines.replaceChildren();
                return this.handles.replaceChildren();
            }
            if (!this.gestures.drag) this.frame(passes);
            this.svg.setAttribute("width", this.width);
            this.svg.setAttribute("height", HEIGHT);
            this.lines.replaceChildren(...this.frames.flatMap((frame, i) => [
                plot.axes(frame, ["step", "hires step"][i], i === 0),
                ...this.inOrder(passes[i]).map((one) => this.drawCurve(frame, one))]));
            this.showHandles();
            if (!this.gestures.drag) this.reading.refresh();
        }

        /** The chosen one above the others. */
        inOrder(curves) {
            return [...curves].sort((a, b) => (a.index === this.chosen) - (b.index === this.chosen));
        }

        frame(passes) {
            const values = passes.flat().flatMap(({way, te, negative}) =>
                [...way.map(([, weight]) => weight), ...(negative || []), te ?? 0]);
            const {steps} = this.panel.steps();
            this.frames = plot.frames(this.width, HEIGHT, values, steps, passes[1] ? passes[1][0].weights.length : 0);
        }

        /** What is drawn in the first pass and in the hires pass, if there is one. */
        passes() {
            const plan = this.plan && this.plan.text === this.panel.preview.text() ? this.plan.table : null;
            const steps = this.steps();
            const label = (lora) => lora.name || lora.role || "?";
            const compiled = plan && plan.first.steps === steps ? plan.first.loras : [];
            const own = this.loras().map((lora, index) => {
                const shape = this.shapeOf(lora);
                const weights = compiled[index]?.weights || (shape ? Array.from({length: steps}, (_, step) =>
                    sciart.schedules.weightAt(shape, sciart.schedules.stepProgress(step, steps))) : []);
                return {index, name: label(lora), way: shape ? plot.corners(shape) : [], weights, shape,
                    te: compiled[index]?.te_weight, negative: compiled[index]?.negative?.weights, applies: plot.APPLIES[lora.apply_to] || ""};
            });
            const told = ({name, apply_to: applies, weights, te_weight: te, negative}, index) => ({index, name, weights, te,
                negative: negative?.weights,
                way: weights.map((weight, step) => [sciart.schedules.stepProgress(step, weights.length), weight]),
                applies: plot.APPLIES[applies] || ""});
            const others = compiled.map(told).slice(own.length);  // of a preset that the recipe starts from
            return [[...own, ...others], ...(plan?.hires && own.length ? [plan.hires.loras.map(told)] : [])];
        }

        drawCurve(frame, one) {
            if (!one.way.length) return "";
            return plot.curve(frame, one.index, this.panel.color(one.index), one, one.index === this.chosen &&
                frame === this.frames[0]);
        }

        showChips(curves) {
            const chips = curves.map(({index, name, applies}) => dom.h("button", {type: "button", class: "sciart-chip",
                "aria-pressed": String(index === this.chosen), style: `--sciart-color: ${this.panel.color(index)}`,
                title: [name, dom.t(applies)].join(" ").trim(), disabled: index >= this.loras().length,
                onclick: () => this.panel.choose(index)},
            dom.h("span", {}, name), applies && dom.h("span", {}, ` ${dom.t(applies)}`)));
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

        /** Where the chosen LoRA's handles are; a constant weight has one, in the middle. */
        points() {
            const shape = this.shape();
            return !shape ? [] : shape.constant ? [[0.5, shape.points[0][1]]] : shape.points;
        }

        /** Handles are kept as long as they can be: one of them may have the focus. */
        showHandles() {
            const shape = this.shape(), points = this.points();
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
                transform: `translate(${frame.x(Math.min(progress, 1)).toFixed(1)} ${frame.y(weight).toFixed(2)})`,
                "data-point": i, style: `--sciart-color: ${this.panel.color(this.chosen)}`,
                "aria-label": shape.constant ? dom.t("Weight of {0}", name) : dom.t("Point {0} of {1}", i + 1, name),
                "aria-description": dom.t(KEYS), "aria-valuemin": -10, "aria-valuemax": 10, "aria-valuenow": weight,
                "aria-valuetext": shape.constant ? dom.t("weight {0} in all steps", weight) : this.tell(progress, weight)};
            for (const [key, value] of Object.entries(attributes)) handle.setAttribute(key, value);
            const {drag} = this.gestures;
            handle.classList.toggle("sciart-leaving", Boolean(drag?.leaving && drag.index === i));
        }

        tell(progress, weight) {
            return dom.t("{0} @ {1}, step {2} of {3}", sciart.schedules.rounded(weight, 3),
                sciart.schedules.rounded(progress, 3), this.frames[0].step(progress) + 1, this.steps());
        }

        // edits

        edit(change) {
            change(this.loras()[this.chosen]);
            this.panel.edited();
        }

        move(i, point, shape) {
            this.edit((lora) => {
                if (shape.constant) sciart.schedules.setWeight(lora, point[1]);
                else sciart.schedules.setPoints(lora, sciart.schedules.moved(shape, i, point, this.gap()));
            });
        }

        /** Points stay at least so far apart. */
        gap() {
            const steps = this.steps();
            return this.snap.value === "steps" && steps > 1 ? Math.floor(9999 / (steps - 1)) / 10000 : GAP;
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
