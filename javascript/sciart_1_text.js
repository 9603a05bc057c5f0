/* Numbers and schedules as people write them, without the page: 0.2@0, 0.65@0.5, decimal commas, percent, steps,
   0.8:start=5:stop=10. Read as Python reads them (sciart_ext/recipe/schedule_text.py, which says why); a test compares. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const NUMBER = /^([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(%?)$/;
    const STEP = /^s(?:teps?)?\s*([0-9]{1,6})$/i;
    const BOUND = /\b(start|stop|steps?)\s*=/i;
    const BETWEEN = /^[ \t\n:,;]+|[ \t\n:,;]+$/g;
    const LONGEST = 100;  // characters of a place and a weight
    const PLAIN = {"\u3000": " ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u3001": ",", "\u2212": "-"};

    function plain(text) {
        return text.replace(/[\u3000\u00a0\u202f\u2009\u3001\u2212]/g, (mark) => PLAIN[mark]).replace(/[\uff01-\uff5e]/g,
            (mark) => String.fromCharCode(mark.charCodeAt(0) - 0xfee0)).trim();
    }

    /** The number of a text, with decimal point or comma, perhaps in percent; NaN where it is none. */
    function numberIn(text) {
        const match = NUMBER.exec(plain(text));
        if (!match || match[1].endsWith(",")) return NaN;
        const value = Number(match[1].replace(",", "."));
        return match[2] ? value / 100 : value;
    }

    /** A number of this text: with a comma only where no other number of it has a point. */
    function numberOf(part, text) {
        return part.includes(",") && text.includes(".") ? NaN : numberIn(part);
    }

    /** Progress, or a step as "s5"; NaN where it is neither. */
    function placeOf(part, text) {
        const step = STEP.exec(part.trim());
        return step ? `s${Number(step[1])}` : numberOf(part, text);
    }

    /** What stands between two @: the place of the one and the weight of the next; null where not in one way only. */
    function between(piece, text) {
        if (piece.length > LONGEST) return null;
        const readings = [...piece.matchAll(/[,;\n]/g)].map(({index}) =>
            [placeOf(piece.slice(0, index), text), numberOf(piece.slice(index + 1), text)]).filter(
            ([place, weight]) => !Number.isNaN(place) && !Number.isNaN(weight));
        return readings.length === 1 ? readings[0] : null;
    }

    /** A step, or with a percent sign a share of the pass; null where it may be either. */
    function boundOf(part) {
        const step = /^s?([0-9]{1,6})$/i.exec(part.trim());
        if (step) return `s${Number(step[1])}`;
        const share = part.trim().endsWith("%") ? numberIn(part) : NaN;
        return Number.isNaN(share) ? null : share;
    }

    function bounded(text) {
        const [weight, ...rest] = text.split(BOUND).map((part) => part.replace(BETWEEN, ""));
        const found = numberIn(weight), bounds = {};
        if (Number.isNaN(found)) return null;
        for (let i = 0; i < rest.length; i += 2) {
            const key = rest[i].toLowerCase(), dash = rest[i + 1].indexOf("-");
            const parts = key.startsWith("step") && dash >= 0
                ? {start: rest[i + 1].slice(0, dash), stop: rest[i + 1].slice(dash + 1)} : {[key]: rest[i + 1]};
            for (const [name, part] of Object.entries(parts)) {
                const bound = boundOf(part);
                if (name in bounds || !["start", "stop"].includes(name) || bound === null) return null;
                bounds[name] = bound;
            }
        }
        const {start, stop} = bounds, size = (place) => typeof place === "string" ? Number(place.slice(1)) : place;
        if (start !== undefined && stop !== undefined && (typeof start !== typeof stop || size(start) >= size(stop))) {
            return null;
        }
        return [...(start === undefined ? [] : [[start, 0], [start, found]]),
            ...(stop === undefined ? [] : [[stop, found], [stop, 0]])];
    }

    /** The [place, weight] of a schedule's text; null where Python would refuse it. */
    function pointsIn(given) {
        const text = plain(given);
        if (BOUND.test(text)) return bounded(text);
        const [first, ...pieces] = text.split("@");
        const weights = [numberOf(first, text)], places = pieces.length ? [] : [0];
        for (const piece of pieces.slice(0, -1)) {
            const pair = between(piece, text);
            if (!pair) return null;
            places.push(pair[0]);
            weights.push(pair[1]);
        }
        if (pieces.length) places.push(placeOf(pieces[pieces.length - 1], text));
        return [...places, ...weights].some(Number.isNaN) ? null : places.map((place, i) => [place, weights[i]]);
    }

    sciart.texts = {plain, numberIn, pointsIn};
})();
