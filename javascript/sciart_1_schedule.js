/* A LoRA's weight over the steps, without the page: read as Python reads it, its value, and edits of its points.
   Python's side is sciart_ext/recipe/schedule.py; a test compares them. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const STEP = /^s([0-9]{1,6})$/;
    const SAME = 1e-9;
    const MOST = 10, MOST_STEPS = 10000;  // the largest weight and step that a recipe takes
    const CURVES = ["linear", "step", "cosine"];

    /** The number of a step, from 1; NaN of what is progress. */
    function stepOf(place) {
        const match = typeof place === "string" ? STEP.exec(place) : null;
        return match ? Number(match[1]) : NaN;
    }

    function isPlace(place) {
        const step = stepOf(place);
        return Number.isFinite(place) ? place >= 0 && place <= 1 : step >= 1 && step <= MOST_STEPS;
    }

    function isPoint(pair) {
        return Array.isArray(pair) && pair.length === 2 && isPlace(pair[0]) && Number.isFinite(pair[1]) &&
            Math.abs(pair[1]) <= MOST;
    }

    /** Points [[place, weight], ...] of a text or a list, a place being progress or a step such as "s5"; null where
        Python would refuse them. Two at one place are a jump. */
    function pointsOf(schedule) {
        const pairs = typeof schedule === "string" ? sciart.texts.pointsIn(schedule) : schedule;
        if (!Array.isArray(pairs) || !pairs.length || !pairs.every(isPoint)) return null;
        const points = pairs.map(([place, weight]) => [place, weight]);
        const kinds = [false, true].map((inSteps) => points.filter(([place]) => (typeof place === "string") === inSteps)
            .sort((a, b) => inSteps ? stepOf(a[0]) - stepOf(b[0]) : a[0] - b[0]));
        const three = kinds.some((kind, inSteps) => kind.some((point, i) => i > 1 &&
            (inSteps ? point[0] === kind[i - 2][0] : point[0] - kind[i - 2][0] < SAME)));
        return three ? null : kinds[0].length && kinds[1].length ? points : [...kinds[0], ...kinds[1]];
    }

    /** {points [[place, weight], ...], curve, constant} of a LoRA's entry; null where it has no weight that can be read. */
    function shapeOf(given) {
        const curve = given.curve ?? "linear";
        if (!CURVES.includes(curve)) return null;
        if (given.schedule !== undefined && given.schedule !== null) {
            const points = given.weight === undefined || given.weight === null ? pointsOf(given.schedule) : null;
            return points && {points, curve, constant: false};
        }
        return isPoint([0, given.weight]) ? {points: [[0, given.weight]], curve, constant: true} : null;
    }

    /** The shape in a pass of so many steps: points [progress, weight, step], in order; step: its number where the
        place is one. A step after the last has progress above 1. */
    function placed(shape, steps) {
        const points = shape.points.map(([place, weight]) => {
            const step = stepOf(place);
            return step ? [(step - 1) / Math.max(steps - 1, 1), weight, step] : [place, weight];
        });
        return {...shape, steps, points: points.sort((a, b) => a[0] - b[0])};
    }

    /** The weight at `progress` of a shape that is placed: a point's own value before the first and after the last
        point; at a jump the later of its points holds. */
    function weightAt({points, curve}, progress) {
        const found = points.findIndex(([place]) => place - SAME > progress);
        const after = found < 0 ? points.length : found;
        if (after === 0 || after === points.length) return points[Math.max(after - 1, 0)][1];
        const [[start, low], [end, high]] = [points[after - 1], points[after]];
        if (curve === "step") return low;
        const t = Math.max((progress - start) / (end - start), 0);
        return low + (high - low) * (curve === "cosine" ? (1 - Math.cos(Math.PI * t)) / 2 : t);
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
        const pairs = points.map(([place, weight, step]) => [step ? `s${step}` : place, weight]);
        delete lora.weight;
        lora.schedule = Array.isArray(lora.schedule) ? pairs
            : pairs.map(([place, weight]) => `${weight}@${place}`).join(", ");
    }

    function setWeight(lora, weight) {
        delete lora.schedule;
        delete lora.curve;
        lora.weight = limited(weight);
    }

    /** The points of a placed shape with the i-th elsewhere: between its neighbours, `gap` from them, or at its own
        place where it jumps from or to one; a point in steps stays one. */
    function moved({points, steps}, i, [progress, weight], gap = 0.01) {
        const [now, , step] = points[i];
        const from = (k) => Math.abs(points[k][0] - now) < SAME ? 0 : gap;
        const low = i ? points[i - 1][0] + from(i - 1) : 0;
        const high = i + 1 < points.length ? Math.min(points[i + 1][0] - from(i + 1), 1) : 1;
        const wanted = Math.min(Math.max(progress, low), high);
        const point = [low > high ? now : rounded(wanted), limited(weight)];
        if (step) {
            const number = Math.round(wanted * (steps - 1)) + 1, place = (number - 1) / Math.max(steps - 1, 1);
            const fits = low <= high && place >= low - SAME && place <= high + SAME && progress !== now;
            point.splice(0, 3, fits ? place : now, limited(weight), fits ? number : step);
        }
        return points.map((other, k) => k === i ? point : other);
    }

    /** {points, index} of a placed shape with one more; null where there is one already. A constant weight gets a start of its own. */
    function added(shape, [progress, weight]) {
        const start = shape.constant ? shape.points[0][1] : 0;
        const inSteps = !shape.constant && shape.steps > 1 && shape.points.every((other) => other[2]);
        const step = Math.round(progress * (shape.steps - 1)) + 1;
        const point = inSteps ? [(step - 1) / (shape.steps - 1), limited(weight), step]
            : [rounded(progress), limited(weight)];
        if (shape.constant && point[0] < 0.02) return {points: [[0, point[1]], [1, start]], index: 0};
        const before = shape.constant ? [[0, start]] : shape.points;
        if (before.some(([other]) => Math.abs(other - point[0]) < 0.005)) return null;
        const points = [...before, point].sort((a, b) => a[0] - b[0]);
        return {points, index: points.indexOf(point)};
    }

    /** The middle of the widest gap between points, where one more has most room. */
    function widestGap(shape) {
        if (shape.constant) return 0.5;
        const places = [0, ...shape.points.map(([progress]) => Math.min(progress, 1)), 1];
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

    sciart.schedules = {CURVES, shapeOf, placed, weightAt, stepProgress, largest, rounded, limited, setPoints, setWeight, moved,
        added, widestGap, removePoint};
})();
