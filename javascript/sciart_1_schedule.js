/* A LoRA's weight over the steps, without the page: read as Python reads it, its value, and edits of its points.
   Python's side is sciart_ext/recipe/schedule.py; a test compares them. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
    const SAME = 1e-9;
    const MOST = 10;  // the largest weight a recipe takes
    const CURVES = ["linear", "step", "cosine"];

    function number(text) {
        return NUMBER.test(text.trim()) ? Number(text) : NaN;
    }

    function pairOf(part) {
        const at = part.indexOf("@");
        return at < 0 ? [0, number(part)] : [number(part.slice(at + 1)), number(part.slice(0, at))];
    }

    function isPoint(pair) {
        return Array.isArray(pair) && pair.length === 2 && pair.every(Number.isFinite) &&
            pair[0] >= 0 && pair[0] <= 1 && Math.abs(pair[1]) <= MOST;
    }

    /** Points [[progress, weight], ...] in order, of a text or a list; null where Python would refuse them. */
    function pointsOf(schedule) {
        const pairs = typeof schedule === "string" ? schedule.replaceAll(";", ",").split(",").map(pairOf) : schedule;
        if (!Array.isArray(pairs) || !pairs.length || !pairs.every(isPoint)) return null;
        const points = pairs.map(([progress, weight]) => [progress, weight]).sort((a, b) => a[0] - b[0]);
        return points.every((point, i) => !i || point[0] - points[i - 1][0] >= SAME) ? points : null;
    }

    /** {points, curve, constant} of a LoRA's entry; null where it has no weight that can be read. */
    function shapeOf(given) {
        const curve = given.curve ?? "linear";
        if (!CURVES.includes(curve)) return null;
        if (given.schedule !== undefined && given.schedule !== null) {
            const points = given.weight === undefined || given.weight === null ? pointsOf(given.schedule) : null;
            return points && {points, curve, constant: false};
        }
        return isPoint([0, given.weight]) ? {points: [[0, given.weight]], curve, constant: true} : null;
    }

    /** The weight at `progress`: a point's own value before the first and after the last point. */
    function weightAt({points, curve}, progress) {
        if (progress <= points[0][0] + SAME) return points[0][1];
        for (let i = 0; i + 1 < points.length; i++) {
            const [[start, low], [end, high]] = [points[i], points[i + 1]];
            if (progress >= end - SAME) continue;
            if (curve === "step") return low;
            const t = (progress - start) / (end - start);
            return low + (high - low) * (curve === "cosine" ? (1 - Math.cos(Math.PI * t)) / 2 : t);
        }
        return points[points.length - 1][1];
    }

    function stepProgress(step, steps) {
        return steps > 1 ? Math.min(Math.max(step / (steps - 1), 0), 1) : 0;
    }

    /** The weight of the largest magnitude; of two the first, as Python has it. */
    function largest({points}) {
        return points.reduce((most, [, weight]) => Math.abs(weight) > Math.abs(most) ? weight : most, points[0][1]);
    }

    function rounded(value, digits = 4) {
        return Number(value.toFixed(digits)) || 0;  // no -0
    }

    function limited(weight) {
        return rounded(Math.min(Math.max(weight, -MOST), MOST));
    }

    /** Writes points into a LoRA's entry, as a text where it is not already a list. */
    function setPoints(lora, points) {
        delete lora.weight;
        lora.schedule = Array.isArray(lora.schedule) ? points.map((point) => [...point])
            : points.map(([progress, weight]) => `${weight}@${progress}`).join(", ");
    }

    function setWeight(lora, weight) {
        delete lora.schedule;
        delete lora.curve;
        lora.weight = limited(weight);
    }

    /** The points with the i-th elsewhere: between its neighbours, `gap` from them. */
    function moved(points, i, [progress, weight], gap = 0.01) {
        const low = i ? points[i - 1][0] + gap : 0;
        const high = i + 1 < points.length ? points[i + 1][0] - gap : 1;
        const place = low > high ? points[i][0] : rounded(Math.min(Math.max(progress, low), high));
        return points.map((point, k) => k === i ? [place, limited(weight)] : point);
    }

    /** {points, index} with one more; null where there is one already. A constant weight gets a start of its own. */
    function added(shape, [progress, weight]) {
        const start = shape.constant ? shape.points[0][1] : 0;
        const point = [rounded(progress), limited(weight)];
        if (shape.constant && point[0] < 0.02) return {points: [[0, point[1]], [1, start]], index: 0};
        const before = shape.constant ? [[0, start]] : shape.points;
        if (before.some(([other]) => Math.abs(other - point[0]) < 0.005)) return null;
        const points = [...before, point].sort((a, b) => a[0] - b[0]);
        return {points, index: points.indexOf(point)};
    }

    /** The middle of the widest gap between points, where one more has most room. */
    function widestGap(shape) {
        if (shape.constant) return 0.5;
        const places = [0, ...shape.points.map(([progress]) => progress), 1];
        const gaps = places.slice(1).map((place, i) => place - places[i]);
        const i = gaps.indexOf(Math.max(...gaps));
        return rounded(places[i] + gaps[i] / 2, 2);
    }

    /** Takes a point out of a LoRA's entry; what is left of two is a constant weight. */
    function removePoint(lora, shape, i) {
        const points = shape.points.filter((_, k) => k !== i);
        if (points.length > 1) setPoints(lora, points);
        else if (points.length) setWeight(lora, points[0][1]);
    }

    sciart.schedules = {CURVES, shapeOf, weightAt, stepProgress, largest, rounded, limited, setPoints, setWeight, moved,
        added, widestGap, removePoint};
})();
