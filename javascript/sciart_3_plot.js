/* The drawing of the mixture's curves: axes, a line and the steps' dots for each LoRA, the hires pass beside them.
   Sizes are pixels of the page. What can be dragged is drawn by sciart_3_curves.js. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const plot = sciart.plot ||= {};

    const LEFT = 34, RIGHT = 12, TOP = 12, BOTTOM = 34, GAP = 16;
    const LANE = 18;  // room at the left of a pass for the text encoder's weight
    const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
    const EASED = 32;  // pieces of a cosine between two points
    const APPLIES = {cond: "(prompt only)", uncond: "(negative prompt only)"};
    const READ = ["aria-label", "aria-description"];  // texts, in the page's language

    function s(tag, attributes, ...children) {
        const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (value === undefined || value === null || value === false) continue;
            node.setAttribute(key, READ.includes(key) ? sciart.dom.t(value) : value);
        }
        node.append(...children);
        return node;
    }

    /** Round numbers from low to high, about so many. */
    function ticks(low, high, about) {
        const raw = (high - low) / about;
        const scale = 10 ** Math.floor(Math.log10(raw));
        const unit = [1, 2, 2.5, 5, 10].map((factor) => factor * scale).find((value) => value >= raw * 0.999);
        const first = Math.ceil(low / unit - 1e-9), last = Math.floor(high / unit + 1e-9);
        return Array.from({length: last - first + 1}, (_, i) => Number(((first + i) * unit).toFixed(8)));
    }

    /** Lowest and highest of the plot: halves, with room to drag into. */
    function range(values) {
        const low = Math.min(0, ...values), high = Math.max(0, ...values);
        return [low < 0 ? Math.floor((low - 0.05) * 2) / 2 : 0, Math.max(Math.ceil((high + 0.05) * 2) / 2, 1)];
    }

    /** Where a pass is drawn, and how its progress and weights map to the page. */
    class Frame {
        constructor(left, right, height, [low, high], steps) {
            Object.assign(this, {left, right, low, high, steps, top: TOP, bottom: height - BOTTOM});
            this.start = left + LANE;
            this.end = right - 6;
        }

        x(progress) {
            return this.start + (this.end - this.start) * progress;
        }

        y(weight) {
            return this.top + (this.bottom - this.top) * (this.high - weight) / (this.high - this.low);
        }

        progress(x) {
            return Math.min(Math.max((x - this.start) / (this.end - this.start), 0), 1);
        }

        weight(y) {
            return this.high - (y - this.top) / (this.bottom - this.top) * (this.high - this.low);
        }

        step(progress) {
            return Math.round(progress * (this.steps - 1));
        }
    }

    /** One frame, or two: the passes share the width by their steps, each at least 30 percent. */
    function frames(width, height, values, steps, hiresSteps) {
        const limits = range(values);
        const share = hiresSteps ? Math.min(Math.max(steps / (steps + hiresSteps), 0.3), 0.7) : 1;
        const room = width - LEFT - RIGHT - (hiresSteps ? GAP : 0);
        const middle = LEFT + room * share;
        const first = new Frame(LEFT, middle, height, limits, steps);
        return hiresSteps ? [first, new Frame(middle + GAP, width - RIGHT, height, limits, hiresSteps)] : [first];
    }

    function label(x, y, text, anchor = "middle") {
        return s("text", {x, y, "text-anchor": anchor, fill: "currentColor"}, text);
    }

    function stepTicks(frame) {
        const {steps} = frame;
        if (steps === 1) return [0];
        const unit = Math.max(Math.trunc(ticks(0, steps, Math.max(Math.trunc((frame.end - frame.start) / 50), 2))[1]), 1);
        const inner = [];
        for (let step = unit - 1; step < steps; step += unit) {
            if (step >= unit * 0.6 && steps - 1 - step >= unit * 0.6) inner.push(step);
        }
        return [0, ...inner, steps - 1];
    }

    function axes(frame, title, withWeights) {
        const group = s("g", {class: "sciart-axes", stroke: "none"});
        const rule = (x1, y1, x2, y2, opacity) => group.append(s("line",
            {x1, y1, x2, y2, stroke: "currentColor", "stroke-opacity": opacity}));
        for (const value of ticks(frame.low, frame.high, 4)) {
            rule(frame.left, frame.y(value), frame.right, frame.y(value), value === 0 ? 0.5 : 0.15);
            if (withWeights) group.append(label(frame.left - 6, frame.y(value) + 4, String(value), "end"));
        }
        rule(frame.left, frame.top, frame.left, frame.bottom, 0.5);
        for (const step of stepTicks(frame)) {
            const x = frame.x(sciart.schedules.stepProgress(step, frame.steps));
            rule(x, frame.bottom, x, frame.bottom + 4, 0.5);
            group.append(label(x, frame.bottom + 16, String(step + 1)));
        }
        group.append(label((frame.start + frame.end) / 2, frame.bottom + 30, title));
        return group;
    }

    /** The way of a placed shape over the whole pass, as [progress, weight] corners. */
    function corners({points, curve}) {
        const way = [[0, points[0][1]]], last = points[points.length - 1][0];
        points.forEach(([progress, weight], i) => {
            const [start, low] = points[Math.max(i - 1, 0)];
            if (i && curve === "step") way.push([progress, low]);
            if (i && curve === "cosine" && progress > start) {
                for (let k = 1; k < EASED; k++) {
                    const at = start + (progress - start) * k / EASED;
                    way.push([at, sciart.schedules.weightAt({points: [[start, low], [progress, weight]], curve}, at)]);
                }
            }
            way.push([progress, weight]);
        });
        const shown = last > 1 ? way.filter(([progress]) => progress <= 1) : way;
        return [...shown, [1, sciart.schedules.weightAt({points, curve}, 1)]];
    }

    function asPoints(frame, way) {
        return way.map(([progress, weight]) => `${frame.x(progress).toFixed(1)},${frame.y(weight).toFixed(2)}`).join(" ");
    }

    /** One LoRA's line and its weight at each step. way: corners; weights: one for each step; te: the text encoder's;
        negative: at each step in the negative prompt, where they are others. */
    function curve(frame, index, color, {way, weights, te, negative}, chosen) {
        const dash = DASHES[Math.floor(index / 6) % DASHES.length];
        const points = asPoints(frame, way);
        const every = Math.ceil(weights.length / 200);
        const dots = weights.map((weight, step) => [step, weight]).filter(([step]) => step % every === 0 ||
            step === weights.length - 1);
        const group = s("g", {class: `sciart-curve${chosen ? " sciart-chosen" : ""}`, "data-curve": index},
            s("polyline", {points, class: "sciart-line-drawn", stroke: color, fill: "none", "stroke-width": chosen ? 2.5 : 1.75,
                "stroke-linejoin": "round", "stroke-dasharray": dash || null}),
            s("path", {d: `M${points.replaceAll(" ", "L")}`, class: "sciart-line-grip", fill: "none",
                stroke: "transparent", "stroke-width": 14}),
            s("g", {fill: color, class: "sciart-dots"}, ...dots.map(([step, weight]) => s("circle",
                {cx: frame.x(sciart.schedules.stepProgress(step, frame.steps)).toFixed(1), cy: frame.y(weight).toFixed(2),
                    r: dots.length > 60 ? 1.3 : 2}))));
        if (negative) {
            group.append(s("polyline", {points: asPoints(frame, negative.map((weight, step) =>
                [sciart.schedules.stepProgress(step, frame.steps), weight])), class: "sciart-negative", stroke: color,
            fill: "none", "stroke-width": 1.5, "stroke-dasharray": "1.5 3"}, s("title", {}, "negative prompt")));
        }
        if (te !== undefined) {
            const y = frame.y(te).toFixed(2);
            group.append(s("line", {x1: frame.left + 2, x2: frame.left + 13, y1: y, y2: y, stroke: color,
                "stroke-width": 2.5, "stroke-dasharray": "3 1.5", class: "sciart-te"}, s("title", {}, "text encoder")));
        }
        return group;
    }

    Object.assign(plot, {s, frames, axes, curve, corners, APPLIES});
})();
